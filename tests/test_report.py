"""The report: one page that needs no other file and no network, and that trusts no text."""

import base64
import copy
import io
import json
import re
from html.parser import HTMLParser

import browser
import numpy as np
import pytest
import runs
from PIL import Image

from pixmed_jax import pages, pictures
from pixmed_jax.evaluation import evaluate, report
from pixmed_jax.metrics import distribution

HOSTILE = "<script>alert('x')</script>&\"><img src=http://evil.example/x onerror=alert(1)>"


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.texts = [], []
        self._inside = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(workdir, evaluation) of an evaluated run."""
    workdir = runs.copied(tmp_path_factory, tmp_path_factory.mktemp("reported") / "run")
    return workdir, evaluate.evaluate(workdir)


@pytest.fixture(scope="module")
def page(run):
    return (run[0] / "report" / "index.html").read_text(encoding="utf-8")


def written(run, config=None, evaluation=None) -> str:
    workdir, result = run
    config = config or json.loads((workdir / "config.json").read_text())
    drawn = dict.fromkeys(("scatter", "spectra", "odd", "masks"), "data:image/png;base64,")
    path = report.write(workdir, config, evaluation or result, Image.new("RGB", (8, 8)), drawn)
    return path.read_text(encoding="utf-8")


def test_self_contained(page):
    parsed = Page(page)
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    links = [
        (name, value)
        for _, attributes in parsed.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "background")
    ]
    assert len(links) >= 6  # the grid, three charts, the history
    beside = ("audit.html",)  # pages of the same folder
    assert all(value.startswith("data:image/") if name == "src" else value in beside for name, value in links)
    assert not re.search(r"https?://|url\(|@import", page)


def test_every_picture_can_be_opened(page):
    pictures = re.findall(r'src="data:image/([a-z+]+);base64,([^"]+)"', page)
    for kind, data in pictures:
        raw = base64.b64decode(data, validate=True)
        if kind == "png":
            Image.open(io.BytesIO(raw)).verify()
        else:
            assert kind == "svg+xml" and b"</svg>" in raw and b"<script" not in raw
    assert [kind for kind, _ in pictures].count("svg+xml") == 5


def test_the_numbers_are_there(page, run):
    text = Page(page).text
    _, result = run
    for part in (result, *result["baselines"].values()):
        for metric, form in (("ssim", "{:.3f}"), ("psnr", "{:.2f}"), ("mse", "{:.5f}")):
            for value in part[metric].values():
                assert form.format(value) in text
    for part in (result, *result["baselines"].values()):
        for low, high in part["intervals"]["ssim"].values():
            assert f"{low:.3f} to {high:.3f}" in text
    assert "in its mean grey value in the training slices" in text
    assert f"{result['n']} slices of {result['patients']} patients" in text
    assert f"checkpoint of step {result['step']}" in text
    for words in ("meningioma, glioma, pituitary, head", "not for diagnosis", "optimizer.learning_rate"):
        assert words in text


@pytest.mark.parametrize(
    ("gain", "interval", "words"),
    [
        (
            -0.01,
            (-0.02, 0.0),
            "<strong>The generator does not beat the strongest baseline, the class means, ",
        ),
        (0.02, (-0.01, 0.05), "by 0.020 (-0.010 to 0.050, which does not exclude 0).</strong>"),
        (0.02, (0.01, 0.03), "by 0.020 (0.010 to 0.030, the same patients for both)."),
        (0.02, None, "by 0.020 (of too few patients for an interval).</strong>"),
    ],
)
def test_what_the_strongest_baseline_leaves_of_a_score(run, gain, interval, words):
    """The one that is strongest here, and not the one that is asked first."""
    evaluation = copy.deepcopy(run[1])
    evaluation["baselines"]["class_means"]["ssim"]["full"] = 0.999
    evaluation["gains"]["class_means"] = {"value": gain, "interval": interval}
    told = written(run, evaluation=evaluation)
    assert words in told and "class means, painted on the map (0.999)" in told
    evaluation["condition"]["name"] = "label"  # knows nothing of the slice that it is compared with
    assert "strongest baseline" not in written(run, evaluation=evaluation)


@pytest.mark.parametrize("matched", [True, False])
def test_what_real_slices_have_stands_beside(run, matched):
    """For systems given maps the same patients' first, and a word on why others are no reference."""
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.normal(size=(24, 3)), 6, 0)
    features, groups = centres + 0.5 * rng.normal(size=centres.shape), np.repeat(np.arange(24), 6)
    found = distribution.compare(
        features[:72] + 0.4, features[:72], features[72:], groups=groups[:72], train_groups=groups[72:],
        features="numbers", matched=matched, lookup=features[:72] + 2 if matched else None,
    )  # fmt: skip
    varied = {"diversity": {**run[1]["diversity"], "collapsed": False}}
    text = Page(written(run, evaluation={**run[1], **found, **varied})).text
    of, beside = found["kid"], "where real slices of other patients are at "
    if matched:
        beside = "where other real slices of the same patients are at "
        assert "generated other slices of the same patients class means training patients halves" in text
        assert "makes nothing more real" in text and f"{of['class_means']:.3g}" in text
        assert "away on average" in text  # the verdict's
    else:
        assert "generated training patients halves" in text and "same patients are at" not in text
    assert f"{beside}{of['same_patients' if matched else 'floor']:.3g} ;" in text.replace(" ; ", " ;")


def test_the_history_names_its_steps(page):
    captions = re.findall(r"<figcaption[^>]*>([^<]*)</figcaption>", page)
    assert captions == ["step 0", "step 4", "step 6"]


def test_text_is_escaped(run):
    """A label or a name comes from other people's files and folders."""
    workdir, result = run
    config = json.loads((workdir / "config.json").read_text())
    config["name"] = config["preset"] = config["data"]["dir"] = HOSTILE
    evaluation = copy.deepcopy(result)
    evaluation["condition"]["classes"][0] = evaluation["condition"]["name"] = HOSTILE
    before, after = Page(written(run)), Page(written(run, config, evaluation))
    assert [tag for tag, _ in before.tags] == [tag for tag, _ in after.tags]
    assert not any("onerror" in attributes for _, attributes in after.tags)
    assert after.text.count("<script>alert('x')</script>") >= 5  # shown as text, title included


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "train"}, "These slices were trained on"),
        ({"split_by": "slice"}, "The split is by slice: other slices of the same patients were trained on"),
        ({"split_by": "slice", "patients_known": False}, "of the same patients may have been trained on"),
    ],
)
def test_numbers_that_are_too_good_say_so(run, page, changes, words):
    assert words not in page
    assert words in written(run, evaluation={**run[1], **changes})


WIDE = """
return [...document.querySelectorAll("table")].filter(table => table.getClientRects().length
    && table.getBoundingClientRect().right > document.body.getBoundingClientRect().right)
    .map(table => table.innerText.slice(0, 60));
"""


def test_a_phone_shows_the_tables_whole(run, page):
    """At 400 pixels across no table is cut off, and an answer's sentence has the whole line."""
    with browser.chromium() as chrome:
        size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chrome.get((run[0] / "report" / "index.html").as_uri())
        assert chrome.execute_script(WIDE) == []
        cells = "[...document.querySelectorAll('.verdict td:last-child')]"
        assert min(chrome.execute_script(f"return {cells}.map(cell => cell.offsetWidth)")) > 330


@pytest.mark.parametrize(
    ("source", "folder", "about", "head"),
    [
        ("phantom", "/data/tfds", "", "Data: head phantoms that this project draws"),
        ("folder", "/data/clinic", "", "Data: folder clinic."),
        ("folder", "/data/clinic", "T1 of <our> clinic.", "Data: T1 of <our> clinic."),
        ("brain_tumor_mri", "/data/tfds", "", "Data: Jun Cheng"),
    ],
)
def test_the_head_says_what_the_data_are(run, source, folder, about, head):
    """Phantoms are not called patients, and of patients it is said what the page gives away."""
    workdir, result = run
    config = json.loads((workdir / "config.json").read_text())
    config["data"] |= {"source": source, "dir": folder}
    config["about"]["data"] = about
    anatomy = {**result, "condition": {**result["condition"], "name": "anatomy"}}
    text = Page(written(run, config, anatomy)).text
    assert head in text.partition("Looks real?")[0]
    drawn = source == "phantom"
    assert ("mean such a phantom" in text) == drawn
    assert ("keeps that patient recognisable" in text) != drawn


def test_words_are_explained_and_units_named(run, page):
    text = Page(page).text
    config = json.loads((run[0] / "config.json").read_text())
    assert f"<title>{config['name']} ({config['preset']}) on drawn phantoms: evaluation</title>" in page
    for words in ("KID: how far generated slices as a whole are from real ones; less is", "Dice: how much"):
        assert words in text
    assert f"python launch.py --workdir={run[0]} --mode=audit" in text
    assert "on cpu" in text and "cpu: cpu" not in text
    charts = [base64.b64decode(data).decode() for data in re.findall(r'svg\+xml;base64,([^"]+)', page)]
    (held_out,) = [svg for svg in charts if "score on held-out patients" in svg]
    assert "<!-- SSIM -->" in held_out  # which score it is
    figures = [attributes for tag, attributes in Page(page).tags if tag == "figure"]
    assert sum("tabindex" in attributes for attributes in figures) == 3  # those over time can be enlarged


def test_tissues_are_explained():
    """What the classes of a map of the anatomy are, where it has them."""
    explained = "tissue_1 to tissue_4: the rest of the head by its brightness"
    for classes, there in (
        (("glioma", "tissue_1", "tissue_2", "tissue_3", "tissue_4"), True),
        (("glioma", "head"), False),
    ):
        legend = pages.render("pixmed_jax.evaluation", "legend.html.j2", legend=pictures.legend(classes))
        assert (explained in legend) == there


@pytest.mark.parametrize(("region", "title"), [("tumor", "inside the mask"), ("head", "inside the head")])
def test_a_region_that_no_slice_has(run, page, region, title):
    evaluation = copy.deepcopy(run[1])
    for part in (evaluation, *evaluation["baselines"].values()):
        for metric in ("ssim", "psnr", "mse"):
            part[metric][region] = part["intervals"][metric][region] = None
    text = Page(written(run, evaluation=evaluation)).text
    assert title not in text and Page(page).text.count(title) == 3 and "nan" not in text.lower()
    assert text.count("whole image") == 3
