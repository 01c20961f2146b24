"""What the page does when something on it is used: pure of gradio, from all that it holds to what changes.

An action takes what was `Asked` and returns {name of a component: its new value}; components that are not
named stay as they are. Errors: PixmedError, one line for the page.
"""

import base64
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixmed_jax import pictures
from pixmed_jax.demo import view
from pixmed_jax.demo.painter import Painter, Painting
from pixmed_jax.demo.scene import AS_DRAWN, Placement, Scene, advice, placed
from pixmed_jax.errors import PixmedError

Changes = dict[str, Any]
SEEDS = 2**32
# What `data/edits.py` refuses is drawn here, with a word about it.
_ADVICE = {
    "too small": "Smaller than any tumour it has learnt from.",
    "too large": "Larger than any tumour it has learnt from.",
    "over air or skull": "Lies over air or skull, where it has learnt of none.",
    "outside of the brain": "Reaches out of the brain, where it has learnt of few.",
}


class Asked(NamedTuple):
    """What the page holds."""

    head: str | None  # the number of a scene; None where an uploaded map takes its place
    own: Scene | None  # that map
    mask: str  # what the canvas holds
    label: str
    size: float
    right: float
    down: float
    number: int
    seed: int | None


def with_seed(asked: Asked) -> tuple[Asked, Changes, str]:
    """The page with a seed that there is, what changes by that, and a line about it."""
    typed = asked.seed or 0
    seed = min(max(typed, 0), SEEDS - 1)
    if seed == typed:
        return asked, {}, ""
    line = f"seed: {typed} is not from 0 to {SEEDS - 1}; {seed} is taken"
    return asked._replace(seed=seed), {"seed": seed}, line


class Actions:
    def __init__(self, painter: Painter):
        self._painter = painter
        self.first = self._of_scene("0" if painter.scenes else None, self._scene("0", None))

    def answer(self, asked: Asked) -> Changes:
        """The images of what the page shows."""
        return self._shown(asked, *self._drawn(asked))

    def drawn(self, asked: Asked) -> Changes:
        """A stroke was drawn into what the sliders show, so that is the tumour now."""
        return self._placed_anew(asked, *self._drawn(asked))

    def chosen(self, asked: Asked) -> Changes:
        """Another head, with the tumour that it starts with."""
        scene = self._scene(asked.head, None)
        _, stroke = self._drawn(asked)
        asked = asked._replace(own=None, label=scene.label)
        return self._placed_anew(asked, scene.tumor, stroke) | {"label": scene.label, "own": None}

    def again(self, asked: Asked) -> Changes:
        """The same with the next seed."""
        seed = ((asked.seed or 0) + 1) % SEEDS
        return self.answer(asked._replace(seed=seed)) | {"seed": seed}

    def uploaded(self, asked: Asked, file: Path) -> Changes:
        """A mask from a file: a tumour for this head, or a label map with a head of its own."""
        _, stroke = self._drawn(asked)
        before = self._scene(asked.head, asked.own)
        try:
            tumor, scene = self._painter.uploaded(file, before._replace(label=asked.label))
        except PixmedError as error:  # without the folder that uploads come to
            raise PixmedError(str(error).replace(f"{file.parent}/", "")) from error
        changes: Changes = {"label": scene.label}
        if scene.anatomy is not before.anatomy:
            asked = asked._replace(head=None, own=scene)
            changes |= {"head": None, "own": scene}
        return self._placed_anew(asked._replace(label=scene.label), tumor, stroke) | changes

    def saved(self, asked: Asked, form: str) -> Changes:
        """The images that are shown and their masks, as a file for the browser to keep."""
        painting = self._painting(asked, self._drawn(asked)[0])
        name = f"synthetic_{painting.label}_seed{painting.seed}_{form}.zip".replace(" ", "_")
        data = base64.b64encode(self._painter.packed(painting, form)).decode()
        return {"file": {"name": name, "data": data}}

    # ---------------------------------------------------------------- the way there
    def _scene(self, head: str | None, own: Scene | None) -> Scene:
        scenes = self._painter.scenes
        return scenes[int(head)] if head is not None and scenes else own or self._painter.empty

    def _of_scene(self, head: str | None, scene: Scene) -> tuple[Asked, Changes]:
        """The page before anything was asked, and its first answer."""
        asked = Asked(head, None, "", scene.label, *AS_DRAWN, 1, 0)
        changes = self._shown(asked, scene.tumor, 0)
        return asked._replace(mask=changes["mask"]), changes

    def _drawn(self, asked: Asked) -> tuple[np.ndarray, int]:
        return view.read_canvas(asked.mask, self._painter.generator.size)

    def _placed_anew(self, asked: Asked, tumor: np.ndarray, stroke: int) -> Changes:
        asked = asked._replace(**AS_DRAWN._asdict())
        return self._shown(asked, tumor, stroke) | AS_DRAWN._asdict()

    def _shown(self, asked: Asked, drawn: np.ndarray, stroke: int) -> Changes:
        painting = self._painting(asked, drawn)
        scene = self._scene(asked.head, asked.own)
        shown = placed(drawn, _placement(asked))
        classes = self._painter.generator.classes
        colours = pictures.palette(classes)
        colours = np.concatenate([colours, colours[[1 + classes.index(painting.label)]]])
        return {
            "mask": view.canvas(scene, drawn, shown, colours, stroke),
            "images": view.rendered(painting, _ADVICE.get(advice(scene, shown), "")),
        }

    def _painting(self, asked: Asked, drawn: np.ndarray) -> Painting:
        scene = self._scene(asked.head, asked.own)
        tumor = placed(drawn, _placement(asked))
        return self._painter.paint(scene, tumor, asked.label, seed=asked.seed or 0, number=asked.number)


def _placement(asked: Asked) -> Placement:
    return Placement(asked.size, asked.right, asked.down)
