"""Figures: one style for all, heat maps with their numbers, texts for those who do not see them."""

import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from ntklib import plots
from ntklib.claims import Estimate

mpl.use("agg")


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def drawn(axes):
    """The text and the colour of each cell, in the order of rows."""
    return [(text.get_text(), text.get_color()) for text in axes.texts]


def test_importing_plots_sets_the_style_of_the_process():
    code = """
import matplotlib as mpl
before = mpl.rcParams["axes.grid"]
from ntklib import plots
cycle = mpl.rcParams["axes.prop_cycle"].by_key()
print(before, mpl.rcParams["axes.grid"], tuple(cycle["color"]) == plots.COLOURS, *cycle["marker"])
"""
    shown = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert shown == "False True True o s ^ D v P X\n"


def test_a_matrix_writes_each_number_into_its_cell(axes):
    plots.matrix(axes, np.array([[0.0, 0.25], [0.7, 1.0], [0.6, 0.61]]), list("abc"), list("de"))
    assert drawn(axes) == [
        ("0.00", "k"),
        ("0.25", "k"),
        ("0.70", "w"),
        ("1.00", "w"),
        ("0.60", "k"),
        ("0.61", "w"),
    ]
    assert [(text.get_position()) for text in axes.texts][:3] == [(0, 0), (1, 0), (0, 1)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["d", "e"]


@pytest.mark.parametrize(("highest", "colours"), [(None, ["k", "w"]), (10, ["k", "k"])])
def test_numbers_are_light_where_the_cell_is_dark(axes, highest, colours):
    plots.matrix(axes, [[0.5, 2.0]], ["a"], ["b", "c"], highest=highest, spec=".0f")
    assert drawn(axes) == [("0", colours[0]), ("2", colours[1])]
    assert axes.images[0].norm.vmax == (highest or 2)


def test_estimates_are_written_with_their_intervals_and_nothing_measured_is_no_error(axes):
    nothing = Estimate(np.nan, np.nan, np.nan, ())
    plots.matrix(axes, [[Estimate(0.5, 0.25, 0.75, ()), nothing]], ["a"], ["b", "c"], rotation=30)
    assert drawn(axes) == [("0.50 [0.25, 0.75]", "w"), ("nan (no interval)", "k")]
    assert [label.get_rotation() for label in axes.get_xticklabels()] == [30, 30]


@pytest.mark.parametrize("texts", [{"alt": " ", "caption": "c"}, {"alt": "a", "caption": ""}])
def test_a_figure_without_a_text_is_refused(axes, texts):
    with pytest.raises(ValueError, match="alt, caption: both must say something"):
        plots.show(axes.figure, name="fig-a", **texts)
