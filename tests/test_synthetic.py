"""Synthetic slices train and never test; whoever the generator has seen is in no split that judges."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixmed_jax.data import phantom, synthetic
from pixmed_jax.data.slices import Source
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import facts

OPTIONS = {"size": 32, "load_scale": 1.0, "channels": 1, "seed": 0}
SPLIT = {"train": (0, 1, 2, 3), "val": (4,), "test": (5,)}  # patients
HEAD = ("file", "label", "patient_group", "source", "low", "high", "tumor_source", "tumor_group")


@pytest.fixture
def root(tmp_path) -> Path:
    """Twelve slices of six patients, split as SPLIT says."""
    home = {patient: name for name, patients in SPLIT.items() for patient in patients}
    rows = ["file,label,patient_group,part"]
    for patient in range(6):
        for i, s in enumerate(phantom.patient_slices(patient, size=64, count=2)):
            name = f"{2 * patient + i:02}.png"
            for kind, pixels in (("images", s.image), ("masks", s.mask * np.uint8(255))):
                (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / "data" / kind / name)
            rows.append(f"{name},{phantom.LABEL_NAMES[patient % 3]},p{patient},{home[patient]}")
    (tmp_path / "data" / "meta.csv").write_text("\n".join(rows))
    return tmp_path / "data"


def row(i: int, label: str = "glioma", who: int = 1, tumor: int = 1, **changes) -> dict[str, str]:
    told = (
        f"{i:05}.png",
        label,
        f"p{who}",
        f"{2 * who:02}.png",
        "0",
        "255",
        f"{2 * tumor:02}.png",
        f"p{tumor}",
    )
    return dict(zip(HEAD, told, strict=True)) | changes


def write(path: Path, rows, trained_on=(0, 1, 2, 3), masks: bool = True) -> Path:
    """A sampled folder: image i is i + 1 everywhere, its mask the upper left corner."""
    for kind in ("images", "masks") if masks else ("images",):
        (path / kind).mkdir(parents=True, exist_ok=True)
    for i, entry in enumerate(rows):
        name = Path(entry["file"]).name or "none.png"
        Image.fromarray(np.full((32, 32), i + 1, np.uint8)).save(path / "images" / name, format="PNG")
        if masks:
            mask = np.zeros((32, 32), np.uint8)
            mask[:9, :9] = 255 * (entry["label"] != "no_tumor")
            Image.fromarray(mask).save(path / "masks" / name, format="PNG")
    with (path / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, HEAD)
        table.writeheader()
        table.writerows(rows)
    if trained_on is not None:
        files = {f"{2 * p + i:02}.png": f"p{p}" for p in trained_on for i in (0, 1)}
        (path / "trained_on.json").write_text(json.dumps({"step": 1, "config": "", "files": files}))
    return path


def opened(root: Path, sampled: Path | None = None, **changes):
    made = {"synthetic_dir": str(sampled)} if sampled else {}
    options = {"split": {}, "split_column": "part", "condition": "tumor", **OPTIONS, **made, **changes}
    return open_dataset(source="folder", dir=str(root), **options)


def names(dataset, split: str) -> list[str]:
    return [dataset.source.files[i] for i in dataset.rows[split]]


@pytest.mark.parametrize("how", ["add", "replace"])
def test_synthetic_slices_train_only(root, tmp_path, how, capsys):
    rows = [row(0, "pituitary"), row(1, "meningioma"), row(2)]
    alone, both = opened(root), opened(root, write(tmp_path / "s", rows), synthetic=how)
    made = ["synthetic/00000.png", "synthetic/00001.png", "synthetic/00002.png"]
    assert names(both, "train") == (names(alone, "train") if how == "add" else []) + made
    for split in ("val", "test"):
        assert names(both, split) == names(alone, split)
    arrays, slices = both.load(both.rows["train"], 32)
    first = len(names(both, "train")) - 3
    assert arrays.images[first:, 0, 0, 0].tolist() == [1, 2, 3]
    found = [slices.label_names[i] for i in arrays.labels[first:]]
    assert found == ["pituitary", "meningioma", "glioma"]
    assert slices.groups[first:] == ("p1",) * 3
    assert (np.asarray(arrays.maps[first:]) > 0).sum((1, 2)).tolist() == [81] * 3
    assert (slices.masks[first:].max((1, 2)) - 1).tolist() == arrays.labels[first:].tolist()
    beside = 8 if how == "add" else 0
    assert f"3 synthetic slices train, beside {beside} real ones" in capsys.readouterr().err
    if how == "add":
        np.testing.assert_array_equal(arrays.images[:first], alone.load(alone.rows["train"], 32)[0].images)
    # What the next generator would be trained on is on record.
    assert set(both.description()["behind"].values()) == {"p0", "p1", "p2", "p3"}
    assert "behind" not in alone.description()


def test_spare_patients_behind_synthetic_slices_are_not_tested_on(root, tmp_path):
    """Training does not mind whose slices the generator saw among them; a score on them would be void."""
    half = {"split": {"by": "patient", "keep": 0.5}}
    alone = opened(root, **half)
    kept, spare = ({alone.source.groups[i] for i in alone.rows[name]} for name in ("train", "spare"))
    assert (len(kept), len(spare)) == (2, 2)
    for patients in (kept, kept | spare):
        who = sorted(int(name.removeprefix("p")) for name in patients)
        sampled = write(tmp_path / f"s{len(who)}", [row(0, who=who[0], tumor=who[0])], trained_on=who)
        workdir = tmp_path / f"run{len(who)}"
        workdir.mkdir()
        (workdir / "split.json").write_text(json.dumps(opened(root, sampled, **half).description()))
        data = {**OPTIONS, **half, "source": "folder", "dir": str(root), "split_column": "part"}
        config = {"seed": data.pop("seed"), "data": {**data, "synthetic_dir": str(sampled)}}
        assert set(facts.open_data(workdir, config, "val+test").of("test")) == set(alone.of("test"))
        if patients == kept:
            tested = facts.open_data(workdir, config, "val+test+spare").of("val+test+spare")
            assert len(tested) == 2 * (1 + 1 + 2)
        else:
            with pytest.raises(PixmedError, match=r"come from 2 patients of this run's spare split"):
                facts.open_data(workdir, config, "spare")
        (workdir / "split.json").unlink()
        with pytest.raises(PixmedError, match=r"split\.json: missing or unreadable, so nobody knows"):
            facts.open_data(workdir, config, "spare")


def recorded(workdir: Path, record: dict | None, root: Path, **changes) -> tuple[Path, dict]:
    """A run's folder with this record, and its config."""
    workdir.mkdir()
    if record is not None:
        (workdir / "split.json").write_text(json.dumps(record))
    data = {
        **OPTIONS,
        "split": {"by": "patient"},
        "source": "folder",
        "dir": str(root),
        "split_column": "part",
    }
    return workdir, {"seed": data.pop("seed"), "data": {**data, **changes}, "model": {"generator": {}}}


def test_without_a_record_spare_patients_are_tested_on_where_nobody_can_be_behind(root, tmp_path):
    half = {"split": {"by": "patient", "keep": 0.5}}
    run = recorded(tmp_path / "run", None, root, **half)
    assert set(facts.open_data(*run, "spare").of("spare")) == set(opened(root, **half).of("spare"))


def test_synthetic_slices_of_a_record_are_no_change_of_the_data(root, tmp_path):
    """Who evaluates on the training slices opens the real ones alone."""
    sampled = write(tmp_path / "s", [row(0), row(1)])
    both = opened(root, sampled).description()
    run = recorded(tmp_path / "run", both, root, synthetic_dir=str(sampled))
    assert len(facts.open_data(*run, "train").of("train")) == 8
    del both["train"]["00.png"]
    run = recorded(tmp_path / "other", both, root, synthetic_dir=str(sampled))
    with pytest.raises(PixmedError, match=r"1 slices of train are new or gone \(00.png\)"):
        facts.open_data(*run, "train")


@pytest.mark.filterwarnings("ignore:data.split.by=slice")
def test_whoever_trained_and_is_tested_now_is_told_as_the_split_goes(root, tmp_path):
    """The other slice of the patient trained too: by slice that is accepted, by patient it is not."""
    record = {**opened(root).description(), "train": {"08.png": "p4", "00.png": "p0"}}
    for by, told in (
        ("patient", "1 patients that are in val now (p4)"),
        ("slice", "1 slices that are in val"),
    ):
        run = recorded(tmp_path / by, record, root, split={"by": by})
        with pytest.raises(PixmedError, match=f"was trained on {re.escape(told)}"):
            facts.open_data(*run, "val")
    record["train"]["09.png"] = record["train"].pop("08.png")
    (root / "meta.csv").write_text((root / "meta.csv").read_text().replace("p4,val", "p4,test", 1))
    run = recorded(tmp_path / "half", record, root, split={"by": "slice"})
    assert len(facts.open_data(*run, "test").of("test")) == 3


def test_where_all_train_nobody_is_spare(root):
    dataset = opened(root)
    assert dataset.of("val+test+spare").tolist() == dataset.of("val+test").tolist()
    assert "spare" not in dataset.description()


def test_several_folders_train_together(root, tmp_path, capsys):
    """Their files have the same names; whoever is behind any of them is on record, and judged each."""
    first = write(tmp_path / "s, 1", [row(0, "pituitary"), row(1)], trained_on=(0, 1))
    second = write(tmp_path / "t", [row(0, "meningioma", who=2, patient_group="")], trained_on=(2,))
    both = opened(root, first)
    assert names(both, "train")[-2:] == ["synthetic/00000.png", "synthetic/00001.png"]  # one, with a comma
    first = first.rename(tmp_path / "s")
    both = opened(root, f"{first}, {second}")
    made = ["synthetic/1/00000.png", "synthetic/1/00001.png", "synthetic/2/00000.png"]
    assert names(both, "train") == names(opened(root), "train") + made
    assert "3 synthetic slices train, beside 8 real ones" in capsys.readouterr().err
    assert both.source.groups[-1] == made[-1]
    arrays, slices = both.load(both.rows["train"], 32)
    assert arrays.images[-3:, 0, 0, 0].tolist() == [1, 2, 1]
    assert [slices.label_names[i] for i in arrays.labels[-3:]] == ["pituitary", "glioma", "meningioma"]
    assert slices.limits[-3:].tolist() == [[0, 255]] * 3
    assert set(both.description()["behind"].values()) == {"p0", "p1", "p2", ""}
    again = opened(root, f"{first},{second}", synthetic="oversample")
    assert len(again.rows["train"]) == 8 + 3
    third = write(tmp_path / "u", [row(0)], trained_on=(5,))
    with pytest.raises(
        PixmedError, match=r"/u: its generator .* test split \(p5\); .* as of another site, rena"
    ):
        opened(root, f"{first},{third}")
    with pytest.raises(PixmedError, match=r"data\.synthetic_dir=',': names no folder"):
        opened(root, ",")


def test_real_slices_in_the_place_of_synthetic_ones(root, tmp_path, capsys):
    """As many of each label, all of them training slices, a label's in turn; nothing synthetic is read."""
    rows = [row(i, "pituitary") for i in range(7)] + [row(7, "glioma")]
    alone = opened(root)
    again = opened(root, write(tmp_path / "s", rows), synthetic="oversample")
    assert again.source.files == alone.source.files
    train, first = again.rows["train"], alone.rows["train"]
    assert train[: len(first)].tolist() == first.tolist() and len(train) == len(first) + 8
    more = train[len(first) :]
    assert set(more) <= set(first)
    labels = [again.source.label_names[i] for i in again.source.labels[more]]
    assert labels == ["pituitary"] * 7 + ["glioma"]
    known = [row for row in first if again.source.labels[row] == again.source.labels[more[0]]]
    counts = [more[:7].tolist().count(row) for row in known]
    assert max(counts) - min(counts) <= 1 and min(counts) >= 1
    for split in ("val", "test"):
        assert names(again, split) == names(alone, split)
    arrays, _ = again.load(train, 32)
    assert len(arrays.images) == len(train)
    assert "behind" not in again.description()
    assert "8 real slices train once more" in capsys.readouterr().err


def test_a_label_that_no_training_slice_has_cannot_be_taken_once_more(root, tmp_path):
    first = phantom.LABEL_NAMES[0]  # that of patients 0 and 3
    made = write(tmp_path / "s", [row(0, first)])
    text = (root / "meta.csv").read_text().replace("p0,train", "p0,val").replace("p3,train", "p3,val")
    (root / "meta.csv").write_text(text)
    (made / "trained_on.json").write_text('{"files": {"02.png": "p1"}}')
    with pytest.raises(PixmedError, match=f"no training slice is labelled '{first}' to be taken once more"):
        opened(root, made, synthetic="oversample")


@pytest.mark.parametrize(
    ("rows", "trained_on", "split"),
    [
        ([row(0)], (0, 1, 5), "test"),  # the generator has seen patient 5
        ([row(0)], (4,), "val"),
        ([row(0, who=5)], (0,), "test"),  # the anatomy is patient 5's
        ([row(0), row(1, tumor=4)], (0,), "val"),  # the tumour is patient 4's
    ],
)
def test_whoever_judges_was_not_seen(root, tmp_path, rows, trained_on, split):
    with pytest.raises(PixmedError, match=f"1 patients of this run's {split} split") as caught:
        opened(root, write(tmp_path / "s", rows, trained_on))
    assert "\n" not in str(caught.value) and "--sample.split=train" in str(caught.value)


def test_a_split_by_slice_compares_files(root, tmp_path):
    """Patient 5's slices are 10 and 11, which no generator has seen here; 08 is one it has."""
    made = write(tmp_path / "s", [row(0)], trained_on=(0,))
    with pytest.warns(UserWarning, match="by=slice"):
        opened(root, made, split={"by": "slice"})
    (made / "trained_on.json").write_text('{"files": {"08.png": "p0"}}')
    with (
        pytest.warns(UserWarning, match="by=slice"),
        pytest.raises(PixmedError, match=r"1 slices of this run's val split \(08.png\)"),
    ):
        opened(root, made, split={"by": "slice"})


def test_data_without_patients_cannot_tell_and_say_so(tmp_path):
    for i in range(12):
        path = tmp_path / "classes" / ("glioma", "pituitary")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (32, 32), np.uint8)).save(path)
    made = write(tmp_path / "s", [row(0)], masks=False)
    with pytest.warns(UserWarning) as told:
        dataset = open_dataset(
            source="classes", dir=str(tmp_path / "classes"), split={"by": "slice"}, condition="tumor",
            synthetic_dir=str(made), **OPTIONS,
        )  # fmt: skip
    assert any("their patients are unknown here" in str(w.message) for w in told)
    arrays, _ = dataset.load(dataset.rows["train"], 32)
    assert arrays.images[-1, 0, 0, 0] == 1 and not arrays.maps.any()


def test_a_folder_that_does_not_say_whom_it_has_seen(root, tmp_path):
    made = write(tmp_path / "s", [row(0)], trained_on=None)
    with pytest.raises(PixmedError, match=r"trained_on.json: missing.*data.synthetic_trust=true"):
        opened(root, made)
    assert len(names(opened(root, made, synthetic_trust=True), "train")) == 9
    # Trust is about the generator; the manifest still speaks of the masks.
    write(made, [row(0, who=5)], trained_on=None)
    with pytest.raises(PixmedError, match="this run's test split"):
        opened(root, made, synthetic_trust=True)
    for text in ("{", "[]", '{"files": ["a"]}', '{"files": {"a": 1}}', "[" * 100_000):
        (made / "trained_on.json").write_text(text)
        with pytest.raises(PixmedError, match=r"trained_on.json: unreadable") as caught:
            opened(root, made)
        assert "\n" not in str(caught.value)


def test_slices_without_a_tumour(root, tmp_path, capsys):
    """A segmenter learns from an empty mask; there is no class for a classifier to learn."""
    from pixmed_jax.data.synthetic import read

    made = write(tmp_path / "s", [row(0), row(1, "no_tumor"), row(2)])
    dataset = opened(root, made)
    arrays, _ = dataset.load(dataset.rows["train"], 32)
    assert np.asarray(arrays.maps[-3:]).any((1, 2)).tolist() == [True, False, True]
    found = read(made, ("glioma", "meningioma"), labelled=True, masked=False).source
    assert found.files == ("synthetic/00000.png", "synthetic/00002.png")
    assert "1 of 3 slices are labelled no_tumor and left out" in capsys.readouterr().err
    known = read(made, ("glioma", "no_tumor"), labelled=True, masked=False).source
    assert known.labels.tolist() == [0, 1, 0]


def test_limits_are_the_manifests(root, tmp_path):
    made = write(tmp_path / "s", [row(0, low="-100", high="400"), row(1)])
    dataset = opened(root, made)
    _, slices = dataset.load(dataset.rows["train"], 32)
    assert slices.limits[-2:].tolist() == [[-100, 400], [0, 255]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda p: write(p, [row(0, "meningiom")]), "labels 'meningiom' are not among"),
        (lambda p: write(p, [row(0, "")]), "labels '' are not among"),
        (lambda p: write(p, [row(0), row(0)]), r"1 files have several rows \(00000.png\)"),
        (lambda p: write(p, [row(0, file="../x.png")]), "1 names are not those of PNG files"),
        (lambda p: write(p, [row(0, file="/x.png")]), "1 names are not those of PNG files"),
        (lambda p: write(p, [row(0, file="00000.nii.gz")]), "1 names are not those of PNG files"),
        (lambda p: write(p, [row(0, low="nan")]), "has low 'nan', high '255'"),
        (lambda p: write(p, [row(0, low="9", high="9")]), "has low '9', high '9'"),
        (lambda p: write(p, []), "no slices to train on"),
        (lambda p: (write(p, [row(0)]) / "images/00000.png").unlink(), "1 files are unusable"),
        (lambda p: (write(p, [row(0)]) / "images/00000.png").write_bytes(b"PNG"), "1 files are unusable"),
        (
            lambda p: Image.new("L", (31, 32)).save(write(p, [row(0)]) / "masks/00000.png"),
            "its mask has another size",
        ),
        (lambda p: write(p, [row(0)], masks=False), "has no masks, and this network is trained on them"),
        (lambda p: (write(p, [row(0)]) / "manifest.csv").unlink(), "manifest.csv: missing"),
        (lambda p: (write(p, [row(0)]) / "manifest.csv").write_text("a,b\n"), "no column file, label"),
    ],
)
def test_faults_are_told_in_a_line(root, tmp_path, change, told):
    change(tmp_path / "s")
    with pytest.raises(PixmedError, match=told) as caught:
        opened(root, tmp_path / "s")
    assert "\n" not in str(caught.value) and str(tmp_path / "s") in str(caught.value)


def test_a_mask_of_other_values_is_refused_when_it_is_read(root, tmp_path):
    made = write(tmp_path / "s", [row(0)])
    Image.new("L", (32, 32), 7).save(made / "masks/00000.png")
    dataset = opened(root, made)
    with pytest.raises(PixmedError, match="values 7 instead of 0 and 255"):
        dataset.load(dataset.rows["train"], 32)


def test_settings_that_do_not_exist(root, tmp_path):
    with pytest.raises(PixmedError, match=r"s: no such folder; set data.synthetic_dir"):
        opened(root, tmp_path / "s")
    with pytest.raises(PixmedError, match=r"data\.synthetic='mix' is unknown; use one of add, replace"):
        opened(root, write(tmp_path / "s", [row(0)]), synthetic="mix")


def test_a_generator_of_nameless_patients_is_known_by_its_files(root, tmp_path):
    """Trained on this folder before it had a table: each file was its own patient."""
    sampled = write(tmp_path / "s", [row(0, who=0, tumor=0, patient_group="", tumor_group="")], None)

    def told(*patients: int, folder: str = "") -> None:
        files = {
            f"{folder}{2 * p + i:02}.png": f"{folder}{2 * p + i:02}.png" for p in patients for i in (0, 1)
        }
        (sampled / "trained_on.json").write_text(json.dumps({"files": files}))

    told(0, 1)
    assert opened(root, sampled).rows["train"].size == 9
    told(0, 5)
    with pytest.raises(PixmedError, match=r"come from 1 patients of this run's test split \(p5\)"):
        opened(root, sampled)
    told(0, 5, folder="elsewhere/")
    with (sampled / "manifest.csv").open() as table:
        entries = [{**entry, "source": "", "tumor_source": ""} for entry in csv.DictReader(table)]
    write(sampled, entries, None)
    with pytest.warns(UserWarning, match="nobody can tell.*trained on slices of unknown patients"):
        opened(root, sampled)


def test_real_names_that_do_not_meet_are_other_patients(root, tmp_path):
    """Two data sets may both have a 00.png."""
    sampled = write(tmp_path / "s", [row(0, patient_group="q1", tumor_group="q1")], None)
    files = {f"{i:02}.png": f"q{i}" for i in range(12)}
    (sampled / "trained_on.json").write_text(json.dumps({"files": files}))
    assert opened(root, sampled).rows["train"].size == 9


@pytest.mark.parametrize(("real", "made"), [(np.uint16, np.uint8), (np.uint8, np.uint16)])
def test_depths_meet_by_their_full_ranges(root, tmp_path, real, made):
    if real == np.uint16:
        for path in (root / "images").iterdir():
            Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 257).save(path)
    sampled = write(tmp_path / "s", [row(0)])
    ends = np.array([[0, 100], [200, 255]], made) * made(257 if made == np.uint16 else 1)
    Image.fromarray(ends.repeat(16, 0).repeat(16, 1)).save(sampled / "images" / "00000.png")
    dataset = opened(root, sampled)
    _, slices = dataset.load(dataset.rows["train"], 32)
    assert slices.images.dtype == real
    assert np.unique(slices.images[-1]).tolist() == [
        v * (257 if real == np.uint16 else 1) for v in (0, 100, 200, 255)
    ]


def test_limits_may_fall(root, tmp_path):
    """Older manifests have them so where the lowest value is white; slices have the range as it is shown."""
    sampled = write(tmp_path / "s", [row(0, low="4095", high="0")])
    dataset = opened(root, sampled)
    assert dataset.load(dataset.rows["train"], 32)[1].limits[-1].tolist() == [0, 4095]


def test_masks_of_several_classes_take_no_slices_that_have_one(root, tmp_path):
    for path in (root / "masks").iterdir():
        pixels = np.asarray(Image.open(path)).copy() // 255
        pixels[:3, :3] = 2
        Image.fromarray(pixels).save(path)
    sampled = write(tmp_path / "s", [row(0, "class 2")])
    with pytest.raises(PixmedError, match=r"show several classes; set data\.class_channels=false"):
        opened(root, sampled, class_channels=True, label_column="")
    assert opened(root, sampled, label_column="").rows["train"].size == 9


def test_the_slices_that_train_once_more_are_of_many_patients():
    """Rows lie by patient: the first ten of twenty patients' would be of five of them."""
    groups = tuple(f"p{i // 2:02}" for i in range(40))
    files = tuple(f"{i:02}.png" for i in range(40))
    real = Source(files, np.zeros(40, int), ("glioma",), groups, ("",) * 40, lambda row: None)
    more = synthetic._again("s", real, np.arange(40), np.zeros(10, int))
    assert len(set(more.tolist())) == 10
    assert len({groups[i] for i in more}) > 6


def test_what_a_generator_drew_has_no_length_and_trains_by_its_column_too(root, tmp_path):
    """A generator knows no millimetres, and another slice's would be wrong; `given` has an entry a slice."""
    real = opened(root).source._replace(pixel=lambda row: 0.5)
    made = synthetic.read(
        write(tmp_path / "s", [row(0), row(1)]), real.label_names, labelled=False, masked=True
    )
    both = synthetic._chain(real, made.source)
    assert [both.pixel(i) for i in (0, 11, 12, 13)] == [0.5, 0.5, None, None]
    assert both.given[12:] == ("train", "train") and both.given[:12] == real.given
    assert both.take([13, 4]).given == ("train", "train")


def test_who_learns_labels_needs_no_masks_of_samples(root, tmp_path):
    made = write(tmp_path / "s", [row(0), row(1)], masks=False)
    assert len(names(opened(root, made, condition="label"), "train")) == 8 + 2


def test_a_sampling_is_known_by_its_manifest_its_pictures_and_their_names(tmp_path, monkeypatch):
    """And by nothing else, such as where it lies, or in which order a file system lists it."""

    def digest(place: str, change=lambda path: None) -> str:
        path = write(tmp_path / place, [row(0), row(1)])
        (path / "conditions").mkdir()
        for name in ("00000.png", "00001.png"):
            (path / "conditions" / name).write_bytes((path / "masks" / name).read_bytes())
        change(path)
        return synthetic.contents(path)

    changes = (
        lambda path: (path / "images" / "00001.png").rename(path / "images" / "00002.png"),
        lambda path: (path / "images" / "00001.png").unlink(),
        lambda path: (path / "conditions" / "00001.png").write_bytes(b""),
        lambda path: (path / "manifest.csv").write_text("file,label\n"),
    )
    assert len({digest("a"), *(digest(f"b{i}", change) for i, change in enumerate(changes))}) == 5
    honest, listed = Path.glob, []
    for falling in (False, True):
        monkeypatch.setattr(Path, "glob", lambda *of, falling=falling: sorted(honest(*of), reverse=falling))
        listed.append(digest(f"c{falling}"))
    assert listed == [digest("d")] * 2


def test_whose_slices_are_not_to_train_with():
    """Either half of a pair may be of somebody held out; where nobody knows who was seen, nothing is said."""
    drawn = {"grade": "recombined", "source": "a.png", "tumor_source": "b.png"}
    why = synthetic.not_for_training
    for seen in ({"a.png"}, {"b.png"}):
        assert why([drawn], seen) == "1 are of held-out slices, which networks are tested on"
    assert why([drawn], {"a.png", "b.png"}) == why([drawn], None) == ""
    assert why([{**drawn, "tumor_source": ""}, {**drawn, "grade": ""}], {"a.png"}) == ""
    assert why([{**drawn, "grade": "reconstruction"}], None).startswith("1 are patients' own maps")


def test_a_label_is_only_taken_for_another_where_there_is_one(root, tmp_path):
    """Data without classes call every tumour the same; of two classes a third is neither."""
    made = write(tmp_path / "s", [row(0), row(1, "pituitary")])
    one = synthetic.read(made, ("tumor",), labelled=False, masked=True).source
    assert (one.labels.tolist(), one.label_names) == ([0, 0], ("tumor",))
    with pytest.raises(PixmedError, match="labels 'pituitary' are not among glioma, meningioma"):
        synthetic.read(made, ("glioma", "meningioma"), labelled=False, masked=True)
