"""Properties of decoders and of overrides, for whatever hypothesis thinks of.

Those of splits and of augmentation are in test_splits.py and test_augment.py.
"""

import gzip
import io
import runpy
import sys
import zlib
from unittest.mock import patch

import numpy as np
import pytest
import runs
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from ml_collections import config_flags
from PIL import Image

from pixmed_jax import config as configs
from pixmed_jax.data import decode, volumes
from pixmed_jax.data.arrays import MAX_BYTES
from pixmed_jax.errors import PixmedError

pytest.importorskip("h5py")
pytest.importorskip("nibabel")
pytest.importorskip("pydicom")

from volume_files import dicom, mat73, nifti

MANY = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
PICTURES = arrays_of.arrays(
    st.sampled_from([np.uint8, np.uint16]), st.tuples(st.integers(1, 9), st.integers(1, 9))
)
VOLUMES = arrays_of.arrays(np.int16, st.tuples(st.integers(2, 5), st.integers(2, 5), st.integers(2, 4)))


# ---------------------------------------------------------------- what is written is read
@MANY
@given(pixels=PICTURES, suffix=st.sampled_from([".png", ".tif"]))
def test_pictures_come_back(pixels, suffix, tmp_path):
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    found = decode.read_image(tmp_path / f"a{suffix}")
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)
    assert decode.read_size(tmp_path / f"a{suffix}") == pixels.shape


@MANY
@given(values=VOLUMES, kind=st.sampled_from(["npy", "npz", "nii", "nii.gz", "mat", "mat73", "dcm"]))
def test_arrays_come_back(values, kind, tmp_path):
    path = tmp_path / f"a.{'mat' if kind == 'mat73' else kind}"
    if kind == "npy":
        np.save(path, values)
    elif kind == "npz":
        np.savez_compressed(path, image=values)
    elif kind.startswith("nii"):
        nifti(path, values)
    elif kind == "mat":
        scipy.io.savemat(path, {"image": values}, do_compression=True)
    elif kind == "mat73":
        mat73(path, image=values)
    else:
        values = values[..., 0].astype(np.uint16)
        dicom(path, values)
        found = volumes.open_array(path)
        np.testing.assert_array_equal(found.read()[..., 0], values.T)
        return
    found = volumes.open_array(path)
    assert found.shape == values.shape
    np.testing.assert_array_equal(found.read(), values)


# ---------------------------------------------------------------- and what is not is refused
def seeds() -> dict[str, bytes]:
    """A good file of each format."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
    volume = np.arange(96, dtype=np.int16).reshape(6, 4, 4)
    with TemporaryDirectory() as name:
        root = Path(name)
        for suffix in ("png", "tif", "jpg", "bmp"):
            Image.fromarray(picture).save(root / f"a.{suffix}")
        np.save(root / "a.npy", volume)
        np.savez_compressed(root / "a.npz", image=volume)
        nifti(root / "a.nii", volume)
        nifti(root / "a.nii.gz", volume)
        scipy.io.savemat(root / "a.mat", {"image": volume}, do_compression=True)
        mat73(root / "b.mat", image=volume)
        dicom(root / "a.dcm", picture.astype(np.uint16))
        return {path.name: path.read_bytes() for path in root.iterdir()}


SEEDS = seeds()


def read_all(path) -> None:
    """As a run reads it: PixmedError in one line, or an array of bounded size."""
    try:
        if path.suffix in decode.SUFFIXES:
            decode.read_size(path)
            found = [decode.read_image(path)]
            found.append(decode.read_mask(path, colours=True))
        else:
            array = volumes.open_array(path)
            found = [array.read()]
    except PixmedError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return
    for values in found:
        assert values.nbytes <= MAX_BYTES and values.dtype.kind in "buif"


@MANY
@given(data=st.data(), name=st.sampled_from(sorted(SEEDS)))
def test_changed_bytes_are_refused_or_read(data, name, tmp_path):
    contents = bytearray(SEEDS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(contents) - 1))
        contents[place] = data.draw(st.integers(0, 255))
    contents = contents[: data.draw(st.integers(len(contents) // 2, len(contents)))]
    (tmp_path / name).write_bytes(contents)
    read_all(tmp_path / name)


@MANY
@given(contents=st.binary(max_size=600), name=st.sampled_from(sorted(SEEDS)), head=st.integers(0, 400))
def test_any_bytes_behind_a_good_start_are_refused_or_read(contents, name, head, tmp_path):
    (tmp_path / name).write_bytes(SEEDS[name][:head] + contents)
    read_all(tmp_path / name)


@MANY
@given(contents=st.binary(max_size=300), name=st.sampled_from(["a.nii.gz", "a.npz", "a.mat"]))
def test_any_bytes_in_a_good_wrapping_are_refused_or_read(contents, name, tmp_path):
    if name == "a.nii.gz":
        wrapped = gzip.compress(contents)
    elif name == "a.npz":
        import zipfile

        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("image.npy", contents)
        wrapped = buffer.getvalue()
    else:
        packed = zlib.compress(contents)
        wrapped = (
            SEEDS["a.mat"][:128] + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
        )
    (tmp_path / name).write_bytes(wrapped)
    read_all(tmp_path / name)


# ---------------------------------------------------------------- overrides of the config
GHOST = runpy.run_path(str(runs.ROOT / "configs" / "ghost.py"))["get_config"]
FLAT = configs.flatten(configs.plain(GHOST("test")))
VALUES = {
    bool: st.booleans(),
    int: st.integers(-(10**6), 10**6),
    float: st.floats(allow_nan=False, allow_infinity=False, width=32).map(float),
    str: st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
}
KEYS = sorted(key for key, value in FLAT.items() if type(value) in VALUES)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # in ml_collections
@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_an_override_changes_its_key_alone(data):
    """Through ml_collections' own parser, and back from the JSON of a run."""
    from absl import flags

    keys = data.draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True))
    wanted = {key: data.draw(VALUES[type(FLAT[key])]) for key in keys}
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    path = runs.ROOT / "configs" / "ghost.py:test"
    words = [
        f"--config.{key}={value!r}" if type(value) is float else f"--config.{key}={value}"
        for key, value in wanted.items()
    ]
    argv = ["launch.py", f"--config={path}", *words]
    with patch.object(sys, "argv", argv):  # which ml_collections looks at by itself
        values(argv)
    found = configs.flatten(configs.plain(values.config))
    changed = configs.differences(configs.plain(GHOST("test")), configs.plain(values.config))
    assert {key: found[key] for key in keys} == wanted
    assert set(changed) == {key for key in keys if FLAT[key] != wanted[key]}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    name=st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="="), min_size=1, max_size=20
    )
)
def test_a_name_that_does_not_exist_gets_one_line(name):
    hint = configs.nearest(name, KEYS)
    assert "\n" not in hint and (hint == "" or (hint.startswith("; did you mean ") and hint.endswith("?")))
    assert configs.nearest(KEYS[0], KEYS).startswith(f"; did you mean {KEYS[0]}")
