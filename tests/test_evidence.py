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
from pixmed_jax import writing
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.evaluation import evaluate as module
from pixmed_jax.evaluation import verdict
from pixmed_jax.evaluation.audit import audit
from pixmed_jax.evaluation.evaluate import evaluate, grey_floats

pytestmark = pytest.mark.slow
SIZE, AUDITED = 32, 32


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

    takes_maps, reads_style, grey, step = True, False, True, 1

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
    """A weaker one lies within what sets of so few patients differ by (0.27 of 0.42, were it 0.8); the edge
    of a stronger one has the energy of a checkerboard."""
    return np.where(np.arange(SIZE) < SIZE // 2, image, 0.7 * image)


def generators(train: Slices) -> dict[str, Callable]:
    def nearest(slices, row, mirrored):
        same = (train.maps == slices.maps[row]).reshape(len(train.maps), -1).mean(axis=1)
        image = train.images[same.argmax()]
        return image[:, ::-1] if mirrored else image

    return {
        "sound": sound,
        "blurred": on_sound(lambda image, row, rng: ndimage.gaussian_filter(image, 0.7)),
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
    workdir = tmp_path_factory.mktemp("evidence") / "run"
    workdir.mkdir()
    changes = {"data.patients": 60, "data.split.fractions": [0.6, 0.02, 0.38], "data.condition": "anatomy"}
    config = runs.config(tmp_path_factory, **changes)
    writing.write_json(workdir / run_folder.CONFIG, config)
    dataset = open_dataset(**config["data"], seed=config["seed"])
    train, test = Slices(dataset, "train"), Slices(dataset, "test")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.cost, "of_inference", lambda generator: [])
        patch.setattr(module.report, "write", lambda *args: None)
        for name, draw in generators(train).items():
            patch.setattr(module.inference, "load", lambda *_, draw=draw: Known(draw, test, train))
            evaluate(workdir)
            if name in AUDITED_ONES:
                audit(workdir, number=AUDITED)
            (workdir / run_folder.AUDIT).unlink(missing_ok=True)
            found[name] = json.loads((workdir / run_folder.EVALUATION).read_text())
    return found


def at(evaluation, path):
    for name in path:
        evaluation = evaluation[name]
    return evaluation


# Each measure, whether more of it is better, and who must score worse by it than the sound generator.
ORDER = {
    ("ssim", "full"): (True, ("blurred", "noisy", "mask ignored", "collapsed")),
    ("psnr", "full"): (True, ("blurred", "noisy", "mask ignored", "collapsed")),
    ("mse", "full"): (False, ("blurred", "noisy", "mask ignored", "collapsed")),
    ("kid", "value"): (False, ("blurred", "noisy", "collapsed", "checkerboard")),
    ("fid", "value"): (False, ("blurred", "noisy", "collapsed", "checkerboard")),
    ("precision", "value"): (True, ("checkerboard",)),
    ("recall", "value"): (True, ("collapsed",)),
    ("density", "value"): (True, ("noisy", "checkerboard")),
    ("coverage", "value"): (True, ("collapsed",)),
    ("mask_dice", "generated"): (True, ("mask ignored", "collapsed", "memorised")),
    ("mask_dice", "hausdorff95", "generated"): (False, ("mask ignored", "collapsed")),
    ("diversity", "spread", "ratio"): (True, ("collapsed",)),
    ("diversity", "closest", "ratio"): (True, ("collapsed",)),
    ("diversity", "same_condition", "generated"): (True, ("memorised",)),
    ("memorisation", "ratio"): (True, ("memorised", "mirrored copies")),
    ("memorisation", "recognition", "auc"): (False, ("memorised", "mirrored copies")),
}
ARTEFACTS = {
    "blurred": "sharpness",
    "noisy": "sharpness",
    "checkerboard": "checkerboard",
    "seam": "seams",
    "clipped": "white",
    "leaked rotation": "tilt",
    "leaked flip": "upright",
    "leaked shift": "shift",
}
# Not "mask ignored", which shows other held-out patients: no trained network can.
AUDITED_ONES = ("sound", "blurred", "memorised", "mirrored copies")


def answer(evaluation, question):
    (one,) = [a.answer for a in verdict.answers(evaluation) if a.question.startswith(question)]
    return one


@pytest.mark.parametrize("path", ORDER, ids=" ".join)
def test_a_better_generator_scores_better(told, path):
    more, worse = ORDER[path]
    best = at(told["sound"], path)
    for name in worse:
        value = at(told[name], path)
        assert value < best if more else value > best, (name, value, best)


def test_the_sound_one_passes_everywhere(told):
    sound = told["sound"]
    assert sound["artefacts"]["found"] == [] and not sound["diversity"]["collapsed"]
    assert [answer(sound, q) for q in ("Looks", "Follows", "New")] == ["yes"] * 3


@pytest.mark.parametrize("fault", ARTEFACTS)
def test_an_artefact_is_found_by_its_name(told, fault):
    """A fault of the grain is no other one's and no pose; what moves or turns heads may show in any pose."""
    found = set(told[fault]["artefacts"]["found"])
    assert ARTEFACTS[fault] in found
    others = {"checkerboard", "seams", "white"} | (set() if "leaked" in fault else {"tilt", "shift"})
    assert not (found & others) - {ARTEFACTS[fault]}
    assert answer(told[fault], "Looks") != "yes" and not told[fault]["diversity"]["collapsed"]


def test_an_ignored_mask_is_found_by_the_segmenter_alone(told):
    ignored = told["mask ignored"]
    assert answer(ignored, "Follows") == "no"
    # Held-out slices, but not of the patients whose maps were given: no distance, by an interval too wide.
    assert ignored["kid"]["value"] < 0 < ignored["kid"]["high"] and ignored["artefacts"]["found"] == []
    assert answer(ignored, "Looks") == "partly" and ignored["recall"]["value"] > 0.9


def test_collapse_is_found_by_diversity(told):
    collapsed = [name for name, of in told.items() if of["diversity"]["collapsed"]]
    assert collapsed == ["collapsed"] and answer(told["collapsed"], "Looks") == "no"


def test_copies_are_found_by_the_audit_alone(told):
    """Copies are real slices: neither the features nor the artefacts of the picture know better."""
    for name in AUDITED_ONES:
        copied = name in ("memorised", "mirrored copies")
        assert (told[name]["memorisation"]["copies"] > 0) == copied, name
        assert answer(told[name], "New") == ("no" if copied else "yes"), name
    for name in ("memorised", "mirrored copies"):
        grain = {"checkerboard", "seams", "sharpness", "white", "black"}
        assert not grain & set(told[name]["artefacts"]["found"])
