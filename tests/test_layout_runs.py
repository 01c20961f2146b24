"""A layout model from training to pairs: what it draws is painted, judged and refused by name."""

import json
import shutil
from collections import Counter

import jax
import numpy as np
import pytest
import runs
from PIL import Image
from runs import pixels, rows
from test_cards import faults
from test_report import Page

from pixmed_jax import inference, layouts, sampling
from pixmed_jax.data import plausible, sources, synthetic
from pixmed_jax.data.slices import plane_values
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import rows as rows_of_comparison
from pixmed_jax.evaluation.audit import audit
from pixmed_jax.evaluation.evaluate import evaluate, summary
from pixmed_jax.export.export import export
from pixmed_jax.sampling import sample
from pixmed_jax.training.dry_run import dry_run
from pixmed_jax.training.loop import train
from pixmed_jax.training.start import open_data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The generator of the tests."""
    return runs.trained(tmp_path_factory)


@pytest.fixture(scope="module")
def layout_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("layout") / "run"
    assert train(runs.preset(tmp_path_factory, "layout"), workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def model(layout_run):
    return layouts.load(layout_run)


@pytest.fixture(scope="module")
def data(run):
    """(label maps, labels, dataset) of the training split."""
    config = json.loads((run / "config.json").read_text())
    dataset = open_dataset(**config["data"], seed=config["seed"])
    arrays, slices = dataset.load(dataset.rows["train"], dataset.size)
    return np.asarray(arrays.maps), slices.labels, dataset


@pytest.fixture
def drawing(monkeypatch, model, data):
    """A layout model that draws the training map which its seed picks, of the class it is told."""
    maps, labels, _ = data

    def draw(self, values, planes, *, seeds, batch_size=8):
        assert values.min() >= 1
        of = [maps[labels == value - 1] for value in values]
        return np.stack([some[int(seed) % len(some)] for some, seed in zip(of, seeds, strict=True)])

    monkeypatch.setattr(layouts.Layouts, "__call__", draw)
    monkeypatch.setattr(layouts, "load", lambda *_: model)


def test_drawn_maps_follow_class_and_seed(model):
    values = np.array([1, 2, 3, 1, 2], np.uint8)
    nowhere, seeds = np.zeros(5), np.arange(5, dtype=np.uint32)
    maps = model(values, nowhere, seeds=seeds, batch_size=4)
    assert maps.shape == (5, 32, 32) and maps.dtype == np.uint8
    for one, value in zip(maps, values, strict=True):
        assert set(np.unique(one)) <= {0, int(value), 4}
    np.testing.assert_array_equal(model(values[3:], nowhere[3:], seeds=seeds[3:], batch_size=4), maps[3:])
    assert model.tumors == ("meningioma", "glioma", "pituitary") and model.classes[3] == "head"


def test_refused_maps_are_drawn_again_and_counted(model, monkeypatch):
    """A model that draws nothing at the first look, and a plausible head at the second."""
    good = np.zeros((32, 32), np.uint8)
    good[4:28, 4:28], good[12:16, 12:16] = 4, 2
    looks = []

    def draw(self, values, planes, *, seeds, batch_size=8):
        looks.append(seeds.tolist())
        return np.stack([np.zeros_like(good) if len(looks) == 1 and i else good for i in range(len(values))])

    monkeypatch.setattr(layouts.Layouts, "__call__", draw)
    refused: Counter[str] = Counter()
    maps = layouts.plausible(model, np.array([2, 2, 2]), np.zeros(3), 5, refused)
    assert (maps == good).all() and refused == {"layout: no tumour": 2}
    assert [len(seeds) for seeds in looks] == [3, 2] and not set(looks[0]) & set(looks[1])
    monkeypatch.setattr(
        layouts.Layouts, "__call__", lambda self, values, *_, **of: np.stack([good] * len(values))
    )
    with pytest.raises(
        PixmedError, match=r"1 of 2 layouts are not plausible .*another class.*train"
    ) as error:
        layouts.plausible(model, np.array([2, 3]), np.zeros(2), 5, Counter())
    assert "\n" not in str(error.value)


def test_a_sampling_of_layouts(run, layout_run, drawing, data, tmp_path, capsys):
    output = sample(run, layout=str(layout_run), number=7, seed=3, output=str(tmp_path / "out"))
    told = rows(output)
    assert [row["label"] for row in told] == [*["meningioma", "glioma", "pituitary"] * 2, "meningioma"]
    for row in told:
        assert [row[name] for name in ("grade", "edit", "patient_group", "source", "tumor_source")] == [
            *("sampled", "none", "", "", ""),
        ]
        assert row["layout"] == "layout@6"
        condition = pixels(output / "conditions" / row["file"])
        value = 1 + ["meningioma", "glioma", "pituitary"].index(row["label"])
        assert set(np.unique(condition)) == {0, value, 4}
        np.testing.assert_array_equal(
            pixels(output / "masks" / row["mask"]), np.where(condition == value, 255, 0)
        )
    sheet = json.loads((output / "data_sheet.json").read_text())
    assert faults(sheet, "data_sheet") == []
    assert (sheet["drawn_from"], sheet["layout"]) == ("layouts", "layout@6")
    assert sheet["contents"]["grades"] == {"sampled": 7} and "--sample.layout=LAYOUT" in sheet["command"]
    assert not sheet["privacy"]["audited"] and len(sheet["privacy"]["answers"]) == 4
    again = sample(run, layout=str(layout_run), number=7, seed=3, output=str(tmp_path / "again"))
    assert runs.tree_bytes(again) == runs.tree_bytes(output)
    short = sample(run, layout=str(layout_run), number=3, seed=3, output=str(tmp_path / "short"))
    images = {n: b for n, b in runs.tree_bytes(short).items() if n.startswith(("images", "conditions"))}
    assert images.items() <= runs.tree_bytes(output).items()
    only = sample(run, layout=str(layout_run), number=2, label="glioma", output=str(tmp_path / "only"))
    assert {row["label"] for row in rows(only)} == {"glioma"}


def test_a_sheet_quotes_the_audit_of_these_pairs_alone(layout_run, drawing, tmp_path_factory, tmp_path):
    """Drawn again, the same pairs; other seeds are other pairs of the same model and step."""
    workdir = runs.copied(tmp_path_factory, tmp_path / "run")
    given = {"layout": str(layout_run), "number": 4, "output": str(tmp_path / "out")}
    audit(workdir, number=3, samples=str(sample(workdir, **given)))

    def audited(folder):
        return json.loads((folder / "data_sheet.json").read_text())["privacy"]["audited"]

    assert audited(sample(workdir, **given))
    assert not audited(sample(workdir, **{**given, "seed": 1, "output": str(tmp_path / "other")}))


def test_both_models_patients_are_behind_it(run, layout_run, drawing, data, tmp_path, monkeypatch):
    """A layout model that was trained on others, one of them a test patient of who would train on it."""
    _, _, dataset = data
    known = sampling._trained_on

    def of_layouts(told):
        monkeypatch.setattr(sampling, "_trained_on", lambda of: told if of == layout_run else known(run))

    of_layouts({"elsewhere.png": dataset.source.groups[dataset.rows["test"][0]]})
    output = sample(run, layout=str(layout_run), number=3, output=str(tmp_path / "out"))
    behind = json.loads((output / "trained_on.json").read_text())["files"]
    assert behind.keys() == {"elsewhere.png", *json.loads((run / "split.json").read_text())["train"]}
    joined = {"how": "add", "by": "patient", "labelled": False, "trust": False}
    with pytest.raises(PixmedError, match="come from 1 patients of this run's test split"):
        synthetic.join(dataset.source, dataset.rows, output, **joined)
    of_layouts(None)
    unknown = sample(run, layout=str(layout_run), number=3, output=str(tmp_path / "unknown"))
    assert not (unknown / "trained_on.json").exists()
    of_layouts(known(run))
    clean = sample(run, layout=str(layout_run), number=3, output=str(tmp_path / "clean"))
    source, split, _ = synthetic.join(dataset.source, dataset.rows, clean, **joined)
    assert len(split["train"]) == len(dataset.rows["train"]) + 3
    image, mask = source.read(int(split["train"][-1]))
    assert image.shape == (32, 32) and set(np.unique(mask)) == {0, 3}


def test_what_does_not_go_together(run, layout_run, model, tmp_path, monkeypatch):
    def refused(words, **options):
        with pytest.raises(PixmedError, match=words) as error:
            sample(
                run, **{"layout": str(layout_run), "output": str(tmp_path / "out"), "number": 2, **options}
            )
        assert "\n" not in str(error.value) and not (tmp_path / "out").exists()

    refused(r"sample\.layout draws the masks itself; leave sample\.masks out", masks=str(tmp_path))
    refused(r"sample\.edit=move .*leave sample\.layout out", edit="move")
    refused(r"sample\.number=0: say how many", number=0)
    refused(r"sample\.label='lymphoma' is not one of meningioma, glioma, pituitary", label="lymphoma")
    refused(r"sample\.plane='axial' is not known to this model; .*data\.planes=true", plane="axial")
    refused(r"sample\.plane is for what sample\.layout draws", plane="axial", layout="")
    refused("holds a ghost, which draws no label maps; give a run of configs/layout.py", layout=str(run))
    small = layouts.load(layout_run)
    small.size = 16
    monkeypatch.setattr(layouts, "load", lambda *_: small)
    refused(r"the layout model draws tumor\+head at 16 x 16 .*this generator paints tumor\+head at 32 x 32")


def test_nothing_else_takes_a_layout_run(layout_run):
    for load in (inference.load, inference.load_network):
        with pytest.raises(PixmedError, match="holds a layout, which"):
            load(layout_run)
    with pytest.raises(PixmedError, match=r"evaluate\.features and evaluate\.lpips judge images"):
        evaluate(layout_run, features="inception")


def test_the_evaluation(layout_run, drawing, data):
    dataset = data[2]
    result = evaluate(layout_run)
    stored = json.loads((layout_run / "evaluation.json").read_text())
    assert stored == json.loads(json.dumps(result)) and stored["predicts"] == "layouts"
    assert stored["n"] == len(dataset.rows["test"]) and stored["memorisation"]["n"] == stored["n"]
    # What was drawn are training maps again.
    assert stored["memorisation"]["copies"] == stored["n"] and stored["memorisation"]["ratio"] < 0.01
    assert set(stored["shares"]) == {"head", "glioma", "pituitary"}  # no test patient has another
    for of in stored["shares"].values():
        assert 0 < of["drawn"][0] <= of["drawn"][1] <= of["drawn"][2] < 1 and 0 <= of["apart"] <= 1
    page = (layout_run / "report" / "index.html").read_text()
    assert "Kolmogorov" not in page and "memorisation ratio" in Page(page).text
    lines = summary(result).splitlines()
    assert "copies 8 of 8" in lines[-1] and lines[1].startswith("head")


def test_the_card(layout_run, drawing):
    result = evaluate(layout_run)
    facts = json.loads((layout_run / "model_card.json").read_text())
    assert faults(facts) == [] and facts["model"]["makes"] == "layouts"
    found = {row["name"]: row for row in facts["results"]["rows"]}
    refused = found["share of draws refused"]
    assert refused["value"] == result["refused"]["drawn"]
    assert refused["beside"] == {"of real maps": result["refused"]["real"]}
    (head,) = (row for name, row in found.items() if name.startswith("share of head"))
    assert head["value"] == result["shares"]["head"]["apart"]
    assert not any("plane" in name for name in found)  # it was told none
    copies = {row["name"]: row["value"] for row in facts["memorisation"]["rows"]}
    assert copies["copies of a training slice"] == result["n"]  # what was drawn are training maps again
    page = (layout_run / "model_card.md").read_text()
    told = {}
    exec(runs.code_of(page).replace("DIR", str(layout_run)), told)
    assert told["maps"].shape == (2, 32, 32) and {1, 2} == {
        one[(one > 0) & (one < 4)].max() for one in told["maps"]
    }


def test_a_comparison_leaves_it_out(layout_run, drawing):
    evaluate(layout_run)
    with pytest.raises(PixmedError, match="draws label maps, which is not what is compared here"):
        rows_of_comparison.read(layout_run)


def test_a_dry_run_and_the_grids(layout_run, tmp_path_factory, capsys):
    from pixmed_jax.training.dry_run import dry_run

    assert dry_run(runs.preset(tmp_path_factory, "layout"), layout_run) == 0
    assert "network" in capsys.readouterr().out
    with Image.open(layout_run / "grids" / "step_000006.png") as grid:
        assert grid.width > 3 * 144


# ---------------------------------------------------------------- planes
@pytest.fixture(scope="module")
def of_planes(tmp_path_factory):
    """A layout model that is told planes; the phantom knows them all."""
    workdir = tmp_path_factory.mktemp("planes") / "run"
    assert train(runs.preset(tmp_path_factory, "layout", data__planes=True, train__steps=2), workdir) == 0
    return workdir


def test_the_data_tell_planes(of_planes):
    config = json.loads((of_planes / "config.json").read_text())
    dataset = open_dataset(**config["data"], seed=config["seed"])
    rows = dataset.rows["train"][:5]
    arrays, _ = dataset.load(rows, 32)
    named = [("axial", "coronal", "sagittal")[value - 1] for value in arrays.labels]
    assert named == [dataset.source.planes[row] for row in rows]
    assert dataset.planes == ("axial", "coronal", "sagittal") == layouts.load(of_planes).planes
    assert plane_values(["", "sagittal", "axial"]).tolist() == [0, 3, 1]


def test_a_model_of_planes_draws_by_plane(run, of_planes, data, tmp_path, monkeypatch):
    model, maps = layouts.load(of_planes), data[0]
    # After two steps of training nothing that is told is heard.
    louder = jax.tree.map(lambda weight: 30 * weight, model._variables["params"])
    model._variables = {**model._variables, "params": louder}
    told = []

    def draw(self, values, planes, *, seeds, batch_size=8):
        told.extend(zip(values.tolist(), planes.tolist(), strict=True))
        return np.stack([maps[data[1] == value - 1][0] for value in values])

    values, planes, seeds = np.ones(8), np.array([0, 1, 2, 3] * 2), np.zeros(8, np.uint32)
    drawn = model(values, planes, seeds=seeds, batch_size=8)
    assert (drawn[:4] == drawn[4:]).all() and len({one.tobytes() for one in drawn[:4]}) > 1
    monkeypatch.setattr(layouts.Layouts, "__call__", draw)
    output = sample(run, layout=str(of_planes), number=10, output=str(tmp_path / "all"))
    assert told == [(1 + i % 3, 1 + i // 3 % 3) for i in range(10)]
    assert [row["parameters"] for row in rows(output)][::3] == [
        *("plane=axial", "plane=coronal", "plane=sagittal", "plane=axial"),
    ]
    told.clear()
    sample(run, layout=str(of_planes), number=4, plane="coronal", output=str(tmp_path / "one"))
    assert [plane for _, plane in told] == [2] * 4
    with pytest.raises(PixmedError, match=r"sample\.plane='oblique' is not one of axial, coronal, sagittal"):
        sample(run, layout=str(of_planes), number=4, plane="oblique", output=str(tmp_path / "no"))


@pytest.mark.slow
def test_an_exported_model_draws_the_same(run, of_planes, tmp_path, monkeypatch):
    """Models alone, without a slice or a checkpoint of theirs, make the pairs that the runs make."""
    pytest.importorskip("onnxruntime")
    handed = {}
    for name, workdir in (("generator", run), ("layouts", of_planes)):
        copy = shutil.copytree(workdir, tmp_path / "copies" / name)
        results = export(copy)
        assert results[f"{name}.safetensors"]["difference"] == 0 and len(results) == 3
        handed[name] = shutil.move(copy / "export", tmp_path / name)
    shutil.rmtree(tmp_path / "copies")
    forms = json.loads((tmp_path / "layouts" / "config.json").read_text())["forms"]["layouts.onnx"]
    assert forms["inputs"]["wanted"] == (
        "uint8 [N, 2], tumour (1 meningioma, 2 glioma, 3 pituitary) and plane (0 unknown, 1 axial, "
        "2 coronal, 3 sagittal)"
    )
    assert [name for name in forms["inputs"] if name != "wanted"] == ["normal_0", "uniform_1", "normal_2"]
    values, planes, seeds = np.array([1, 2, 3, 1]), np.array([0, 1, 2, 3]), np.arange(4, dtype=np.uint32)
    drawn = [layouts.load(path)(values, planes, seeds=seeds) for path in (of_planes, handed["layouts"])]
    assert (drawn[0] == drawn[1]).all() and len(np.unique(drawn[0])) > 2

    monkeypatch.setattr(layouts.rules, "refusal", lambda *_: "")  # hardly trained
    made = {
        "runs": sample(run, layout=str(of_planes), number=5, output=str(tmp_path / "a")),
        "handed": sample(
            handed["generator"], layout=str(handed["layouts"]), number=5, output=str(tmp_path / "b")
        ),
    }
    for part in ("images", "masks", "conditions"):
        files = [{p.name: p.read_bytes() for p in (at / part).iterdir()} for at in made.values()]
        assert files[0] == files[1] and len(files[0]) == 5


@pytest.mark.parametrize("begin", [train, dry_run])
def test_masks_of_several_classes_are_refused_before_hours_are_spent(begin, tmp_path, tmp_path_factory):
    """Each of their maps would be refused as a tumour of another class; of the whole tumour none is."""
    config = runs.preset(tmp_path_factory, "layout")
    known = sources.SOURCES["phantom"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "SOURCES", {"phantom": lambda **of: known(**of)._replace(several=True)})
        with pytest.raises(PixmedError, match=r"channels=true: the masks show several.*=false here and"):
            begin(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        config["data"]["class_channels"] = False
        assert open_data(config).classes == ("tumor", "head")


def test_planes_that_no_slice_has(tmp_path_factory):
    config = runs.preset(tmp_path_factory, "layout", data__planes=True)
    known = sources.SOURCES["phantom"]
    with pytest.MonkeyPatch.context() as patch:
        blank = {"phantom": lambda **of: known(**of)._replace(planes=("",) * len(known(**of).files))}
        patch.setattr(sources, "SOURCES", blank)
        with pytest.raises(PixmedError, match=r"data\.planes=true: no slice's plane is known"):
            open_dataset(**config["data"], seed=0)


def test_how_many_draws_lie_in_their_plane(of_planes, tmp_path, monkeypatch):
    """A planted model draws a training map of the plane it is told, or of the plane after it."""
    config = json.loads((of_planes / "config.json").read_text())
    dataset = open_dataset(**config["data"], seed=config["seed"])
    maps = np.asarray(dataset.load(dataset.of("train"), dataset.size)[0].maps)
    planes = plane_values([dataset.source.planes[row] for row in dataset.of("train")])
    off = 0

    def draw(self, values, asked, *, seeds, batch_size=8):
        """The training map that is plausible, of the class, and of the plane asked for."""
        return np.stack(
            [
                next(
                    one
                    for one, plane in zip(maps, planes, strict=True)
                    if plane == 1 + (of - 1 + off) % 3 and not plausible.refusal(one, int(v), self.classes)
                )
                for v, of in zip(values, asked, strict=True)
            ]
        )

    monkeypatch.setattr(layouts.Layouts, "__call__", draw)
    monkeypatch.setattr(plausible, "tidied", lambda one, classes: one)
    result = evaluate(of_planes)
    assert result["planes"]["drawn"] == 1.0 and result["planes"]["real"] > 0.5
    assert "nearest training map in the plane told: 100% of the draws" in summary(result)
    facts = json.loads((of_planes / "model_card.json").read_text())
    (told,) = (row for row in facts["results"]["rows"] if "plane" in row["name"])
    assert (told["value"], told["beside"]) == (1.0, {"of real maps": result["planes"]["real"]})
    assert "lies in it for 100 % of the draws" in (of_planes / "report" / "index.html").read_text()
    off = 1
    assert evaluate(of_planes)["planes"] == {"drawn": 0.0, "real": result["planes"]["real"]}
