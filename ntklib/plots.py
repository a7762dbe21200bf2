"""Figures in one style: readable in colour, in grey, and by a screen reader."""

import base64
import html
import io
from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntklib.claims import Estimate

# Okabe & Ito's colours, told apart by colour-blind readers, with a marker each; their yellow
# is left out, which is hard to see on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def style() -> AbstractContextManager[None]:
    """The book's style, for a `with` block around the making of a figure."""
    return mpl.rc_context(
        {
            "axes.prop_cycle": cycler(color=COLOURS) + cycler(marker=MARKERS),
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "font.size": 10,
            "grid.alpha": 0.25,
            "image.cmap": "gray",
            "legend.frameon": False,
            "savefig.dpi": 160,
        }
    )


def band(axes: Axes, x: Sequence[float], estimates: Sequence[Estimate], label: str) -> None:
    """A line through estimates, with their intervals as a band."""
    (line,) = axes.plot(x, [e.value for e in estimates], label=label, markersize=4)
    low, high = [e.low for e in estimates], [e.high for e in estimates]
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def picture(axes: Axes, image: np.ndarray, *, signed: bool = False) -> None:
    """An image of shape `(h, w, c)` with pixels in [0, 1]; or, if `signed`, a perturbation,
    scaled so that grey is zero.
    """
    if signed:
        image = 0.5 + 0.5 * image / max(float(np.abs(image).max()), 1e-12)
    axes.imshow(image.squeeze(), vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def show(figure: Figure, *, name: str, alt: str, caption: str) -> None:
    """Shows a figure with a text for those who do not see it, and a caption.

    In a notebook both are part of the output; in the book they become those of a numbered figure.

    Args:
        figure: the figure; it is closed.
        name: its label in the book, such as `fig-transfer`.
        alt: what the figure shows, in a sentence or two.
        caption: what to read off it.

    Raises:
        ValueError: if `alt` or `caption` is empty.
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
