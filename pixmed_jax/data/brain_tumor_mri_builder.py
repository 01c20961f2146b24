"""Cheng's brain tumor dataset (figshare 1512427, CC BY 4.0) as a TensorFlow Datasets builder and a `Source`.

3,064 T1-weighted contrast-enhanced slices of 233 patients: four zip files of MATLAB 7.3 files NUMBER.mat with
cjdata/{image, label, PID, tumorBorder, tumorMask}, and cvind.mat, the authors' fold of each number. Written
once as array_record files, read back at random without TensorFlow: image [H, W] int16, mask [H, W] uint8 (0
or 1), label (index into LABEL_NAMES), patient, patient_group, number and fold from 1, border [2 N] float32
(x and y in turn, of the outline).

18 gliomas' patients have two ids that differ only by a letter behind the number; patient_group drops it.
Sizes and MD5 of the files are those that users of the record (version 8) publish; they agree.
Errors: PixmedError.
"""

import io
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import tensorflow_datasets as tfds

from pixmed_jax.data import arrays, download, intensity, mat
from pixmed_jax.data.phantom_builder import dataset_info, quiet
from pixmed_jax.data.slices import Source
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.extras import library
from pixmed_jax.progress import watched

LABEL_NAMES = ("meningioma", "glioma", "pituitary")  # 1, 2, 3 in the files
_PART = "brainTumorDataPublic_"
FILES = tuple(
    download.Remote(name, f"https://ndownloader.figshare.com/files/{number}", size, md5)
    for name, number, size, md5 in (
        (f"{_PART}1-766.zip", 3381290, 214401279, "74b949ad33f042e6e103523091cd1428"),
        (f"{_PART}767-1532.zip", 3381296, 217848429, "7e8a875500d2c8a346f270538e29890e"),
        (f"{_PART}1533-2298.zip", 3381293, 215563856, "8227bf6080cb71f15a88be8d25c79ae7"),
        (f"{_PART}2299-3064.zip", 3381302, 231679762, "b378a80d6174e5317d59eb28430c6652"),
        ("cvind.mat", 7005344, 5736, "5ea82eb3212c9fcb84290ccf0beb486d"),
    )
)
INDEX = "index.json"
_MEMBER = re.compile(r"(?:.*/)?(\d{1,5})\.mat")
_MAX_MEMBER = 2**25  # bytes of one .mat, unpacked: a slice of 512 x 512 takes some 300,000


class BrainTumorMri(tfds.core.GeneratorBasedBuilder):
    """T1-weighted, contrast-enhanced slices with a meningioma, a glioma or a pituitary tumour each."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS declares it so)

    # Downloads are compared with FILES; TFDS would look for a list of its own with a package it lacks.
    url_infos = None

    def __init__(self, *, file_format: str = "array_record", **kwargs: object) -> None:
        """As every TFDS builder, but array_record by default: TFDS's own tfrecord needs TensorFlow."""
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        def tensor(*shape: int | None, dtype: type) -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="zlib")

        features = {
            "image": tensor(None, None, dtype=np.int16),
            "mask": tensor(None, None, dtype=np.uint8),
            "border": tensor(None, dtype=np.float32),
            "label": tfds.features.ClassLabel(names=LABEL_NAMES),
            "patient": tfds.features.Text(),
            "patient_group": tfds.features.Text(),
            "number": tfds.features.Scalar(np.int32),
            "fold": tfds.features.Scalar(np.int32),
        }
        return dataset_info(
            self,
            description=__doc__,
            features=tfds.features.FeaturesDict(features),
            homepage="https://doi.org/10.6084/m9.figshare.1512427",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {"train": self._generate_examples(_archives(Path(self._data_dir_root)))}

    def _generate_examples(self, paths: list[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
        *archives, index = paths
        folds = _folds(index)
        seen = set()
        for number, record in watched(_records(archives), len(folds), "converting the brain tumor dataset"):
            if number in seen or not 1 <= number <= len(folds):
                raise PixmedError(f"{archives[0].parent}: slice {number} is there twice or has no fold")
            seen.add(number)
            yield number, {**record, "number": number, "fold": int(folds[number - 1])}
        missing = [str(n) for n in range(1, len(folds) + 1) if n not in seen]
        if missing:
            raise PixmedError(
                f"{archives[0].parent}: {len(missing)} of {len(folds)} slices are missing "
                f"({listing(missing)}); delete the zip files to download them again"
            )


def patient_group(patient: str) -> str:
    """The id without the letter behind its number: MR040240B -> MR040240."""
    return re.sub(r"(?<=\d)[A-Za-z]$", "", patient)


def _archives(root: Path) -> list[Path]:
    """The record's files: in the folder itself, in TFDS's downloads/manual, or downloaded."""
    for folder in (root, root / "downloads" / "manual"):
        if all((folder / remote.name).is_file() for remote in FILES):
            for remote in FILES:
                wrong = download.fault(folder / remote.name, remote)
                if wrong is not None:
                    raise PixmedError(f"{folder / remote.name}: {wrong}; delete it to download it again")
            return [folder / remote.name for remote in FILES]
    return [download.fetch(remote, root / "downloads" / "brain_tumor_mri") for remote in FILES]


def _folds(path: Path) -> np.ndarray:
    """The authors' fold of each slice, from 1; `cvind` of a MATLAB file of either kind."""
    with arrays.guarded(path):
        if path.read_bytes()[:10] == b"MATLAB 7.3":
            with library("h5py", "medical").File(path, "r") as file:
                return mat.read_hdf5(file["cvind"], str(path)).ravel().astype(np.int32)
        return scipy.io.loadmat(path, variable_names=["cvind"])["cvind"].ravel().astype(np.int32)


def _records(archives: list[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, record) of every .mat in the zip files."""
    for path in archives:
        with arrays.guarded(path), arrays.zipped(path) as archive:
            for member in archive.infolist():
                found = _MEMBER.fullmatch(member.filename)
                if found is None:
                    continue
                if member.file_size > _MAX_MEMBER:
                    raise PixmedError(f"{path}: {found[1]}.mat unpacks to {member.file_size} bytes")
                with archive.open(member) as stream:
                    yield int(found[1]), _record(stream.read(_MAX_MEMBER), f"{path}: {found[1]}.mat")


def _record(content: bytes, name: str) -> dict[str, Any]:
    with library("h5py", "medical").File(io.BytesIO(content), "r") as file:
        values = {}
        for key in ("image", "label", "PID", "tumorBorder", "tumorMask"):
            mat.check_own(file, "cjdata", name)
            mat.check_own(file["cjdata"], key, name)
            dataset = file["cjdata"][key]
            mat.hdf5_array(dataset, name)
            values[key] = mat.read_hdf5(dataset, name)
    label = int(values["label"].item())
    image, mask = values["image"], values["tumorMask"]
    if image.dtype != np.int16 or mask.shape != image.shape or mask.max() > 1 or not 1 <= label <= 3:
        raise PixmedError(f"{name}: no slice with mask and label; delete the zip file to download it again")
    patient = "".join(map(chr, values["PID"].ravel()))
    return {
        "image": image,
        "mask": mask.astype(np.uint8),
        "border": values["tumorBorder"].ravel().astype(np.float32),
        "label": label - 1,
        "patient": patient,
        "patient_group": patient_group(patient),
    }


def _is_whole(builder: BrainTumorMri) -> bool:
    if not (builder.data_path / "dataset_info.json").exists():
        return False
    return all(Path(file).exists() for file in builder.info.splits["train"].filepaths)


def _prepare(data_dir: str | None) -> BrainTumorMri:
    """The builder of a dataset that lies whole on disk."""
    builder = BrainTumorMri(data_dir=data_dir)
    if _is_whole(builder):
        return builder
    shutil.rmtree(builder.data_path, ignore_errors=True)
    builder = BrainTumorMri(data_dir=data_dir)
    tfds.disable_progress_bar()
    try:
        builder.download_and_prepare()
    except OSError as error:
        raise PixmedError(
            f"{builder.data_path}: cannot be written ({error.strerror or error}); free space, or set data.dir"
        ) from error
    return builder


def _index(builder: BrainTumorMri) -> list[dict[str, Any]]:
    """What is known of each record, in the order of the numbers; kept beside the data, which are large."""
    path = Path(builder.data_path) / INDEX
    if path.exists():
        return json.loads(path.read_text())
    records = builder.as_data_source(split="train")
    rows = []
    for row, record in enumerate(watched(records, len(records), "indexing the brain tumor dataset")):
        facts = {key: int(record[key]) for key in ("label", "number", "fold")}
        rows.append({**facts, "group": record["patient_group"].decode(), "row": row})
    rows.sort(key=lambda facts: facts["number"])
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(rows))
    draft.replace(path)
    return rows


def source(*, data_dir: str | None = None, rule: str = "auto", split_column: str = "") -> Source:
    """The dataset's index; downloaded and converted on first use, under `data_dir` or TFDS's own folder.

    Its files are called `0001` and so on, by the authors' numbers. `rule` is one of `intensity`; "auto"
    takes the percentiles of each slice. `split_column="fold"` gives the authors' folds; 15 patient groups,
    those with two ids, have slices in several of them.
    """
    if split_column not in ("", "fold"):
        raise PixmedError(
            f"data.split_column={split_column!r}: these data bring fold, the authors' five; or leave it empty"
        )
    parsed = intensity.parse(rule)
    if parsed in ("full", "window"):
        raise PixmedError(
            f"data.intensity={rule}: these slices have no such range; use percentiles or two numbers"
        )
    with quiet():
        builder = _prepare(data_dir)
        facts: list[Mapping[str, Any]] = list(_index(builder))
        records = builder.as_data_source(split="train")
    names = tuple(f"{fact['number']:04d}" for fact in facts)

    limits: dict[int, intensity.Limits] = {}  # of the slices that were read: whoever reads asks for them

    def read(row: int) -> tuple[np.ndarray, np.ndarray]:
        record = records[facts[row]["row"]]
        if row not in limits:
            if isinstance(parsed, str):
                limits[row] = intensity.percentiles(record["image"][None], names[row])
            else:
                limits[row] = parsed
        image = intensity.encode(record["image"], limits[row])
        return image, record["mask"] * np.uint8(facts[row]["label"] + 1)

    def limits_of(row: int) -> intensity.Limits:
        if row not in limits:
            read(row)
        return limits[row]

    return Source(
        files=names,
        labels=np.array([fact["label"] for fact in facts], np.int32),
        label_names=LABEL_NAMES,
        groups=tuple(fact["group"] for fact in facts),
        planes=("",) * len(facts),
        read=read,
        given=tuple(str(fact["fold"]) for fact in facts) if split_column else (),
        limits=limits_of,
    )
