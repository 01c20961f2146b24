"""The head phantom as a TensorFlow Datasets builder, and as a `Source`.

The dataset `head_phantom` is computed, never downloaded. It is written once as array_record files, which
are read back at random without TensorFlow: image [S, S, 1] uint8 (0 is air), mask [S, S, 1] uint8 (0 or 1),
label (index into LABEL_NAMES), plane (index into PLANES), patient and slice (numbers from 0).

Importing this module loads tensorflow_datasets; the generator alone is in `phantom`.
"""

import contextlib
import dataclasses
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from pixmed_jax.data.phantom import LABEL_NAMES, PLANES, patient_slices
from pixmed_jax.data.slices import Source
from pixmed_jax.errors import PixmedError
from pixmed_jax.progress import watched


@dataclasses.dataclass(eq=False)
class PhantomConfig(tfds.core.BuilderConfig):
    """Which phantom: that many patients, slices of each, pixels along a side, and the seed."""

    patients: int = 240
    count: int = 4
    size: int = 160
    seed: int = 0


def _config(patients: int, count: int, size: int, seed: int) -> PhantomConfig:
    """A config whose name tells all that decides the data, so that two phantoms never share a folder."""
    name = f"patients{patients}_slices{count}_size{size}_seed{seed}"
    return PhantomConfig(name=name, patients=patients, count=count, size=size, seed=seed)


class HeadPhantom(tfds.core.GeneratorBasedBuilder):
    """T1-weighted, contrast-enhanced slices of procedural heads with one tumour each."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS declares it so)
    BUILDER_CONFIGS = [_config(240, 4, 160, 0), _config(4, 2, 64, 0)]  # noqa: RUF012 (likewise)

    # Nothing is downloaded. TFDS 4.9.10 would look for a list of checksums beside this file with a package
    # (importlib_resources) that it does not install.
    url_infos = None

    def __init__(self, *, file_format: str = "array_record", **kwargs: object) -> None:
        """As every TFDS builder, but array_record by default: TFDS's own tfrecord needs TensorFlow."""
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        side = self.builder_config.size
        features = {
            "image": tfds.features.Image(shape=(side, side, 1), dtype=np.uint8, encoding_format="png"),
            "mask": tfds.features.Image(shape=(side, side, 1), dtype=np.uint8, encoding_format="png"),
            "label": tfds.features.ClassLabel(names=LABEL_NAMES),
            "plane": tfds.features.ClassLabel(names=PLANES),
            "patient": tfds.features.Scalar(np.int32),
            "slice": tfds.features.Scalar(np.int32),
        }
        return dataset_info(self, description=__doc__, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, object]]]:
        config = self.builder_config
        for patient in watched(range(config.patients), config.patients, "drawing head phantoms"):
            slices = patient_slices(patient, seed=config.seed, size=config.size, count=config.count)
            for i, s in enumerate(slices):
                record = {"image": _png(s.image), "mask": _png(s.mask), "label": s.label, "plane": s.plane}
                yield f"{patient}-{i}", record | {"patient": patient, "slice": i}


def _png(pixels: np.ndarray) -> bytes:
    # Without TensorFlow, TFDS stores encoded bytes but cannot encode an array.
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def dataset_info(builder: tfds.core.DatasetBuilder, **about: Any) -> tfds.core.DatasetInfo:
    """TFDS's own, but for the temporary folder that it would leave: no bucket is asked, so none is needed."""
    info = builder.dataset_info_from_configs(**about)
    info.initialize_from_bucket = lambda: None
    return info


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """None of TFDS's warnings about configs it does not know, nor its notes about downloads on stdout."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(before)


def _is_whole(builder: HeadPhantom) -> bool:
    # TFDS writes into a temporary folder and renames it, so a killed process leaves no folder of this name;
    # one that was copied in part lacks its last file or a shard.
    if not (builder.data_path / "dataset_info.json").exists():
        return False
    return all(Path(file).exists() for file in builder.info.splits["train"].filepaths)


def _builder(data_dir: str | None, config: PhantomConfig) -> HeadPhantom:
    known = {c.name: c for c in HeadPhantom.BUILDER_CONFIGS}  # TFDS insists on its own object
    return HeadPhantom(data_dir=data_dir, config=known.get(config.name, config))


def _prepare(data_dir: str | None, config: PhantomConfig) -> HeadPhantom:
    """The builder of a dataset that lies whole on disk."""
    builder = _builder(data_dir, config)
    if _is_whole(builder):
        return builder
    shutil.rmtree(builder.data_path, ignore_errors=True)
    builder = _builder(data_dir, config)
    tfds.disable_progress_bar()  # it counts examples and shards on stderr; ours counts patients
    try:
        builder.download_and_prepare()
    except OSError as error:
        # Another process may have been faster: the folder is then there and ours could not be renamed to it.
        builder = _builder(data_dir, config)
        if not _is_whole(builder):
            reason = error.strerror or error
            raise PixmedError(
                f"{builder.data_path}: the phantom cannot be written ({reason}); set data.dir to another "
                "folder"
            ) from error
    return builder


def source(
    *, data_dir: str | None = None, patients: int = 240, count: int = 4, size: int = 160, seed: int = 0
) -> Source:
    """The phantom's index; the dataset is made on first use, under `data_dir` or TFDS's own folder.

    Its files are called `phantom-0003-2.png` (patient, slice), in that order; its groups are the patients.
    """
    for key, value, least in (
        ("patients", patients, 1),
        ("count", count, 1),
        ("size", size, 32),
        ("seed", seed, 0),
    ):
        if value < least:
            raise PixmedError(f"{key}: {value} is too small for the phantom; give {least} or more")
    with quiet():
        builder = _prepare(data_dir, _config(patients, count, size, seed))
        # The index needs no pixels, and TFDS asks for OpenCV where it decodes them itself.
        encoded = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}
        records = builder.as_data_source(split="train", decoders=encoded)
    facts = []  # patient, slice, label, plane, row of the record
    try:
        for row, record in enumerate(records):
            facts.append((*(int(record[key]) for key in ("patient", "slice", "label", "plane")), row))
    except RuntimeError as error:  # array_record found a checksum that does not fit
        path = builder.data_path
        raise PixmedError(f"{path}: its files are damaged; delete the folder, it is made anew") from error
    facts.sort()  # records are stored in an order by hash

    def read(row: int) -> tuple[np.ndarray, np.ndarray]:
        record = records[facts[row][-1]]
        return _pixels(record["image"]), _pixels(record["mask"]) * np.uint8(record["label"] + 1)

    return Source(
        files=tuple(f"phantom-{patient:04d}-{i}.png" for patient, i, *_ in facts),
        labels=np.array([label for _, _, label, *_ in facts], np.int32),
        label_names=LABEL_NAMES,
        groups=tuple(f"phantom-{patient:04d}" for patient, *_ in facts),
        planes=tuple(PLANES[plane] for *_, plane, _ in facts),
        read=read,
    )
