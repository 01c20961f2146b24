"""A sampled folder as a TensorFlow Datasets builder, without TensorFlow.

    import pixmed_jax.data.samples_builder  # tells TFDS of "pixmed_samples"
    source = tfds.data_source("pixmed_samples", split="train", builder_kwargs={"directory": FOLDER})

Written once as array_record files under TFDS's data_dir: image [S, S, C] float32 in [0, 1], mask [S, S] uint8
(1 in the tumour), label (ClassLabel), file and patient_group (texts). Another sampling is another dataset.
Importing this module loads tensorflow_datasets. Errors: PixmedError, as `samples`.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from pixmed_jax.data.phantom_builder import dataset_info, quiet
from pixmed_jax.data.samples import Samples
from pixmed_jax.data.synthetic import MANIFEST


@dataclasses.dataclass(eq=False)
class SamplesConfig(tfds.core.BuilderConfig):
    """Which folder."""

    directory: str = ""


class PixmedSamples(tfds.core.GeneratorBasedBuilder):
    """Synthetic slices with their masks, as `--mode=sample` writes them."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS declares it so)
    url_infos = None  # nothing is downloaded; see phantom_builder

    def __init__(self, *, directory: str, file_format: str = "array_record", **kwargs: object) -> None:
        """directory: the folder. array_record by default: TFDS's own tfrecord needs TensorFlow."""
        self._samples = Samples(directory)
        # The manifest names step, seeds and edits: what decides the images.
        digest = hashlib.sha256((Path(directory) / MANIFEST).read_bytes()).hexdigest()[:12]
        config = SamplesConfig(name=digest, directory=str(directory))
        with quiet():
            super().__init__(config=config, file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        first = self._samples[0]
        # zlib, since TFDS decodes pictures with packages that are not there without TensorFlow.
        features: dict[str, tfds.features.FeatureConnector] = {
            name: tfds.features.Tensor(shape=first[name].shape, dtype=first[name].dtype, encoding="zlib")
            for name in first
            if name != "label"
        }
        features["label"] = tfds.features.ClassLabel(names=self._samples.label_names)
        features |= {name: tfds.features.Text() for name in ("file", "patient_group")}
        return dataset_info(self, description=__doc__, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, object]]]:
        told = zip(self._samples.files, self._samples.groups, self._samples, strict=True)
        for file, group, record in told:
            label = self._samples.label_names[record["label"]]
            yield file, {**record, "label": label, "file": file, "patient_group": group}
