"""Weights are read without executing a pickle: what was written comes back, what is hostile is refused."""

import io
import pickle
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pixmed_jax.errors import PixmedError
from pixmed_jax.judges import pickled
from pixmed_jax.judges.pickled import from_numpy_pickle, from_torchscript

ARRAYS = {
    "AlexNet_0": {
        "Conv_0": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "bias": np.ones(4, np.float32)}
    },
    "Head": {"kernel": np.full((1, 5), -2.5, np.float32)},
}


def numpy_pickle(tree=ARRAYS):
    """As NumPy 1, which wrote the published file, names itself."""
    return pickle.dumps(tree, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


# ---------------------------------------------------------------- a TorchScript archive by its instructions
def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def number(value):
    return b"J" + value.to_bytes(4, "little", signed=True)


def tensor(
    key, shape, *, count=None, strides=None, offset=0, kind="FloatStorage", rebuild="_rebuild_tensor_v2"
):
    count = int(np.prod(shape)) if count is None else count
    if strides is None:
        strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    storage = (
        b"("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text("cpu")
        + number(count)
        + b"tQ"
    )
    sizes = b"".join(b"(" + b"".join(map(number, of)) + b"t" for of in (shape, strides))
    called = f"ctorch._utils\n{rebuild}\n".encode()
    return called + b"(" + storage + number(offset) + sizes + b"\x89ccollections\nOrderedDict\n)RtR"


def module(name, **parts):
    pairs = b"".join(text(key) + value for key, value in parts.items())
    return f"c__torch__.nets\n{name}\n".encode() + b")\x81}(" + pairs + b"ub"


def archive(tree, storages, **files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for key, array in storages.items():
            packed.writestr(f"net/data/{key}", np.asarray(array, "<f4").tobytes())
        packed.writestr("net/data.pkl", b"\x80\x02" + tree + b".")
        for name, content in files.items():
            packed.writestr(f"net/{name}", content)
    return data.getvalue()


WEIGHT, MEAN = np.arange(12.0).reshape(3, 4), np.array([0.5, -1.0, 2.0])
TREE = module(
    "Net",
    training=b"\x89",
    layers=module("Layers", conv=module("Conv", weight=tensor("0", (3, 4)), mean=tensor("1", (3,)))),
)
STORAGES = {"0": WEIGHT, "1": MEAN}


def test_nested_dicts_of_arrays_come_back():
    found = from_numpy_pickle(numpy_pickle())
    assert set(found) == {"AlexNet_0/Conv_0/kernel", "AlexNet_0/Conv_0/bias", "Head/kernel"}
    np.testing.assert_array_equal(found["AlexNet_0/Conv_0/kernel"], ARRAYS["AlexNet_0"]["Conv_0"]["kernel"])
    np.testing.assert_array_equal(found["Head/kernel"], np.full((1, 5), -2.5, np.float32))


def test_tensors_of_nested_modules_come_back():
    found = from_torchscript(archive(TREE, STORAGES))
    assert set(found) == {"layers.conv.weight", "layers.conv.mean"}
    np.testing.assert_array_equal(found["layers.conv.weight"], WEIGHT.astype(np.float32))
    np.testing.assert_array_equal(found["layers.conv.mean"], MEAN.astype(np.float32))


def test_what_else_lies_in_an_archive_is_passed_over():
    """PyTorch writes these beside the tree and the storages."""
    beside = {"version": b"3\n", "constants.pkl": b"\x80\x02).", "code/data.pkl": b"class Net: ..."}
    found = from_torchscript(archive(TREE, STORAGES, **beside))
    assert set(found) == {"layers.conv.weight", "layers.conv.mean"}


def test_plain_values_come_back_as_pickle_would_give_them():
    values = {
        "a": [1, "x", [2, 300, 70_000, -1]],
        "b": (True, None, False),
        "c": {"d": (), "e": (1, 2, 3, 4)},
    }
    values["again"] = values["a"]
    assert pickled._followed(pickle.dumps(values, protocol=2), ()) == values
    assert pickled._followed(pickle.dumps(values, protocol=3), ()) == values


# ---------------------------------------------------------------- hostile files
def calls(path):
    """Pickles that would make a file if they were executed, in several protocols."""
    command = f"touch {path}"
    short = b"\x8c" + bytes([len(command)]) + command.encode()
    return {
        "protocol 0": f"cos\nsystem\n(S'{command}'\ntR.".encode(),
        "INST": f"(S'{command}'\nios\nsystem\n.".encode(),
        "OBJ": b"(cos\nsystem\n" + text(command) + b"o.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + short + b"\x85R.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n" + text(command) + b"\x85\x81.",
        "eval": b"\x80\x02c__builtin__\neval\n" + text(f"open({path!r}, 'w')") + b"\x85R.",
        "EXT1": b"\x80\x02\x82\x01.",
        "inside": b"\x80\x02}" + text("a") + b"cos\nsystem\n" + text(command) + b"\x85Rs.",
    }


@pytest.mark.parametrize("name", calls(""))
def test_calls_are_refused_and_not_made(name, tmp_path):
    made = tmp_path / "made"
    data = calls(str(made))[name]
    for read in (from_numpy_pickle, lambda data: from_torchscript(archive(data[:-1], STORAGES))):
        with pytest.raises(PixmedError) as error:
            read(data)
        assert "\n" not in str(error.value)
    assert not made.exists()


def test_a_name_that_is_not_listed_is_told():
    with pytest.raises(PixmedError, match="posix system"):
        from_numpy_pickle(b"\x80\x02cposix\nsystem\n" + text("true") + b"\x85R.")
    # What one format needs the other has no use for.
    with pytest.raises(PixmedError, match=r"__torch__\.nets Net"):
        from_numpy_pickle(b"\x80\x02" + TREE + b".")
    with pytest.raises(PixmedError, match="_reconstruct"):
        from_torchscript(archive(numpy_pickle()[2:-1], {}))


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), value=st.integers(0, 255), cut=st.booleans(), torch=st.booleans())
@example(place=0.998046875, value=1, cut=False, torch=True)  # a directory that lies in front of the file
def test_any_damage_gives_arrays_or_one_line(place, value, cut, torch):
    """Every byte may be another, or the last: never another exception, never a warning."""
    data = bytearray(archive(TREE, STORAGES) if torch else numpy_pickle())
    index = int(place * (len(data) - 1))
    if cut:
        data = data[:index]
    else:
        data[index] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = (from_torchscript if torch else from_numpy_pickle)(bytes(data))
        except PixmedError as error:
            assert "\n" not in str(error)
        else:
            assert not cut and all(isinstance(array, np.ndarray) for array in found.values())


@settings(deadline=None, max_examples=200)
@given(place=st.floats(0, 1), value=st.integers(0, 255))
def test_any_damage_to_the_instructions_of_torchscript(place, value):
    """Inside the archive, past its checksum."""
    tree = bytearray(TREE)
    tree[int(place * (len(tree) - 1))] = value
    try:
        found = from_torchscript(archive(bytes(tree), STORAGES))
    except PixmedError as error:
        assert "\n" not in str(error)
    else:
        assert all(array.dtype == np.float32 for array in found.values())


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (tensor("0", (4, 4)), "data/0 has 48 bytes instead of 64"),
        (tensor("0", (4, 4), count=12), r"shape \(4, 4\) with 48 bytes"),
        (tensor("0", (2**30, 2**30), count=12), "with 48 bytes"),
        (tensor("0", (3, 4), strides=(1, 3)), "memory order"),
        (tensor("0", (3,), offset=4, count=12), "memory order"),
        (tensor("0", (-3, -4)), "memory order"),
        (tensor("9", (3, 4)), "lacks data/9"),
        (tensor("../0", (3, 4)), "memory order"),
        (tensor("0", (3, 4), kind="HalfStorage"), "HalfStorage"),
        (tensor("0", (3, 4), rebuild="_rebuild_qtensor"), "_rebuild_qtensor"),
    ],
)
def test_tensors_that_are_not_what_they_say(tree, words):
    with pytest.raises(PixmedError, match=words):
        from_torchscript(archive(module("Net", weight=tree), STORAGES))


def test_numpy_arrays_that_are_not_what_they_say():
    for array in (
        np.ones(3),
        np.ones(3, np.int32),
        np.asfortranarray(np.ones((2, 3), np.float32)),
        np.array(["a"]),
    ):
        with pytest.raises(PixmedError, match="float32"):
            from_numpy_pickle(numpy_pickle({"a": array}))
    lying = numpy_pickle({"a": np.ones((2, 3), np.float32)}).replace(b"K\x02K\x03\x86", b"K\x7fK\x7f\x86")
    with pytest.raises(PixmedError, match=r"\(127, 127\) with 24 bytes"):
        from_numpy_pickle(lying)


def test_a_bomb_is_not_unpacked():
    """A megabyte of zeros in a kilobyte: nothing in such an archive is compressed."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("net/data/0", bytes(1 << 20))
        packed.writestr("net/data.pkl", b"\x80\x02" + module("Net", weight=tensor("0", (1 << 18,))) + b".")
    assert len(data.getvalue()) < 3000
    with pytest.raises(PixmedError, match="unpacks to more"):
        from_torchscript(data.getvalue())


def test_trees_that_grow_without_end():
    """Thirty dicts, each twice in the next: a billion leaves; and a dict within itself."""
    shared = b"\x80\x02}q\x00"
    for i in range(30):
        shared += (
            b"}q"
            + bytes([i + 1])
            + b"("
            + text("a")
            + b"h"
            + bytes([i])
            + text("b")
            + b"h"
            + bytes([i])
            + b"u"
        )
    for data in (shared + b".", b"\x80\x02}q\x00" + text("a") + b"h\x00s."):
        with pytest.raises(PixmedError, match="nested deeper"):
            from_numpy_pickle(data)


def test_archives_without_their_tree():
    for data in (b"", b"PK", b"no archive at all", archive(TREE, STORAGES)[:-30]):
        with pytest.raises(PixmedError, match="TorchScript"):
            from_torchscript(data)
    with pytest.raises(PixmedError, match=r"one data\.pkl"):
        from_torchscript(archive(b"N" * (1 << 20), {}))
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    with pytest.raises(PixmedError, match=r"one data\.pkl"):
        from_torchscript(empty.getvalue())


def test_no_more_is_walked_through_than_weights_have(monkeypatch):
    monkeypatch.setattr(pickled, "_ENTRIES", 20)
    leaf = np.zeros((1, 1, 1, 1), np.float32)
    assert len(from_numpy_pickle(numpy_pickle({f"k{i}": leaf for i in range(19)}))) == 19
    with pytest.raises(PixmedError, match="nested deeper, or holds more, than weights do"):
        from_numpy_pickle(numpy_pickle({f"k{i}": leaf for i in range(20)}))
    with pytest.raises(PixmedError, match=r"an array of shape \(1, 1, 1, 1, 1\)"):
        from_numpy_pickle(numpy_pickle({"k": leaf[None]}))
