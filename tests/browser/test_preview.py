"""README's picture shows what the book says. `make preview` takes it anew."""

import os
import re
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "book/_static/preview.png"
PAGE = "notebooks/11_feature_purification.html"
SIZE = {"width": 1280, "height": 1200}
NUMBER = re.compile(r"[−-]?\d+(?:\.\d+)?")
APART = 0.05  # what another machine may change of a number


def words(text: str) -> list[str]:
    return NUMBER.sub("#", text).split()


def numbers(text: str) -> list[float]:
    return [float(number.replace("−", "-")) for number in NUMBER.findall(text)]


def test_the_picture_says_what_the_book_says(browser: Browser, html: Path) -> None:
    with browser.new_page(viewport=SIZE, color_scheme="light") as tab:
        tab.goto((html / PAGE).as_uri())
        told = tab.locator(".in-short").inner_text()
        if "NTKLIB_PREVIEW" in os.environ:
            tab.screenshot(path=PICTURE)
            about = PngInfo()
            about.add_itxt("Description", told)
            with Image.open(PICTURE) as picture:
                small = picture.quantize(256)
            small.save(PICTURE, pnginfo=about, optimize=True)
    with Image.open(PICTURE) as picture:
        shown = picture.info["Description"]
    assert words(shown) == words(told), "make preview"
    changes = [abs(a - b) for a, b in zip(numbers(shown), numbers(told), strict=True)]
    assert max(changes) <= APART, "make preview"
