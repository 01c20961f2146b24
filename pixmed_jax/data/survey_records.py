"""What a survey of a folder finds: a record for each image or slice, and the faults of all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pixmed_jax.data import duplicates
from pixmed_jax.data.faults import Fault
from pixmed_jax.data.reader import Reader


@dataclass
class Record:
    """One image, or one slice of a volume. Fields keep their defaults where a thing is unknown."""

    file: str  # relative to the folder surveyed; of a slice, with # and its number
    item: int = -1  # the picture or volume, for `Survey.reader`; -1: its header cannot be read
    index: int = 0  # which slice of a volume, of how many
    depth: int = 1
    masks: tuple[str, ...] = ()  # likewise; several where each class has its own
    split: str = ""
    label: str = ""
    patient: str = ""
    height: int = 0  # 0: the image cannot be read
    width: int = 0
    bits: int = 0  # per channel, 8 or 16, as training sees it
    stored: str = ""  # type of a volume's values; "" for pictures
    colour: bool = False  # channels differ; RGB files whose channels agree are grey
    minimum: float = 0  # in the file's own units
    maximum: float = 0
    mean: float = 0.0
    tumour_pixels: int = -1  # -1: no mask, or none that can be read
    mask_counts: Mapping[int, int] = field(default_factory=dict)  # pixels of each value in the mask
    defects: list[str] = field(default_factory=list)

    @property
    def mask_values(self) -> set[int]:
        return set(self.mask_counts)

    @property
    def mask(self) -> str:
        return " ".join(self.masks)

    @property
    def whole(self) -> str:
        """The file that the image is, or that its slice belongs to."""
        return self.file.removesuffix(f"#{self.index:03d}") if self.is_slice else self.file

    @property
    def is_slice(self) -> bool:
        return self.depth > 1

    @property
    def left_out(self) -> bool:
        """Whether training passes over it: slices of volumes that show no tumour."""
        return self.is_slice and self.tumour_pixels == 0

    @property
    def kind(self) -> str:
        return f"{self.bits} bit {'RGB' if self.colour else 'grey'}" if self.bits else ""

    @property
    def kind_as_stored(self) -> str:
        return f"{self.kind} from {self.stored}" if self.stored else self.kind

    @property
    def tumour_share(self) -> float | None:
        """Part of the image's pixels that its tumour takes."""
        return self.tumour_pixels / (self.height * self.width) if self.tumour_pixels >= 0 else None


class Survey(NamedTuple):
    root: Path
    records: list[Record]  # sorted by file
    textures: duplicates.Texture  # of the records, for `duplicates.copies`
    faults: list[Fault]  # each with all its names
    reader: Reader  # decodes the records by item and index
    bytes: int  # of the images' files
    classes: tuple[str, ...] = ()  # that the masks' files name

    def flag(self, what: str, remedy: str, names: dict[int, str]) -> None:
        """Note a fault of records, given as {row: the name with what there is to say}."""
        for row in names:
            self.records[row].defects.append(what)
        if names:
            self.faults.append(Fault(what, list(dict.fromkeys(names.values())), remedy))
