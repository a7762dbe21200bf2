"""Figures: one style for all, heat maps with their numbers, texts for those who do not see them."""

import base64
import io
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from ntklib import plots
from ntklib.claims import Estimate

mpl.use("agg")


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_a_picture_with_a_text_has_no_numbers(axes):
    plots.picture(axes, np.zeros((3, 3, 1)))
    axes.text(0, 0, "a row")
    assert plots.points(axes.figure).splitlines() == ["panel,series,x,y,low,high"]


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
    assert shown == "False True True o s ^ D v P X h p\n"


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


@pytest.mark.parametrize(
    ("label", "concept"),
    [
        ("adversarial network", "PGD-10"),
        ("clean, infinite width", "standard"),
        ("fixed kernel, smoothed", "NTK (no training)"),
        ("robustness, FGSM", "FGSM"),
        ("linear regression", "linear"),
    ],
)
def test_a_concept_has_one_colour_in_all_figures(label, concept, axes):
    assert plots.style(axes, label) == plots.style(axes, concept)
    assert plots.style(axes, "standard") != plots.style(axes, "adversarial")


def test_concepts_have_colours_of_their_own():
    assert sorted(plots.CONCEPTS.values()) == sorted(plots.COLOURS[:7])


def test_curves_of_one_figure_differ_while_colours_last(axes):
    for label in ["fixed kernel", "fixed kernel, benign", "fixed kernel, smoothed", "clean"]:
        plots.band(axes, [0], [Estimate(0.5, 0.4, 0.6, ())], label)
    colours = [line.get_color() for line in axes.lines]
    assert len(set(colours)) == 4
    assert colours[0] == plots.style(plt.figure().gca(), "fixed kernel")["color"]
    for n in range(5):
        plots.band(axes, [0], [Estimate(0.5, 0.4, 0.6, ())], f"another {n}")
    assert all(line.get_color() in plots.COLOURS for line in axes.lines)


def test_the_numbers_of_a_figure_are_those_that_it_draws():
    figure, (left, right, third) = plt.subplots(1, 3)
    band = [Estimate(0.5, 0.25, 0.75, ()), Estimate(1.0, 0.5, 1.25, ())]
    plots.band(left, [1, 2], band, "a kernel")
    left.axhline(0.3, label="a guide")  # is no data
    plots.band(left, [3], [Estimate(1.0, -np.inf, np.inf, ())], "one seed")
    left.set(title="one")
    right.scatter([3.0], [4.0], label="dots")
    plots.picture(right, np.zeros((2, 2, 1)))
    plots.matrix(third, [[0.5, Estimate(2.0, 1.0, 3.0, ())]], ["r"], ["c", "d"])
    rows = plots.points(figure).splitlines()
    plt.close(figure)
    assert rows == [
        "panel,series,x,y,low,high",
        "one,a kernel,1,0.5,0.25,0.75",
        "one,a kernel,2,1,0.5,1.25",
        "one,one seed,3,1,,",
        "2,dots,3,4,,",
        "3,r,c,0.5,,",
        "3,r,d,2,,",
    ]


@pytest.mark.parametrize("texts", [{"alt": " ", "caption": "c"}, {"alt": "a", "caption": ""}])
def test_a_figure_without_a_text_is_refused(axes, texts):
    with pytest.raises(ValueError, match="alt, caption: both must say something"):
        plots.show(axes.figure, name="fig-a", **texts)


def test_a_figure_is_sharp_and_says_what_it_is(axes, monkeypatch):
    shown = {}
    monkeypatch.setattr(plots, "display", lambda data, **more: shown.update(data, **more))
    plots.band(axes, [1, 2], [Estimate(0.5, 0.25, 0.75, ())] * 2, "clean")
    plots.show(axes.figure, name="fig-a", alt="An alt", caption="A <caption>")
    told = shown["metadata"]["ntklib.figure"]
    assert (told["name"], told["width"]) == ("fig-a", "640px")
    assert told["csv"].count("\n") == 3
    assert "A &lt;caption&gt;" in shown["text/html"]
    image = Image.open(io.BytesIO(base64.b64decode(shown["image/png"])))
    assert image.width == 2 * 640
    assert not plt.fignum_exists(axes.figure.number)
