"""Sampled folders as training data, beside real slices or instead of them; never to validate or test on.

    DIR/images/ DIR/masks/      as `--mode=sample` writes them (png or png16); masks are optional for labels
    DIR/manifest.csv            file, label, patient_group, source, low, high, tumor_source, tumor_group
    DIR/trained_on.json         {"step", "config", "files": {file: patient}}: what the generator has seen

A generator hands on what it was trained on, and an edit whose anatomy and tumour it took. So a folder is
refused where any of these belongs to the validation or test split of the run that would train on it
(data/leaks.py).
Errors: PixmedError.
"""

import functools
import hashlib
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from pixmed_jax import texts
from pixmed_jax.config import folders
from pixmed_jax.data import decode, leaks, tables
from pixmed_jax.data.slices import Source
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.progress import watched

MANIFEST, TRAINED_ON, DATA_SHEET = "manifest.csv", "trained_on.json", "data_sheet"
NO_TUMOR = "no_tumor"  # label of a slice whose tumour was removed; the data may not leave a label blank
HOW = ("add", "replace", "oversample")
# The grades of a synthetic pair, by how much of a patient is in it: a patient's own map painted again; parts
# of patients in a new arrangement; a map that a model drew. "" where masks from elsewhere were painted.
RECONSTRUCTION, RECOMBINED, SAMPLED = "reconstruction", "recombined", "sampled"
# Makes pairs to train with, where a generator is told masks.
TO_TRAIN_WITH = "--mode=sample --sample.number=500 --sample.split=train --sample.edit=mixed --sample.balance"
_MOST = 2**27  # bytes of trained_on.json
PREFIX = "synthetic/"  # before a file's name, which a real slice may have too


class Synthetic(NamedTuple):
    """`source` with names that no real slice has; patients and files behind it, {file: patient}."""

    source: Source
    behind: Mapping[str, str]


def join(
    real: Source,
    rows: Mapping[str, np.ndarray],
    directories: str,
    *,
    how: str,
    by: str,
    labelled: bool,
    trust: bool,
    classes: bool = False,
) -> tuple[Source, dict[str, np.ndarray], dict[str, str]]:
    """The source with the slices of folders after its own, the splits with these in "train", and who is
    behind them.

    directories: one, or several with commas between. how: "add" to the training slices, "replace" them, or
    "oversample": for each synthetic slice a real training slice of its label counts once more, which tells
    what size and balance alone are worth. by: what the run's split goes by. labelled: labels are what is
    learnt, so slices without a tumour are dropped, unless the labels know them. trust: take a folder without
    trained_on.json. classes: whether the classes in a mask are told apart; sampled masks have the one class
    of their label.
    """
    if classes and real.several and how != "oversample":
        raise PixmedError(
            f"{directories}: its masks say tumour or none, and those of these data show several classes; "
            "set data.class_channels=false"
        )
    if how not in HOW:
        raise PixmedError(f"data.synthetic={how!r} is unknown; use one of {', '.join(HOW)}")
    roots = [Path(folder) for folder in folders(directories)]
    if not roots:
        raise PixmedError(f"data.synthetic_dir={directories!r}: names no folder; leave it empty, or give one")
    made: list[Source] = []
    behind: dict[str, str] = {}
    for number, root in enumerate(roots, 1):
        one = read(
            root,
            real.label_names,
            labelled=labelled,
            masked=real.masked and not labelled,
            trust=trust,
            prefix=PREFIX if len(roots) == 1 else f"{PREFIX}{number}/",
        )
        leaks.warn_of_unknown(root, "its generator", one.behind, real, by)
        if told := leaks.told(one.behind, real, {name: rows[name] for name in ("test", "val")}, by):
            raise PixmedError(
                f"{root}: its generator or its masks come from {told}; train the generator with this run's "
                "data.split and seed, and sample with --sample.split=train; where these are others of the "
                "same names, as of another site, rename them in the data that it was trained on"
            )
        made.append(one.source)
        behind |= one.behind
    together = functools.reduce(_chain, made)
    if how == "oversample":
        again = _again(directories, real, rows["train"], together.labels)
        print(f"{directories}: {len(again)} real slices train once more", file=sys.stderr, flush=True)
        return real, {**rows, "train": np.concatenate([rows["train"], again])}, {}
    count = len(real.files)
    added = np.arange(count, count + len(together.files))
    kept = rows["train"] if how == "add" else rows["train"][:0]
    print(
        f"{directories}: {len(added)} synthetic slices train, beside {len(kept)} real ones",
        file=sys.stderr,
        flush=True,
    )
    return (
        _chain(real, _as_deep_as(real, rows["train"], together)),
        {**rows, "train": np.concatenate([kept, added])},
        behind,
    )


def read(
    root: Path,
    label_names: Sequence[str],
    *,
    labelled: bool,
    masked: bool,
    trust: bool = False,
    prefix: str = PREFIX,
) -> Synthetic:
    """Index a sampled folder by its manifest; every faulty row or file is told in one line.

    prefix: of the names that its slices have among others.
    """
    if not root.is_dir():
        raise PixmedError(f"{root}: no such folder; set data.synthetic_dir to what --mode=sample wrote")
    table = root / MANIFEST
    if not table.is_file():
        raise PixmedError(f"{table}: missing; set data.synthetic_dir to what --mode=sample wrote")
    behind = trained_on(root, trust)
    columns, entries = tables.read_table(table, "data.synthetic_dir")
    missing = [name for name in ("file", "label") if name not in columns]
    if missing:
        raise PixmedError(f"{table}: no column {listing(missing)}; sample again")
    names = [entry["file"] or "" for entry in entries]
    # By whom a slice was drawn is not all: whose anatomy and whose tumour it shows counts as well.
    for file, group in (("source", "patient_group"), ("tumor_source", "tumor_group")):
        behind |= {e[file] or "": e.get(group) or "" for e in entries if e.get(file)}

    faults = _faults(root, names, masked)
    one = len(label_names) == 1
    known = {name: i for i, name in enumerate(label_names)}
    tumorless = [e["label"] == NO_TUMOR and NO_TUMOR not in known for e in entries]
    unknown = {
        repr(e["label"] or "")
        for e, without in zip(entries, tumorless, strict=True)
        if not (one or without or e["label"] in known)
    }
    if unknown:
        faults.append(f"labels {listing(sorted(unknown))} are not among {listing(label_names)}")
    if faults:
        raise PixmedError(f"{root}: {'; '.join(faults)}; sample again, or correct {MANIFEST}")
    chosen = [i for i, without in enumerate(tumorless) if not (labelled and without)]
    if len(chosen) < len(entries):
        told = f"{len(entries) - len(chosen)} of {len(entries)} slices are labelled {NO_TUMOR} and left out"
        print(f"{root}: {told}", file=sys.stderr, flush=True)
    if not chosen:
        raise PixmedError(f"{root}: no slices to train on; sample again, or leave out data.synthetic_dir")
    names = [names[i] for i in chosen]
    labels = np.array([known.get(entries[i]["label"] or "", 0) for i in chosen], np.int32)
    limits = [_limits(table, entries[i]) for i in chosen]
    return Synthetic(
        Source(
            files=tuple(prefix + name for name in names),
            labels=labels,
            label_names=tuple(label_names),
            groups=tuple(entries[i].get("patient_group") or prefix + str(entries[i]["file"]) for i in chosen),
            planes=("",) * len(names),
            read=functools.partial(_read, root, names, labels, masked),
            limits=lambda row: limits[row],
            masked=masked,
        ),
        behind,
    )


def not_for_training(rows: Sequence[Mapping[str, Any]], seen: Collection[str] | None) -> str:
    """Why slices with these rows of a manifest are not to train with, in a few words; "" if they may be.

    seen: the files that their generator was trained on, None if nobody knows. Whoever is not among them is
    kept to test on, and a network that was trained on their likeness would be scored too well. Of masks from
    a folder, which have no grade, nothing is known.
    """
    graded = [row for row in rows if row.get("grade")]
    painted = sum(row["grade"] == RECONSTRUCTION for row in graded)
    held_out = [
        row
        for row in graded
        if seen is not None and any(row.get(of) and row[of] not in seen for of in ("source", "tumor_source"))
    ]
    told = [f"{painted} are patients' own maps, painted again, for measuring only"] if painted else []
    told += [f"{len(held_out)} are of held-out slices, which networks are tested on"] if held_out else []
    return "; ".join(told)


def trained_on(root: Path, trust: bool) -> dict[str, str]:
    """{file: patient} of what the generator was trained on."""
    path = root / TRAINED_ON
    if not path.is_file():
        if trust:
            return {}
        raise PixmedError(
            f"{path}: missing, so nobody knows whom the generator was trained on; sample again, or say "
            "data.synthetic_trust=true if none of them is in this run's val and test splits"
        )
    try:
        files: Any = texts.read_object(path, _MOST)["files"]
        if not isinstance(files, dict) or not all(isinstance(group, str) for group in files.values()):
            raise ValueError("'files' is no table of patients")
        return dict(files)
    except (ValueError, KeyError) as error:
        raise PixmedError(f"{path}: unreadable ({error}); sample again") from None


def contents(root: Path) -> str:
    """A digest of a sampled folder's manifest, images and conditions: the same sampling has the same."""
    digest = hashlib.sha256()
    files = (path for folder in ("images", "conditions") for path in (root / folder).glob("*"))
    for path in (root / MANIFEST, *sorted(files)):
        of_file = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {of_file}\n".encode())
    return digest.hexdigest()


def _faults(root: Path, names: Sequence[str], masked: bool) -> list[str]:
    """What is wrong with the files that a manifest names."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    faults = [f"{len(twice)} files have several rows ({listing(twice)})"] if twice else []
    if masked and not (root / "masks").is_dir():
        return [*faults, "has no masks, and this network is trained on them"]
    odd, broken = [], []
    for name in watched(names, len(names), "reading headers"):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or path.suffix.lower() != ".png":
            odd.append(repr(name))
            continue
        try:
            size = decode.read_size(root / "images" / name)
            if masked and decode.read_size(root / "masks" / name) != size:
                broken.append(f"{name}: its mask has another size")
        except PixmedError as error:
            broken.append(str(error))
    if odd:
        faults.append(f"{len(odd)} names are not those of PNG files in images/ ({listing(odd)})")
    if broken:
        faults.append(f"{len(broken)} files are unusable ({listing(broken)})")
    return faults


def _limits(table: Path, entry: Mapping[str, str | None]) -> tuple[float, float]:
    try:
        low, high = float(entry.get("low") or 0), float(entry.get("high") or 255)
    except ValueError:
        low = high = np.nan
    if not np.isfinite([low, high]).all() or low == high:  # older ones fall where the lowest value is white
        raise PixmedError(
            f"{table}: {entry['file']} has low {entry['low']!r}, high {entry['high']!r}; sample again"
        )
    return low, high


def _read(
    root: Path, names: Sequence[str], labels: np.ndarray, masked: bool, row: int
) -> tuple[np.ndarray, np.ndarray]:
    """`Source.read`."""
    image = decode.read_image(root / "images" / names[row])
    if not masked:
        return image, np.zeros(image.shape[:2], np.uint8)
    path = root / "masks" / names[row]
    mask = decode.read_mask(path)
    values = np.flatnonzero(np.bincount(mask.ravel()))
    if not set(values) <= {0, 255}:
        raise PixmedError(
            f"{path}: values {listing([str(v) for v in values])} instead of 0 and 255; sample again"
        )
    return image, (mask > 0) * np.uint8(labels[row] + 1)


def _again(directories: str, real: Source, train: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A training row of each of the labels; the rows of a label in turn, in an order fixed once."""
    again = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = train[real.labels[train] == label]
        if not len(rows):
            name = real.label_names[label]
            raise PixmedError(f"{directories}: no training slice is labelled {name!r} to be taken once more")
        wanted = labels == label
        again[wanted] = np.resize(np.random.default_rng(0).permutation(rows), wanted.sum())
    return again


def _as_deep_as(real: Source, rows: np.ndarray, made: Source) -> Source:
    """`made` with 8 or 16 bits, as the real slices have: full ranges stand for each other, 255 for 65535."""
    for row in rows:
        try:
            depth = real.read(int(row))[0].dtype
        except PixmedError:  # told of by whoever loads it
            continue
        break
    else:
        return made

    def read(row: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = made.read(row)
        if image.dtype == depth:
            return image, mask
        scale = np.iinfo(depth).max / np.iinfo(image.dtype).max
        return np.rint(image * scale).astype(depth), mask

    return made._replace(read=read)


def _chain(real: Source, made: Source) -> Source:
    count = len(real.files)

    def limits(row: int) -> tuple[float, float]:
        source, at = (real, row) if row < count else (made, row - count)
        assert source.limits is not None
        return source.limits(at)

    def pixel(row: int) -> float | None:
        return real.pixel(row) if real.pixel and row < count else None

    return real._replace(
        files=real.files + made.files,
        labels=np.concatenate([real.labels, made.labels]),
        groups=real.groups + made.groups,
        planes=real.planes + made.planes,
        given=real.given + ("train",) * len(made.files) if real.given else (),
        read=lambda row: real.read(row) if row < count else made.read(row - count),
        limits=limits if real.limits else None,
        pixel=pixel,
    )
