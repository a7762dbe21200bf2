"""Figures with a slider: what is drawn, what is written, and that both are what the script gets."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from ntklib import explore, plots

ROOT = Path(__file__).parents[1]
TEXTS = {
    "name": "explore-a",
    "label": "radius",
    "quantity": "margin",
    "alt": "An alt.",
    "caption": "C.",
}
LINES = {"first": [1.0, 0.0, -0.5], "second": np.array([0.5, np.nan, 0.25])}
TICKS = ["0", "0.1", "0.2"]


@pytest.fixture
def shown(monkeypatch):
    """What a figure is, as HTML and as text, from the arguments of `slider`."""

    def show(lines=LINES, ticks=TICKS, **options):
        made = {}
        monkeypatch.setattr(explore, "display", lambda data, raw: made.update(data))
        explore.slider(lines, ticks, **(TEXTS | options))
        return BeautifulSoup(made["text/html"], "html.parser"), made["text/plain"]

    return show


def words(elements):
    return [element.get_text(strip=True) for element in elements]


def test_without_a_script_there_is_one_frame_and_the_table_of_all(shown):
    html, text = shown(start=2)
    assert text == "An alt."
    assert html.figure["id"] == "explore-a"
    assert html.svg["aria-label"] == "An alt."
    now, every = html.find_all("table")
    assert words(now.select("th")) == ["margin", "radius = 0.2", "first", "second"]
    assert words(now.select("td")) == ["-0.50", "0.25"]
    assert words(every.select("thead th")) == ["radius", "first", "second"]
    assert [words(row.select("th, td")) for row in every.select("tbody tr")] == [
        ["0", "1.00", "0.50"],
        ["0.1", "0.00", "–"],
        ["0.2", "-0.50", "0.25"],
    ]


def test_the_script_gets_what_the_table_says(shown):
    html, _ = shown(start=1, spec=".3f")
    data = json.loads(html.script.string)
    assert data["ticks"] == TICKS
    assert (data["label"], data["start"], data["images"]) == ("radius", 1, [])
    rows = [words(row.select("td")) for row in html.select(".explore-all tbody tr")]
    assert [list(row) for row in zip(*data["values"], strict=True)] == rows
    cursor = html.select_one(".explore-cursor")["d"]
    assert cursor.startswith(f"M{data['across'][1]} ")


def test_lines_go_from_the_lowest_value_at_the_bottom_to_the_highest_at_the_top(shown):
    html, _ = shown()
    first, second = [path["d"] for path in html.select(".explore-line")]
    numbers = [tuple(map(float, point.split())) for point in re.findall(r"[\d.]+ [\d.]+", first)]
    across, heights = np.array(numbers).T
    np.testing.assert_allclose(np.diff(across), (352 - 44) / 2)
    np.testing.assert_allclose(
        heights, 150 - 142 * (np.array(LINES["first"]) + 0.5) / 1.5, atol=0.05
    )
    assert re.sub(r"[\d.]+ [\d.]+", "", first) == "MLL"
    assert re.sub(r"[\d.]+ [\d.]+", "", second) == "MM"  # not through what is no number
    zero = float(html.select_one(".explore-zero")["d"].split()[1].partition("H")[0])
    assert zero == heights[1]
    assert words(html.select("svg text"))[:2] == ["1.00", "-0.50"]
    assert shown({"a": [0.5, 1.0, 2.0]})[0].select_one(".explore-zero") is None
    assert words(shown({"a": [np.nan] * 3})[0].select(".explore-now td")) == ["–"]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_those_given(channels, shown):
    images = np.random.default_rng(0).uniform(size=(3, 4, 5, channels))
    html, _ = shown(images={"image": images}, start=1)
    [sources] = json.loads(html.script.string)["images"]
    assert html.img["src"] == sources[1]
    for source, image in zip(sources, images, strict=True):
        file = io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))
        read = np.asarray(Image.open(file)).reshape(image.shape)
        np.testing.assert_array_equal(read, np.round(255 * image))


def test_no_text_is_taken_for_html(shown):
    text = "</script><b>'&\""
    html, _ = shown({text: [1, 2, 3]}, [text, "b", "c"], **dict.fromkeys(TEXTS, text))
    assert html.b is None
    assert json.loads(html.script.string)["ticks"][0] == text
    assert words(html.select("figcaption")) == [text]
    assert html.svg["aria-label"] == text


REFUSED = {
    "no lines": ({"lines": {}}, "lines: there are 0; allowed: 1 to 7"),
    "many lines": (
        {"lines": {str(i): [1, 2, 3] for i in range(8)}},
        "lines: there are 8; allowed: 1 to 7",
    ),
    "a short line": ({"lines": {"a": [1, 2]}}, "a: has 2 frames; allowed: 3, as ticks"),
    "few images": (
        {"images": {"b": np.zeros((2, 4, 4, 1))}},
        "b: has 2 frames; allowed: 3, as ticks",
    ),
    "no caption": ({"caption": " "}, "caption: is empty; it must say something"),
    "many bytes": (
        {"images": {"b": np.random.default_rng(0).uniform(size=(3, 150, 150, 3))}},
        r"explore-a: has \d+ bytes; allowed: at most 150000",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_shown_is_refused(what, shown):
    options, line = REFUSED[what]
    with pytest.raises(ValueError, match=f"^{line}$"):
        shown(**options)


def test_a_curve_has_the_colour_of_what_it_stands_for(shown):
    names = ["adversarial", "standard", "adversarial, again", "a network"]
    html, _ = shown({name: [0.0, 1.0, 2.0] for name in names})
    axes = plots.plt.figure().gca()
    for name, line, key in zip(
        names, html.select(".explore-line"), html.select(".explore-key"), strict=True
    ):
        colour = plots.style(axes, name)["color"]
        axes.plot([0], [0], color=colour)
        [place] = [css for css in line["class"] if css != "explore-line"]
        assert place in key["class"]
        assert colour == plots.COLOURS[int(place.removeprefix("explore-"))]


def test_the_page_has_the_colours_of_figures():
    css = (ROOT / "book/_static/explore.css").read_text(encoding="utf-8")
    light = css.partition("html[data-theme")[0]
    given = dict(re.findall(r"--explore-(\d): (#[0-9a-f]+);", light))
    full = [
        c if len(c) == 7 else "#" + "".join(2 * digit for digit in c[1:]) for c in given.values()
    ]
    assert list(given) == [str(i) for i in range(len(plots.COLOURS))]
    assert full == [colour.lower() for colour in plots.COLOURS]
