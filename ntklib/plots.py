"""Figures in one style: readable in colour, in grey, and by a screen reader.

Importing this module sets the style, `book.mplstyle`, for all figures of the process.
"""

import base64
import html
import io
from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntklib.claims import Estimate

mpl.style.use("ntklib.book")
COLOURS = tuple(mpl.rcParams["axes.prop_cycle"].by_key()["color"])


def band(axes: Axes, x: Sequence[float], estimates: Sequence[Estimate], label: str) -> None:
    """A line through estimates, with their intervals as a band."""
    (line,) = axes.plot(x, [e.value for e in estimates], label=label, markersize=4)
    low, high = [e.low for e in estimates], [e.high for e in estimates]
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


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


def picture(axes: Axes, image: np.ndarray, *, signed: bool = False) -> None:
    """An image of shape `(h, w, c)` with pixels in [0, 1]; or, if `signed`, a perturbation,
    scaled so that grey is zero.
    """
    if signed:
        image = 0.5 + 0.5 * image / max(float(np.abs(image).max()), 1e-12)
    axes.imshow(image.squeeze(), vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def show(figure: Figure, *, name: str, alt: str, caption: str) -> None:
    """Shows a figure with a text for those who do not see it, and a caption, and closes it.

    In a notebook both are part of the output; in the book they become those of a numbered figure,
    whose label is the name, such as `fig-transfer`. `alt` says what the figure shows, in a sentence
    or two, and the caption what to read off it.
    """
    if not (alt.strip() and caption.strip()):
        raise ValueError("alt, caption: both must say something")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    png = base64.b64encode(file.getvalue()).decode()
    in_notebook = (
        f'<figure><img src="data:image/png;base64,{png}" alt="{html.escape(alt)}" '
        f'style="max-width: 100%"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )
    display(
        {"image/png": png, "text/html": in_notebook, "text/plain": alt},
        raw=True,
        metadata={"ntklib.figure": {"name": name, "alt": alt, "caption": caption}},
    )
