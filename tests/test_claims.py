import copy
import dataclasses
import json
import os

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ntklib import claims
from ntklib.attacks import Finding
from ntklib.claims import Check, Estimate, RegistryError

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
                    "quantity": "a gap",
                    "predicate": ">=",
                    "margin": 0.25,
                    "why": "a pilot",
                },
                {
                    "name": "ratio",
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


def result():
    return {
        "schema": 2,
        "notebook": "01_a",
        "profile": "laptop",
        "parameters": {},
        "seeds": [0, 1, 2],
        "claims": [{"claim": "T1", "checks": [], "verdict": "inconclusive"}],
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


def test_the_books_registry_has_every_claim_of_the_four_papers():
    registry = claims.load()
    ids = [claim.id for claim in registry.claims]
    counts = zip("LTFP", (7, 7, 8, 8), strict=True)
    expected = {f"{paper}{i}" for paper, n in counts for i in range(1, n + 1)}
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
    check = Check("c", "q", *kind, "why")
    margins = np.atleast_1d(kind[1])
    inside = margins[(margins > low) & (margins < high)]
    probes = [low, high, (low + high) / 2]  # and points on both sides of each margin within
    probes += [np.nextafter(m, side) for m in inside for side in (low, high)]
    held = {check.holds(float(p), "laptop") for p in probes}
    assert check.passed(low, high, "laptop") is (held.pop() if len(held) == 1 else None)


@pytest.mark.parametrize("ends", [(np.nan, 1.0), (0.0, np.nan), (np.nan, np.nan)])
def test_an_interval_that_is_no_number_decides_nothing(ends):
    assert Check("c", "q", ">=", -5.0, "why").passed(*ends, "laptop") is None


@pytest.mark.parametrize(
    ("passed", "options", "expected"),
    [
        ([True, True], {}, "reproduced"),
        ([False, False], {}, "not reproduced"),
        ([True, False], {}, "partly"),
        ([True, False, None], {}, "partly"),
        ([True, None], {}, "inconclusive"),
        ([False, None], {}, "inconclusive"),
        ([None], {}, "inconclusive"),
        ([], {}, "inconclusive"),
        ([True, True], {"n_seeds": 2}, "inconclusive"),
        ([False], {"n_seeds": 2}, "inconclusive"),
        ([True, True], {"sound": False}, "inconclusive"),
        ([True, True], {"profile": "smoke"}, "inconclusive"),
    ],
)
def test_verdicts(passed, options, expected):
    assert claims.verdict(passed, **{"n_seeds": 3, "sound": True} | options) == expected


def test_an_estimate_of_constants_is_the_constant():
    e = claims.estimate(
        np.full((3, 50), 0.25), np.full((3, 50), 0.75), statistic=lambda a, b: b - a
    )
    assert (e.value, e.per_seed) == (0.5, (0.5, 0.5, 0.5))
    np.testing.assert_allclose((e.low, e.high), 0.5)


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


def test_an_estimate_is_the_median_over_seeds():
    e = claims.estimate(np.array([0.1, 0.9, 0.2]))
    assert e.value == 0.2
    assert (e.low, e.high) == (0.1, 0.9)


def test_pairing_over_test_points_narrows_the_interval():
    rng = np.random.default_rng(0)
    a = rng.random((3, 400)) < 0.5
    b = a ^ (rng.random((3, 400)) < 0.02)
    paired = claims.estimate(a, b, statistic=np.subtract)
    loose = claims.estimate(a, rng.permuted(b, axis=1), statistic=np.subtract)
    assert paired.high - paired.low < 0.5 * (loose.high - loose.low)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    truth, hits, trials = 0.7, 0, 200
    for trial in range(trials):
        sample = rng.random((5, 100)) < truth
        e = claims.estimate(sample, resamples=300, seed=trial)
        hits += e.low <= truth <= e.high
    assert 0.9 <= hits / trials <= 1.0


def test_a_ratio_with_a_zero_below_it_is_undecided_not_an_error():
    e = claims.estimate(np.zeros((3, 10)), np.zeros((3, 10)), statistic=np.divide)
    assert e.as_dict() == {"value": None, "interval": [None, None], "per_seed": [None] * 3}


@pytest.mark.parametrize("shapes", [[(3, 4), (3, 5)], [(0,)], [(3, 0)], [(2, 2, 2)]])
def test_samples_of_wrong_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match=r"^samples: shapes"):
        claims.estimate(*(np.zeros(s) for s in shapes), statistic=lambda *a: a[0])


def test_an_outcome_carries_a_valid_result(registry):
    estimates = {
        "gap": Estimate(0.4, 0.3, 0.5, (0.4, 0.4, 0.4)),
        "ratio": Estimate(1.0, 0.9, 1.1, ()),
    }
    finding = Finding("zero_gradient", 0.0, 0.0, True, "share")
    outcome = claims.judge(
        registry["T1"],
        estimates,
        profile="laptop",
        seeds=[0, 1, 2],
        soundness=[finding],
        measurements={"m": Estimate(1.0, 0.0, 2.0, (1.0,)), "curve": [1, 2]},
    )
    shown = outcome._repr_mimebundle_()
    assert outcome.verdict == "reproduced"
    assert "reproduced" in shown["text/html"]
    assert shown["text/plain"].startswith("T1: reproduced (3 seeds)")
    found = shown[claims.MIME]
    assert found["checks"][0] == {
        "name": "gap",
        "value": 0.4,
        "interval": [0.3, 0.5],
        "per_seed": [0.4, 0.4, 0.4],
        "predicate": ">= 0.25",
        "passed": True,
    }
    assert found["measurements"] == {
        "m": {"value": 1, "interval": [0, 2], "per_seed": [1]},
        "curve": [1, 2],
    }


def test_an_unsound_attack_and_a_seed_given_twice_make_a_claim_inconclusive(registry):
    estimates = {"gap": Estimate(0.4, 0.3, 0.5, ()), "ratio": Estimate(1.0, 0.9, 1.1, ())}
    unsound = Finding("zero_gradient", 0.5, 0.0, False, "share")
    for options in ({"seeds": [0, 1, 2], "soundness": [unsound]}, {"seeds": [0, 0, 1]}):
        outcome = claims.judge(registry["T1"], estimates, profile="laptop", **options)
        assert outcome.verdict == "inconclusive"


def test_quantities_that_do_not_match_the_checks_are_refused(registry):
    with pytest.raises(ValueError, match=r"quantities: missing \['ratio'\]"):
        claims.judge(
            registry["T1"], {"gap": Estimate(0.0, 0.0, 0.0, ())}, profile="laptop", seeds=[0]
        )


def test_a_result_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "laptop.json"
    claims.write_result(path, result())
    assert claims.read_result(path) == result()
    before = path.read_bytes()

    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        claims.write_result(path, result() | {"seeds": [5, 6, 7]})
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
def test_a_wrong_result_is_not_written(tmp_path, wrong):
    with pytest.raises(RegistryError) as caught:
        claims.write_result(tmp_path / "r.json", result() | wrong)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps(result())[:-20], '{"schema": 1}'])
def test_a_damaged_result_is_refused_by_name(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(RegistryError, match=r"r\.json: "):
        claims.read_result(path)
