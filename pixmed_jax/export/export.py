"""A run's network as files for others: `W/export/`, one folder that needs nothing else of the run.

    generator.safetensors  weights; with config.json all that `pixmed_jax.load(FOLDER)` needs
    generator.stablehlo    for JAX alone (export/stablehlo.py)
    generator.onnx         for ONNX Runtime (export/onnx_file.py)
    config.json            what each of them takes and gives, and what else export/folder.py says
    export.json            size, difference from JAX and time of each
    model_card.md, .json   what is known of the network
    web/                   a page that runs the ONNX file, where export.web names its runtime (export/web.py)

Every file is read back and compared with the network itself before the folder takes its name; where one
differs by more than rounding, nothing is left.
"""

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pixmed_jax import inference, layouts
from pixmed_jax.errors import OptionError, PixmedError, one_of
from pixmed_jax.evaluation import cards
from pixmed_jax.export import flat, folder, interface, onnx_file, stablehlo
from pixmed_jax.export import web as web_page
from pixmed_jax.export.graph import onnx_library
from pixmed_jax.export.interface import Interface
from pixmed_jax.progress import watched
from pixmed_jax.training import checkpoint
from pixmed_jax.training.build import is_supervised, makes_layouts, restores
from pixmed_jax.workdir import EXPORT
from pixmed_jax.writing import check_holds, replaced, write_json

RESULTS = "export.json"
_CARDS = ("model_card.json", "model_card.md")
_NAMES = (folder.CONFIG, RESULTS, *_CARDS, "*.safetensors", "*.stablehlo", "*.onnx", "web")
# Largest |difference| from JAX, as a share of the outputs' range: [0, 1], or that of the logits.
TOLERANCE = 1e-4
HALF = 2e-2  # of weights in float16; in ONNX they are rounded after batch norm is folded into them
_BATCHES = (1, 5)
_WARM, _ROUNDS = 3, 20

Run = Callable[[np.ndarray, np.ndarray, list[Any]], Any]  # stored, seeds and what is drawn from them


def export(
    workdir: Path,
    *,
    step: int | str = "newest",
    dtype: str = "float32",
    onnx: bool = True,
    web: str = "",
) -> dict[str, dict[str, Any]]:
    """Write the network of a run at a step to its `export/`; returns what export.json says of each file.

    dtype: of the weights in the files, float32 or float16.
    web: the package onnxruntime-web, as export/web.py wants it; without it there is no page.
    Errors: PixmedError.
    """
    one_of("export.dtype", dtype, folder.DTYPES)
    if web and not onnx:
        raise OptionError("export.web: the page runs the ONNX file; leave export.onnx=False out")
    check_holds(workdir / EXPORT, _NAMES)
    runtime = web_page.runtime(Path(web)) if web else {}
    for name in ("onnx", "onnxruntime") if onnx else ():
        onnx_library(name)  # asked for before anything is computed
    saved = inference.find(workdir, step)
    with (
        replaced(workdir / EXPORT) as draft,
        jax.default_device(jax.devices("cpu")[0]),
    ):
        trained = _face(saved)
        weights = draft / f"{trained.name}.safetensors"
        folder.write_weights(weights, trained.variables, dtype)
        folder.write_config(draft, saved, weights.name, dtype=dtype)
        face = _face(folder.open_folder(draft))  # the others are made of what float16 has left of the weights
        runs: dict[str, Run] = {weights.name: _run_jax(face)}
        path = weights.with_suffix(".stablehlo")
        stablehlo.write(path, face)
        runs[path.name] = stablehlo.runner(path)
        forms = {path.name: stablehlo.describe(face)}
        if onnx:
            path = weights.with_suffix(".onnx")
            onnx_file.write(path, face, dtype)
            runs[path.name] = onnx_file.runner(path, face)
            forms[path.name] = onnx_file.describe(face)
        exact, rounded = {"float32": (0.0, TOLERANCE), "float16": (HALF, HALF)}[dtype]
        results = {}
        for file, run in runs.items():
            reference, most = (trained, exact) if file == weights.name else (face, TOLERANCE)
            most = rounded if file.endswith(".onnx") else most
            results[file] = {
                "bytes": (draft / file).stat().st_size,
                "sha256": checkpoint.sha256(draft / file),
                "difference": difference(file, run, reference, most),
                "tolerance": most,
                **_timed(file, run, face),
            }
        if web:
            model = weights.with_suffix(".onnx").read_bytes()
            web_page.write(draft / "web", model, face, saved, runtime)
        folder.write_config(draft, saved, weights.name, dtype=dtype, forms=forms)
        machine = {"processor": platform.processor() or platform.machine(), "jax": jax.__version__}
        write_json(draft / RESULTS, {"machine": machine, "files": results})
        cards.write(workdir, draft, saved.step)
    return results


def summary(results: dict[str, dict[str, Any]]) -> str:
    """A line for each file."""
    return "\n".join(
        f"{file}: {told['bytes'] / 1e6:.2f} MB, max |difference| from JAX {told['difference']:.1e} "
        f"(at most {told['tolerance']:.0e}), {1000 * told['median']:.1f} ms an image on the CPU "
        f"({1000 * told['low']:.1f} to {1000 * told['high']:.1f})"
        for file, told in results.items()
    )


def difference(file: str, run: Run, reference: Interface, most: float) -> float:
    """Between what a file computes and the reference, for batches of several sizes; refused above `most`."""
    worst = 0.0
    for count in _BATCHES:
        stored, seeds = reference.example(count)
        expected = np.asarray(reference.predict(reference.variables, stored, seeds))
        _, noise = flat.drawn(reference.predict, reference.variables, stored, seeds)
        scale = max(1.0, float(np.abs(expected).max())) if reference.output == "logits" else 1.0
        found = float(np.abs(np.asarray(run(stored, seeds, noise)) - expected).max()) / scale
        if not found <= most:  # or it is no number
            raise PixmedError(
                f"{file}: differs from JAX by {found:.1e}, and {most:.0e} is rounding; nothing is exported; "
                "give another step or export.dtype=float32"
            )
        worst = max(worst, found)
    return worst


def _face(saved: checkpoint.Saved) -> Interface:
    if restores(saved.config):
        return interface.of(inference.Restorer(saved))
    if makes_layouts(saved.config):
        return interface.of(layouts.Layouts(saved))
    supervised = is_supervised(saved.config)
    return interface.of(inference.Network(saved) if supervised else inference.Generator(saved))


def _run_jax(face: Interface) -> Run:
    variables = jax.device_put(face.variables)
    return lambda stored, seeds, _: face.predict(variables, stored, seeds)


def _timed(file: str, run: Run, face: Interface) -> dict[str, Any]:
    """Seconds for one image, as evaluation/cost.py tells them."""
    stored, seeds = face.example(1)
    _, noise = flat.drawn(face.predict, face.variables, stored, seeds)
    noise, times = jax.device_get(noise), []
    for _ in watched(range(_WARM + _ROUNDS), _WARM + _ROUNDS, f"timing {file}"):
        started = time.perf_counter()
        np.asarray(run(stored, seeds, noise))
        times.append(time.perf_counter() - started)
    low, median, high = np.percentile(times[_WARM:], [5, 50, 95])
    return {"median": float(median), "low": float(low), "high": float(high), "n": _ROUNDS}
