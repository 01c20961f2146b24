"""The page for browsers: what is in its folder, which runtime it takes, and all of it in a real Chromium.

The last needs selenium, Chromium with its driver, and PIXMED_ORT_WEB, what `npm pack onnxruntime-web` wrote.
"""

import base64
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import runs
from browser import chromium
from PIL import Image

import pixmed_jax
from pixmed_jax import inference
from pixmed_jax.errors import PixmedError
from pixmed_jax.export import flat, interface, onnx_file, web

CONTENTS = {name: f"// {name}".encode() for name in web.FILES}


def told(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()


def packed(contents: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in {"package.json": b"{}", **contents}.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


@pytest.fixture
def published(monkeypatch):
    """Makes small files the published ones; returns the archive."""
    archive = packed(CONTENTS)
    monkeypatch.setattr(web, "FILES", {name: told(content) for name, content in CONTENTS.items()})
    monkeypatch.setattr(web, "ARCHIVE", told(archive))
    return archive


def test_the_runtime_comes_from_the_archive_or_from_its_folder(published, tmp_path):
    (tmp_path / "ort.tgz").write_bytes(published)
    assert web.runtime(tmp_path / "ort.tgz") == CONTENTS
    (tmp_path / "dist").mkdir()
    for name, content in {**CONTENTS, "ort.js": b"not needed"}.items():
        (tmp_path / "dist" / name).write_bytes(content)
    assert web.runtime(tmp_path / "dist") == CONTENTS


def test_another_runtime_is_refused_unopened(published, tmp_path, monkeypatch):
    path = tmp_path / "ort.tgz"

    def refused(given: Path, why: str) -> None:
        with pytest.raises(PixmedError, match=why) as error:
            web.runtime(given)
        assert "\n" not in str(error.value) and "npm pack onnxruntime-web@" in str(error.value)
        assert str(given) in str(error.value)

    monkeypatch.setattr(tarfile, "open", lambda **_: pytest.fail("opened"))
    refused(tmp_path / "none.tgz", "no such file or folder")
    for data in (published[:-1], published + b"x", published[:-9] + b"?" + published[-8:], b""):
        path.write_bytes(data)
        refused(path, "its sha256 differs")
    with path.open("wb") as file:
        file.truncate(1 << 40)  # of which no more is read than the archive is long
    refused(path, "its sha256 differs")

    dist = tmp_path / "dist"
    dist.mkdir()
    refused(dist, "cannot be read")
    for name, content in CONTENTS.items():
        (dist / name).write_bytes(content)
    (dist / "ort.wasm.min.js").write_bytes(b"fetch('//elsewhere')")
    refused(dist, "its sha256 differs")


# ---------------------------------------------------------------- the folder
@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return inference.find(runs.trained(tmp_path_factory))


@pytest.fixture(scope="module")
def loud(saved, draw):
    return interface.of(runs.loud(pixmed_jax.load(saved.path), draw))


def settings_of(folder: Path) -> dict:
    text = (folder / "settings.js").read_text()
    return json.loads(text.removeprefix("const SETTINGS = ").removesuffix(";\n"))


def unpacked(folder: Path, name: str, count: int) -> bytes:
    parts = [(folder / f"{name}_{i}.js").read_text() for i in range(count)]
    texts = [re.fullmatch(rf'PART\("{name}", "([A-Za-z0-9+/=]+)"\);\n', part)[1] for part in parts]
    return gzip.decompress(b"".join(map(base64.b64decode, texts)))


def test_the_page_holds_all_it_needs(saved, loud, tmp_path, monkeypatch):
    monkeypatch.setattr(web, "_PART", 1000)
    model = np.random.default_rng(0).bytes(2500)
    web.write(tmp_path / "web", model, loud, saved, CONTENTS)
    settings = settings_of(tmp_path / "web")
    assert settings["parts"] == {"glue": 1, "wasm": 1, "model": 3}
    assert unpacked(tmp_path / "web", "model", 3) == model
    assert unpacked(tmp_path / "web", "wasm", 1) == CONTENTS["ort-wasm-simd-threaded.wasm"]
    assert settings["noise"] == [
        noise._asdict() | {"shape": [*noise.shape]} for noise in onnx_file.noises(loud)
    ]
    assert len(settings["palette"]) == 1 + len(saved.classes)
    page = (tmp_path / "web" / "index.html").read_text()
    for script in re.findall(r'<script src="([^"]+)">', page):
        assert (tmp_path / "web" / script).is_file()
    own = page + (tmp_path / "web" / "page.js").read_text()
    assert not re.search(r"https?:|//[a-z]+\.", own) and "connect-src 'none'" in page
    assert "Not for diagnosis" in page
    assert re.findall(r'value="\d"(?: checked)?>.*?</span>(\w+)', page) == [
        "meningioma",
        "glioma",
        "pituitary",
    ]


def test_a_generator_of_labels_has_a_page_without_a_map(saved, loud, tmp_path):
    face = loud._replace(stored="labels", shape=(), predict=lambda *_: jnp.zeros((1, 8, 8, 1)))
    labels = saved._replace(classes=("a", "<b>"))
    web.write(tmp_path / "web", b"", face, labels, CONTENTS)
    page = (tmp_path / "web" / "index.html").read_text()
    assert 'id="map"' not in page and page.count('name="class"') == 2
    assert "&lt;b&gt;" in page and "<b>" not in page


def test_what_makes_no_images_has_no_page(saved, loud, tmp_path):
    with pytest.raises(PixmedError, match="shows what a generator makes"):
        web.write(tmp_path / "web", b"", loud._replace(name="segmenter"), saved, CONTENTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("condition", "own", "tumors"),
    [("anatomy", True, 3), ("anatomy", True, 1), ("tumor+head", False, 2), ("tumor", True, 3)],
)
def test_examples_are_healthy_anatomy_in_the_classes_of_the_run(condition, own, tumors):
    data = {"size": 32, "condition": condition, "class_channels": own, "tissues": 4}
    found = web.examples(data, tumors)
    assert len(found) == (1 if condition == "tumor" else 6)
    last = {"anatomy": tumors + 4, "tumor+head": tumors + 1, "tumor": 0}[condition]
    for example in found:
        values = set(np.unique(example["anatomy"]))
        assert values <= {0, *range(tumors + 1, last + 1)} and last in {0, *values}
        assert set(np.unique(example["tumor"])) == {0, example["label"]} and 1 <= example["label"] <= tumors
        if condition == "anatomy":  # where the tumour was is brain
            assert (example["anatomy"][example["tumor"] > 0] > 0).mean() > 0.9


# ---------------------------------------------------------------- in a browser


def mulberry32(seed: int, count: int) -> np.ndarray:
    """The page's random numbers, by the definition of the generator."""
    numbers, mask = [], 2**32 - 1
    for i in range(1, count + 1):
        state = (seed + i * 0x6D2B79F5) & mask
        t = ((state ^ (state >> 15)) * (state | 1)) & mask
        t ^= (t + (((t ^ (t >> 7)) * (t | 61)) & mask)) & mask
        numbers.append(((t ^ (t >> 14)) & mask) >> 8)
    return np.array(numbers, np.float32) / 2**24


@pytest.fixture(scope="module")
def browser():
    if "PIXMED_ORT_WEB" not in os.environ:
        pytest.skip("PIXMED_ORT_WEB names no onnxruntime-web")
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def page(saved, loud, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    onnx_file.write(folder / "g.onnx", loud, "float32")
    runtime = web.runtime(Path(os.environ["PIXMED_ORT_WEB"]))
    web.write(folder / "web", (folder / "g.onnx").read_bytes(), loud, saved, runtime)
    return folder / "web" / "index.html"


def images_made(browser) -> int:
    return int(browser.execute_script("return document.body.dataset.images ?? 0"))


def wait_for(browser, number: int) -> None:
    for _ in range(300):
        if images_made(browser) >= number:
            return
        time.sleep(0.1)
    pytest.fail(browser.execute_script("return document.getElementById('status').textContent"))


def test_drawn_and_generated_from_a_file(browser, page, loud, saved):
    """On a phone's window, opened from the disk: a finger's stroke, another seed, and the canvas is JAX's."""
    by_id = lambda name: browser.find_element("id", name)  # noqa: E731
    window = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    browser.get(page.as_uri())
    wait_for(browser, 1)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    before = browser.execute_script("return [...tumor]")

    browser.find_elements("css selector", "input[name=class]")[1].click()
    box = browser.execute_script("const b = $('map').getBoundingClientRect(); return [b.x, b.y, b.width]")
    at = lambda u, v: {"x": box[0] + u * box[2], "y": box[1] + v * box[2]}  # noqa: E731
    for kind, points in (("touchStart", [at(0.4, 0.4)]), ("touchMove", [at(0.6, 0.5)]), ("touchEnd", [])):
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    wait_for(browser, 2)
    drawn = np.array(browser.execute_script("return [...tumor]"), np.uint8).reshape(32, 32)
    changed = drawn != np.array(before).reshape(32, 32)
    assert 5 < changed.sum() < 200 and (drawn[changed] == 2).all()
    assert drawn[12, 12] == drawn[14, 16] == drawn[16, 19] == 2  # from beginning to end

    seed = by_id("seed")
    seed.clear()
    seed.send_keys("4000000007")
    by_id("generate").click()  # leaving the field makes an image too
    wait_for(browser, 3)
    time.sleep(0.3)
    assert "ms in this browser, seed 4000000007" in by_id("status").text

    anatomy = np.array(browser.execute_script("return [...anatomy]"), np.uint8).reshape(32, 32)
    maps = np.where(drawn > 0, drawn, anatomy)[None]
    shapes = [noise.shape for noise in onnx_file.noises(loud)]
    numbers = mulberry32(4000000007, sum(int(np.prod(shape)) for shape in shapes))
    noise = np.split(numbers, np.cumsum([np.prod(shape) for shape in shapes])[:-1])
    (stored, seeds), drawn_by_jax = loud.example(1), []
    for draw, part in zip(flat.draws(loud.predict, loud.variables, stored, seeds), noise, strict=True):
        drawn_by_jax.append(part.reshape(draw.shape))
    expected = flat.with_noise(loud.predict, seeds)(loud.variables, maps, *drawn_by_jax)
    url = browser.execute_script("return $('image').toDataURL('image/png')")
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as picture:
        found = np.asarray(picture)[..., 0]
    assert np.ptp(found) > 50
    np.testing.assert_allclose(found, 255 * np.asarray(expected)[0, ..., 0], atol=0.51)

    names = [
        entry["name"] for entry in browser.execute_script("return performance.getEntriesByType('resource')")
    ]
    assert all(name.startswith(("file:", "blob:")) for name in names), names
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def test_a_part_that_is_missing_is_told(browser, page, tmp_path):
    folder = tmp_path / "web"
    shutil.copytree(page.parent, folder)
    (folder / "model_0.js").unlink()
    browser.get((folder / "index.html").as_uri())
    for _ in range(100):
        told = browser.execute_script("return document.getElementById('status').textContent")
        if "could not" in told:
            break
        time.sleep(0.1)
    assert told == "The network could not be started: model_0.js is missing beside this page"
    browser.get_log("browser")
