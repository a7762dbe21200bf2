from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ntklib import dynamics


def kernels(t, n=6, seed=0, rank=None):
    factors = np.random.default_rng(seed).normal(size=(t, n, rank or n + 2))
    return factors @ factors.mT


def rotation(n, seed=3):
    return scipy.stats.ortho_group.rvs(n, random_state=seed)


# --- similarity and distance ---


def test_kernels_of_orthogonal_features_are_at_distance_one():
    a, b = np.diag([1.0, 2.0, 0.0]), np.diag([0.0, 0.0, 3.0])
    assert dynamics.distance(a, b) == 1
    assert dynamics.similarity(a, b) == 0


def test_distance_by_hand():
    a, b = np.array([[2.0, 1.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 1.0]])
    assert dynamics.similarity(a, b) == pytest.approx(2 / np.sqrt(6 * 3))
    # H A H = (a11 - 2 a12 + a22) / 4 [[1, -1], [-1, 1]]: here zero for A, -1/4 times it for B.
    assert dynamics.distance(a + np.eye(2), b, centred=True) == pytest.approx(2)


@given(st.integers(0, 100), st.floats(1e-6, 1e6), st.booleans())
def test_scale_and_orthogonal_change_of_points_do_not_matter(seed, scale, centred):
    a, b = kernels(2, seed=seed)
    assert dynamics.distance(a, scale * a, centred=centred) == pytest.approx(0, abs=1e-14)
    expected = dynamics.distance(a, b, centred=centred)
    assert 0 < expected < 1
    assert dynamics.distance(scale * a, b, centred=centred) == pytest.approx(expected)
    order = np.random.default_rng(seed).permutation(6)
    shuffled = (k[np.ix_(order, order)] for k in (a, b))
    assert dynamics.distance(*shuffled, centred=centred) == pytest.approx(expected)
    if not centred:
        q = rotation(6, seed)
        assert dynamics.distance(q @ a @ q.T, q @ b @ q.T) == pytest.approx(expected)


def test_centred_distance_does_not_see_what_is_added_to_all_points():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 7, 4))
    expected = dynamics.distance(x @ x.T, y @ y.T, centred=True)
    x, y = x + rng.normal(size=4), y + 5
    assert dynamics.distance(x @ x.T, y @ y.T, centred=True) == pytest.approx(expected)
    assert dynamics.distance(x @ x.T, y @ y.T) != pytest.approx(expected, rel=0.1)


@given(arrays(np.float64, (2, 5, 5), elements=st.floats(-1e3, 1e3)))
def test_centring_is_the_product_with_h_and_idempotent(k):
    h = np.eye(5) - 1 / 5
    centred = dynamics.centre(k)
    np.testing.assert_allclose(centred, h @ k @ h, atol=1e-11)
    np.testing.assert_allclose(dynamics.centre(centred), centred, atol=1e-11)
    np.testing.assert_allclose(centred.sum(-1), 0, atol=1e-10)
    np.testing.assert_allclose(centred.sum(-2), 0, atol=1e-10)


@pytest.mark.parametrize("centred", [False, True])
def test_all_pairs_at_once_are_the_pairs_one_by_one(centred):
    a, b = kernels(4), kernels(3, seed=1)
    expected = [[dynamics.distance(k, m, centred=centred) for m in b] for k in a]
    np.testing.assert_allclose(dynamics.distances(a, b, centred=centred), expected, rtol=1e-12)
    broadcast = dynamics.distance(a[:, None], b[None], centred=centred)
    np.testing.assert_allclose(broadcast, expected, rtol=1e-12)
    own = dynamics.distances(a, centred=centred)
    np.testing.assert_allclose(own, dynamics.distances(a, a, centred=centred), atol=1e-14)
    np.testing.assert_allclose(np.diag(own), 0, atol=1e-14)
    np.testing.assert_array_equal(own, own.T)
    assert (dynamics.distances(kernels(40), centred=centred) >= 0).all()


def test_float32_kernels_are_compared_in_float64():
    a = kernels(1, n=50)[0].astype(np.float32)
    b = a.copy()
    b[0, 0] *= 1.001
    exact = dynamics.distance(a.astype(np.float64), b.astype(np.float64))
    assert 0 < exact < 1e-7  # which float32 cannot tell from 0
    assert dynamics.distance(jnp.asarray(a), jnp.asarray(b)) == exact


def test_lists_of_kernels_are_taken():
    path = kernels(3)
    as_list = [jnp.asarray(k) for k in path]
    np.testing.assert_allclose(dynamics.distances(as_list), dynamics.distances(path), atol=1e-6)
    assert dynamics.path_length(list(path)) == dynamics.path_length(path)
    np.testing.assert_array_equal(dynamics.spectrum(list(path)), dynamics.spectrum(path))


# --- paths ---


def test_velocity_and_length_of_a_path_that_turns_evenly():
    # Orthogonal kernels A and B of one norm: cos(s) A + sin(s) B turns by s.
    a, b = np.diag([1.0, 0.0, 1.0]), np.diag([0.0, np.sqrt(2), 0.0])
    angles = np.array([0.0, 0.1, 0.3, 0.6])
    path = np.cos(angles)[:, None, None] * a + np.sin(angles)[:, None, None] * b
    steps = 1 - np.cos(np.diff(angles))
    times = [0, 2, 3, 7]
    np.testing.assert_allclose(dynamics.velocity(path, times), steps / [2, 1, 4])
    assert dynamics.path_length(path) == pytest.approx(steps.sum())
    assert dynamics.path_length(path[1:3]) == pytest.approx(steps[1])
    assert dynamics.path_length(path[:1]) == 0
    np.testing.assert_allclose(
        dynamics.distances(path, path[:1])[:, 0], 1 - np.cos(angles), atol=1e-15
    )
    np.testing.assert_allclose(dynamics.polar(path).angle, angles, atol=1e-7)
    chord = np.sin(angles / 2) / np.sin(angles[-1] / 2)
    np.testing.assert_allclose(dynamics.polar(path).radius, chord)


def test_paths_can_be_centred():
    path = kernels(4) + 20
    velocity = partial(dynamics.velocity, times=[0, 1, 2, 3])
    for function in (dynamics.path_length, dynamics.polar, velocity):
        plain = function(dynamics.centre(path))
        np.testing.assert_allclose(function(path, centred=True), plain, atol=1e-7)
        assert not np.allclose(function(path), plain, rtol=0.1)


def test_polar_coordinates_of_a_straight_path():
    start, end = kernels(2)
    share = np.array([0.0, 0.1, 0.5, 1.0])
    radius, angle = dynamics.polar(start + share[:, None, None] * (end - start))
    np.testing.assert_allclose(radius, share, atol=1e-12)
    assert (np.diff(angle) > 0).all()
    assert angle[-1] == pytest.approx(np.arccos(dynamics.similarity(start, end)))
    back = dynamics.polar(np.stack([start, end, (start + end) / 2]))
    np.testing.assert_allclose(back.radius, [0, 2, 1])
    # Growth alone turns nothing.
    radius, angle = dynamics.polar(np.stack([start, 2 * start, 4 * start]))
    np.testing.assert_allclose(radius, [0, 1 / 3, 1])
    np.testing.assert_allclose(angle, 0, atol=1e-7)


@given(st.integers(0, 50), st.integers(1, 5))
def test_a_kernel_is_its_top_and_its_rest(seed, k):
    path = kernels(3, seed=seed)
    top, rest = dynamics.truncate(path, k)
    np.testing.assert_allclose(top + rest, path, atol=1e-12)
    np.testing.assert_allclose(top @ rest, 0, atol=1e-9)
    values = dynamics.spectrum(path)
    zero = np.zeros_like(values)
    tops, rests = values.copy(), np.concatenate([values[:, k:], zero[:, :k]], axis=1)
    tops[:, k:] = 0
    np.testing.assert_allclose(dynamics.spectrum(top), tops, atol=1e-9)
    np.testing.assert_allclose(dynamics.spectrum(rest), rests, atol=1e-9)


def test_truncation_follows_each_kernel():
    # What is on top swaps places: in the top part a turn by a right angle, in the rest as well.
    path = np.stack([np.diag([3.0, 1.0]), np.diag([1.0, 3.0])])
    top, rest = dynamics.truncate(path, 1)
    np.testing.assert_allclose(top, [np.diag([3, 0]), np.diag([0, 3])], atol=1e-12)
    assert dynamics.polar(top).angle[1] == pytest.approx(np.pi / 2)
    assert dynamics.polar(rest).angle[1] == pytest.approx(np.pi / 2)
    assert dynamics.polar(path).angle[1] == pytest.approx(np.arccos(6 / 10))


def test_settling_time_is_the_first_from_which_the_curve_stays_below():
    times = [0, 1, 2, 4, 8]
    curve = [0.5, 0.1, 0.3, 0.1, 0.0]
    assert dynamics.settling_time(curve, times, 0.2) == 4
    assert dynamics.settling_time(curve, times, 0.4) == 1
    assert dynamics.settling_time(curve, times, 1) == 0
    assert dynamics.settling_time(curve, times, 0.1) == 8  # not below at 4
    assert dynamics.settling_time(curve, times, 0) == np.inf
    assert dynamics.settling_time([0.5, 0.1, 0.3], [0, 1, 2], 0.2) == np.inf


@given(
    arrays(np.float64, st.integers(1, 8), elements=st.floats(0, 1)), st.floats(0, 1)
)  # fmt: skip
def test_settling_time_splits_the_curve(curve, yardstick):
    times = np.arange(len(curve)) * 2.0
    settled = dynamics.settling_time(curve, times, yardstick)
    assert (curve[times >= settled] < yardstick).all()
    assert settled == 0 or curve[times < settled][-1] >= yardstick


def test_velocity_of_a_path_from_jax_and_the_remaining_distance():
    path = jnp.asarray(np.stack([np.eye(3), np.diag([1.0, 1, 0]), np.diag([1.0, 0, 0])]))
    remaining = dynamics.distances(path, path[-1:])[:, 0]
    np.testing.assert_allclose(remaining, [1 - 3**-0.5, 1 - 2**-0.5, 0], atol=1e-12)
    assert dynamics.settling_time(remaining, [0, 1, 2], 0.4) == 1
    np.testing.assert_allclose(
        dynamics.velocity(path, jnp.arange(3)), [1 - (2 / 3) ** 0.5, 1 - 0.5**0.5], rtol=1e-12
    )


# --- spectra ---


def test_effective_ranks_of_known_kernels():
    for n in (1, 4, 9):
        values = dynamics.spectrum(5 * np.eye(n))
        assert dynamics.trace_rank(values) == pytest.approx(n)
        assert dynamics.entropy_rank(values) == pytest.approx(n)
    u = np.arange(1.0, 7)
    values = dynamics.spectrum(np.outer(u, u))
    assert dynamics.trace_rank(values) == pytest.approx(1)
    assert dynamics.entropy_rank(values) == pytest.approx(1, abs=1e-6)
    # Shares 1/2, 1/4, 1/4: entropy 3/2 log 2.
    assert dynamics.trace_rank([2.0, 1.0, 1.0]) == pytest.approx(2)
    assert dynamics.entropy_rank([2.0, 1.0, 1.0]) == pytest.approx(2**1.5)


@given(arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1e6)), st.floats(1e-3, 1e3))
def test_effective_ranks_are_bounded_and_free_of_scale(values, top):
    values = np.sort(np.append(values, top))[::-1]
    trace, entropy = dynamics.trace_rank(values), dynamics.entropy_rank(values)
    assert 1 - 1e-9 <= trace <= entropy * (1 + 1e-9)
    assert entropy <= len(values) * (1 + 1e-9)
    assert dynamics.trace_rank(3 * values) == pytest.approx(trace)
    assert dynamics.entropy_rank(3 * values) == pytest.approx(entropy)
    p = values / values.sum()
    assert entropy == pytest.approx(np.exp(scipy.stats.entropy(p)))


def test_spectra_are_those_of_each_kernel_and_follow_orthogonal_changes():
    path, q = kernels(3), rotation(6)
    values = dynamics.spectrum(path)
    assert (np.diff(values) <= 0).all()
    for k, v in zip(path, values, strict=True):
        # Singular values of a positive semi-definite matrix are its eigenvalues.
        np.testing.assert_allclose(v, np.linalg.svd(k, compute_uv=False), rtol=1e-9)
    np.testing.assert_allclose(dynamics.spectrum(q @ path @ q.T), values, rtol=1e-9)
    for function in (dynamics.trace_rank, dynamics.entropy_rank, dynamics.concentration):
        np.testing.assert_allclose(function(values), [function(v) for v in values])


def test_concentration_is_the_share_of_squares():
    np.testing.assert_allclose(dynamics.concentration([3.0, 2.0, 1.0]), [9 / 14, 13 / 14, 1])
    np.testing.assert_allclose(dynamics.concentration(np.ones(4)), [0.25, 0.5, 0.75, 1])
    k = kernels(1)[0]
    top, _ = dynamics.truncate(k, 2)
    share = (top**2).sum() / (k**2).sum()
    assert dynamics.concentration(dynamics.spectrum(k))[1] == pytest.approx(share)


def test_eigenvalues_that_rounding_made_negative_count_as_zero():
    k = kernels(1, n=40, rank=3)[0].astype(np.float32)
    values = dynamics.spectrum(k)
    assert values[-1] < 0
    exact = np.sort(np.linalg.eigvalsh(kernels(1, n=40, rank=3)[0]))[::-1][:3]
    assert dynamics.trace_rank(values) == pytest.approx(exact.sum() / exact[0], rel=1e-5)
    assert dynamics.entropy_rank(values) == pytest.approx(
        np.exp(scipy.stats.entropy(exact)), rel=1e-4
    )


# --- specialisation ---


def test_specialisation_of_block_kernels():
    labels = np.array([0, 0, 1, 1, 2, 2])
    outer = [np.outer(labels == c, labels == c).astype(float) for c in range(3)]
    # The kernel of class c is constant on its own block: u_k^T K u_k is (2/3 2)^2 for k = c and
    # (1/3 2)^2 for the others, a ratio of 4; columns of mean 1 are then (2, 1/2, 1/2).
    result = dynamics.specialisation(np.stack(outer), labels)
    np.testing.assert_allclose(result.matrix, np.full((3, 3), 0.5) + 1.5 * np.eye(3))
    assert result.mean == pytest.approx(2)
    # The scale of each kernel does not matter; kernels of classes that swap places do.
    scaled = np.stack([outer[1], 7 * outer[0], outer[2]])
    swapped = dynamics.specialisation(scaled, labels)
    np.testing.assert_allclose(swapped.matrix, result.matrix[[1, 0, 2]])
    assert swapped.mean == pytest.approx((0.5 + 0.5 + 2) / 3)


@given(st.integers(0, 100))
def test_two_classes_have_specialisation_one(seed):
    labels = np.array([0, 1, 1, 0, 1, 0])
    result = dynamics.specialisation(kernels(2, seed=seed), labels)
    assert result.mean == pytest.approx(1)
    np.testing.assert_allclose(result.matrix[:, 0], result.matrix[:, 1])


@given(st.integers(0, 100), st.integers(2, 4))
def test_specialisation_is_bounded_and_one_for_a_shared_kernel(seed, classes):
    labels = np.random.default_rng(seed).permutation(np.arange(8) % classes)
    k = kernels(classes, n=8, seed=seed)
    result = dynamics.specialisation(np.stack([k, k[::-1]]), labels)
    assert result.matrix.shape == (2, classes, classes)
    assert (result.matrix >= 0).all()
    np.testing.assert_allclose(result.matrix.mean(-2), 1)
    np.testing.assert_allclose(result.mean, np.trace(result.matrix, 0, 1, 2) / classes)
    assert (result.mean < classes).all()
    shared = dynamics.specialisation(np.stack([k[0]] * classes), labels)
    np.testing.assert_allclose(shared.matrix, 1)


# --- bad input ---

GOOD = kernels(3)
NAN = GOOD.copy()
NAN[1, 0, 0] = np.nan
ZERO = GOOD.copy()
ZERO[1] = 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: dynamics.centre(NAN), ValueError, "kernels: has values that are not finite"),
        (lambda: dynamics.centre(GOOD[:, :2]), ValueError, r"kernels: shape \(3, 2, 6\)"),
        (lambda: dynamics.centre(np.eye(3, dtype=int)), TypeError, "kernels: dtype int64"),
        (lambda: dynamics.similarity(GOOD, NAN), ValueError, "b: has values"),
        (lambda: dynamics.similarity(ZERO, GOOD), ValueError, "a: a kernel is zero"),
        (
            lambda: dynamics.distance(GOOD, GOOD[0, :5, :5]),
            ValueError,
            "b: kernels have 5 rows; they have 6",
        ),
        (
            lambda: dynamics.distance(GOOD, np.add.outer(*2 * [np.arange(6) / 7]), centred=True),
            ValueError,
            "b: a kernel is zero when centred",
        ),
        (lambda: dynamics.distances(GOOD[0]), ValueError, r"a: shape \(6, 6\)"),
        (lambda: dynamics.distances(GOOD, GOOD[0]), ValueError, r"b: shape \(6, 6\)"),
        (
            lambda: dynamics.distances(GOOD, GOOD[:, :5, :5]),
            ValueError,
            "b: kernels have 5 rows; they have 6",
        ),
        (lambda: dynamics.velocity(GOOD, [0, 1]), ValueError, r"times: shape \(2,\)"),
        (lambda: dynamics.velocity(GOOD, [0, 1, 1]), ValueError, "times: .* do not ascend"),
        (lambda: dynamics.velocity(GOOD, [0, 1, np.inf]), ValueError, "times: .* do not ascend"),
        (lambda: dynamics.path_length(GOOD[:0]), ValueError, r"kernels: shape \(0, 6, 6\)"),
        (lambda: dynamics.polar(GOOD[[0, 1, 0]]), ValueError, "equals the first"),
        (lambda: dynamics.polar(ZERO), ValueError, "kernels: a kernel is zero"),
        (
            lambda: dynamics.truncate(GOOD, 0),
            ValueError,
            "k: 0 is out of range; it is a whole number, 1 to 5",
        ),
        (lambda: dynamics.truncate(GOOD, 6), ValueError, "k: 6 is out of range"),
        (lambda: dynamics.spectrum(np.triu(GOOD[0])), ValueError, "kernels: is not symmetric"),
        (lambda: dynamics.trace_rank([1.0, 2.0]), ValueError, "descend"),
        (lambda: dynamics.trace_rank([0.0, 0.0]), ValueError, "positive"),
        (lambda: dynamics.entropy_rank([1.0, np.nan]), ValueError, "finite"),
        (lambda: dynamics.entropy_rank([]), ValueError, r"eigenvalues: shape \(0,\)"),
        (lambda: dynamics.concentration([1.0, -0.1]), ValueError, "smallest is -0.1"),
        (lambda: dynamics.settling_time([0.0], [0, 1], 1), ValueError, r"times: shape \(2,\)"),
        (lambda: dynamics.settling_time(np.zeros((1, 1)), [0], 1), ValueError, r"remaining: shape"),
        (lambda: dynamics.settling_time([], [], 1), ValueError, r"remaining: shape \(0,\)"),
        (lambda: dynamics.settling_time([np.nan], [0], 1), ValueError, "remaining: has values"),
        (lambda: dynamics.settling_time([0.1], [0], np.inf), ValueError, "yardstick: inf"),
        (
            lambda: dynamics.specialisation(GOOD, np.array([0, 0, 1, 1, 3, 3])),
            ValueError,
            "labels: has labels from 0 to 3; they are 0 to 2",
        ),
        (
            lambda: dynamics.specialisation(GOOD, np.array([0, 0, 1, 1, 0, 0])),
            ValueError,
            r"labels: has \[0 1\] only; each of 0 to 2 is there",
        ),
        (lambda: dynamics.specialisation(GOOD, np.arange(3)), ValueError, r"labels: shape \(3,\)"),
        (
            lambda: dynamics.specialisation(GOOD[0], np.zeros(6, int)),
            ValueError,
            r"kernels: shape \(6",
        ),
        (
            lambda: dynamics.specialisation(np.ones((2, 2, 2)), np.array([0, 1])),
            ValueError,
            "zero or negative",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_labels_must_be_integers():
    labels = np.array([0, 0, 1, 1, 2, 2])
    with pytest.raises(TypeError):
        dynamics.specialisation(GOOD, labels.astype(float))
