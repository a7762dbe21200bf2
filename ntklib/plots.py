"""Figures in one style: readable in colour, in grey, and by a screen reader.

Importing this module sets the style, `book.mplstyle`, for all figures of the process.
"""

import base64
import csv
import html
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure
from PIL import Image

from ntklib.claims import Estimate

mpl.style.use("ntklib.book")
_STYLES = {style["color"]: style["marker"] for style in mpl.rcParams["axes.prop_cycle"]}
COLOURS = tuple(_STYLES)
# Colours by what they stand for in all figures, as labels of curves have it; the first that fits
# counts. What is no concept of the whole book gets a colour that is left.
CONCEPTS = {
    r"fixed kernel|NTK": COLOURS[2],
    r"random sign|noise": COLOURS[5],
    r"initial|untrained": COLOURS[3],
    r"\blinear\b": COLOURS[6],
    r"FGSM": COLOURS[4],
    r"PGD|adversarial|attacked": COLOURS[1],
    r"clean|standard|no attack|benign": COLOURS[0],
}

_MATRIX = "matrix"  # tells axes with numbers in cells from those with a picture


def _colour(label: str, used: Sequence[str]) -> str:
    fitting = [colour for words, colour in CONCEPTS.items() if re.search(words, label)][:1]
    left = [c for c in [*fitting, *reversed(COLOURS)] if c not in used] or COLOURS
    return left[0]


def style(axes: Axes, label: str) -> dict[str, Any]:
    """The colour of what a label names, see `CONCEPTS`, and its marker.

    Axes have each colour once, as long as there is another one.
    """
    colour = _colour(label, [str(line.get_color()) for line in axes.lines])
    return {"color": colour, "marker": _STYLES[colour]}


def colours(labels: Iterable[str]) -> list[int]:
    """The places in `COLOURS` that labels have which stand side by side, chosen as by `style`."""
    used: list[str] = []
    for label in labels:
        used.append(_colour(label, used))
    return [COLOURS.index(colour) for colour in used]


def band(axes: Axes, x: Sequence[float], estimates: Sequence[Estimate], label: str) -> None:
    """A line through estimates, with their intervals as a band, in the style of its label."""
    look = style(axes, label)
    axes.plot(x, [e.value for e in estimates], label=label, markersize=4, **look)
    low, high = [e.low for e in estimates], [e.high for e in estimates]
    shade: dict[str, Any] = {"color": look["color"], "alpha": 0.2, "linewidth": 0}
    axes.fill_between(x, low, high, label=f"_{label}", **shade)  # an underscore: not in the legend


def matrix(
    axes: Axes,
    values: Sequence[Sequence[float | Estimate]] | np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    highest: float | None = None,
    spec: str = ".2f",
    rotation: float = 0,
) -> None:
    """A table of numbers as a heat map, each written into its cell in the format `spec`.

    An estimate is written with its interval, and coloured by its value. The darkest colour is that
    of `highest`, by default the largest value; the lightest is zero. The columns' names are turned
    by `rotation`, in degrees.
    """
    numbers = np.array([[getattr(v, "value", v) for v in row] for row in values], float)
    highest = np.nanmax(numbers, initial=0) if highest is None else highest
    axes.imshow(numbers, vmin=0, vmax=highest, cmap="Blues")
    for (i, j), number in np.ndenumerate(numbers):
        colour = "w" if number > 0.6 * highest else "k"
        axes.text(j, i, f"{values[i][j]:{spec}}", ha="center", va="center", color=colour)
    axes.set_xticks(
        range(len(columns)), columns, rotation=rotation, ha="right" if rotation else "center"
    )
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)
    axes.set_gid(_MATRIX)


def picture(axes: Axes, image: np.ndarray, *, signed: bool = False) -> None:
    """An image of shape `(h, w, c)` with pixels in [0, 1]; or, if `signed`, a perturbation,
    scaled so that grey is zero.
    """
    if signed:
        image = 0.5 + 0.5 * image / max(float(np.abs(image).max()), 1e-12)
    axes.imshow(image.squeeze(), vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def _drawn(axes: Axes) -> Iterator[tuple[Any, ...]]:
    """Series, x, y and the ends of the interval of all that is drawn at coordinates of the data."""
    bands: dict[tuple[str, float], list[float]] = {}
    for band in axes.collections:
        for path in band.get_paths() if isinstance(band, PolyCollection) else []:
            for x, y in np.asarray(path.vertices):
                bands.setdefault((str(band.get_label())[1:], float(x)), []).append(float(y))
    for line in axes.lines:
        if all(line.get_transform().contains_branch_seperately(axes.transData)):
            label = str(line.get_label())
            for x, y in np.asarray(line.get_xydata()):
                ends = bands.get((label, float(x)), [])
                yield label.removeprefix("_"), x, y, *([min(ends), max(ends)] if ends else [])
    for dots in axes.collections:
        if isinstance(dots, PathCollection):
            for x, y in np.asarray(dots.get_offsets()):
                yield str(dots.get_label()).removeprefix("_"), x, y
    if axes.get_gid() == _MATRIX:  # rows are series, columns are x
        rows, columns = (
            [label.get_text() for label in labels]
            for labels in (axes.get_yticklabels(), axes.get_xticklabels())
        )
        for (i, j), value in np.ndenumerate(np.asarray(axes.images[0].get_array())):
            yield rows[i], columns[j], value


def points(figure: Figure) -> str:
    """The numbers that a figure shows as lines, bands, dots and heat maps, as CSV.

    The columns are `panel`, `series`, `x`, `y`, and the ends `low` and `high` of an interval, where
    there is one. Pictures have no rows.
    """
    file = io.StringIO()
    write = csv.writer(file, lineterminator="\n")
    write.writerow(["panel", "series", "x", "y", "low", "high"])
    for number, axes in enumerate(figure.axes):
        for series, *values in _drawn(axes):
            numbers = [f"{v:.6g}" if isinstance(v, float | np.floating) else v for v in values]
            write.writerow([axes.get_title() or number + 1, series, *numbers, *[""] * 2][:6])
    return file.getvalue()


def _png(figure: Figure) -> str:
    """A figure as a picture with 256 colours, which is a third of the size, in base64."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png")
    Image.open(full).convert("RGB").quantize().save(small, format="png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def show(figure: Figure, *, name: str, alt: str, caption: str) -> None:
    """Shows a figure with a text for those who do not see it, and a caption, and closes it.

    In a notebook both are part of the output; in the book they become those of a numbered figure,
    whose label is the name, such as `fig-transfer`. `alt` says what the figure shows, in a sentence
    or two, and the caption what to read off it. The book offers its numbers, see `points`.
    """
    if not (alt.strip() and caption.strip()):
        raise ValueError("alt, caption: both must say something")
    about = {"name": name, "alt": alt, "caption": caption, "csv": points(figure)}
    about["width"] = f"{100 * figure.get_figwidth():.0f}px"
    png = _png(figure)
    plt.close(figure)
    in_notebook = (
        f'<figure><img src="data:image/png;base64,{png}" alt="{html.escape(alt)}" '
        f'style="width: {about["width"]}; max-width: 100%">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
    display(
        {"image/png": png, "text/html": in_notebook, "text/plain": alt},
        raw=True,
        metadata={"ntklib.figure": about},
    )
