"""Where the heads of the demo come from: phantoms nobody trains on, or test slices of a run."""

import json

import numpy as np
import pytest
import runs
from demo_models import Echo

from pixmed_jax import inference
from pixmed_jax.demo import scenes
from pixmed_jax.demo.scene import room


class Told(Echo):
    """A generator of a condition, which is never asked for an image."""

    def __init__(self, condition: str, *classes: str, size: int = 64):
        super().__init__(classes, takes_maps=condition != "label")
        self.size, self.config = size, {"data": {"condition": condition, "tissues": 4}}


TISSUES = ("tissue_1", "tissue_2", "tissue_3", "tissue_4")


@pytest.mark.parametrize(
    ("told", "anatomy"),
    [
        (Told("anatomy", "meningioma", "glioma", "pituitary", *TISSUES), {0, 4, 5, 6, 7}),
        (Told("anatomy", "tumor", *TISSUES), {0, 2, 3, 4, 5}),
        (Told("tumor+head", "meningioma", "glioma", "head"), {0, 3}),
        (Told("tumor", "tumor"), {0}),
    ],
)
def test_phantoms_for_every_condition(told, anatomy):
    found = scenes.of_phantoms(told)
    assert {scene.name for scene in found} == {"axial", "coronal", "sagittal"}
    for scene in found:
        assert set(np.unique(scene.anatomy)) == anatomy  # and never a tumour's value
        assert scene.tumor.any() and not (scene.tumor & ~room(scene)).any()
        assert scene.label in told.classes and scenes.is_tumor(scene.label)


def test_a_model_without_maps_has_no_heads(tmp_path):
    assert scenes.scenes(tmp_path, Told("label", "meningioma", "glioma")) == []


def test_a_run_shows_patients_that_it_was_not_trained_on(tmp_path_factory):
    run = runs.trained(tmp_path_factory)
    generator = inference.load(run)
    found = scenes.scenes(run, generator)
    split = json.loads((run / "split.json").read_text())
    assert 1 <= len(found) <= 6 and len(found) <= len(split["test"])
    for scene in found:
        assert set(np.unique(scene.anatomy)) == {0, 4}  # the head, filled where its tumour was
        assert scene.tumor.any() and scene.label in generator.classes[:3]


def test_a_run_whose_data_are_gone_takes_phantoms(tmp_path_factory, tmp_path, capsys):
    run = runs.copied(tmp_path_factory, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"source": "folder", "dir": str(tmp_path / "gone")}
    (run / "config.json").write_text(json.dumps(config))
    found = scenes.scenes(run, inference.load(run))
    assert [scene.name for scene in found][:3] == ["axial", "sagittal", "coronal"]
    assert "gone" in (told := capsys.readouterr().err) and "phantoms take the place" in told
