"""The model behind the page: a label map or a label in, images and what a segmenter reads in them out."""

import io
import json
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pixmed_jax import inference, pictures
from pixmed_jax.data import intensity, mask_files, nifti
from pixmed_jax.data.edits import without
from pixmed_jax.demo.scene import Scene, composed
from pixmed_jax.demo.scenes import scenes, tumor_names
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.judges.mask_fidelity import Segment, kept_segmenter
from pixmed_jax.metrics import segmentation
from pixmed_jax.progress import watched
from pixmed_jax.workdir import JUDGES

NUMBERS = (1, 4)  # images of one mask; a batch of each is compiled before the page is served
FORMATS = {"png": ".png", "nifti": ".nii.gz"}


class Painting(NamedTuple):
    """Images of one map or label, and what was read in them."""

    mask: np.ndarray  # bool [S, S]: the tumour in the map, empty for a model without maps
    label: str
    images: np.ndarray  # float32 in [0, 1], [N, S, S] or [N, S, S, 3]
    found: np.ndarray | None  # bool [N, S, S]: the segmenter's tumour, where there is a segmenter
    dice: np.ndarray | None  # [N], of `found` with the mask
    seed: int
    seconds: float


class Painter:
    """A generator, the heads that it can draw into, and a segmenter or None."""

    def __init__(self, generator: inference.Generator, scenes: Sequence[Scene], segment: Segment | None):
        self.generator = generator
        self.scenes = scenes
        self.segment = segment
        self.name = "-".join(generator.config[key] for key in ("name", "preset") if key in generator.config)
        self.tumors = tumor_names(generator.classes)
        nothing = np.zeros((generator.size, generator.size), bool)
        self.empty = Scene("nothing", nothing.astype(np.uint8), nothing, self.tumors[0])

    def warm_up(self) -> None:
        """Compile what the page will ask for."""
        scene = self.scenes[0] if self.scenes else self.empty
        for number in watched(NUMBERS, len(NUMBERS), "compiling the model"):
            self.paint(scene, scene.tumor, scene.label, seed=0, number=number)

    def paint(self, scene: Scene, tumor: np.ndarray, label: str, *, seed: int, number: int) -> Painting:
        """`number` images of the scene with that tumour in it, of that class."""
        generator, start = self.generator, time.perf_counter()
        if label not in self.tumors:
            raise PixmedError(f"class {label!r}: this model knows {', '.join(self.tumors)}")
        value = np.uint8(1 + generator.classes.index(label))
        label_map = composed(scene, tumor, int(value)) if generator.takes_maps else np.array(value)
        images = generator(np.repeat(label_map[None], number, axis=0), seed=seed, batch_size=number)
        images = pictures.grey(images) if generator.grey else images
        mask = label_map == value if generator.takes_maps else self.empty.tumor
        found = dice = None
        if self.segment is not None:
            found = self.segment(pictures.grey(images))
            dice = segmentation.dice(found, np.repeat(mask[None], number, axis=0))
        return Painting(mask, label, images, found, dice, seed, time.perf_counter() - start)

    def packed(self, painting: Painting, form: str) -> bytes:
        """A zip of the images, their masks where the model knows masks, and about.json."""
        data, generator = io.BytesIO(), self.generator
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            for i, image in enumerate(painting.images):
                name = f"synthetic_{painting.label}_seed{painting.seed}_{i}{FORMATS[form]}".replace(" ", "_")
                archive.writestr(f"images/{name}", _encoded(image, form, generator.limits))
                if generator.takes_maps:
                    archive.writestr(f"masks/{name}", _encoded(painting.mask, form, (0, 1)))
            about = {
                "what": "synthetic images, not for diagnosis",
                "model": self.name,
                "step": generator.step,
                "label": painting.label,
                "seed": painting.seed,
            }
            archive.writestr("about.json", json.dumps(about, indent=1))
        return data.getvalue()

    def uploaded(self, path: Path, scene: Scene) -> tuple[np.ndarray, Scene]:
        """(tumour, scene) of a mask file: a tumour for `scene`, or a label map with an anatomy of its own.

        Of a volume the slice that shows most of a tumour is taken.
        """
        generator, classes = self.generator, self.generator.classes
        axis = generator.config["data"].get("axis", "stored")
        slices = [mask for *_, mask in mask_files.slices(path, axis, len(self.tumors))]
        stored = max(slices, key=lambda mask: int(((mask > 0) & (mask <= len(self.tumors))).sum()))
        mask = mask_files.fitted(stored, generator.size)
        values = set(np.unique(stored).tolist())
        if values <= {0, 1} or values <= {0, 255}:
            tumor = mask > 0
        elif max(values) <= len(classes):
            tumor = (mask > 0) & (mask <= len(self.tumors))
            if len(classes) > len(self.tumors):
                scene = Scene("your map", without(mask, tumor, mask > 0), tumor, self.tumors[0])
            if tumor.any():
                label = classes[int(np.bincount(mask[tumor]).argmax()) - 1]
                scene = scene._replace(label=label)
        else:
            raise PixmedError(
                f"{path}: has the values {listing([f'{v}' for v in sorted(values)], 8)}; a mask holds 0 and "
                f"255, or 0 to {len(classes)} for {', '.join(classes)}"
            )
        if not tumor.any():
            raise PixmedError(
                f"{path}: shows no tumour at {generator.size} pixels; draw one, or give another"
            )
        return tumor, scene


def open_painter(folder: Path, step: str = "newest", layout: str = "") -> Painter:
    """The painter of a run at a step, with that run's slices and segmenter, or of an exported model; `layout`
    is a layout model that draws heads in the place of slices.
    """
    generator = inference.load(folder, step)
    segment = kept_segmenter(folder / JUDGES) if generator.takes_maps else None
    return Painter(generator, scenes(folder, generator, layout), segment)


def _encoded(picture: np.ndarray, form: str, limits: intensity.Limits) -> bytes:
    """A file of an image, or of a mask (bool): 0 and 255 in a PNG, 0 and 1 in a NIfTI."""
    if form == "nifti":
        if picture.dtype == bool:
            return nifti.nifti_bytes(picture.astype(np.uint8))
        return nifti.nifti_bytes(intensity.encode(pictures.grey(picture[None])[0], (0, 1)), limits)
    data = io.BytesIO()
    Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)).save(data, "PNG")
    return data.getvalue()
