"""The whole claim of the evaluation, on phantoms whose truth is known: good generators score better than bad
ones, each fault is found by the measure that is meant for it, and by no other of which we say so.

Generators that stand for each fault answer in the place of a trained network; everything else is what
`--mode=evaluate` and `--mode=audit` do and write. Whether a network that was really trained on too little is
caught is asked in test_audit_overfitted.py.
"""

import json
from collections.abc import Callable

import numpy as np
import pytest
import runs
from scipy import ndimage

from pixmed_jax import workdir as run_folder
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.evaluation import evaluate as module
from pixmed_jax.evaluation import verdict
from pixmed_jax.evaluation.audit import audit
from pixmed_jax.evaluation.evaluate import evaluate, grey_floats

pytestmark = pytest.mark.slow
SIZE, AUDITED = 32, 48


class Slices:
    """Real slices, found again by their maps. `apart[i]` is the row of a slice of another patient."""

    def __init__(self, dataset, split):
        arrays, slices = dataset.load(dataset.rows[split], dataset.size)
        self.images, self.maps = grey_floats(arrays), np.asarray(arrays.maps)
        self.row_of = {one.tobytes(): row for row, one in enumerate(self.maps)}
        assert len(self.row_of) == len(self.maps)
        names, patient = np.unique(slices.groups, return_inverse=True)
        self.apart = (np.arange(len(patient)) + np.bincount(patient).max()) % len(patient)
        assert (patient != patient[self.apart]).all() and len(names) > 20


class Known:
    """A generator of known truth: `draw(slices, row, rng)` from the map of slice `row` of `slices`."""

    takes_maps, step = True, 1

    def __init__(self, draw, *splits):
        self.draw, self.splits = draw, splits

    def __call__(self, maps, *, seed=0):
        images = []
        for one in maps:
            (slices,) = [of for of in self.splits if one.tobytes() in of.row_of]
            row = slices.row_of[one.tobytes()]
            images.append(self.draw(slices, row, np.random.default_rng([seed, row])))
        return np.clip(images, 0, 1)[..., None].astype(np.float32)


def sound(slices, row, rng):
    """What a good generator might draw from the map: the same anatomy under another coil and contrast."""
    field = ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), 8)
    image = slices.images[row] ** rng.uniform(0.95, 1.05)
    return image * np.exp(0.05 * field / np.abs(field).max())


def on_sound(change: Callable) -> Callable:
    return lambda slices, row, rng: change(sound(slices, row, rng), row, rng)


def half(change: Callable) -> Callable:
    """Of every second image, as an augmentation of probability 0.5 would."""
    return on_sound(lambda image, row, rng: change(image) if rng.random() < 0.5 else image)


def board(image, row, rng):
    y, x = np.mgrid[:SIZE, :SIZE]
    return image + 0.03 * (-1.0) ** (y + x) * (image > 0.1)


def seam(image, row, rng):
    return np.where(np.arange(SIZE) < SIZE // 2, image, 0.8 * image)


def generators(train: Slices) -> dict[str, Callable]:
    def nearest(slices, row, mirrored):
        same = (train.maps == slices.maps[row]).reshape(len(train.maps), -1).mean(axis=1)
        image = train.images[same.argmax()]
        return image[:, ::-1] if mirrored else image

    return {
        "sound": sound,
        "blurred": on_sound(lambda image, row, rng: ndimage.gaussian_filter(image, 1.0)),
        "noisy": on_sound(lambda image, row, rng: image + rng.normal(0, 0.05, image.shape)),
        "mask ignored": lambda slices, row, rng: sound(slices, slices.apart[row], rng),
        "collapsed": lambda slices, row, rng: slices.images[row % 3] + rng.normal(0, 0.003, (SIZE, SIZE)),
        "memorised": lambda slices, row, rng: nearest(slices, row, mirrored=False),
        "mirrored copies": lambda slices, row, rng: nearest(slices, row, mirrored=True),
        "checkerboard": on_sound(board),
        "seam": on_sound(seam),
        "clipped": on_sound(lambda image, row, rng: 1.6 * image),
        "leaked rotation": half(lambda image: ndimage.rotate(image, 25, reshape=False, order=1)),
        "leaked flip": half(lambda image: image[::-1]),
        "leaked shift": half(lambda image: np.roll(image, 3, axis=1)),
    }


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """{generator: what evaluation.json says of it after evaluation, and for some after the audit too}"""
    runs.use_cache(tmp_path_factory)
    workdir = tmp_path_factory.mktemp("evidence") / "run"
    workdir.mkdir()
    changes = {"data.patients": 90, "data.split.fractions": [0.65, 0.03, 0.32], "data.condition": "anatomy"}
    config = runs.config(tmp_path_factory, **changes)
    run_folder.write_json(workdir / run_folder.CONFIG, config)
    dataset = open_dataset(**config["data"], seed=config["seed"])
    train, test = Slices(dataset, "train"), Slices(dataset, "test")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.cost, "of_inference", lambda generator: [])
        patch.setattr(module.report, "write", lambda *args: None)
        for name, draw in generators(train).items():
            patch.setattr(module.inference, "load", lambda *_, draw=draw: Known(draw, test, train))
            evaluate(workdir)
            if name in ("sound", "blurred", "mask ignored", "memorised", "mirrored copies"):
                audit(workdir, number=AUDITED)
            (workdir / run_folder.AUDIT).unlink(missing_ok=True)
            found[name] = json.loads((workdir / run_folder.EVALUATION).read_text())
    return found
