"""Sweeps: the points of a grid, a table of what was found at each, and a figure."""

import csv
import json
import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ntklib import claims
from workflow.errors import UsageError
from workflow.plan import SWEEP, Project, places
from workflow.stage import measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Found = dict[str, claims.Result]
"""Results by the name of the point; one that failed has none."""


@dataclass(frozen=True)
class Point:
    """A point of a grid: what it sets, all parameters, and the name of its files.

    Two points of one name have the same parameters, whatever sets them.
    """

    chosen: dict[str, Any]
    values: dict[str, Any]
    name: str

    @property
    def label(self) -> str:
        """What it sets, as in SET."""
        return label(self.chosen)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def label(chosen: dict[str, Any]) -> str:
    """Parameters and their values, as in SET."""
    return " ".join(f"{name}={_text(value)}" for name, value in chosen.items())


def points(
    project: Project,
    notebook: str,
    profile: str,
    grid: dict[str, list[Any]],
    overrides: dict[str, Any],
) -> list[Point]:
    """The points of a grid, the last parameter varying fastest; `overrides` hold at all of them.

    A UsageError says that a parameter or a value is not allowed, or that both set one parameter.
    """
    if both := [name for name in grid if name in overrides]:
        raise UsageError(f"GRID: {both[0]!r} is in SET, too")
    found = []
    for values in product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        full = project.parameters(notebook, profile, overrides | chosen)
        digest = project.digest(notebook, json.dumps(full, sort_keys=True))
        found.append(Point(chosen, full, digest[:12]))
    return found


def told(project: Project, notebook: str, swept: list[Point], found: Found) -> list[str]:
    """A line for each point and claim: the verdict, and the number that stands for the claim."""
    lines = []
    for point in swept:
        for claim in project.claims_of(notebook):
            line = f"{point.label}: {claim.id}: {_verdict(found.get(point.name), claim.id)}"
            if check := _headline(found.get(point.name), claim):
                line += f" ({claim.headline} {measured(check)})"
            lines.append(line)
    return lines


def _verdict(result: claims.Result | None, claim: str) -> str:
    return result.claims[claim].verdict if result else "not run"


def _headline(result: claims.Result | None, claim: claims.Claim) -> claims.CheckResult | None:
    """What was measured for the check that stands for a claim, if that applies and was."""
    return result.claims[claim.id].checks.get(claim.headline or "") if result else None


def write(
    project: Project, notebook: str, profile: str, swept: list[Point], found: Found
) -> dict[str, str]:
    """Writes `sweep.csv`, and `sweep.svg` if there is a number to draw; returns their paths.

    The table has a row for each point, claim and check. A point that failed is `not run`.
    """
    folder = Path(SWEEP.format(notebook=notebook, profile=profile))
    (project.root / folder).mkdir(parents=True, exist_ok=True)
    made = {"table": str(folder / "sweep.csv")}
    with open(project.root / made["table"], "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*swept[0].chosen, *COLUMNS])
        for point in swept:
            given = [_text(value) for value in point.chosen.values()]
            path = Path(places(notebook, profile, point.name)[1]).name
            for row in _rows(project, notebook, found.get(point.name)):
                writer.writerow([*given, *row, path])
    drawn = [
        claim
        for claim in project.claims_of(notebook)
        if any(_headline(found.get(point.name), claim) for point in swept)
    ]
    figure = folder / "sweep.svg"
    (project.root / figure).unlink(missing_ok=True)
    if drawn:
        _draw(project.root / figure, drawn, profile, swept, found)
        made["figure"] = str(figure)
    return made


COLUMNS = (
    "claim", "check", "kind", "predicate", "value", "low", "high", "outcome", "verdict", "result",
)  # fmt: skip


def _rows(project: Project, notebook: str, result: claims.Result | None) -> list[list[Any]]:
    """The rows of one point, without what it sets and where its result is."""
    rows = []
    for claim in project.claims_of(notebook):
        checks = result.claims[claim.id].checks if result else {}
        verdict = _verdict(result, claim.id)
        for name, check in checks.items():
            numbers = (check.value, check.low, check.high)
            shown = [number if math.isfinite(number) else "" for number in numbers]
            rows.append(
                [claim.id, name, check.kind, check.predicate, *shown, check.outcome, verdict]
            )
        if not checks:
            rows.append([claim.id, *[""] * 7, verdict])
    return rows


def _draw(
    path: Path, drawn: list[claims.Claim], profile: str, swept: list[Point], found: Found
) -> None:
    """Draws the deciding number of each claim against the first parameter of the grid.

    Bars are 95 % intervals, dotted lines the margins; a line joins points that differ in the first
    parameter alone. The same numbers make the same file.
    """
    import matplotlib as mpl  # a second that only sweeps have to wait for
    from matplotlib import style
    from matplotlib.figure import Figure

    style.use("ntklib.book")
    figure = Figure(figsize=(6.5, 3.2 * len(drawn)))
    for axes, claim in zip(figure.subplots(len(drawn), squeeze=False)[:, 0], drawn, strict=True):
        _panel(axes, claim, profile, swept, found)
    about = {"Title": f"{drawn[0].notebook}, profile {profile}", "Date": None}
    with mpl.rc_context({"svg.hashsalt": "ntklib"}):
        figure.savefig(path, format="svg", metadata=about)


def _panel(
    axes: "Axes", claim: claims.Claim, profile: str, swept: list[Point], found: Found
) -> None:
    first = next(iter(swept[0].chosen))
    along = list({_text(point.chosen[first]): point.chosen[first] for point in swept}.values())
    numeric = all(type(value) in (int, float) for value in along)
    lines: dict[str, list[tuple[float, claims.CheckResult]]] = {}
    for point in swept:
        if check := _headline(found.get(point.name), claim):
            x = point.chosen[first] if numeric else along.index(point.chosen[first])
            rest = {name: value for name, value in point.chosen.items() if name != first}
            lines.setdefault(label(rest), []).append((x, check))
    for text, entries in lines.items():
        entries.sort(key=lambda entry: entry[0])
        value, low, high = np.array([(c.value, c.low, c.high) for _, c in entries]).T
        errors = np.array([value - low, high - value])
        errors[~np.isfinite(errors)] = np.nan  # an end that is not finite is not drawn
        axes.errorbar([x for x, _ in entries], value, errors, capsize=3, label=text)
    [asked] = [check for check in claim.checks if check.name == claim.headline]
    margin = asked.margin_for(profile)
    assert margin is not None  # else the check would have no result
    for end in margin if isinstance(margin, tuple) else (margin,):
        axes.axhline(end, color="black", linewidth=1, linestyle=":")
    if not numeric:
        axes.set_xticks(range(len(along)), [_text(value) for value in along])
    axes.set(xlabel=first, ylabel=f"{asked.name} ({asked.describe(profile)})", title=claim.id)
    if len(swept[0].chosen) > 1:
        axes.legend()
