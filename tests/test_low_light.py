"""The baselines of enhancement against scikit-image and by what they must keep; darkening by its formula; and
--mode=enhance, measured on slices that were darkened."""

import json

import jax
import numpy as np
import pytest
from browser import chromium
from PIL import Image
from skimage import color, exposure

from pixmed_jax import extras
from pixmed_jax.data import phantom
from pixmed_jax.data.degrade import darkened
from pixmed_jax.data.slices import Source
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.enhancement import baselines
from pixmed_jax.enhancement.enhance import enhance
from pixmed_jax.enhancement.methods import prepared
from pixmed_jax.errors import PixmedError


@pytest.fixture(scope="module")
def dark():
    """A dark picture in colours, [32, 40, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :40] / 40
    return (0.3 * np.stack([y, x, 1 - x], -1) * rng.uniform(0.8, 1, (32, 40, 1))).astype(np.float32)


def test_gamma():
    image = np.array([[[0.0], [0.25], [1.0]]], np.float32)
    np.testing.assert_allclose(baselines.gamma(0.5).run(image).image, [[[0], [0.5], [1]]])
    assert baselines.gamma().settings == {"gamma": 1 / 2.2}


@pytest.mark.parametrize(
    ("method", "reference"),
    [
        (baselines.histogram(), exposure.equalize_hist),
        (baselines.clahe(0.02), lambda v: exposure.equalize_adapthist(v, clip_limit=0.02)),
    ],
    ids=["histogram", "clahe"],
)
def test_equalisations_are_scikit_images_on_the_value(dark, method, reference):
    grey = dark[..., :1]
    np.testing.assert_allclose(
        method.run(grey).image[..., 0], reference(grey[..., 0].astype(float)), atol=1e-6
    )
    out = method.run(dark).image
    hsv, out_hsv = color.rgb2hsv(dark), color.rgb2hsv(out)
    np.testing.assert_allclose(out_hsv[..., 2], reference(hsv[..., 2].astype(float)), atol=1e-5)
    seen = (hsv[..., 2] > 0.05) & (out_hsv[..., 2] > 0.05)  # hue is noise in the dark
    np.testing.assert_allclose(out_hsv[seen][:, :2], hsv[seen][:, :2], atol=1e-3)


@pytest.mark.parametrize("name", baselines.BASELINES)
@pytest.mark.parametrize("shape", [(16, 16, 1), (5, 7, 3), (1, 1, 1)])
def test_flat_and_tiny_pictures_come_out_finite(name, shape):
    for value in (0.0, 0.3, 1.0):
        out = baselines.BASELINES[name]().run(np.full(shape, value, np.float32)).image
        assert out.shape == shape and np.isfinite(out).all() and np.ptp(out) == 0
    out = baselines.BASELINES[name]().run(np.random.default_rng(0).random(shape, np.float32)).image
    assert out.shape == shape and np.isfinite(out).all()


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setattr(
        extras.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name))
    )
    with pytest.raises(PixmedError, match=r'pip install "pixmed-jax\[enhance\]"'):
        baselines.clahe()


def test_darkening_says_what_it_did():
    image = jax.numpy.asarray(np.random.default_rng(0).random((40, 30, 3), np.float32))
    clean, light = darkened(image, jax.random.key(3), (0.2, 0.7), 0.0)
    np.testing.assert_allclose(clean, image * light[..., None], rtol=1e-6)
    assert light.min() >= 0.2 and light.max() <= 0.7 and np.ptp(light) > 0.1
    noisy, same = darkened(image, jax.random.key(3), (0.2, 0.7), 0.01)
    np.testing.assert_array_equal(light, same)
    assert np.std(noisy - clean) == pytest.approx(0.01, rel=0.05)


# ---------------------------------------------------------------- the stage
@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Three slices of heads, 64 x 64, as PNG."""
    root = tmp_path_factory.mktemp("phantoms")
    for patient in range(3):
        (piece,) = phantom.patient_slices(patient, size=64, count=1)
        Image.fromarray(piece.image).save(root / f"{patient}.png")
    return root


def settings(target):
    return json.loads((target / "settings.json").read_text())


def test_lime_is_told_measured_and_beats_what_it_is_compared_with(phantoms, tmp_path):
    assert enhance(str(phantoms), str(tmp_path / "out"), degrade=True) == 0
    told = settings(tmp_path / "out")
    assert told["method"] == {
        "name": "lime", "solver": "fast", "strategy": 2, "alpha": 0.15, "strength": 1.0, "denoise": False,
    }  # fmt: skip
    for file in told["files"].values():
        assert file["settings"][0]["gamma"] == pytest.approx(0.45) and file["settings"][0]["floor"] > 0
    scores = told["scores"]
    assert set(scores) == {"before", "lime", "gamma", "histogram", "clahe"}
    for other in ("before", "gamma", "histogram"):
        assert scores[other]["ssim"]["gain"] > 0.05 and scores[other]["psnr"]["gain"] > 0.5, other
    assert 0 < scores["lime"]["map_error"]["mean"] < 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("illumination, estimated") == 2 * 3 and "error of the map" in page


def test_enhanced_with_other_settings_only_by_fresh(phantoms, tmp_path):
    """Every option counts, those too that the report's settings do not name."""
    out = str(tmp_path / "out")
    for fresh in (False, False, True):  # once more as before is no other
        assert enhance(str(phantoms), out, gamma=0.5, strength=1.0 - fresh, baselines="", fresh=fresh) == 0
    with pytest.raises(
        PixmedError, match=r"with --enhance\.strength=0\.0; give another --output, or --fresh"
    ):
        enhance(str(phantoms), out, gamma=0.5, baselines="")
    with pytest.raises(PixmedError, match=r"with --enhance\.gamma=0\.5, --enhance\.strength=0\.0;"):
        enhance(str(phantoms), out, baselines="")


def test_no_picture_stands_alone_in_a_row_of_the_page(phantoms, tmp_path):
    """Six of a file in one row at 1000 pixels, eight of a degraded one in two rows of four."""
    for name, degrade, expected in (("out", False, [6]), ("degraded", True, [4, 4])):
        assert enhance(str(phantoms), str(tmp_path / name), degrade=degrade) == 0
        with chromium() as browser:
            browser.set_window_size(1000, 900)
            browser.get((tmp_path / name / "report.html").as_uri())
            tops = browser.execute_script(
                "return [...document.querySelector('.strip').children].map(f => f.offsetTop)"
            )
        assert [tops.count(top) for top in sorted(set(tops))] == expected


def test_strength_nought_gives_the_files_back(phantoms, tmp_path):
    assert enhance(str(phantoms), str(tmp_path / "out"), strength=0.0, baselines="") == 0
    for path in phantoms.iterdir():
        np.testing.assert_array_equal(Image.open(tmp_path / "out" / path.name), Image.open(path))


def test_training_slices_are_enhanced_when_they_are_read():
    stored = np.random.default_rng(0).integers(0, 9000, (2, 12, 14)).astype(np.uint16)
    mask = np.ones((12, 14), np.uint8)
    source = Source(
        ("a", "b"), np.zeros(2, int), ("tumor",), ("a", "b"), ("", ""), lambda i: (stored[i], mask)
    )
    assert prepared(source, "none") is source
    image, same = prepared(source, "gamma").read(1)
    assert image.dtype == np.uint16 and image.shape == (12, 14) and same is mask
    np.testing.assert_allclose(image / 65535, (stored[1] / 65535) ** (1 / 2.2), atol=2e-5)
    with pytest.raises(PixmedError, match=r"data\.enhance='magic' is unknown; use one of none, lime"):
        prepared(source, "magic")


def test_a_dataset_is_enhanced_where_its_config_says_so(phantoms, tmp_path):
    mask = Image.fromarray(np.diag([255] * 64).astype(np.uint8))
    for path in phantoms.iterdir():
        for name, image in (("images", Image.open(path)), ("masks", mask)):
            (tmp_path / name).mkdir(exist_ok=True)
            image.save(tmp_path / name / path.name)
    words = {
        "source": "folder",
        "dir": str(tmp_path),
        "size": 64,
        "load_scale": 1.0,
        "channels": 1,
        "seed": 0,
    }
    words["split"] = {"by": "slice", "fractions": (0.34, 0.33, 0.33)}
    with pytest.warns(UserWarning, match="by=slice"):
        image, enhanced = (open_dataset(**words, enhance=how).source.read(0)[0] for how in ("none", "gamma"))
    np.testing.assert_allclose(enhanced / 255, (image / 255) ** (1 / 2.2), atol=0.003)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"method": "magic"}, r"enhance\.method='magic' is not one of lime"),
        ({"solver": "quick"}, r"enhance\.solver='quick'"),
        ({"strategy": 4}, r"enhance\.strategy=4 is not one of 1, 2, 3"),
        ({"gamma": -1.0}, r"enhance\.gamma=-1.0: give 0 or more"),
        ({"strength": float("nan")}, r"enhance\.strength=nan"),
        ({"baselines": "gamma,none"}, r"'none' is not one of gamma, histogram, clahe"),
        ({"reference": "x", "degrade": True}, r"leave enhance\.reference out"),
        ({"darkest": 0.7, "degrade": True}, "0 < darkest <= brightest <= 1"),
        ({"method": "zero_dce"}, r"enhance\.workdir: missing"),
        ({"workdir": "nowhere"}, "nowhere: no finished and intact checkpoint"),
    ],
)
def test_settings_that_do_not_go_are_one_line(phantoms, tmp_path, words, told):
    with pytest.raises(PixmedError, match=told):
        enhance(str(phantoms), str(tmp_path / "out"), **words)
    assert not list(tmp_path.iterdir())
