"""The folder stage: what comes out is what went in but for the method, faults stop nothing but themselves,
nothing is overwritten that was not its own, and scores are those of the files written."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from pixmed_jax.data import decode
from pixmed_jax.enhancement import folder
from pixmed_jax.enhancement.files import Folder, write
from pixmed_jax.enhancement.method import Method, Output
from pixmed_jax.enhancement.scores import Score, map_error, summary
from pixmed_jax.errors import PixmedError
from pixmed_jax.metrics import quality

SAME = Method("nothing", Output)
BRIGHTER = Method("brighter", lambda image: Output(image * 2, {"factor": 2.0}, {"mean": image.mean(-1)}))
HALF = Method("half", lambda image: Output(image / 2), {"factor": 0.5})
TWICE = Method("twice", lambda image: Output(image.repeat(2, 0).repeat(2, 1)))


def picture(*shape, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, shape, dtype, endpoint=True)


PICTURES = {
    "grey.png": picture(20, 30),
    "colour.png": picture(30, 20, 3),
    "sub/deep.png": picture(16, 16, dtype=np.uint16),
    "grey.tif": picture(12, 13),
    "deep.tiff": picture(13, 12, dtype=np.uint16),
    "colour.bmp": picture(11, 12, 3),
    "smooth.jpg": np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1)),
}


@pytest.fixture
def source(tmp_path):
    for name, values in PICTURES.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    return tmp_path / "in"


def run(source, method=SAME, output="out", **options):
    """(status, folder written)"""
    target = source.parent / output
    return folder.process(source, target, method, stage="enhance", **options), target


def read(path):
    return decode.read_image(path)


def settings(target):
    return json.loads((target / folder.SETTINGS).read_text())


def test_names_sizes_kinds_and_depths_are_kept(source):
    status, target = run(source)
    assert status == 0
    written = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert written == {*PICTURES, "settings.json", "report.html"}
    for name, values in PICTURES.items():
        back = read(target / name)
        assert back.dtype == values.dtype
        if name == "smooth.jpg":
            assert np.abs(back.astype(int) - values).max() <= 3
        else:
            np.testing.assert_array_equal(back, values, name)
        with Image.open(source / name) as old, Image.open(target / name) as new:
            assert (old.format, old.mode) == (new.format, new.mode)


def test_a_method_sees_floats_and_is_clipped(source):
    seen = []

    def method(image):
        seen.append((image.dtype, image.shape, float(image.max())))
        return Output(image * 2 - 0.5)

    _, target = run(source, Method("m", method))
    assert {str(dtype) for dtype, *_ in seen} == {"float32"} and all(top <= 1 for *_, top in seen)
    assert {shape for _, shape, _ in seen} >= {(20, 30, 1), (30, 20, 3)}
    values = PICTURES["sub/deep.png"] / 65535
    expected = np.rint(np.clip(2 * values - 0.5, 0, 1) * 65535)
    assert np.abs(read(target / "sub/deep.png") - expected).max() <= 1  # float32 has 24 bits


def test_a_faulty_file_is_told_and_the_others_go_on(source, capsys):
    (source / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (source / "empty.tif").touch()
    (source / "notes.txt").write_text("hello")
    status, target = run(source)
    assert status == 1
    lines = capsys.readouterr()
    assert len([x for x in lines.err.splitlines() if "bad.png" in x]) == 1
    assert "2 of 9 files could not be used" in lines.err and "1 files of other kinds" in lines.err
    assert lines.err.splitlines()[-2].endswith("were left alone: notes.txt")
    assert "7 of 9 files" in lines.out
    assert set(settings(target)["faults"]) == {"bad.png", "empty.tif"}
    assert set(settings(target)["files"]) == set(PICTURES)
    page = (target / "report.html").read_text()
    assert "bad.png" in page
    assert settings(target)["others"] == ["notes.txt"] and "<p>notes.txt.</p>" in page
    assert "1 of other kinds, or called as masks, left alone" in page


def test_the_page_says_how_many_slices_it_shows(source):
    """Eight at most, and of these no count where there are no more."""
    said = r"(\d+) of (\d+) slices, evenly spaced"
    _, target = run(source)
    assert not re.search(said, (target / "report.html").read_text())
    for i in range(3):
        Image.fromarray(picture(20, 30)).save(source / f"more{i}.png")
    (source / "more1.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    _, target = run(source)
    page = (target / "report.html").read_text()
    shown, there = map(int, re.search(said, page).groups())
    assert there == len(PICTURES) + 2 and shown == page.count("<h3>") < there


def test_the_page_names_folders_without_what_they_lie_in(source, tmp_path, capsys):
    """It is handed on; the terminal has the whole path."""
    (source / "bad.png").write_bytes(b"no picture")
    bright = tmp_path / "bright"
    bright.mkdir()
    Image.fromarray(PICTURES["grey.png"]).save(bright / "grey.png")
    (bright / "colour.png").write_bytes(b"no picture either")
    network = Method("network", Output, {"run": str(tmp_path / "a run"), "step": 3})
    status, target = run(source, network, reference=bright)
    assert status == 1 and {"bad.png", "colour.png"} == set(settings(target)["faults"])
    assert f"{source / 'bad.png'}: " in capsys.readouterr().err
    page = (target / "report.html").read_text()
    assert str(tmp_path) not in page
    for told in ("6 files of in,", "<td>bright</td>", "<td>a run</td>", "<li>bad.png: ", "<li>colour.png: "):
        assert told in page, told


def test_what_a_method_refuses_is_told_with_the_file(source, capsys):
    def refuses(image):
        if image.shape[-1] == 3:
            raise PixmedError("no colours here")
        return Output(image)

    status, target = run(source, Method("grey only", refuses))
    assert status == 1 and set(settings(target)["faults"]) == {"colour.png", "colour.bmp"}
    assert "colour.png: no colours here" in capsys.readouterr().err


def test_nothing_is_written_where_nothing_can_be_used(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(PixmedError, match="holds nothing"):
        run(tmp_path / "in")
    (tmp_path / "in" / "a.txt").touch()
    with pytest.raises(PixmedError, match=r"files of \.txt"):
        run(tmp_path / "in")
    (tmp_path / "in" / "a.png").write_bytes(b"no picture")
    with pytest.raises(PixmedError, match="none of 1 files"):
        run(tmp_path / "in")
    with pytest.raises(PixmedError, match="no such folder"):
        run(tmp_path / "missing")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_masks_beside_pictures_are_left_alone(source, capsys):
    """Between classes there is nothing: made brighter or larger, 1 and 4 would become others."""
    for name in ("a_mask.png", "case_Seg.png", "mask.png"):  # the last is a name of its own
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(source / name)
    _, target = run(source)
    written = {path.name for path in target.iterdir()}
    assert "mask.png" in written and not written & {"a_mask.png", "case_Seg.png"}
    assert "files of other kinds, or called as masks, in" in capsys.readouterr().err


def test_an_own_output_is_replaced_and_no_other(source):
    _, target = run(source)
    run(source, BRIGHTER)  # once more: what this stage wrote may go
    assert settings(target)["method"]["name"] == "brighter"
    (target / "mine.png").write_bytes(b"precious")
    with pytest.raises(PixmedError, match="holds other files"):
        run(source)
    assert (target / "mine.png").read_bytes() == b"precious" and settings(target)["files"]


def test_results_of_another_input_or_of_other_options_are_replaced_by_fresh_alone(source, tmp_path):
    """Of more files in the same folder, seen from wherever, they are replaced unasked."""
    Image.fromarray(picture(9, 9)).save(source / "late.png")
    options = {"gamma": 0.5, "reference": ""}
    _, target = run(source, options=options)
    (source / "late.png").rename(source / "later.png")
    (tmp_path / "link").symlink_to(source)
    folder.process(tmp_path / "link", target, SAME, stage="enhance", options=options)
    assert "later.png" in settings(target)["files"]

    other = tmp_path / "b"
    other.mkdir()
    Image.fromarray(picture(9, 9)).save(other / "only.png")
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    for place, changed, told in (
        (other, options, f"with --input={source};"),
        (source, options | {"gamma": 0.25}, "with --enhance.gamma=0.5;"),
        (source, options | {"reference": str(other)}, "with --enhance.reference=;"),
    ):
        with pytest.raises(PixmedError, match=re.escape(f"{target}: holds other results, made {told}")):
            run(place, options=changed)
    with pytest.raises(PixmedError, match=r"with --mode=enhance, .*; give another --output, or --fresh to"):
        folder.process(source, target, TWICE, stage="upscale", options={})
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    run(other, options=options, fresh=True)
    assert set(settings(target)["files"]) == {"only.png"}

    about = settings(target)
    del about["options"]
    (target / folder.SETTINGS).write_text(json.dumps(about))
    with pytest.raises(PixmedError, match="made by an older version; "):
        run(other, options=options)
    (target / "mine.png").write_bytes(b"precious")
    with pytest.raises(PixmedError, match="holds other files"):
        run(other, options=options, fresh=True)


@pytest.mark.parametrize("output", ["in", "in/sub/out", "."])
def test_input_and_output_lie_apart(source, output):
    before = sorted(source.rglob("*"))
    with pytest.raises(PixmedError, match="give another folder"):
        run(source, output=output)
    with pytest.raises(PixmedError, match=r"enhance\.reference"):
        run(source, output="other", reference=source.parent)
    assert sorted(source.rglob("*")) == before


def test_an_interrupted_run_leaves_nothing(source):
    def stops(image):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, Method("stops", stops))
    assert [p.name for p in source.parent.iterdir()] == ["in"]


def test_two_files_of_one_name_are_not_mixed(tmp_path):
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", picture(12, 12, seed=1))
    Image.fromarray(picture(12, 12, seed=2)).save(tmp_path / "in" / "a.npy.png")
    status, target = run(tmp_path / "in")
    assert status == 1
    np.testing.assert_array_equal(read(target / "a.npy.png"), picture(12, 12, seed=1))


def test_scores_are_of_the_files_written(source, tmp_path):
    bright = tmp_path / "bright"
    bright.mkdir()
    for name in ("grey.png", "colour.png"):
        Image.fromarray(np.clip(PICTURES[name].astype(int) * 2, 0, 255).astype(np.uint8)).save(bright / name)
    status, target = run(source, BRIGHTER, reference=bright, baselines=[HALF])
    assert status == 0
    with (target / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["file"] for row in rows} == {"grey.png", "colour.png"}
    assert {row["contender"] for row in rows} == {"before", "brighter", "half"}
    for row in rows:
        name = row["file"]
        image = {"before": PICTURES[name], "brighter": read(target / name)}.get(row["contender"])
        if image is not None:
            for metric in ("psnr", "ssim", "mse"):
                value = quality.METRICS[metric](image, read(bright / name))
                assert float(row[metric]) == pytest.approx(value, rel=1e-4, abs=1e-6)
        assert row["ms_ssim"] == ""  # too small for it
    told = settings(target)["scores"]
    assert told["brighter"]["psnr"]["mean"] == 100 and told["brighter"]["psnr"]["n"] == 2
    assert told["half"]["psnr"]["gain"] == pytest.approx(100 - told["half"]["psnr"]["mean"])
    with pytest.raises(PixmedError, match="holds no file of a name"):
        run(source, reference=tmp_path / "out" / "sub", output="other")


def test_a_degraded_picture_is_its_own_reference(source):
    factors = []

    def dark(image, rng):
        factor = rng.uniform(0.4, 0.5)
        factors.append(factor)
        return Output(image * factor, maps={"mean": np.full(image.shape[:2], factor)})

    _, target = run(source, BRIGHTER, degrade=dark)
    first = settings(target)
    assert len(set(factors)) == len(PICTURES)  # each in its own way
    assert first["degraded"] and "made worse in a known way" in (target / "report.html").read_text()
    scores = first["scores"]
    assert scores["brighter"]["psnr"]["mean"] > scores["before"]["psnr"]["mean"] + 5
    assert 0 < scores["brighter"]["map_error"]["mean"] < 1 and "map_error" not in scores["before"]
    _, again = run(source, BRIGHTER, degrade=dark, output="again")
    assert settings(again)["scores"] == scores
    (source / "grey.tif").unlink()  # no file depends on which others there are
    _, fewer = run(source, BRIGHTER, degrade=dark, output="fewer")
    np.testing.assert_array_equal(read(fewer / "colour.png"), read(target / "colour.png"))
    _, other = run(source, BRIGHTER, degrade=dark, output="other", seed=1)
    assert (read(other / "colour.png") != read(fewer / "colour.png")).any()


def test_a_gain_is_paired_and_its_interval_is_over_files():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 5, 30)  # what makes a file hard for both
    scores = [Score(f"f{i}", 0, "a", {"psnr": 20 + h}) for i, h in enumerate(hard)]
    scores += [Score(f"f{i}", 0, "b", {"psnr": 19 + h + 0.1 * rng.normal()}) for i, h in enumerate(hard)]
    told = summary(scores, "a")
    low, high = told["b"]["psnr"]["gain_interval"]
    assert told["b"]["psnr"]["gain"] == pytest.approx(1, abs=0.1) and low < 1 < high and high - low < 0.2
    low, high = told["b"]["psnr"]["interval"]
    assert high - low > 2
    many = [Score("f0", k, "a", {"psnr": 20.0 + k}) for k in range(9)]  # slices of one volume
    told = summary(many, "a")["a"]["psnr"]
    assert told["mean"] == 24 and told["interval"] is None  # one file says nothing of others


def test_the_error_of_a_map_knows_no_scale():
    true = np.random.default_rng(0).random((9, 9)) + 0.5
    assert map_error(true * 0.3, true) == pytest.approx(0, abs=1e-9)
    assert map_error(np.ones((9, 9)), true) == pytest.approx(
        np.std(true) / np.sqrt(np.square(true).mean()), abs=1e-9
    )


# ---------------------------------------------------------------- volumes
def volume(path, values, affine):
    nibabel = pytest.importorskip("nibabel")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


# Axes that are turned and mirrored against the patient's, voxels that are no cubes.
AFFINE = np.array([[0.0, -2, 0, 7], [0, 0, 3, -5], [1.5, 0, 0, 2], [0, 0, 0, 1]])


def test_a_rule_for_volumes_leaves_pictures_alone(source):
    _, target = run(source, intensity="0,100")
    for name in ("grey.png", "colour.png", "sub/deep.png"):
        np.testing.assert_array_equal(read(target / name), PICTURES[name])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_nifti_keeps_axes_place_and_units(tmp_path, dtype):
    nibabel = pytest.importorskip("nibabel")
    values = (np.random.default_rng(0).random((14, 12, 5)) * 250).astype(dtype)
    volume(tmp_path / "in" / "v.nii.gz", values, AFFINE)
    status, target = run(tmp_path / "in", intensity="0,255")
    back = nibabel.load(target / "v.nii.gz")
    assert status == 0 and back.shape == values.shape
    np.testing.assert_allclose(back.affine, AFFINE)
    np.testing.assert_allclose(back.get_fdata(), values, atol=255 / 65535)


def test_an_upscaled_nifti_covers_the_same_place(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).integers(0, 255, (14, 12, 5)).astype(np.uint8)
    volume(tmp_path / "in" / "v.nii", values, AFFINE)
    _, target = run(tmp_path / "in", TWICE)
    back = nibabel.load(target / "v.nii")
    assert back.shape == (28, 24, 5)
    np.testing.assert_array_equal(back.get_fdata(), values.repeat(2, 0).repeat(2, 1))
    # The corner of the first voxel is where it was, and so is that of the last.
    for old, new in (((-0.5, -0.5, 0), (-0.5, -0.5, 0)), ((13.5, 11.5, 4), (27.5, 23.5, 4))):
        np.testing.assert_allclose(back.affine @ [*new, 1], AFFINE @ [*old, 1])


def test_other_volumes_become_pictures_or_nifti(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    pydicom_files = pytest.importorskip("volume_files")
    (tmp_path / "in").mkdir()
    slices = picture(12, 14, 3)
    pydicom_files.dicom(tmp_path / "in" / "one.dcm", slices[..., 0])
    np.save(tmp_path / "in" / "many.npy", slices.astype(np.int16))
    status, target = run(tmp_path / "in", intensity="0,255")
    assert status == 0 and b"Roe" not in (target / "one.dcm.png").read_bytes()
    back = Folder(target, "0,255", "x")
    names = {item.name: row for row, item in enumerate(back.items)}
    assert names == {"many.npy.nii.gz": 0, "one.dcm.png": 1}
    for k in range(3):  # the same pictures, the same way up
        found = back.read(back.row_of("many.npy.nii.gz", k)) / 65535 * 255
        np.testing.assert_allclose(found, slices[..., k], atol=0.01)
    np.testing.assert_allclose(read(target / "one.dcm.png") / 65535 * 255, slices[..., 0], atol=0.01)
    assert nibabel.load(target / "many.npy.nii.gz").shape == (14, 12, 3)


@pytest.mark.parametrize("factor", [0.2, 1, 5])
def test_a_volume_is_scored_on_the_scale_of_its_reference(tmp_path, factor):
    """A dark volume over its own range looks as its reference does over its own."""
    values = np.random.default_rng(0).uniform(100, 1000, (24, 20, 3)).astype(np.float32)
    volume(tmp_path / "bright" / "v.nii.gz", values, AFFINE)
    volume(tmp_path / "in" / "v.nii.gz", values * np.float32(factor), AFFINE)
    _, target = run(tmp_path / "in", HALF, reference=tmp_path / "bright", baselines=[SAME])
    low, high = values.min(), values.max()
    half = factor * (low + (values - low) / 2)
    told = settings(target)["scores"]
    for contender, of in {"before": factor * values, "half": half, "nothing": factor * values}.items():
        differences = ((of - low) / (high - low)).clip(0, 1) - (values - low) / (high - low)
        mse = np.square(differences).mean()
        assert told[contender]["mse"]["mean"] == pytest.approx(mse, rel=1e-3, abs=1e-9), contender
    written = Folder(target, "auto", "x")
    assert written.limits(0)[0] == pytest.approx(factor * low, rel=1e-4)  # nothing of it is the reference's


def test_a_rule_of_two_numbers_holds_for_a_volume_and_its_reference(tmp_path):
    """So can a dark volume become as bright as its reference is."""
    values = np.random.default_rng(0).uniform(0, 1000, (24, 20, 3)).astype(np.float32)
    volume(tmp_path / "bright" / "v.nii.gz", values, AFFINE)
    volume(tmp_path / "in" / "v.nii.gz", values / 2, AFFINE)
    _, target = run(tmp_path / "in", BRIGHTER, reference=tmp_path / "bright", intensity="0,1000")
    told = settings(target)["scores"]
    assert told["brighter"]["psnr"]["mean"] > 85  # 16 bits of the dark one's half
    assert told["before"]["mse"]["mean"] == pytest.approx(np.square(values / 2000).mean(), rel=1e-3)


@pytest.mark.parametrize("rule", ["auto", "percentiles", "0,700"])
def test_a_volume_that_is_its_reference_is_without_a_fault(tmp_path, rule):
    values = np.random.default_rng(0).normal(300, 200, (24, 20, 3)).astype(np.float32)
    for name in ("in", "bright"):
        volume(tmp_path / name / "v.nii.gz", values, AFFINE)
        Image.fromarray(picture(20, 30)).save(tmp_path / name / "p.png")
    _, target = run(tmp_path / "in", reference=tmp_path / "bright", intensity=rule)
    assert {told["psnr"]["mean"] for told in settings(target)["scores"].values()} == {100}


# ---------------------------------------------------------------- what is given back
def there_and_back(root, name, row=0):
    """The file that is written of a file's slices as they were read."""
    read = Folder(root, "auto", "--input")
    item = read.items[row]
    images = [read.read(i) for i, (of, _) in enumerate(read.rows) if of == row]
    write(root / "out", item, images, read.limits(row))
    return root / "out" / name


def test_the_brightest_voxels_of_a_volume_are_given_back(tmp_path):
    """A lesion of four voxels lies beyond the 99.5th percentile, and is what a reader looks for."""
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).integers(0, 1000, (20, 24, 5)).astype(np.int16)
    values[9:11, 9:11, 2] = 5000
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    back = nibabel.load(there_and_back(tmp_path, "a.nii")).get_fdata()
    np.testing.assert_allclose(back, values, atol=5000 / 65535)


def test_a_stack_of_colours_without_an_orientation(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    pixels = np.random.default_rng(0).integers(0, 255, (6, 7, 4, 3)).astype(np.uint8)
    np.save(tmp_path / "v.npy", pixels)
    back = nibabel.load(there_and_back(tmp_path, "v.npy.nii.gz"))
    np.testing.assert_array_equal(np.asarray(back.dataobj), pixels.swapaxes(0, 1))


@pytest.mark.parametrize("name", ["b.jpg", "b.bmp"])
def test_16_bits_in_a_file_that_holds_8_are_that_files_fault(tmp_path, name):
    deep = np.random.default_rng(0).integers(0, 65535, (16, 16)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    (tmp_path / name).write_bytes((tmp_path / "a.png").read_bytes())
    with pytest.raises(PixmedError, match=rf"{name}: holds 16 bits, which no .* can; call it \.png"):
        there_and_back(tmp_path, name, row=1)
