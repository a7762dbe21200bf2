"""Figures that a reader can explore: a slider chooses which of a row of frames is shown.

All that a frame shows is in the page, so that it needs no network and no Python. A script of the
book, `_static/explore.js`, makes the slider; without it the page shows one frame and the table.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence

import jinja2
import numpy as np
from IPython.display import display
from jaxtyping import Float
from markupsafe import Markup
from PIL import Image

from ntklib.plots import colours

LIMIT = 150_000
"""How many bytes a figure may have."""
LINES = 7
"""How many lines it may have, as many as there are colours."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 352, 8, 150  # the frame of the chart
_FIGURE = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""\
<figure class="explore" id="{{ name }}">
{% if images %}
<div class="explore-images">
{% for title, sources in images.items() %}
<div><img src="{{ sources[start] }}" alt="{{ title }}"><span>{{ title }}</span></div>
{% endfor %}
</div>
{% endif %}
<svg viewBox="0 0 360 170" role="img" aria-label="{{ alt }}">
<path class="explore-frame" d="M{{ left }} {{ top }}V{{ bottom }}H{{ right }}"/>
{% if zero %}<path class="explore-zero" d="M{{ left }} {{ zero }}H{{ right }}"/>{% endif %}

<text x="{{ left - 4 }}" y="{{ top + 8 }}" text-anchor="end">{{ ends[1] }}</text>
<text x="{{ left - 4 }}" y="{{ bottom }}" text-anchor="end">{{ ends[0] }}</text>
<text x="{{ left }}" y="166">{{ ticks[0] }}</text>
<text x="{{ (left + right) / 2 }}" y="166" text-anchor="middle">{{ label }}</text>
<text x="{{ right }}" y="166" text-anchor="end">{{ ticks[-1] }}</text>
<path class="explore-cursor" d="M{{ across[start] }} {{ top }}V{{ bottom }}"/>
{% for path in paths %}
<path class="explore-line explore-{{ colours[loop.index0] }}" d="{{ path }}"/>
{% endfor %}
</svg>
<table class="explore-now">
<thead><tr><th scope="col">{{ quantity }}</th><th scope="col">{{ label }} = {{ ticks[start] }}</th>
</tr></thead>
<tbody>
{% for title, values in shown.items() %}
{% set colour = colours[loop.index0] %}
<tr><th scope="row"><span class="explore-key explore-{{ colour }}"></span>{{ title }}</th>
<td>{{ values[start] }}</td></tr>
{% endfor %}
</tbody></table>
<details><summary>All values</summary>
<div class="explore-all" tabindex="0" role="group" aria-label="All values"><table>
<thead><tr><th scope="col">{{ label }}</th>
{% for title in shown %}<th scope="col">{{ title }}</th>{% endfor %}
</tr></thead>
<tbody>
{% for tick, values in rows %}
<tr><th scope="row">{{ tick }}</th>{% for value in values %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div></details>
<figcaption>{{ caption }}</figcaption>
<script type="application/json">{{ data }}</script>
</figure>
""")


def slider(
    lines: Mapping[str, Sequence[float] | Float[np.ndarray, " frames"]],
    ticks: Sequence[str],
    *,
    name: str,
    label: str,
    quantity: str,
    alt: str,
    caption: str,
    images: Mapping[str, Float[np.ndarray, "frames h w c"]] | None = None,
    start: int = 0,
    spec: str = ".2f",
) -> None:
    """Shows numbers, and images if there are any, of one frame at a time, with a slider.

    Curves have the colours of what their names stand for, as in all figures of the book.

    Args:
        lines: for each curve of the chart its value in each frame; not every one has to be finite.
        ticks: what the slider says in each frame, such as `0.05`.
        name: the label of the figure, such as `explore-transfer`.
        label: what the slider changes, such as `radius ε`.
        quantity: what the numbers are, such as `output`.
        alt: what the chart shows, for those who do not see it, in a sentence or two.
        caption: what to read off the figure.
        images: for each title one image a frame, with pixels from 0 to 1 and one or three colours.
        start: the frame that is shown first.
        spec: the format of the numbers.

    Raises:
        ValueError: if lines, ticks and images are not of one length, if there are no lines or too
            many, if a text is empty, or if the figure has too many bytes.
    """
    texts = {"name": name, "label": label, "quantity": quantity, "alt": alt, "caption": caption}
    if empty := [key for key, text in texts.items() if not text.strip()]:
        raise ValueError(f"{empty[0]}: is empty; it must say something")
    if not 1 <= len(lines) <= LINES:
        raise ValueError(f"lines: there are {len(lines)}; allowed: 1 to {LINES}")
    for title, entries in {**lines, **(images or {})}.items():
        if len(entries) != len(ticks):
            raise ValueError(f"{title}: has {len(entries)} frames; allowed: {len(ticks)}, as ticks")
    values = np.array(list(lines.values()), float)
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    scale = (_BOTTOM - _TOP) / ((high - low) or 1)
    heights = np.round(_BOTTOM - (values - low) * scale, 1)
    across = np.round(np.linspace(_LEFT, _RIGHT, len(ticks)), 1).tolist()
    texts_of = [[f"{v:{spec}}" if np.isfinite(v) else "–" for v in line] for line in values]
    shown = dict(zip(lines, texts_of, strict=True))
    sources = {title: [_source(image) for image in of] for title, of in (images or {}).items()}
    data = {"label": label, "ticks": list(ticks), "across": across, "start": start}
    data |= {"images": list(sources.values()), "values": list(shown.values())}
    html = _FIGURE.render(
        **texts,
        images=sources,
        ticks=ticks,
        start=start,
        ends=[f"{low:{spec}}", f"{high:{spec}}"],
        zero=round(_BOTTOM + low * scale, 1) if low < 0 < high else None,
        across=across,
        paths=[_path(across, line) for line in heights],
        colours=colours(shown),
        shown=shown,
        rows=list(zip(ticks, zip(*shown.values(), strict=True), strict=True)),
        data=Markup(json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")),
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=_BOTTOM,
    )
    if (size := len(html.encode())) > LIMIT:
        raise ValueError(f"{name}: has {size} bytes; allowed: at most {LIMIT}")
    display({"text/html": html, "text/plain": alt}, raw=True)


def _path(across: Sequence[float], heights: Float[np.ndarray, " frames"]) -> str:
    """A line through points, in the words of SVG; it is interrupted where a height is no number."""
    path, pen = [], "M"
    for x, y in zip(across, heights, strict=True):
        if np.isfinite(y):
            path.append(f"{pen}{x} {y}")
        pen = "L" if np.isfinite(y) else "M"
    return "".join(path)


def _source(image: Float[np.ndarray, "h w c"]) -> str:
    """An image as a PNG in an address."""
    levels = np.clip(np.round(255 * np.asarray(image)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels).save(
        file, "PNG", optimize=True
    )
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
