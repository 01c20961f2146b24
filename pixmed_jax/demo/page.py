"""The page in gradio: a mask on the left, images beside it, a few controls. `actions.py` says what they do.

The canvas is `canvas.js`, the look is `style.css`; `view.py` has what both show. Every event hands over all
that the page holds; the server keeps nothing between two but an uploaded anatomy.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from pixmed_jax import pages
from pixmed_jax.demo import view
from pixmed_jax.demo.actions import Actions, Asked, Changes, with_seed
from pixmed_jax.demo.painter import NUMBERS, Painter
from pixmed_jax.demo.scene import SHIFTS, SIZES
from pixmed_jax.errors import PixmedError

_HERE = Path(__file__).parent
# One image is made at a time; of many moves of a slider the last one counts.
_ONE: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
    "trigger_mode": "always_last",
    "show_progress": "hidden",
}
_FORGET = (600, 600)  # seconds after which an upload goes that nothing has come of
_TOLD = {  # what a model knows of a slice, by its condition
    "tumor": "the tumour alone",
    "tumor+head": "tumour and outline of the head",
    "anatomy": "tumour, head and kinds of tissue",
    "label": "the class of the tumour alone",
}
_SLIDERS = (("size", "Size", SIZES), ("right", "Left, right", SHIFTS), ("down", "Up, down", SHIFTS))
# What is half typed beside a slider, such as the 9 of 90; the last of what is sent are the fields of `Asked`.
_WITHIN = """(...sent) => {
  for (const [i, low, high] of LIMITS)
    sent[sent.length + i] = Math.min(Math.max(sent[sent.length + i], low), high);
  return sent;
}""".replace(
    "LIMITS",
    str([[Asked._fields.index(name) - len(Asked._fields), *limits] for name, _, limits in _SLIDERS]),
)
_KEEP = """(file) => {
  if (!file) return;
  const link = document.createElement("a");
  link.href = "data:application/zip;base64," + file.data;
  link.download = file.name;
  link.click();
}"""


def page(painter: Painter) -> gr.Blocks:
    """The page of a model, ready to be served; its first images are made here."""
    actions = Actions(painter)
    asked, first = actions.first
    maps = painter.generator.takes_maps
    title = "pixmed_jax: draw a tumour"
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True, delete_cache=_FORGET) as blocks:
        gr.HTML(pages.render("pixmed_jax.demo", "header.html.j2", maps=maps), elem_id="header")
        parts: dict[str, Any] = {"own": gr.State(None)}
        with gr.Row(elem_id="work", equal_height=False):
            with gr.Column(elem_id="left", min_width=280, visible=maps):
                parts["mask"] = gr.HTML(
                    asked.mask,
                    html_template=_part("canvas.html"),
                    js_on_load=_part("canvas.js"),
                    apply_default_css=False,
                    elem_id="mask",
                )
                heads = [(scene.name, str(i)) for i, scene in enumerate(painter.scenes)]
                parts["head"] = _radio("head", "Head", heads, asked.head)
            with gr.Column(elem_id="right", min_width=280):
                parts["images"] = gr.HTML(first["images"], apply_default_css=False, elem_id="images")
            with gr.Column(elem_id="controls", min_width=240):
                parts["note"] = gr.HTML("", apply_default_css=False, elem_id="note")
                parts["label"] = _radio("label", "Tumour", painter.tumors, asked.label)
                for name, told, limits in _SLIDERS:
                    value = getattr(asked, name)
                    parts[name] = gr.Slider(
                        *limits, value, step=1, label=told, elem_id=name, visible=maps, buttons=[]
                    )
                parts["number"] = _radio("number", "Images", NUMBERS, asked.number)
                with gr.Row(elem_id="seeds"):
                    # Without bounds: gradio would answer nothing while the seed lies beyond them.
                    parts["seed"] = gr.Number(
                        asked.seed,
                        label="Seed",
                        precision=0,
                        elem_id="seed",
                        min_width=80,
                    )
                    again = gr.Button("Draw again", elem_id="again", min_width=80)
                upload = gr.UploadButton("Upload a mask", elem_id="upload", visible=maps)
                with gr.Row(elem_id="files"):
                    png = gr.Button("Save PNG", elem_id="png", min_width=80)
                    nifti = gr.Button("Save NIfTI", elem_id="nifti", min_width=80)
                parts["file"] = gr.JSON(visible=False)
        gr.HTML(_footer(painter), elem_id="footer")

        inputs = [parts[name] for name in Asked._fields]

        def on(event: Callable, action: Callable[..., Changes], name: str, *more: Any) -> Any:
            handler = _handler(action, parts, len(more))
            return event(handler, [*more, *inputs], [*parts.values()], api_name=name, js=_WITHIN, **_ONE)

        for name in ("label", "size", "right", "down", "number", "seed"):
            on(parts[name].input, actions.answer, name)
        on(parts["mask"].input, actions.drawn, "draw")
        on(parts["head"].input, actions.chosen, "head")
        on(again.click, actions.again, "again")
        on(upload.upload, lambda asked, file: _taken(actions, asked, file), "upload", upload)
        for button, form in ((png, "png"), (nifti, "nifti")):
            saved = on(button.click, partial(actions.saved, form=form), form)
            saved.success(None, parts["file"], None, js=_KEEP)
    blocks.queue(max_size=64)
    return blocks


def _handler(action: Callable[..., Changes], parts: dict[str, Any], more: int) -> Callable[..., list[Any]]:
    """An action as gradio calls it; what it has to complain about is told on the page, in a line."""

    def handle(*values: Any) -> list[Any]:
        first, asked = values[:more], Asked(*values[more:])
        asked, changes, line = with_seed(asked)
        try:
            changes |= action(asked, *first)
        except PixmedError as error:
            line = str(error)
        changes["note"] = pages.render("pixmed_jax.demo", "fault.html.j2", line=line) if line else ""
        return [changes.get(name, gr.skip()) for name in parts]

    return handle


def _taken(actions: Actions, asked: Asked, file: str) -> Changes:
    """An upload is read once; what gradio has kept of it is deleted."""
    path = Path(file)
    try:
        return actions.uploaded(asked, path)
    finally:
        path.unlink(missing_ok=True)


def look(painter: Painter) -> str:
    """The page's CSS: `style.css`, and the heads as pictures on their buttons."""
    names = painter.generator.classes
    rules = [
        f"#head label:nth-child({i + 1})::before {{ background-image: url({view.thumbnail(scene, names)}) }}"
        for i, scene in enumerate(painter.scenes)
    ]
    return "\n".join([_part("style.css"), *rules])


def _footer(painter: Painter) -> str:
    told = _TOLD[painter.generator.config["data"]["condition"]]
    return pages.render(
        "pixmed_jax.demo", "footer.html.j2", generator=painter.generator, name=painter.name, told=told
    )


def _radio(name: str, told: str, choices: Sequence[Any], value: Any) -> gr.Radio:
    return gr.Radio(list(choices), value=value, label=told, elem_id=name, visible=len(choices) > 1)


def _part(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
