"""The report of a folder that was enhanced or upscaled: pictures before and after, scores, settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pixmed_jax import pages, pictures

_SIDE = 320  # pixels of a picture, at most
_FORMS = {
    "psnr": ("PSNR, dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "ms_ssim": ("MS-SSIM", "{:.3f}"),
    "mse": ("MSE", "{:.5f}"),
    "map_error": ("error of the map", "{:.3f}"),
}


class Shown(NamedTuple):
    """A slice on the page: pictures [H, W, C] and maps [H, W] by their captions, and its own settings."""

    name: str
    pictures: Mapping[str, np.ndarray]
    settings: Mapping[str, Any]


def render(about: Mapping[str, Any], shown: Sequence[Shown]) -> str:
    """The page of what `folder.process` records and shows, which names folders without what they lie in."""
    scores = about["scores"]
    metrics = [name for name in _FORMS if any(name in of for of in scores.values())]
    return pages.render(
        "pixmed_jax",
        "enhancement/folder.html.j2",
        about=about,
        method=about["method"]["name"],
        settings={
            name: Path(value).name if name == "run" else value
            for name, value in about["method"].items()
            if name != "name"
        },
        source=Path(about["input"]).name,
        reference=Path(about["reference"]).name,
        headings=[_FORMS[name][0] for name in metrics],
        rows=[
            (contender, [_cell(name, of.get(name)) for name in metrics]) for contender, of in scores.items()
        ],
        n=max((told["n"] for of in scores.values() for told in of.values()), default=0),
        slices=sum(len(file["settings"]) for file in about["files"].values()),
        shown=[
            (each.name, _told(each.settings), [(c, _uri(_seen(p))) for c, p in each.pictures.items()])
            for each in shown
        ],
    )


def _cell(metric: str, told: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """(mean, its interval, what the method is beyond it)"""
    if told is None:
        return "–", "", ""
    form = _FORMS[metric][1]

    def between(bounds: Sequence[float] | None, form: str) -> str:
        return " to ".join(form.format(bound) for bound in bounds or ())

    gain = ""
    if "gain" in told:
        signed = form.replace(":", ":+")
        bounds = between(told["gain_interval"], signed)
        gain = f"Δ {signed.format(told['gain'])}" + (f" ({bounds})" if bounds else "")
    return form.format(told["mean"]), between(told["interval"], form), gain


def _told(settings: Mapping[str, Any]) -> str:
    def short(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{name} {short(value)}" for name, value in settings.items())


def _seen(image: np.ndarray) -> np.ndarray:
    """Maps [H, W] over their whole range: light that is weak everywhere would show as black."""
    return image / max(float(image.max()), 1e-6) if image.ndim == 2 else image


def _uri(image: np.ndarray) -> str:
    values = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values)
    scale = min(1.0, _SIDE / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return pictures.data_uri(picture.resize(size, Image.Resampling.LANCZOS))
