"""A page that runs the exported ONNX file in a browser: `W/export/web/`, one static folder without a server.

    index.html page.js settings.js   the page, what it does, and what it is told about the network
    model_0.js ..                    generator.onnx, gzipped, in base64
    ort.wasm.min.js glue_0.js wasm_0.js ..
                                     ONNX Runtime for browsers, from the package onnxruntime-web

All of it is loaded by <script>, so that index.html may also be opened from a disk, where browsers let a page
load scripts but not fetch files. The page asks nobody for anything.

The runtime is not part of this project: `npm pack onnxruntime-web@1.30.0` fetches it, and only the files of
that version, by their sha256, are taken.
"""

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixmed_jax import __version__
from pixmed_jax.data.edits import take_apart
from pixmed_jax.data.phantom import patient_slices
from pixmed_jax.data.phantom_anatomy import LABEL_NAMES
from pixmed_jax.data.regions import head, is_tumor, label_map
from pixmed_jax.data.tissues import survey
from pixmed_jax.errors import PixmedError
from pixmed_jax.export.interface import Interface
from pixmed_jax.export.onnx_file import noises
from pixmed_jax.pages import render
from pixmed_jax.pictures import palette
from pixmed_jax.training.checkpoint import Saved

VERSION = "1.30.0"
ARCHIVE = (33_106_585, "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71")
FILES = {
    "ort.wasm.min.js": (50_196, "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81"),
    "ort-wasm-simd-threaded.mjs": (
        24_381,
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    ),
    "ort-wasm-simd-threaded.wasm": (
        14_239_897,
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
HOW = f"npm pack onnxruntime-web@{VERSION}, then --export.web=onnxruntime-web-{VERSION}.tgz"
_PART = 12_000_000  # bytes of a script before base64: browsers limit strings, and hosts files
_PATIENTS = (90_001, 90_004)  # of the phantoms that lend their anatomy; no run is trained on so many


# ---------------------------------------------------------------- the runtime
def runtime(path: Path) -> dict[str, bytes]:
    """The files of onnxruntime-web from what `npm pack` wrote, or from the package's `dist` folder.

    Errors: PixmedError for anything but the very files of that version; nothing longer is read.
    """
    if path.is_dir():
        return {
            name: _same(_read(path / name, size), path / name, size, digest)
            for name, (size, digest) in FILES.items()
        }
    if not path.is_file():
        raise PixmedError(f"export.web={path}: no such file or folder; {HOW}")
    archive = _same(_read(path, ARCHIVE[0]), path, *ARCHIVE)
    found = {}
    with tarfile.open(
        fileobj=io.BytesIO(archive), mode="r:gz"
    ) as packed:  # its sha256 is that of the package
        for name, (size, digest) in FILES.items():
            member = packed.extractfile(f"package/dist/{name}")
            found[name] = _same(member.read(size + 1) if member else b"", path / name, size, digest)
    return found


def _read(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size + 1)
    except OSError as error:
        raise PixmedError(f"{path}: cannot be read ({error.strerror}); {HOW}") from error


def _same(data: bytes, path: Path, size: int, digest: str) -> bytes:
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise PixmedError(f"{path}: is not that of onnxruntime-web {VERSION} (its sha256 differs); {HOW}")
    return data


# ---------------------------------------------------------------- the page
def write(folder: Path, model: bytes, interface: Interface, saved: Saved, files: Mapping[str, bytes]) -> None:
    """Make the folder; `files` is what `runtime` gives. Errors: PixmedError for what makes no images."""
    if interface.name != "generator":
        raise PixmedError("export.web: the page shows what a generator makes; leave export.web empty")
    folder.mkdir()
    parts = {
        "glue": files["ort-wasm-simd-threaded.mjs"],
        "wasm": files["ort-wasm-simd-threaded.wasm"],
        "model": model,
    }
    told = {name: _write_parts(folder, name, data) for name, data in parts.items()}
    tumors = [name for name in saved.classes if is_tumor(name)]
    colours = palette(saved.classes).tolist()
    size = saved.config["data"]["size"]
    shown = examples(saved.config["data"], len(tumors)) if interface.stored == "maps" else []
    settings = {
        "size": size,
        "stored": interface.stored,
        "noise": [noise._asdict() for noise in noises(interface)],
        "palette": colours,
        "parts": told,
        "examples": [
            {**example, "anatomy": _base64(example["anatomy"]), "tumor": _base64(example["tumor"])}
            for example in shown
        ],
    }
    (folder / "settings.js").write_text(f"const SETTINGS = {json.dumps(settings)};\n", encoding="utf-8")
    (folder / "ort.wasm.min.js").write_bytes(files["ort.wasm.min.js"])
    (folder / "page.js").write_bytes((Path(__file__).parent / "page.js").read_bytes())
    page = render(
        "pixmed_jax.export",
        "page.html.j2",
        name=saved.config["name"],
        step=saved.step,
        size=size,
        stored=interface.stored,
        tumors=tumors,
        palette=colours,
        examples=shown,
        version=__version__,
        runtime=VERSION,
    )
    (folder / "index.html").write_text(page, encoding="utf-8")


def examples(data: Mapping[str, Any], tumors: int) -> list[dict[str, Any]]:
    """Phantoms' anatomy in the classes of a run whose `config.data` is given and that has so many tumours.

    Each has a name, its healthy `anatomy` [S, S] uint8, a `tumor` [S, S] that belongs there, and its `label`.
    """
    found = []
    for patient in _PATIENTS:
        for ill in patient_slices(patient, size=data["size"], count=3):
            value = ill.label + 1 if data["class_channels"] else 1
            maps, names = label_map(
                ill.mask[None] * np.uint8(value),
                ill.image[None, ..., None],
                condition=data["condition"],
                label_names=LABEL_NAMES,
                class_channels=data["class_channels"],
                tissue_classes=data["tissues"],
            )
            own = sum(map(is_tumor, names))
            image, mask = ill.image.astype(np.float64), ill.mask > 0
            scene = take_apart(maps[0], own, survey(image, head(image), mask))
            label = min(value, tumors)
            found.append(
                {
                    "name": f"{ill.plane} {1 + _PATIENTS.index(patient)}",
                    "anatomy": np.where(scene.anatomy > own, scene.anatomy.astype(int) + tumors - own, 0),
                    "tumor": np.where(mask, label, 0),
                    "label": label,
                }
            )
    if data["condition"] == "tumor":  # the network is told none
        return [{**found[0], "name": "none", "anatomy": np.zeros_like(found[0]["anatomy"])}]
    return found


def _write_parts(folder: Path, name: str, data: bytes) -> int:
    """`name`_0.js and so on; returns how many."""
    packed = gzip.compress(data, 9, mtime=0)
    starts = range(0, len(packed), _PART)
    for i, start in enumerate(starts):
        text = base64.b64encode(packed[start : start + _PART]).decode("ascii")
        (folder / f"{name}_{i}.js").write_text(f'PART("{name}", "{text}");\n', encoding="ascii")
    return len(starts)


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.astype(np.uint8).tobytes()).decode("ascii")
