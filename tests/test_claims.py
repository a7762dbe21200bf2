import copy
import dataclasses
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from importlib import metadata

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from benchmarks import coverage
from ntklib import claims
from ntklib.attacks import Finding
from ntklib.claims import Check, Estimate, RegistryError, Result, _page, _verdicts

REGISTRY = {
    "papers": {
        "paper2020": {
            "authors": "A & B",
            "year": 2020,
            "title": "T",
            "venue": "V",
            "arxiv": "2001.00001",
        }
    },
    "claims": [
        {
            "id": "T1",
            "paper": "paper2020",
            "title": "A title",
            "statement": "A statement.",
            "where": "abstract",
            "reported": None,
            "notebook": "01_a",
            "status": "available",
            "checks": [
                {
                    "name": "gap",
                    "kind": "evidence",
                    "role": "it is the claim",
                    "quantity": "a gap",
                    "predicate": ">=",
                    "margin": 0.25,
                    "why": "a pilot",
                },
                {
                    "name": "ratio",
                    "kind": "gate",
                    "role": "it says that the regime is the one meant",
                    "quantity": "a ratio",
                    "predicate": "between",
                    "margin": {"laptop": [0.5, 2]},
                    "why": "theory",
                },
            ],
        }
    ],
}


@pytest.fixture
def registry(tmp_path):
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump(REGISTRY))
    return claims.load(path)


@pytest.fixture
def page(registry, tmp_path, monkeypatch):
    """The page of the registry's one claim, with a folder of records."""
    monkeypatch.setattr(_page, "load", lambda: registry)
    monkeypatch.setattr(_page, "located", lambda *_: tmp_path / "records")
    provenance = {"sha256": {"images": "0" * 64}}
    return claims.Page("01_a", profile="laptop", seeds=[0, 1, 2], provenance=provenance)


def result():
    return {
        "schema": 3,
        "notebook": "01_a",
        "profile": "laptop",
        "parameters": {},
        "seeds": [0, 1, 2],
        "claims": [{"claim": "T1", "checks": [], "verdict": "exploratory", "reason": "none"}],
        "soundness": [],
        "measurements": {},
        "provenance": {
            "commit": None,
            "dirty": False,
            "started": "2026-01-01",
            "seconds": 1.0,
            "device": "cpu",
            "python": "3.11",
            "packages": {},
            "data_sha256": {},
            "key": "0" * 64,
        },
    }


def test_claims_need_neither_jax_nor_figures():
    code = """
import sys
from ntklib import claims

page = claims.Page("05_kernel_convergence", profile="cifar", seeds=[0], provenance={"sha256": {}})
assert page.record("cifar").profile == "cifar"
shown = page.judge("L6", {}).as_dict()
heavy = ("jax", "flax", "optax", "matplotlib", "IPython")
print(shown["provenance"]["device"], [name for name in heavy if name in sys.modules])
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "cpu []\n"


def test_the_books_registry_has_every_claim_of_the_four_papers():
    registry = claims.load()
    ids = [claim.id for claim in registry.claims]
    counts = zip("LTFP", (7, 7, 8, 8), strict=True)
    expected = {f"{paper}{i}" for paper, n in counts for i in range(1, n + 1)}
    expected = expected - {"L3"} | {"L3a", "L3b", "L3c"}
    assert expected <= set(ids)
    assert registry["T1"].notebook == "01_ntk_transfer"
    with pytest.raises(KeyError, match="'Z9' is unknown; allowed: "):
        registry["Z9"]


def _first(content):
    return content["claims"][0]


MALFORMED = {
    "unknown field": lambda c: _first(c).update(colour="red"),
    "no statement": lambda c: _first(c).pop("statement"),
    "empty statement": lambda c: _first(c).update(statement=""),
    "bad id": lambda c: _first(c).update(id="first"),
    "id twice": lambda c: c["claims"].append(copy.deepcopy(_first(c))),
    "unknown paper": lambda c: _first(c).update(paper="nobody2020"),
    "bad status": lambda c: _first(c).update(status="done"),
    "available without notebook": lambda c: _first(c).update(notebook=None),
    "notebook with path": lambda c: _first(c).update(notebook="../01_a"),
    "no checks": lambda c: _first(c).update(checks=[]),
    "exploratory with checks": lambda c: _first(c).update(exploratory=True),
    "check twice": lambda c: _first(c)["checks"].append(_first(c)["checks"][0]),
    "no kind": lambda c: _first(c)["checks"][0].pop("kind"),
    "bad kind": lambda c: _first(c)["checks"][0].update(kind="hint"),
    "no reason for the kind": lambda c: _first(c)["checks"][0].pop("role"),
    "gates only": lambda c: _first(c)["checks"][0].update(kind="gate"),
    "bad predicate": lambda c: _first(c)["checks"][0].update(predicate="=="),
    "margin is text": lambda c: _first(c)["checks"][0].update(margin="a lot"),
    "margin is a pair": lambda c: _first(c)["checks"][0].update(margin=[0, 1]),
    "between with a number": lambda c: _first(c)["checks"][1].update(margin=1),
    "between reversed": lambda c: _first(c)["checks"][1].update(margin=[2, 1]),
    "margin for unknown profile": lambda c: _first(c)["checks"][0].update(margin={"phone": 1}),
    "margin for no profile": lambda c: _first(c)["checks"][0].update(margin={}),
    "no reason": lambda c: _first(c)["checks"][0].pop("why"),
    "headline of no check": lambda c: _first(c).update(headline="nothing"),
    "reported without provenance": lambda c: _first(c).update(reported={"value": 1, "text": "1"}),
    "bad arxiv": lambda c: c["papers"]["paper2020"].update(arxiv="none"),
    "no claims": lambda c: c.update(claims=[]),
    "no papers": lambda c: c.pop("papers"),
}


@pytest.mark.parametrize("mutate", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_registry_is_refused_with_one_line(tmp_path, mutate):
    content = copy.deepcopy(REGISTRY)
    mutate(content)
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(RegistryError) as caught:
        claims.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "claims[" not in str(caught.value)


@pytest.mark.parametrize("text", ["claims: [", "\t", "just text", "[]", "null", "a: b: c"])
def test_a_registry_that_is_no_registry_is_refused_with_one_line(tmp_path, text):
    path = tmp_path / "claims.yml"
    path.write_text(text)
    with pytest.raises(RegistryError) as caught:
        claims.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_registry_is_named(tmp_path):
    with pytest.raises(RegistryError, match=r"nowhere\.yml: cannot be read"):
        claims.load(tmp_path / "nowhere.yml")


def test_margins_hold_for_their_profile(registry):
    gap, ratio = registry["T1"].checks
    assert [gap.margin_for(p) for p in ("smoke", "laptop", "cifar")] == [0.25] * 3
    assert [ratio.margin_for(p) for p in ("smoke", "laptop", "cifar")] == [(0.5, 2), (0.5, 2), None]
    assert (gap.describe("laptop"), ratio.describe("laptop")) == (">= 0.25", "between 0.5 and 2")
    both = dataclasses.replace(gap, margin={"laptop": 0.3, "cifar": 0.2})
    profiles = ("smoke", "laptop", "cifar", "cifar8", "paper")
    assert [both.margin_for(p) for p in profiles] == [0.3, 0.3, 0.2, 0.2, None]


numbers = st.floats(-3, 3)


@given(numbers, numbers, st.sampled_from([(">=", 0.5), ("<=", 0.5), ("between", (-1.0, 1.0))]))
def test_a_check_passes_iff_the_predicate_holds_on_the_whole_interval(a, b, kind):
    low, high = sorted((a, b))
    check = Check("c", "gate", "r", "q", *kind, "why")
    margins = np.atleast_1d(kind[1])
    inside = margins[(margins > low) & (margins < high)]
    probes = [low, high, (low + high) / 2]  # and points on both sides of each margin within
    probes += [np.nextafter(m, side) for m in inside for side in (low, high)]
    held = {check.holds(float(p), "laptop") for p in probes}
    assert check.passed(low, high, "laptop") is (held.pop() if len(held) == 1 else None)


@pytest.mark.parametrize("ends", [(np.nan, 1.0), (0.0, np.nan), (np.nan, np.nan)])
def test_an_interval_that_is_no_number_decides_nothing(ends):
    assert Check("c", "gate", "r", "q", ">=", -5.0, "why").passed(*ends, "laptop") is None


def check_results(text):
    """Results of checks from letters: e for evidence and g for gates, + holds, - fails, ? open."""
    kinds, passed = {"e": "evidence", "g": "gate"}, {"+": True, "-": False, "?": None}
    return {
        name: claims.CheckResult(0.0, 0.0, 0.0, (), kinds[name[0]], ">= 0", passed[name[1]])
        for name in (f"{each}{i}" for i, each in enumerate(text.split()))
    }


@pytest.mark.parametrize(
    ("text", "options", "expected", "reason"),
    [
        ("e+ e+", {}, "reproduced", "holds: e+0, e+1"),
        ("e- e-", {}, "not reproduced", "fails: e-0, e-1"),
        ("e+ e-", {}, "partly", "evidence holds: e+0; fails: e-1"),
        ("e+ e- e?", {}, "partly", "evidence holds: e+0; fails: e-1"),
        ("e+ e?", {}, "inconclusive", "undecided: e?1"),
        ("e- e?", {}, "inconclusive", "undecided: e?1"),
        ("", {}, "exploratory", "no predicate"),
        # A gate is no evidence, whichever way it goes.
        ("g+ e-", {}, "not reproduced", "fails: e-1"),
        ("g+ e?", {}, "inconclusive", "undecided: e?1"),
        ("g- e+", {}, "inconclusive", "gate not passed: g-0"),
        ("g? e+", {}, "inconclusive", "gate not passed: g?0"),
        ("g- e-", {}, "inconclusive", "gate not passed: g-0"),
        ("g+", {}, "inconclusive", "no evidence is asked for"),
        ("e+", {"n_seeds": 2}, "inconclusive", "2 seeds"),
        ("e-", {"n_seeds": 1}, "one seed", "no interval"),
        ("e+", {"findings": [False]}, "inconclusive", "not sound: zero_gradient"),
        ("e+", {"findings": [True]}, "reproduced", "holds"),
        ("e+", {"profile": "smoke"}, "inconclusive", "no more"),
    ],
)
def test_verdicts(text, options, expected, reason):
    options = {"n_seeds": 3, "findings": []} | options
    options["findings"] = [Finding("zero_gradient", 0, 0, ok, "m") for ok in options["findings"]]
    verdict, why = claims.decide(check_results(text), **options)
    assert verdict == expected
    assert reason in why


@given(st.lists(st.sampled_from(["g+", "e+", "e-", "e?"]), min_size=1))
def test_a_passed_gate_never_changes_a_verdict(letters):
    evidence = [each for each in letters if each != "g+"] or ["e?"]
    asked = claims.decide(check_results(" ".join([*letters, "e?"][: len(letters) or 1])), n_seeds=3)
    if evidence != ["e?"] or "e?" in letters:
        assert claims.decide(check_results(" ".join(evidence)), n_seeds=3)[0] == asked[0]


def test_the_worst_of_all_seeds_is_told():
    seeds = [
        [Finding("a", v, 0.1, v <= 0.1, ""), Finding("b", -v, 0, True, "")] for v in (0, 1, 0.1)
    ]
    assert [(f.name, f.value, f.ok) for f in claims.worst(seeds)] == [
        ("a", 1, False),
        ("b", 0, True),
    ]
    assert claims.worst([]) == []


def test_an_estimate_of_constants_is_the_constant():
    e = claims.estimate(
        np.full((3, 50), 0.25), np.full((3, 50), 0.75), statistic=lambda a, b: b - a
    )
    assert (e.value, e.per_seed) == (0.5, (0.5, 0.5, 0.5))
    np.testing.assert_allclose((e.low, e.high), 0.5)


def test_an_interval_is_above_below_or_not_told_apart():
    low, high = Estimate(1.0, 0.0, 2.0, ()), Estimate(4.0, 3.0, 5.0, ())
    wide, nothing = Estimate(2.0, 1.0, 3.0, ()), Estimate(np.nan, np.nan, np.nan, ())
    assert (high.beside(low), low.beside(high)) == ("above", "below")
    assert (high.beside(2.9), low.beside(2.1)) == ("above", "below")
    for other in (low, high, 1.0, 2, nothing):
        assert wide.beside(other) == "not told apart from"


def test_a_difference_is_paired():
    points = np.arange(20) % 2
    found = claims.difference(np.tile(points, (3, 1)), np.tile(points / 2, (3, 1)))
    assert found == claims.estimate(np.tile(points / 2, (3, 1)))


def test_a_curve_has_an_estimate_for_each_time():
    samples = np.random.default_rng(0).random((3, 4, 5))
    curve = claims.estimates(samples)
    assert curve == [claims.estimate(samples[:, time]) for time in range(4)]
    assert claims.estimates(samples[..., 0])[3] == claims.estimate(samples[:, 3, 0])
    with pytest.raises(ValueError, match="give \\(seeds, times\\) or more axes"):
        claims.estimates(samples[:, 0, 0])


def test_without_test_points_an_interval_is_students():
    values = np.array([0.1, 0.9, 0.2, 0.3])
    e = claims.estimate(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose((e.value, e.low, e.high), (values.mean(), *expected))


def test_a_ratio_is_students_of_logarithms():
    a, b = np.array([1.0, 2.0, 6.0]), np.array([2.0, 1.0, 2.0])
    e = claims.ratio(a, b)
    expected = stats.ttest_1samp(np.log(a / b), 0).confidence_interval(0.95)
    np.testing.assert_allclose((e.low, e.high), np.exp(expected))
    np.testing.assert_allclose(e.value, stats.gmean(a / b))


def test_points_that_all_seeds_share_are_drawn_once():
    """The same points and no spread of the seeds: the interval is that of one sample of points."""
    points = np.random.default_rng(0).random(50)
    e = claims.estimate(np.tile(points, (4, 1)))
    expected = stats.ttest_1samp(points, 0).confidence_interval(0.95)
    np.testing.assert_allclose((e.low, e.high), expected)


samples = st.integers(1, 4).flatmap(
    lambda s: st.integers(1, 7).flatmap(
        lambda n: arrays(np.float64, (2, s, n), elements=st.floats(0, 1, width=16))
    )
)


@given(samples)
def test_an_estimate_is_inside_its_own_interval(drawn):
    a, b = drawn
    correlation = claims.estimate(a, b, statistic=lambda a, b: 2 * a * b - 1, scale="fisher")
    for e in (claims.estimate(a), claims.difference(a, b), claims.ratio(a, b), correlation):
        assert e.low <= e.value <= e.high or np.isnan([e.value, e.low, e.high]).all()
    assert not correlation.low < -1
    assert not correlation.high > 1


@given(samples, st.permutations(range(4)))
def test_an_interval_does_not_know_the_order_of_seeds(drawn, order):
    a = drawn[0]
    found, shuffled = claims.estimate(a), claims.estimate(a[[i for i in order if i < len(a)]])
    ends = [[e.value, e.low, e.high] for e in (found, shuffled)]
    np.testing.assert_allclose(*ends, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", coverage.KINDS)
@pytest.mark.parametrize(
    ("seeds", "points", "shared"), [(3, 0, False), (3, 100, True), (6, 100, False)]
)
def test_intervals_cover_the_truth_as_often_as_they_say(kind, seeds, points, shared):
    trials = 400
    setting = coverage.Setting(kind, seeds, points, shared, 0.03)
    found = coverage.coverage(setting, trials=trials, seed=1)
    error = 3 * np.sqrt(0.05 * 0.95 / trials)
    assert 0.93 - error <= found <= 0.98 + error


def test_a_wrong_interval_is_noticed(monkeypatch):
    """A bootstrap of three seeds has the range of the seeds for its interval."""

    def of_range(values):
        per_seed = np.asarray(values).mean(axis=1)
        return Estimate(per_seed.mean(), per_seed.min(), per_seed.max(), tuple(per_seed))

    monkeypatch.setattr(claims, "estimate", of_range)
    setting = coverage.Setting("mean", 3, 0, False, 0.03)
    assert coverage.coverage(setting, trials=400, seed=1) < 0.85


def test_a_ratio_with_a_zero_below_it_is_undecided_not_an_error():
    e = claims.ratio(np.zeros((3, 10)), np.zeros((3, 10)))
    assert f"{e}" == "nan (no interval)"
    assert e.as_dict() == {"value": None, "interval": [None, None], "per_seed": [None] * 3}
    assert Estimate.from_dict(e.as_dict()).as_dict() == e.as_dict()


@pytest.mark.parametrize("shapes", [[(3, 4), (3, 5)], [(0,)], [(3, 0)], [(2, 2, 2)]])
def test_samples_of_wrong_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match=r"^samples: shapes"):
        claims.estimate(*(np.zeros(s) for s in shapes), statistic=lambda *a: a[0])


PASSING = {"gap": Estimate(0.4, 0.3, 0.5, (0.4,) * 3), "ratio": Estimate(1.0, 0.9, 1.1, ())}
UNSOUND = Finding("zero_gradient", 0.5, 0.0, False, "share")


def test_an_outcome_carries_a_valid_result(page):
    outcome = page.judge(
        "T1",
        PASSING,
        soundness=[Finding("zero_gradient", 0.0, 0.0, True, "share")],
        measurements={"m": Estimate(1.0, 0.0, 2.0, (1.0,)), "curve": [1, 2]},
    )
    shown = outcome._repr_mimebundle_()
    assert outcome.verdict == "reproduced"
    assert "reproduced" in shown["text/html"]
    assert shown["text/plain"].startswith("T1: reproduced (3 seeds): holds: gap\n")
    found = shown[claims.MIME]
    assert (found["claim"], found["profile"], found["seeds"]) == ("T1", "laptop", [0, 1, 2])
    assert found["provenance"]["data_sha256"] == {"images": "0" * 64}
    assert found["checks"][0] == {
        "name": "gap",
        "value": 0.4,
        "interval": [0.3, 0.5],
        "per_seed": [0.4, 0.4, 0.4],
        "kind": "evidence",
        "predicate": ">= 0.25",
        "passed": True,
    }
    assert found["measurements"] == {
        "m": {"value": 1, "interval": [0, 2], "per_seed": [1]},
        "curve": [1, 2],
    }


def test_an_unsound_attack_and_a_seed_given_twice_make_a_claim_inconclusive(page):
    assert page.judge("T1", PASSING, soundness=[UNSOUND]).verdict == "inconclusive"
    page.seeds = [0, 0, 1]
    assert page.judge("T1", PASSING).verdict == "inconclusive"


def test_findings_of_a_page_hold_for_each_claim_that_is_not_given_others(page):
    page.soundness = [UNSOUND]
    assert page.judge("T1", PASSING).verdict == "inconclusive"
    assert page.judge("T1", PASSING, soundness=()).verdict == "reproduced"


def test_a_check_without_a_margin_for_the_profile_is_not_judged(page):
    page.profile = "cifar"
    assert list(page.judge("T1", {"gap": PASSING["gap"]}).checks) == ["gap"]
    none = dataclasses.replace(page.claims["T1"].checks[0], margin=0.0)
    page.claims["T1"] = dataclasses.replace(page.claims["T1"], checks=(none,))
    assert page.judge("T1", {"gap": PASSING["gap"]}).checks["gap"].predicate == ">= 0"


def test_a_result_of_a_check_is_told_with_its_predicate(page):
    gap = page.judge("T1", PASSING).checks["gap"]
    assert (str(gap), f"{gap:.1f}") == ("0.40 [0.30, 0.50] (>= 0.25: holds)", "0.4 [0.3, 0.5]")


class Shown(HTMLParser):
    """Tags and text of HTML."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(str(text))

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_no_text_is_taken_for_html(text):
    paper = claims.Paper("p", text, 2020, f"<i>{text}", "V", "2001.00001")
    reported = claims.Reported(None, f"</td>{text}", "abstract")
    check = Check("gap", "gate", "r", f"<script>{text}", ">=", 0.0, "why")
    claim = claims.Claim("T1", paper, text, text, text, reported, None, "planned", (check,))
    box = Shown(claim._repr_html_())
    assert box.tags == {"table", "tbody", "tr", "th", "td", "strong", "em", "a"}
    assert f"T1. {text}" in box.text
    assert f"</td>{text}" in box.text
    page = claims.Page("01_a", profile="<b>", seeds=[0], provenance={"sha256": {}})
    page.__dict__["claims"] = {"T1": claim}
    page.soundness = [Finding(text, 0.5, 0.0, False, f"{text}<i>'\"&")]
    shown = page.judge("T1", {"gap": claims.estimate([0.5])})._repr_mimebundle_()
    table = Shown(shown["text/html"])
    around = {"p", "span", "div", "details", "summary"}
    assert table.tags <= around | {"table", "caption", "tr", "th", "td", "wbr", "br", "small"}
    assert f"<script>{text}" in table.text
    assert f"{text}<i>'\"&" in table.text


def test_a_package_that_is_not_installed_is_not_in_the_provenance(page, monkeypatch):
    monkeypatch.setattr(_verdicts, "PACKAGES", ("numpy", "no-such-package"))
    packages = page.judge("T1", PASSING).as_dict()["provenance"]["packages"]
    assert packages == {"numpy": metadata.version("numpy")}


def test_a_page_knows_its_claims_only(page):
    with pytest.raises(ValueError, match=r"^claim: 'T2' is unknown; allowed: T1$"):
        page.judge("T2", {})
    other = dataclasses.replace(page, notebook="02_b")
    with pytest.raises(ValueError, match=r"^notebook: '02_b' has no claims; allowed: 01_a$"):
        other.judge("T1", {})


def test_a_page_finds_its_records(page, tmp_path):
    assert page.record("cifar") is None
    recorded = Result.from_dict(result() | {"profile": "cifar"})
    claims.write_result(tmp_path / "records" / "01_a" / "cifar.json", recorded)
    assert page.record("cifar") == recorded
    assert page.record("laptop") is None
    told = page.records(lambda record: f"{len(record.seeds)} seeds.", "cifar", "laptop")
    assert told == "- `cifar`: 3 seeds.\n- `laptop`: there is no record."


def test_a_page_finds_the_store_of_trainings(page, monkeypatch, tmp_path):
    monkeypatch.setenv("NTKLIB_STORE", str(tmp_path))
    assert page.store == tmp_path
    monkeypatch.delenv("NTKLIB_STORE")
    assert page.store is None


def test_every_record_of_the_book_is_read_and_written_as_it_is():
    folder = claims._files.located("records")
    records = sorted(folder.rglob("*.json"))
    assert records
    for path in records:
        assert claims.read_result(path).as_dict() == json.loads(path.read_text("utf-8"))


def test_quantities_that_do_not_match_the_checks_are_refused(page):
    reason = r"^quantities: gap; claim T1 in profile laptop has the checks gap, ratio$"
    with pytest.raises(ValueError, match=reason):
        page.judge("T1", {"gap": PASSING["gap"]})


def test_a_result_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "laptop.json"
    written = Result.from_dict(result())
    claims.write_result(path, written)
    assert claims.read_result(path) == written
    assert json.loads(path.read_text()) == result()
    before = path.read_bytes()

    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        claims.write_result(path, dataclasses.replace(written, seeds=[5, 6, 7]))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["laptop.json"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"schema": 1},
        {"claims": []},
        {"claims": [{"claim": "T1", "checks": [], "verdict": "true"}]},
        {"seeds": []},
        {"profile": "../x"},
        {"extra": 1},
        {"notebook": "../x"},
        {"provenance": {}},
    ],
)
def test_a_wrong_result_is_refused(tmp_path, wrong):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(result() | wrong))
    with pytest.raises(RegistryError, match=r"r\.json: ") as caught:
        claims.read_result(path)
    assert "\n" not in str(caught.value)


def test_a_wrong_result_is_not_written(tmp_path):
    wrong = dataclasses.replace(Result.from_dict(result()), profile="../x")
    with pytest.raises(RegistryError, match=r"r\.json: profile: '\.\./x'"):
        claims.write_result(tmp_path / "r.json", wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps(result())[:-20], '{"schema": 1}'])
def test_a_damaged_result_is_refused_by_name(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(RegistryError, match=r"r\.json: "):
        claims.read_result(path)


SAID = {
    "unit": "of it",
    "holds": "It is {gap}.",
    "fails": "It is only {gap:.1f}.",
    "but": {"ratio": "But {ratio}."},
}


def of_outcome(claim, gap, ratio, verdict="partly"):
    """A result whose two checks have these outcomes."""
    made = {"kind": "evidence", "predicate": ">= 0.25"}
    checks = {
        "gap": claims.CheckResult(0.4, 0.3, 0.5, (), passed=gap, **made),
        "ratio": claims.CheckResult(1.0, 0.9, 1.1, (), passed=ratio, **made),
    }
    found = {claim.id: claims.ClaimResult(checks, verdict, "undecided: a_check")}
    return dataclasses.replace(Result.from_dict(result()), claims=found)


@pytest.mark.parametrize(
    ("gap", "ratio", "verdict", "said"),
    [
        (True, True, "reproduced", "It is 0.40."),
        (True, False, "partly", "It is 0.40. But 1.00."),
        (False, False, "not reproduced", "It is only 0.4. But 1.00."),
        (True, None, "inconclusive", "It is 0.40. No verdict: undecided: a check."),
        (None, None, "inconclusive", "No verdict: undecided: a check."),
    ],
)
def test_a_finding_is_chosen_by_the_outcome(gap, ratio, verdict, said, registry):
    claim = dataclasses.replace(registry["T1"], headline="gap", finding=claims.Words(**SAID))
    found = of_outcome(claim, gap, ratio, verdict)
    assert claims.finding(claim, found) == said
    assert claims.headline(claim, found).value == 0.4
    wordless = claims.finding(registry["T1"], found)
    assert wordless.startswith(f"{claim.title}: {verdict}.")
    assert claims.finding(claim, dataclasses.replace(found, claims={})).startswith("Not judged")


def test_a_sentence_on_what_an_old_record_lacks_is_left_out(registry):
    claim = dataclasses.replace(registry["T1"], headline="gap", finding=claims.Words(**SAID))
    words = dataclasses.replace(claim.finding, holds="It is {other}.")
    found = of_outcome(claim, True, False)
    said = claims.finding(dataclasses.replace(claim, finding=words), found)
    assert said == "But 1.00."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finding": SAID | {"holds": "{gone}"}}, "finding names 'gone', which is no check"),
        ({"finding": SAID | {"but": {"gone": "x"}}}, "finding names 'gone', which is no check"),
        ({"finding": {"unit": "x"}}, "finding"),
    ],
)
def test_a_finding_names_checks_only(change, message, tmp_path):
    content = copy.deepcopy(REGISTRY)
    content["claims"][0] |= change
    (tmp_path / "claims.yml").write_text(yaml.safe_dump(content))
    with pytest.raises(claims.RegistryError, match=message):
        claims.load(tmp_path / "claims.yml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"questions": {"Why?": ["T9"]}}, "under one of them; T1 does not"),
        (
            {"questions": {"Why?": ["T1"], "How?": ["T1"]}},
            "under one of them; one stands there twice",
        ),
        ({"front": ["T9"]}, "front: 'T9' is unknown; allowed: T1"),
    ],
)
def test_each_claim_answers_one_question(change, message, tmp_path):
    (tmp_path / "claims.yml").write_text(yaml.safe_dump(REGISTRY | change))
    with pytest.raises(claims.RegistryError, match=message):
        claims.load(tmp_path / "claims.yml")


def test_a_finding_changes_no_result(registry):
    claim = dataclasses.replace(registry["T1"], finding=claims.Words(**SAID))
    assert repr(claim) == repr(registry["T1"])  # which keys are made from


def test_results_are_exported_with_their_records(registry):
    claim = registry["T1"]
    live = of_outcome(claim, True, False)
    kept = dataclasses.replace(live, profile="cifar")
    data = claims.export(registry, {"01_a": {"laptop": live, "cifar": kept}}, "laptop")
    [told] = data["claims"]
    assert (told["id"], told["page"]) == ("T1", "notebooks/01_a.html#T1")
    assert [r["record"] for r in told["results"]] == [None, "records/01_a/cifar.json"]
    assert told["results"][0]["checks"][0]["interval"] == [0.3, 0.5]
    nothing = claims.export(registry, {}, "laptop")["claims"][0]
    assert (nothing["page"], nothing["results"]) == (None, [])
    odd = {"T1": dataclasses.replace(live.claims["T1"], verdict="splendid")}
    broken = dataclasses.replace(live, claims=odd)
    with pytest.raises(claims.RegistryError, match=r"^claims.json: "):
        claims.export(registry, {"01_a": {"laptop": broken}}, "laptop")
