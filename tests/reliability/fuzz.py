"""Mutation fuzzing of each reader of foreign files, by the clock; not a test, since it takes minutes.

    PYTHONPATH=tests python tests/reliability/fuzz.py --minutes=1 --seed=0 [--keep=DIR] [NAME ...]

A good file of each format is changed at random: bits, bytes, lengths, parts that are cut, doubled or swapped
between files, inside of their packing too. Each must be read, or refused by PixmedError in one line that
names it, within seconds and bounded memory. Whatever else happens is printed, and kept in DIR.
"""

import argparse
import gzip
import io
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import numpy as safetensors
from test_properties import SEEDS, read_all

from pixmed_jax import workdir
from pixmed_jax.data import synthetic, tables
from pixmed_jax.errors import PixmedError
from pixmed_jax.export import folder as export_folder
from pixmed_jax.models.densenet import _torch_name, read_weights
from pixmed_jax.training import checkpoint

SECONDS = 10  # that one file may take
NUMBERS = [
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63 - 1,
    2**64 - 1,
]
VARIABLES = {
    "params": {
        "conv1_conv": {"kernel": np.ones((1, 1, 1, 2), np.float32)},
        "bn": {"scale": np.ones(2, np.float32), "bias": np.ones(2, np.float32)},
    }
}


def read_weights_of(path: Path) -> None:
    read_weights(path, VARIABLES, "weights")


def read_exported(path: Path) -> None:
    """As if somebody had brought the digest up to date, so that more than it is looked at."""
    saved = checkpoint.Saved(
        path.parent, 1, 0.0, {}, ("a",), True, (0, 1), {path.name: checkpoint.sha256(path)}
    )
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), VARIABLES)
    export_folder.read_weights(saved, like)


def told(read: Callable[[Path], Any]) -> Callable[[Path], None]:
    """As `read_all`: PixmedError in one line that names the file is as good as a value."""

    def reading(path: Path) -> None:
        try:
            read(path)
        except PixmedError as error:
            assert "\n" not in str(error) and str(path.parent) in str(error), str(error)

    return reading


def more_seeds() -> dict[str, tuple[bytes, Callable[[Path], None]]]:
    """The formats that are no images."""
    manifest = {"step": 5, "score": 0.1, "config": {"data": {"size": 4}}, "classes": ["a"], "grey": True}
    manifest |= {"limits": [0, 255], "files": {"a": "0" * 64}}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["conv1_conv/conv1_conv/kernel:0"] = VARIABLES["params"]["conv1_conv"]["kernel"]
        file["bn/bn/gamma:0"] = file["bn/bn/beta:0"] = np.ones(2, np.float32)
    torch = {
        _torch_name(layer, leaf): value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        for (_, layer, leaf), value in flatten_dict(VARIABLES).items()
    }
    exported = {".".join(key): value for key, value in flatten_dict(VARIABLES).items()}
    table = b'file,label,patient_group\na.png,glioma,p1\n"b, 2.png",glioma,p2\n'
    return {
        "manifest.json": (
            checkpoint.json.dumps(manifest).encode(),
            told(lambda path: checkpoint._read_manifest(path.parent)),
        ),
        "config.json": (
            b'{"name": "x", "data": {"size": 4}}',
            told(lambda path: workdir.read_config(path.parent)),
        ),
        "trained_on.json": (
            b'{"step": 1, "config": "x", "files": {"a.png": "p1"}}',
            told(lambda path: synthetic.trained_on(path.parent, False)),
        ),
        "meta.csv": (table, told(lambda path: read_table(path))),
        "weights.safetensors": (safetensors.save(torch), told(read_weights_of)),
        "generator.safetensors": (safetensors.save(exported), told(read_exported)),
        "weights.h5": (buffer.getvalue(), told(read_weights_of)),
    }


def read_table(path: Path) -> None:
    columns = ("file", "label", "patient_group", "")
    tables.columns_of(path, ["a.png", "b, 2.png"], *columns)


# ---------------------------------------------------------------- mutations
def mutated(contents: bytes, other: bytes, chance: random.Random) -> bytes:
    data = bytearray(contents)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        if not data:
            break
        place = chance.randrange(len(data))
        if chance.random() < 0.5:  # headers are where formats are believed
            place = chance.randrange(min(len(data), 400))
        length = chance.choice((1, 2, 4, 8, 30))
        kind = chance.randrange(8)
        if kind == 0:
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[place] = chance.randrange(256)
        elif kind in (2, 3):
            number, form = chance.choice(NUMBERS), chance.choice(("<H", ">H", "<I", ">I", "<Q"))
            packed = struct.pack(form, number % 2 ** (8 * struct.calcsize(form)))
            data[place : place + len(packed)] = packed
        elif kind == 4:
            del data[place : place + length]
        elif kind == 5:
            data[place:place] = data[place : place + length]
        elif kind == 6:
            start = chance.randrange(len(other))
            data[place : place + length] = other[start : start + length]
        else:
            del data[place:]
    return bytes(data)


def inside(name: str, contents: bytes, other: bytes, chance: random.Random) -> bytes:
    """Changed behind the packing, with checksums that are right."""
    if name.endswith(".nii.gz"):
        return gzip.compress(mutated(gzip.decompress(contents), other, chance), 1)
    if name.endswith(".npz"):
        with zipfile.ZipFile(io.BytesIO(contents)) as archive:
            inner = archive.read("image.npy")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("image.npy", mutated(inner, other, chance))
        return buffer.getvalue()
    if name == "a.mat":
        inner = zlib.compress(mutated(zlib.decompress(contents[136:]), other, chance))
        return contents[:128] + struct.pack("<LL", 15, len(inner)) + inner
    if name.endswith(".png"):
        chunks, place = contents[:8], 8
        while place + 8 <= len(contents):
            (length,) = struct.unpack(">I", contents[place : place + 4])
            kind, body = contents[place + 4 : place + 8], contents[place + 8 : place + 8 + length]
            if chance.random() < 0.5:
                if kind == b"IDAT":
                    body = zlib.compress(mutated(zlib.decompress(body), other, chance))
                else:
                    body = mutated(body, other, chance)
            chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            place += 12 + length
        return chunks
    return mutated(contents, other, chance)


def late(*_: object) -> None:
    raise TimeoutError(f"over {SECONDS} s")


def fuzz(name: str, contents: bytes, read: Callable, seconds: float, seed: int, keep: Path | None) -> int:
    chance = random.Random(f"{seed} {name}")
    others = [seed for seed, _ in FORMATS.values()]
    done, faults, seen = 0, 0, set()
    ends = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        while time.monotonic() < ends:
            other = chance.choice(others)
            if chance.random() < 0.5:
                data = inside(name, contents, other, chance)
            else:
                data = mutated(contents, other, chance)
            path.write_bytes(data)
            signal.alarm(SECONDS)
            try:
                read(path)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                where = traceback.extract_tb(error.__traceback__)[-1]
                what = (type(error).__name__, where.filename, where.lineno)
                faults += 1
                if what not in seen:
                    seen.add(what)
                    place = f"{where.filename}:{where.lineno}"
                    print(f"{name}: {type(error).__name__}: {str(error)[:200]!r} at {place}")
                    if keep is not None:
                        (keep / f"{len(seen)}-{name}").write_bytes(data)
            finally:
                signal.alarm(0)
            done += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {done} files, {faults} findings, {peak:.0f} MB at most so far", flush=True)
    return faults


FORMATS = {**{name: (contents, read_all) for name, contents in SEEDS.items()}, **more_seeds()}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=1.0, help="for each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
    names = given.names or sorted(FORMATS)
    faults = sum(fuzz(name, *FORMATS[name], given.minutes * 60, given.seed, given.keep) for name in names)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
