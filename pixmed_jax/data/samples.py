"""A sampled folder for other people's code: a sequence of NumPy arrays, without JAX or any framework.

    samples = pixmed_jax.Samples("runs/mine/samples")
    samples[0]      {"image": [S, S, C] float32 in [0, 1], "mask": [S, S] uint8, 1 in the tumour,
                     "label": int, index into samples.label_names}

PyTorch's DataLoader and grain's MapDataset take it as it is; `stacked` gives Keras its arrays. Without masks
(`--mode=sample` of a model that knows none) there is no "mask". Every file goes through the project's own
decoders. Errors: PixmedError.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pixmed_jax.data import synthetic, tables
from pixmed_jax.data.values import unit
from pixmed_jax.errors import PixmedError
from pixmed_jax.progress import watched


class Samples:
    """What `--mode=sample` wrote, in the order of its manifest.

    channels_first: images as [C, S, S], as PyTorch likes them. `not_for_training` says why they are not to
    train with, "" if they are; opening such a folder warns of it. Raises PixmedError for a folder that no
    sampling wrote, or one in NIfTI, which other readers know.
    """

    def __init__(self, directory: str | Path, *, channels_first: bool = False):
        root = Path(directory)
        table = root / synthetic.MANIFEST
        if not table.is_file():
            raise PixmedError(f"{table}: missing; give a folder that --mode=sample wrote")
        _, entries = tables.read_table(table, "samples")
        if any((entry.get("file") or "").endswith(".nii.gz") for entry in entries):
            raise PixmedError(
                f"{root}: holds NIfTI files; sample with --sample.format=png, or read them with nibabel"
            )
        names = sorted({entry.get("label") or "" for entry in entries})
        masked = (root / "masks").is_dir()
        self._source = synthetic.read(root, names, labelled=False, masked=masked, trust=True).source
        known = (root / synthetic.TRAINED_ON).is_file()
        seen = synthetic.trained_on(root, trust=False) if known else None
        self.not_for_training: str = synthetic.not_for_training(entries, seen)
        if self.not_for_training:
            warnings.warn(f"{root}: not to train with: {self.not_for_training}", stacklevel=2)
        self._channels_first = channels_first
        self.label_names: tuple[str, ...] = self._source.label_names
        self.files = tuple(name.removeprefix(synthetic.PREFIX) for name in self._source.files)
        self.groups: tuple[str, ...] = tuple(entry.get("patient_group") or "" for entry in entries)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> dict[str, Any]:
        row = range(len(self))[row]  # IndexError behind the last one ends a for loop
        stored, mask = self._source.read(row)
        image = unit(stored)
        told = {"image": np.moveaxis(image, -1, 0) if self._channels_first else image}
        if self._source.masked:
            told["mask"] = (mask > 0).astype(np.uint8)
        return {**told, "label": int(self._source.labels[row])}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[row] for row in range(len(self)))

    def stacked(self) -> dict[str, np.ndarray]:
        """All of them in memory, {"image": [N, S, S, C], "mask": [N, S, S], "label": [N]}."""
        rows = list(watched(self, len(self), "reading samples"))
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
