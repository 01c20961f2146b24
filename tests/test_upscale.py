"""Enlarging folders and samples: sizes, records, references made and given, and what is refused."""

import csv
import json

import numpy as np
import pytest
import runs
from PIL import Image
from runs import pixels

from pixmed_jax import inference, sampling
from pixmed_jax.enhancement.upscale import upscale
from pixmed_jax.enhancement.upscaler import upscaler
from pixmed_jax.errors import PixmedError
from pixmed_jax.training.loop import train

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a network for x2."""
    runs.trained(tmp_path_factory)
    folder = tmp_path_factory.mktemp("upscale") / "run"
    assert train(runs.preset(tmp_path_factory, "super_resolution", train__steps=2), folder) == 0
    return folder


@pytest.fixture
def source(tmp_path):
    """Three pictures: grey with odd sides, colour, 16 bit."""
    folder = tmp_path / "in"
    folder.mkdir()
    y, x = np.mgrid[:33, :50]
    waves = 0.5 + 0.4 * np.sin(y / 3.0) * np.cos(x / 4.0)
    Image.fromarray((waves * 255).astype(np.uint8)).save(folder / "odd.png")
    Image.fromarray((np.stack([waves, 1 - waves, waves**2], -1) * 255).astype(np.uint8)).save(
        folder / "rgb.png"
    )
    Image.fromarray((waves[:32] * 65535).astype(np.uint16)).save(folder / "deep.png")
    return folder


def test_a_method_enlarges_files_as_pillow_does(source, tmp_path, capsys):
    assert upscale(str(source), str(tmp_path / "out"), scale=3, method="bicubic") == 0
    found = pixels(tmp_path / "out" / "odd.png")
    with Image.open(source / "odd.png") as image:
        expected = np.asarray(image.convert("F").resize((150, 99), Image.Resampling.BICUBIC))
    assert found.dtype == np.uint8 and np.abs(found - expected.clip(0, 255)).max() <= 0.51
    assert pixels(tmp_path / "out" / "rgb.png").shape == (99, 150, 3)
    assert pixels(tmp_path / "out" / "deep.png").dtype == np.uint16
    about = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert about["method"] == {"name": "bicubic", "scale": 3} and about["scores"] == {}
    assert [other["name"] for other in about["baselines"]] == ["nearest", "bilinear", "lanczos"]


def test_a_network_does_and_is_recorded(run, source, tmp_path):
    (source / "bad.png").write_bytes(b"no picture")
    assert upscale(str(source), str(tmp_path / "out"), workdir=str(run), degrade=True) == 1
    about = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert about["method"] == {"name": "super_resolution", "scale": 2, "run": str(run), "step": 2}
    assert list(about["faults"]) == ["bad.png"] and about["degraded"]
    assert pixels(tmp_path / "out" / "odd.png").shape == (32, 50)  # of 33 rows one is left over
    assert set(about["scores"]) == {"super_resolution", "nearest", "bilinear", "bicubic", "lanczos"}
    psnr = {name: of["psnr"]["mean"] for name, of in about["scores"].items()}
    assert psnr["nearest"] < psnr["bilinear"] < psnr["bicubic"]


def test_scores_of_what_the_network_was_trained_on_are_told(run, tmp_path, capsys):
    record = json.loads((run / "split.json").read_text())
    folder = tmp_path / "in"
    for name in (seen := min(record["train"])), min(record["test"]):
        path = folder / f"{name.split('#')[0]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (32, 32), np.uint8)).save(path, format="PNG")
    assert upscale(str(folder), str(tmp_path / "out"), workdir=str(run), degrade=True) == 0
    assert (
        f"{run}: was trained on files of 1 of the names that are scored ({seen})" in capsys.readouterr().err
    )
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["known"] == [seen]
    assert f"was trained on ({seen})" in (tmp_path / "out" / "report.html").read_text()

    assert upscale(str(folder), str(tmp_path / "out"), degrade=True, fresh=True) == 0  # by no network
    assert "was trained on" not in capsys.readouterr().err + (tmp_path / "out" / "report.html").read_text()


def test_a_given_reference_scores_the_large_picture(source, tmp_path):
    large = tmp_path / "large"
    assert upscale(str(source), str(large), method="lanczos") == 0
    (large / "settings.json").rename(tmp_path / "settings.json")
    assert upscale(str(source), str(tmp_path / "out"), method="lanczos", reference=str(large)) == 0
    scores = json.loads((tmp_path / "out" / "settings.json").read_text())["scores"]
    assert scores["lanczos"]["psnr"]["mean"] > 90 > 60 > scores["bicubic"]["psnr"]["mean"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scale": 5}, "upscale.scale=5: give 2, 3, 4"),
        ({"method": "cubic"}, "upscale.method='cubic' is not one of nearest"),
        ({"workdir": "nowhere"}, "nowhere: neither a run's folder nor one of nearest"),
        ({"baselines": "bicubic,magic"}, "'magic' is not one of nearest"),
        ({"degrade": True, "reference": "x"}, "leave upscale.reference out"),
    ],
)
def test_options_that_cannot_be(source, tmp_path, options, told):
    with pytest.raises(PixmedError, match=told):
        upscale(str(source), str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


def test_a_network_for_another_scale_is_refused(run):
    with pytest.raises(PixmedError, match=r"was trained for x2, and upscale.scale=4; give upscale.scale=2"):
        upscaler(str(run), 4, stage="upscale.scale")


# ---------------------------------------------------------------- samples
def test_samples_are_enlarged_and_their_masks_by_the_nearest_pixel(
    run, tmp_path, tmp_path_factory, draw, monkeypatch
):
    generating = runs.trained(tmp_path_factory)
    split = json.loads((run / "split.json").read_text())
    (run / "split.json").write_text(
        json.dumps(split | {"train": {**split["train"], "only here": "somebody"}})
    )
    generator = runs.loud(inference.load(generating), draw)
    monkeypatch.setattr(sampling.inference, "load", lambda workdir, step=None: generator)
    small = sampling.sample(generating, output=str(tmp_path / "small"), number=3)
    size = generator.size
    for name, told in (("nearest", "nearest"), (str(run), f"{run.name}@2")):
        large = sampling.sample(
            generating, output=str(tmp_path / "large"), number=3, upscale=2, upscaler=name, fresh=True
        )
        for part in ("masks", "conditions"):
            for path in sorted((large / part).iterdir()):
                nearest = pixels(small / part / path.name).repeat(2, 0).repeat(2, 1)
                np.testing.assert_array_equal(pixels(path), nearest)
        image = pixels(large / "images" / "00001.png")
        assert image.shape == (2 * size, 2 * size)
        before = pixels(small / "images" / "00001.png").repeat(2, 0).repeat(2, 1)
        assert np.array_equal(image, before) == (name == "nearest")
        with (large / "manifest.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {(row["upscale"], row["upscaler"]) for row in rows} == {("2", told)}
        sheet = json.loads((large / "data_sheet.json").read_text())
        assert sheet["contents"]["size"] == 2 * size and "--sample.upscale=2" in sheet["command"]
        assert sheet["upscaler"] == (None if name == "nearest" else told)
        shown = "UPSCALER" if name == str(run) else name  # nobody else has the run of that name
        assert f"--sample.upscaler={shown} " in sheet["command"] and "@" not in sheet["command"]
        assert ("`UPSCALER`" in (large / "data_sheet.md").read_text()) == (name == str(run))
    files = json.loads((large / "trained_on.json").read_text())["files"]
    for trained in (generating, run):  # whoever the upscaler has seen may be in the slices too
        assert files.items() >= json.loads((trained / "split.json").read_text())["train"].items()
    with pytest.raises(PixmedError, match=r"sample\.upscale=5 is not one of 1, 2, 3, 4"):
        sampling.sample(generating, output=str(tmp_path / "x"), upscale=5)
