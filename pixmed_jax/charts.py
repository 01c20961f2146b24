"""Charts for people: what all of them look like, and how a page holds them.

Apart from `pictures`, which every training draws: Matplotlib's axes take a quarter of a second to import.
"""

import io
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixmed_jax.pictures import address

Corner = Literal["upper left", "upper center", "upper right"]


def styled(
    axes: Axes, title: str = "", *, x: str = "", y: str = "", grid: bool = False, legend: Corner | None = None
) -> None:
    """What every chart looks like. `legend` is the corner of its legend, if it has one.

    A corner, and not matplotlib's "best": where it searches for long, on a slow machine, it warns.
    """
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(alpha=0.25)
    if legend:
        axes.legend(loc=legend, fontsize=8, framealpha=0.8, edgecolor="none")  # curves stay visible behind it


def chart_uri(figure: Figure) -> str:
    """A figure as the address of an <img>: SVG without a date, so that equal charts are equal bytes."""
    data = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "pixmed"}):  # else ids within the file are random
        figure.savefig(data, format="svg", metadata={"Date": None})
    return address("svg+xml", data.getvalue())
