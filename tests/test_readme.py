"""The numbers in README are those of the project, but for the time of a build: timings drift."""

import re
from importlib import metadata
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBERS = {"three": 3, "four": 4, "five": 5, "six": 6}


def stated(pattern: str) -> str:
    """What README says at a place that a pattern finds once."""
    [found] = re.findall(pattern, README)
    return found


def test_it_names_all_pythons() -> None:
    names = re.findall(r"3\.\d+", stated(r"You need .*? (3\.\d+.*?), pip"))
    lower, upper = re.search(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text()
    ).groups()
    assert names == [f"3.{minor}" for minor in range(int(lower), int(upper))]


def test_it_says_how_much_room_the_environment_takes() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    packages = re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)
    installed = {d.metadata["Name"].lower().replace("_", "-"): d for d in metadata.distributions()}
    files = (
        Path(str(file.locate()))
        for name in packages
        for file in (installed[name].files or () if name in installed else ())
    )
    taken = sum(path.stat().st_size for path in files if path.is_file()) / 1e9
    assert 0.5 < taken / float(stated(r"(\d+) GB of disk")) < 1


def test_it_counts_the_papers() -> None:
    papers = yaml.safe_load((ROOT / "book/claims.yml").read_text(encoding="utf-8"))["papers"]
    assert NUMBERS[stated(r"the claims of (\w+) papers")] == len(papers)


def test_it_says_which_pages_a_profile_has() -> None:
    first, last = map(int, re.findall(r"\d+", stated(r"for pages (\d+ to \d+)")))
    profile = yaml.safe_load((ROOT / "profiles/cifar8.yml").read_text(encoding="utf-8"))
    assert {int(name[:2]) for name in profile["notebooks"]} == set(range(first, last + 1))
