"""A reader study: what its page shows and hides, what answers come to by other formulas, and bad answers."""

import base64
import csv
import io
import json
import shutil

import numpy as np
import pytest
import runs
from browser import chromium
from scipy import stats
from test_cards import faults

import pixmed_jax
from pixmed_jax import pictures
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import cards, readers
from pixmed_jax.evaluation.evaluate import evaluate
from pixmed_jax.metrics import bootstrap
from pixmed_jax.sampling import sample


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(workdir, key) of a study of the tiny run."""
    workdir = runs.copied(tmp_path_factory, tmp_path_factory.mktemp("readers") / "run")
    readers.prepare(workdir, number=10, split="val+test", seed=3)
    return workdir, key_of(workdir)


def key_of(workdir):
    with (workdir / "reader" / "key.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def answered(workdir, path, ratings, reader="A"):
    rows = [
        (row["study"], reader, row["image"], r, 1) for row, r in zip(key_of(workdir), ratings, strict=True)
    ]
    text = io.StringIO()
    csv.writer(text).writerows([("study", "reader", "image", "rating", "seconds"), *rows])
    path.write_text(text.getvalue())
    return str(path)


def test_half_are_real_and_no_patient_is_on_both_sides(study):
    workdir, key = study
    config = json.loads((workdir / "config.json").read_text())
    dataset = open_dataset(**config["data"], seed=config["seed"])
    arrays, slices = dataset.load(dataset.of("val+test"), dataset.size)
    row_of = {file: i for i, file in enumerate(slices.files)}
    sides = {kind: [row for row in key if row["is"] == kind] for kind in ("real", "generated")}
    assert [len(rows) for rows in sides.values()] == [5, 5]
    patients = [{row["patient_group"] for row in rows} for rows in sides.values()]
    assert not patients[0] & patients[1] and min(map(len, patients)) == 2
    assert [row["is"] for row in key] != sorted(row["is"] for row in key)  # mixed
    for row in sides["real"]:
        shown = runs.pixels(workdir / "reader" / "images" / f"{row['image']}.png")
        np.testing.assert_array_equal(shown, arrays.images[row_of[row["source"]], ..., 0])
    rows = sorted(row_of[row["source"]] for row in sides["generated"])
    made = pictures.grey(pixmed_jax.load(workdir)(np.asarray(arrays.maps)[rows], seed=3))
    for row in sides["generated"]:
        shown = runs.pixels(workdir / "reader" / "images" / f"{row['image']}.png")
        expected = made[rows.index(row_of[row["source"]])]
        np.testing.assert_allclose(shown / 255, expected, atol=0.5 / 255 + 1e-6)


def test_the_page_shows_them_in_order_and_gives_nothing_away(study):
    workdir, key = study
    page = (workdir / "reader" / "page.html").read_text()
    found = json.loads(page.split("IMAGES = ")[1].split(", KEPT")[0])
    for i, uri in enumerate(found, 1):
        shown = runs.pixels(workdir / "reader" / "images" / f"{i}.png")
        np.testing.assert_array_equal(runs.pixels(io.BytesIO(base64.b64decode(uri.split(",")[1]))), shown)
    for row in key:
        assert row["source"] not in page and row["patient_group"] not in page
    assert "connect-src 'none'" in page and "http" not in page.replace("http-equiv", "")


def test_the_same_study_again_and_another(study, tmp_path):
    workdir = shutil.copytree(study[0], tmp_path / "run")
    before = runs.tree_bytes(workdir / "reader")
    readers.prepare(workdir, number=10, split="val+test", seed=3)
    assert runs.tree_bytes(workdir / "reader") == before
    with pytest.raises(PixmedError, match=r"reader: holds study [0-9a-f]{8}, .*--fresh"):
        readers.prepare(workdir, number=10, split="val+test", seed=4)
    assert runs.tree_bytes(workdir / "reader") == before
    readers.prepare(workdir, number=10, split="val+test", seed=4, fresh=True)
    assert key_of(workdir)[0]["study"] != study[1][0]["study"]
    (workdir / "reader" / "answers.csv").write_text("hours of a radiologist's time")
    for fresh in (False, True):
        with pytest.raises(PixmedError, match=r"reader: would be replaced, .*\(answers\.csv\); move them"):
            readers.prepare(workdir, number=10, split="val+test", seed=4, fresh=fresh)
    assert (workdir / "reader" / "answers.csv").exists()
    with pytest.raises(PixmedError, match=r"answers study [0-9a-f]{8}, and the key is of [0-9a-f]{8}"):
        readers.score(workdir, answered(study[0], tmp_path / "old.csv", [3] * 10))


def test_generated_slices_of_a_folder(study, tmp_path, capsys):
    workdir = shutil.copytree(study[0], tmp_path / "run")
    folder = sample(workdir, number=4, split="train", edit="mixed", output=str(tmp_path / "made"))
    readers.prepare(workdir, number=20, split="test", samples=str(folder), fresh=True)
    warned = capsys.readouterr().err
    assert "reader.number=20: there are 4 slices of either kind" in warned
    assert "reader.split=test: real slices of 2, generated ones of" in warned
    key = key_of(workdir)
    assert len({row["patient_group"] for row in key if row["is"] == "real"}) == 2  # all that the split has
    made = {row["source"]: row for row in key if row["is"] == "generated"}
    assert sorted(made) == [f"0000{i}.png" for i in range(4)]
    for name, row in made.items():
        shown = runs.pixels(workdir / "reader" / "images" / f"{row['image']}.png")
        np.testing.assert_array_equal(shown, runs.pixels(folder / "images" / name))
    assert {row["config"] for row in key} == {""}  # whose checkpoint made them the run does not know
    readers.score(workdir, answered(workdir, tmp_path / "a.csv", [3] * 8))
    assert readers.entries.read_by_people(workdir, 6, "")["auc"] is None


def test_what_cannot_be_prepared(study, tmp_path):
    for words, options in (
        (r"reader\.number=8: give 10 to 1000", {"number": 8}),
        (r"reader\.seed=-1: give 0 or more", {"seed": -1}),
        (r"reader\.split=train\+test: these patients were trained on", {"split": "train+test"}),
    ):
        with pytest.raises(PixmedError, match=words):
            readers.prepare(study[0], **options)
    with pytest.raises(PixmedError, match=r"key\.csv: missing; run --mode=reader"):
        readers.score(tmp_path, "x.csv")


# ---------------------------------------------------------------- scores
def test_auc_by_pairs_and_by_scipy():
    rng = np.random.default_rng(0)
    ratings, generated = rng.integers(1, 6, 40), np.arange(40) % 2 == 0
    found = readers.auc(ratings, generated, np.ones(40))
    u = stats.mannwhitneyu(ratings[generated], ratings[~generated]).statistic
    assert found == pytest.approx(u / 400)
    times = rng.integers(0, 3, 40)
    again = np.repeat(np.arange(40), times)
    expected = np.mean(
        [
            np.mean([(a > b) + 0.5 * (a == b) for b in ratings[again][~generated[again]]])
            for a in ratings[again][generated[again]]
        ]
    )
    assert readers.auc(ratings, generated, times) == pytest.approx(expected)


def test_what_so_many_images_would_show():
    """Against the power of Mann and Whitney's test in 2,000 drawn studies of that AUC."""
    assert readers.detectable(5, 5) is None
    auc = readers.detectable(30, 30)
    rng, apart = np.random.default_rng(0), np.sqrt(2) * stats.norm.ppf(auc)
    real, made = rng.normal(size=(2000, 30)), apart + rng.normal(size=(2000, 30))
    found = stats.mannwhitneyu(made, real, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.04)


def test_what_so_many_patients_would_show_however_alike_their_slices_are():
    """Six patients of five slices, eight of four: seen in 46 to 53 % of studies when slices were counted."""
    rng, edges = np.random.default_rng(0), [-0.6, 0.3, 0.9, 1.6]
    for patients, slices, alike in ((8, 4, 0.5), (6, 5, 0.9)):
        auc, n = readers.detectable(patients, patients), patients * slices
        apart, seen = np.sqrt(2) * stats.norm.ppf(auc), 0
        groups, generated = np.arange(2 * n) // slices, np.arange(2 * n) >= n
        for _ in range(25):
            of_patient = np.sqrt(alike) * rng.normal(size=2 * patients)[groups]
            seen_as = of_patient + np.sqrt(1 - alike) * rng.normal(size=2 * n) + apart * generated
            ratings = np.digitize(seen_as, edges) + 1
            bounds = bootstrap.resampled(
                groups,
                lambda weights, ratings=ratings, generated=generated: {
                    "auc": np.array(readers.auc(ratings, generated, weights))
                },
                draws=200,
            )
            seen += bounds["auc"][0] > 0.5
        assert seen >= 20, (patients, seen)


def test_how_often_a_reader_is_right_knows_patients():
    """Four of six patients told right in all of their slices are six answers, not thirty."""
    generated, groups = np.arange(60) % 2 == 0, np.arange(60) // 10
    ratings = np.where(generated ^ (groups >= 4), 5, 1)
    low, high = readers._decisions(ratings, generated, groups)["right_interval"]
    exact = stats.binomtest(40, 60).proportion_ci(method="exact")
    assert low < exact.low - 0.2 and high > exact.high + 0.1
    none = readers._decisions(np.full(60, 3), generated, groups)
    assert (none["right"], none["decided"], none["right_interval"]) == (0, 0, [0.0, 1.0])


def of_patients(workdir, real, generated):
    """The study's key rewritten to be of so many patients of either kind, in turn."""
    key, seen = key_of(workdir), {"real": 0, "generated": 0}
    for row in key:
        of, seen[row["is"]] = seen[row["is"]], seen[row["is"]] + 1
        row["patient_group"] = f"{row['is']} {of % (real if row['is'] == 'real' else generated)}"
    text = io.StringIO()
    csv.writer(text).writerows([tuple(key[0]), *(tuple(row.values()) for row in key)])
    (workdir / "reader" / "key.csv").write_text(text.getvalue())


@pytest.fixture(scope="module")
def wide(study, tmp_path_factory):
    """A study of twelve slices, each of another patient."""
    workdir = shutil.copytree(study[0], tmp_path_factory.mktemp("wide") / "run")
    readers.prepare(workdir, number=12, split="val+test", fresh=True)
    of_patients(workdir, 6, 6)
    return workdir


def test_few_patients_are_warned_of(study, tmp_path, monkeypatch, capsys):
    workdir = shutil.copytree(study[0], tmp_path / "run")
    readers.prepare(workdir, number=10, split="val+test", seed=3)
    warned = capsys.readouterr().err
    assert "real slices of 2, generated ones of 2 patients; with fewer than 6 of either kind" in warned
    assert warned.count("\n") == 1 and warned.endswith("no interval; give more slices\n")
    monkeypatch.setattr(readers.verdict, "ENOUGH", 2)
    readers.prepare(workdir, number=10, split="val+test", seed=3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("patients", [(1, 1), (2, 2), (5, 6), (6, 5), (6, 6)])
def test_nothing_is_shown_by_few_patients(wide, tmp_path, monkeypatch, patients):
    """Ratings that are right throughout have an interval of 1 to 1, and random ones one that excludes 0.5."""
    workdir = shutil.copytree(wide, tmp_path / "run")
    of_patients(workdir, *patients)
    monkeypatch.setattr(cards, "write", lambda folder: None)
    generated = np.array([row["is"] == "generated" for row in key_of(workdir)])
    result = readers.score(workdir, answered(workdir, tmp_path / "a.csv", np.where(generated, 5, 1)))
    one, page = result["readers"][0], (workdir / "report" / "reader.html").read_text()
    assert result["auc"] == one["auc"] == 1 and result["patients"] == patients[0]
    words = "too few patients to show anything: it takes 6 of either kind"
    if patients == (6, 6):
        assert (result["low"], result["high"], one["low"], one["high"]) == (1, 1, 1, 1)
        assert "1.00<small>1.00 to 1.00</small>" in page and words not in page
        return
    assert (result["low"], result["high"], one["low"], one["high"]) == (None,) * 4
    assert json.loads((workdir / "reader.json").read_text())["low"] is None
    assert words in readers.summary(result) and words in page
    assert '<td class="number">1.00</td>' in page and "There is none here" in page
    assert "None" not in page.replace("There is none", "") and "nan" not in page.split("data:")[0]


def test_readers_are_judged_each_and_together(wide, tmp_path, monkeypatch):
    workdir, key = wide, key_of(wide)
    generated = np.array([row["is"] == "generated" for row in key])
    told = []
    monkeypatch.setattr(cards, "write", lambda folder: told.append(folder))
    folder = tmp_path / "answers"
    folder.mkdir()
    answered(workdir, folder / "1.csv", np.where(generated, 5, 1), "knows")
    answered(workdir, folder / "2.csv", [3] * 12, "unsure")
    (folder / "._2.csv").write_bytes(b"of macOS")
    third = answered(workdir, tmp_path / "3.csv", np.where(generated, 2, 4), "upside down, <b>")
    result = readers.score(workdir, f"{folder},{third}")
    assert json.loads((workdir / "reader.json").read_text()) == json.loads(json.dumps(result))
    assert told == [workdir] and result["n"] == {"real": 6, "generated": 6} and result["patients"] == 6
    each = {of["reader"]: of for of in result["readers"]}
    assert [of["auc"] for of in each.values()] == [1.0, 0.5, 0.0] and result["auc"] == 0.5
    assert (each["knows"]["low"], each["knows"]["high"]) == (1.0, 1.0)
    assert (each["knows"]["right"], each["knows"]["decided"]) == (12, 12)
    # Clopper and Pearson: with all of twelve right, the lower bound is 0.025 ** (1 / 12).
    assert each["knows"]["right_interval"] == pytest.approx([0.025 ** (1 / 12), 1])
    assert (each["unsure"]["right"], each["unsure"]["decided"]) == (0, 0)
    assert each["upside down, <b>"]["called_generated"] == {"real": 6, "generated": 0}
    assert result["detectable"] == readers.detectable(6, 6)
    few = shutil.copytree(workdir, tmp_path / "few")
    of_patients(few, 6, 3)  # as many slices, of fewer patients
    assert readers.score(few, third)["detectable"] == readers.detectable(6, 3)
    page = (workdir / "report" / "reader.html").read_text()
    assert "upside down, &lt;b&gt;" in page and page.count("<img") == 4
    summary = readers.summary(result)
    assert "3 readers, 6 real and 6 generated slices: AUC 0.50 (" in summary
    assert "not shown to be told apart, and one reader's AUC of 0.99 would" in summary
    assert readers.summary(readers.score(workdir, str(folder / "1.csv"))).endswith("are told from real ones")
    both = readers.summary(readers.score(workdir, str(folder)))
    assert both.endswith("are told from real ones in the mean of the readers, by 1 of 2 in their own")
    assert "taken for real more often" in readers.summary(readers.score(workdir, third))


def test_by_slice_the_page_says_so_and_counts_no_patients(wide, tmp_path, monkeypatch):
    workdir = shutil.copytree(wide, tmp_path / "run")
    key, config = key_of(workdir), json.loads((workdir / "config.json").read_text())
    for row in key:
        row["patient_group"] = row["source"]
    text = io.StringIO()
    csv.writer(text).writerows([tuple(key[0]), *(tuple(row.values()) for row in key)])
    (workdir / "reader" / "key.csv").write_text(text.getvalue())
    config["data"]["split"]["by"] = "slice"
    (workdir / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(cards, "write", lambda folder: None)
    result = readers.score(workdir, answered(workdir, tmp_path / "a.csv", [1, 5] * 6))
    page = (workdir / "report" / "reader.html").read_text()
    assert result["patients"] is None and "6 real slices of unknown patients" in page
    assert "whom nothing was trained on" not in page and "the numbers are too good" in page
    assert "resamples slices, since patients are unknown" in page


@pytest.mark.slow
def test_the_verdict_and_the_card_say_so(study, tmp_path):
    workdir = shutil.copytree(study[0], tmp_path / "run")
    evaluate(workdir)
    generated = np.array([row["is"] == "generated" for row in key_of(workdir)])
    readers.score(workdir, answered(workdir, tmp_path / "a.csv", np.where(generated, 5, 1)))
    evaluation = json.loads((workdir / "evaluation.json").read_text())
    assert (evaluation["readers"]["auc"], evaluation["readers"]["readers"]) == (1.0, 1)
    assert evaluate(workdir)["readers"] == evaluation["readers"]  # and it stays
    card = json.loads((workdir / "model_card.json").read_text())
    assert faults(card) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("rating", "score", 1), r"no column rating; give a file that the study's"),
        (lambda text: text.replace(",A,", ",B,", 1), r"names 2 readers"),
        (lambda text: text.replace(",A,", ",,"), r"names 0 readers"),
        (lambda text: text.replace(",3,", ",6,", 1), r"has a rating '6'; they go from 1 to 5"),
        (lambda text: text.replace(",3,", ",,", 1), r"has a rating ''"),
        (lambda text: text.rsplit("\n", 2)[0] + "\n", r"rates 9 of 10 images once each"),
        (lambda text: text + text.split("\n", 2)[1] + "\n", r"rates 10 of 10 images once each"),
        (lambda text: text.split("\n")[0] + "\n", r"answers study , and the key is of"),
        (lambda text: text.encode() + b"\xff\xfe", r"cannot be read"),
    ],
)
def test_answers_that_are_none(study, tmp_path, change, words):
    path = tmp_path / "a.csv"
    answered(study[0], path, [3] * 10)
    changed = change(path.read_text().replace("\r\n", "\n"))
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    with pytest.raises(PixmedError, match=words) as error:
        readers.score(study[0], str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_answers_that_are_not_there_or_there_twice(study, tmp_path):
    with pytest.raises(PixmedError, match=r"none\.csv: cannot be read"):
        readers.score(study[0], str(tmp_path / "none.csv"))
    with pytest.raises(PixmedError, match=r"holds no CSV files"):
        readers.score(study[0], str(tmp_path))
    for name in ("1.csv", "2.csv"):
        answered(study[0], tmp_path / name, [3] * 10)
    with pytest.raises(PixmedError, match=r"another file has answers of 'A' too"):
        readers.score(study[0], str(tmp_path))


# ---------------------------------------------------------------- the page
@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


def test_a_reader_answers_goes_back_pauses_and_saves(browser, study, tmp_path):
    address = f"file://{study[0] / 'reader' / 'page.html'}"
    browser.get(address)
    press = browser.find_element("tag name", "body").send_keys
    by_id = lambda name: browser.find_element("id", name)  # noqa: E731
    place = lambda: by_id("place").text  # noqa: E731
    assert place() == "Slice 1 of 10" and not by_id("back").is_enabled()
    press("2")
    browser.find_elements("css selector", "[data-rating]")[3].click()
    assert place() == "Slice 3 of 10"
    press("\ue003")  # Backspace
    assert place() == "Slice 2 of 10"
    press("5")

    # Chromium writes behind, and what a page kept in its last moment may go with its process. So the page is
    # opened anew beside the first one, which stays until its answers have arrived.
    browser.switch_to.new_window("tab")

    def reopened(_) -> bool:
        browser.get(address)
        return place() == "Slice 3 of 10"

    pause = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait(browser, 60)
    pause.until(reopened)
    for rating in "12345123":
        browser.find_element("tag name", "body").send_keys(rating)
    assert by_id("end").is_displayed() and not by_id("save").is_enabled()
    by_id("name").send_keys('Dr "A", B')
    assert by_id("save").is_enabled()
    path = tmp_path / "a.csv"
    path.write_text(by_id("text").get_attribute("value"))
    result = readers.score(study[0], str(path))
    assert result["readers"][0]["reader"] == 'Dr "A", B'
    generated = np.array([row["is"] == "generated" for row in study[1]])
    given = np.array([2, 5, 1, 2, 3, 4, 5, 1, 2, 3])
    assert result["auc"] == pytest.approx(readers.auc(given, generated, np.ones(10)))
    assert browser.get_log("browser") == []
