"""Cheng's dataset from files like his, read from a folder and downloaded from a server of our own."""

import functools
import hashlib
import http.server
import io
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from pixmed_jax.data import brain_tumor_mri_builder as builder
from pixmed_jax.data.download import Remote
from pixmed_jax.data.slices import load
from pixmed_jax.data.splits import split
from pixmed_jax.errors import PixmedError

h5py = pytest.importorskip("h5py")

# number: (label, patient), in the order of the real files: neither sorted by class nor by patient.
SLICES = {
    1: (1, "100360"), 2: (2, "MR040240"), 3: (2, "MR040240B"), 4: (3, "MR018024A"),
    5: (1, "112649"), 6: (3, "MR018024"), 7: (2, "MR0402402"), 8: (1, "100360"),
}  # fmt: skip
FOLDS = [1, 2, 3, 4, 5, 1, 2, 3]


def picture(number: int) -> np.ndarray:
    """[12, 10] int16, not square, so that a transposed reading shows."""
    return (np.arange(120).reshape(12, 10) * 7 + number).astype(np.int16)


def tumor(number: int) -> np.ndarray:
    mask = np.zeros((12, 10), np.uint8)
    mask[2 : 4 + number % 3, 5:9] = 1
    return mask


def cjdata(number: int) -> bytes:
    """NUMBER.mat as MATLAB -v7.3 writes a structure."""
    label, patient = SLICES[number]
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        group.create_dataset("image", data=picture(number).T, chunks=(10, 6), compression="gzip")
        group.create_dataset("tumorMask", data=tumor(number).T, chunks=(10, 12), compression="gzip")
        group["label"] = np.array([[float(label)]])
        group["PID"] = np.array([[ord(c)] for c in patient], np.uint16)
        group["tumorBorder"] = np.arange(6.0)[None]
    return b"MATLAB 7.3 MAT-file".ljust(512) + buffer.getvalue()[512:]


def archive(path: Path, numbers: list[int]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for number in numbers:
            file.writestr(f"{number}.mat", cjdata(number))


def remote(path: Path, url: str) -> Remote:
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    return Remote(path.name, f"{url}/{path.name}", path.stat().st_size, digest)


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A server with the five files; FILES points there. The folder that it serves."""
    folder = tmp_path / "web"
    folder.mkdir()
    for i in range(4):
        archive(folder / f"part{i}.zip", [2 * i + 1, 2 * i + 2])
    scipy.io.savemat(
        folder / "cvind.mat", {"cvind": np.array(FOLDS, np.float64)[:, None]}, do_compression=True
    )

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    names = [*(f"part{i}.zip" for i in range(4)), "cvind.mat"]
    monkeypatch.setattr(builder, "FILES", tuple(remote(folder / name, url) for name in names))
    yield folder
    server.shutdown()
    server.server_close()


def check(source) -> None:
    assert source.files == tuple(f"{n:04d}" for n in SLICES)
    assert source.label_names == ("meningioma", "glioma", "pituitary")
    assert source.labels.tolist() == [label - 1 for label, _ in SLICES.values()]
    assert source.groups == (
        "100360", "MR040240", "MR040240", "MR018024", "112649", "MR018024", "MR0402402", "100360",
    )  # fmt: skip
    for row, number in enumerate(SLICES):
        image, mask = source.read(row)
        low, high = np.percentile(picture(number), (0.5, 99.5))
        assert source.limits(row) == pytest.approx((low, high))
        unit = ((picture(number) - low) / (high - low)).clip(0, 1)
        assert image.dtype == np.uint16
        np.testing.assert_allclose(image / 65535, unit, atol=1 / 65535)
        np.testing.assert_array_equal(mask, tumor(number) * SLICES[number][0])


def test_downloaded_converted_and_read(web, tmp_path):
    data = tmp_path / "data"
    check(builder.source(data_dir=str(data)))
    assert not list((data / "downloads" / "brain_tumor_mri").glob("*.part"))
    for path in web.iterdir():
        path.unlink()
    check(builder.source(data_dir=str(data)))  # the second time nothing is asked for


def test_fixed_limits_and_splits(web, tmp_path):
    source = builder.source(data_dir=str(tmp_path / "data"), rule="0,1000")
    np.testing.assert_array_equal(np.rint(source.read(0)[0] / 65535 * 1000), picture(1))
    assert load(source, range(8), 12).limits.tolist() == [[0, 1000]] * 8
    rows = split(source, fractions=(0.5, 0.25, 0.25))
    assert sum(map(len, rows.values())) == 8
    with pytest.raises(PixmedError, match=r"data\.intensity=window"):
        builder.source(data_dir=str(tmp_path / "data"), rule="window")


def test_percentiles_are_found_once_a_slice(web, tmp_path, monkeypatch):
    source = builder.source(data_dir=str(tmp_path / "data"))
    seen = []
    found = builder.intensity.percentiles
    monkeypatch.setattr(builder.intensity, "percentiles", lambda *of: seen.append(of[1]) or found(*of))
    load(source, range(8), 12)
    assert sorted(seen) == list(source.files)


def test_the_authors_folds(web, tmp_path):
    """Patients 100360 (1 and 3), MR040240 (2 and 3) and MR018024 (4 and 1) cross them."""
    source = builder.source(data_dir=str(tmp_path / "data"), split_column="fold")
    assert source.given == tuple(map(str, FOLDS))
    with pytest.raises(PixmedError, match=r"3 patients are in several of the given folds: 100360 \(1 \+ 3\)"):
        split(source, given=source.given, folds=5)
    with pytest.warns(UserWarning, match="3 patients were in several"):
        rows = split(source, given=source.given, folds=5, crossing="move")  # equals go to the first fold
    assert {name: [source.files[row] for row in r] for name, r in rows.items()} == {
        "train": ["0005"],
        "val": ["0002", "0003", "0007"],
        "test": ["0001", "0004", "0006", "0008"],
    }
    with pytest.raises(PixmedError, match=r"data\.split_column='set': these data bring fold"):
        builder.source(data_dir=str(tmp_path / "data"), split_column="set")
    assert builder.source(data_dir=str(tmp_path / "data")).given == ()


def test_everything_is_in_the_records(web, tmp_path):
    builder.source(data_dir=str(tmp_path / "data"))
    made = builder.BrainTumorMri(data_dir=str(tmp_path / "data"))
    records = {int(r["number"]): r for r in made.as_data_source(split="train")}
    assert sorted(records) == list(SLICES)
    for number, record in records.items():
        assert record["fold"] == FOLDS[number - 1]
        assert record["patient"].decode() == SLICES[number][1]
        assert record["image"].dtype == np.int16
        np.testing.assert_array_equal(record["image"], picture(number))
        np.testing.assert_array_equal(record["border"], np.arange(6))


@pytest.mark.parametrize("where", [".", "downloads/manual"])
def test_files_that_are_there_are_not_downloaded(web, tmp_path, where):
    target = tmp_path / "data" / where
    target.parent.mkdir(parents=True, exist_ok=True)
    target.mkdir(exist_ok=True)
    for path in web.iterdir():
        path.rename(target / path.name)
    check(builder.source(data_dir=str(tmp_path / "data")))


def test_a_damaged_file_of_the_users_own(web, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for path in web.iterdir():
        path.rename(data / path.name)
    (data / "cvind.mat").write_bytes(b"x" * 10)
    with pytest.raises(PixmedError, match=r"cvind\.mat: expected \d+ bytes, got 10 \(cut short\); delete it"):
        builder.source(data_dir=str(data))


@pytest.mark.parametrize(
    ("numbers", "said"),
    [([5], r"1 of 8 slices are missing \(6\)"), ([5, 1], "slice 1 is there twice or has no fold")],
)
def test_archives_that_are_whole_but_wrong(web, tmp_path, monkeypatch, numbers, said):
    archive(web / "part2.zip", numbers)
    url = builder.FILES[0].url.rpartition("/")[0]
    monkeypatch.setattr(builder, "FILES", tuple(remote(web / file.name, url) for file in builder.FILES))
    with pytest.raises(PixmedError, match=said):
        builder.source(data_dir=str(tmp_path / "data"))


def test_a_patients_number_without_its_letter():
    ids = {"MR040240": "MR040240", "MR040240B": "MR040240", "112649": "112649", "abc": "abc", "MR1a": "MR1"}
    assert {patient: builder.patient_group(patient) for patient in ids} == ids
