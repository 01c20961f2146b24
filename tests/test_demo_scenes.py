"""Where the demo's heads come from: phantoms nobody trains on, a run's test slices, or a layout model."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import runs
from demo_models import Echo
from scipy import ndimage

from pixmed_jax import inference
from pixmed_jax.demo import scenes
from pixmed_jax.demo.scene import composed, room
from pixmed_jax.errors import PixmedError


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


def test_a_layout_model_draws_the_heads(monkeypatch, tmp_path):
    """Of every tumour and plane in turn; the tumour goes and the head around it stays."""
    told = Told("anatomy", "meningioma", "glioma", "pituitary", *TISSUES)
    phantoms = scenes.of_phantoms(told)
    names, planes = told.classes[:3], ("axial", "coronal", "sagittal")
    model = SimpleNamespace(
        classes=told.classes, size=told.size, config=told.config, tumors=names, planes=planes
    )

    def drawn(model, values, planes, seed, refused):
        assert values.tolist() == [1, 2, 3, 1, 2, 3] and planes.tolist() == [1, 1, 1, 2, 2, 2]
        return np.stack([composed(s, s.tumor, v) for s, v in zip(phantoms, values, strict=True)])

    monkeypatch.setattr(scenes.layouts, "load", lambda path: {"somewhere": model}[path])
    monkeypatch.setattr(scenes.layouts, "plausible", drawn)
    found = scenes.scenes(tmp_path, told, "somewhere")
    assert [scene.name for scene in found] == ["axial"] * 3 + ["coronal"] * 3
    assert [scene.label for scene in found] == [*names, *names]
    for scene, phantom in zip(found, phantoms, strict=True):
        assert set(np.unique(scene.anatomy)) <= {0, 4, 5, 6, 7}
        assert (scene.tumor == (phantom.tumor & room(phantom))).all() and scene.tumor.any()
        far = ndimage.distance_transform_edt(~scene.tumor) > 3
        assert (scene.anatomy == phantom.anatomy)[far].all()
        assert scene.where.brain.any() and not (scene.where.brain & (phantom.anatomy == 0)).any()

    with pytest.raises(PixmedError, match=r"demo\.layout: this model knows no masks"):
        scenes.scenes(tmp_path, Told("label", "meningioma"), "somewhere")
    told.size = 128
    with pytest.raises(PixmedError, match=r"draws anatomy at 64 x 64 .*paints anatomy at 128 x 128"):
        scenes.scenes(tmp_path, told, "somewhere")
