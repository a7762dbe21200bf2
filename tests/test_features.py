import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from jax.test_util import check_grads

from ntklib import attacks, features, infinite, models

MLP = models.get("mlp", n_classes=1, depth=1)
N = 12


def points(n, seed=0, shape=(3, 3, 1), dtype=np.float32):
    return np.random.default_rng(seed).uniform(size=(n, *shape)).astype(dtype)


def labels(n, k, seed=1):
    return np.random.default_rng(seed).permutation(np.arange(n) % k)


def regressor(k=1, kernel_fn=MLP, **kwargs):
    y = np.asarray(attacks.targets(jnp.asarray(labels(N, max(k, 2))), k))
    return infinite.Regressor(kernel_fn, points(N), y, **kwargs)


def linear(x1, x2, get):
    return x1.reshape(len(x1), -1) @ x2.reshape(len(x2), -1).T


def cubic(x1, x2, get):
    """A kernel that compiles fast."""
    return (1 + linear(x1, x2, get)) ** 3


def fgsm(epsilon, clip=(0.0, 1.0)):
    return attacks.partial(attacks.fgsm, epsilon=epsilon, clip=clip)


# --- logits_fn ---


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("kwargs", [{}, {"time": 0.7}, {"ridge": 0.2}, {"ridge": 0.2, "time": 2.0}])
def test_features_are_those_of_the_formula_and_sum_to_the_regressor(k, kwargs):
    r, new = regressor(k, **kwargs), points(5, seed=1)
    cross = np.asarray(infinite.twin(MLP)(new, r.x), np.float64)
    targets = np.asarray(attacks.targets(jnp.asarray(labels(N, max(k, 2))), k), np.float64)
    rates = r.eigenvalues + kwargs.get("ridge", 0)
    learned = 1 - np.exp(-rates * kwargs.get("time", np.inf))
    outputs = [features.logits_fn(r, i)(new) for i in range(N)]
    for i, output in enumerate(outputs):
        v = r.eigenvectors[:, [i]]
        expected = learned[i] / rates[i] * (cross @ v) @ (v.T @ targets)
        np.testing.assert_allclose(output, expected, atol=2e-4)
    np.testing.assert_allclose(sum(outputs), r(new), atol=1e-3)
    np.testing.assert_allclose(features.logits_fn(r, range(N))(new), r(new), atol=1e-3)


@settings(max_examples=20)
@given(st.sets(st.integers(0, N - 1), min_size=1))
def test_a_group_is_the_sum_of_its_members(members):
    r, new = regressor(3), points(4, seed=1)
    single = sum(features.logits_fn(r, i)(new) for i in members)
    group = features.logits_fn(r, sorted(members))
    np.testing.assert_allclose(group(new), single, atol=1e-3)
    as_array = features.logits_fn(r, np.array(list(members)))
    np.testing.assert_allclose(as_array(new), group(new), atol=1e-4)


def test_features_are_orthogonal_on_the_training_inputs():
    r = regressor()
    values = np.concatenate([features.logits_fn(r, i)(r.x) for i in range(N)], axis=1)
    gram = values.T @ values
    energy = features.label_energy(r.eigenvectors, np.asarray(r(r.x)))
    # Each interpolates its own part of the labels, whose energy is n.
    np.testing.assert_allclose(gram, N * np.diag(energy), atol=2e-3)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("members", [0, 5, N - 1, range(2, 7)])
def test_unit_functions_have_root_mean_square_one_on_the_training_inputs(k, members):
    r = regressor(k).at(0.3)
    plain, unit = (features.logits_fn(r, members, unit=u)(r.x) for u in (False, True))
    assert jnp.sqrt(jnp.mean(unit**2)) == pytest.approx(1, rel=1e-2)
    ratio = np.asarray(unit / plain)
    assert ratio.min() > 0
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=0.05)


def test_a_function_that_is_zero_stays_zero():
    zero = regressor().at(0)
    assert not features.logits_fn(zero, 3, unit=True)(zero.x).any()
    assert not features.usefulness(zero, [3], points(4), labels(4, 2)).any()


def test_what_is_compiled_for_one_feature_serves_all():
    r, compiled = regressor(), []

    @jax.jit
    def evaluate(function, x):
        compiled.append(1)
        return function(x)

    x = jnp.asarray(points(4, seed=1))
    for function in (
        r.logits_fn,
        r.at(0.5).logits_fn,
        features.logits_fn(r, 2),
        features.logits_fn(r, range(3, 9)),
        features.logits_fn(r.at(0.5), 4, unit=True),
    ):
        np.testing.assert_allclose(evaluate(function, x), function(x), atol=1e-4)
    assert len(compiled) == 1


@pytest.mark.usefixtures("x64")
def test_features_of_a_linear_kernel_are_principal_components():
    # With X = U S W^T the kernel is U S^2 U^T, and feature i is (w_i x) (u_i Y) / s_i.
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(6, 2, 4, 1)), rng.normal(size=(6, 2))
    r = infinite.Regressor(linear, x, y)
    u, s, wt = np.linalg.svd(x.reshape(6, 8), full_matrices=False)
    new = rng.normal(size=(5, 2, 4, 1))
    for i in range(6):
        expected = np.outer(new.reshape(5, 8) @ wt[i], u[:, i] @ y) / s[i]
        np.testing.assert_allclose(features.logits_fn(r, i)(new), expected, rtol=1e-9)
        image = features.gradient_images(features.logits_fn(r, i), new, output=1)
        expected = np.broadcast_to((wt[i] * (u[:, i] @ y[:, 1]) / s[i]).reshape(2, 4, 1), new.shape)
        np.testing.assert_allclose(image, expected, rtol=1e-9)


# --- usefulness and robustness ---


@pytest.mark.parametrize("k", [1, 3])
def test_usefulness_is_the_prediction_of_each_function(k):
    r, x, y = regressor(k), points(40, seed=1), labels(40, max(k, 2))
    groups = [*range(N), range(0, 3), range(2, N), [7, 1]]
    expected = [
        attacks.correct(features.logits_fn(r, members)(jnp.asarray(x)), jnp.asarray(y))
        for members in groups
    ]
    np.testing.assert_array_equal(features.usefulness(r, groups, x, y), expected)
    whole = attacks.correct(r(jnp.asarray(x)), jnp.asarray(y))
    np.testing.assert_array_equal(features.usefulness(r, [range(N)], x, y)[0], whole)


def test_features_interpolate_their_part_so_they_know_training_labels():
    # Two eigenvectors of opposite signs on two points: by hand.
    x = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32).reshape(2, 1, 2, 1)

    def kernel_fn(a, b, get):
        return linear(a, b, get) * 2 + 1  # eigenvalue 4 for (1, 1), 2 for (1, -1)

    r = infinite.Regressor(kernel_fn, x, np.array([[1.0], [-1.0]]))
    outcomes = features.usefulness(r, [0, 1, range(2)], x, np.array([1, 0]))
    np.testing.assert_allclose(features.logits_fn(r, 1)(r.x), [[1], [-1]], atol=1e-6)
    assert outcomes[1].all()
    assert outcomes[2].all()


def test_single_features_of_many_classes_predict_two_at_most():
    r, x = regressor(4), points(60, seed=1)
    right = [features.usefulness(r, range(N), x, np.full(60, c)) for c in range(4)]
    predicted = np.argmax(right, axis=0)
    assert (np.sum(right, axis=0) == 1).all()
    assert all(len(np.unique(row)) <= 2 for row in predicted)
    assert len(np.unique(predicted)) > 2


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("epsilon", [0.02, 0.1, 0.5])
def test_robustness_of_linear_features_is_known(k, epsilon):
    # sign(w x) withstands every change of at most epsilon a pixel iff |w x| > epsilon |w|_1.
    rng = np.random.default_rng(8)
    x = rng.normal(size=(6, 2, 4, 1)).astype(np.float32)
    y = np.asarray(attacks.targets(jnp.asarray(labels(6, 2)), k))
    r = infinite.Regressor(linear, x, y)
    new, truth = rng.normal(size=(50, 2, 4, 1)).astype(np.float32), labels(50, 2)
    robust = features.robustness(
        r, [*range(6), range(1, 4)], new, truth, jax.random.key(0),
        attack=fgsm(epsilon, clip=(-99.0, 99.0)), batch_size=16,
    )  # fmt: skip
    u, s, wt = np.linalg.svd(x.reshape(6, 8).astype(np.float64), full_matrices=False)
    signs = y[:, 0] if k == 1 else y[:, 1] - y[:, 0]
    parts = (u.T @ signs / s)[:, None] * wt
    w = np.stack([*parts, parts[1:4].sum(0)])
    margins = (w @ new.reshape(50, 8).T) * (2 * truth - 1)
    np.testing.assert_array_equal(robust, margins > epsilon * np.abs(w).sum(1)[:, None])
    assert 0 < robust.mean() < 0.5


@pytest.mark.parametrize("k", [1, 3])
def test_robustness_is_that_of_attacks_one_by_one(k, key):
    r, x, y = regressor(k, cubic), points(20, seed=1), labels(20, max(k, 2))
    attack, groups = fgsm(0.05), [1, 2, N - 1, range(0, 6)]
    outcomes = features.robustness(r, groups, x, y, key, attack=attack, batch_size=7)
    for row, members in zip(outcomes, groups, strict=True):
        function = features.logits_fn(r, members, unit=True)
        expected = attacks.robust_accuracy(function, x, y, key, attack=attack, batch_size=20)
        np.testing.assert_array_equal(row, expected.robust)
    clean = features.usefulness(r, groups, x, y)
    assert (outcomes <= clean).all()
    assert (outcomes < clean).any()
    nothing = features.robustness(r, groups, x, y, key, attack=fgsm(0))
    np.testing.assert_array_equal(nothing, clean)


def test_all_batches_have_one_size_and_hold_points_that_are_right(key):
    r, x, y, batches = regressor(1, cubic), points(20, seed=1), labels(20, 2), []

    def record(function, images, truth, key):
        batches.append(len(images))
        assert attacks.correct(function(images), truth).all()
        return images

    features.robustness(r, range(1, 5), x, y, key, attack=record, batch_size=8)
    right = features.usefulness(r, range(1, 5), x, y).sum(1)
    assert any(right % 8)
    assert batches == [8] * int(np.ceil(right / 8).sum())


def test_attacks_add_up_on_the_points_that_are_left(key):
    r, x, y, groups = regressor(1, cubic), points(40, seed=1), labels(40, 2), [1, 2, range(0, 6)]
    weak, strong = fgsm(0.02), fgsm(0.05)
    left = features.robustness(r, groups, x, y, key, attack=weak)
    both = features.robustness(r, groups, x, y, key, attack=strong, among=left)
    alone = features.robustness(r, groups, x, y, key, attack=strong)
    np.testing.assert_array_equal(both, left & alone)
    assert 0 < both.sum() < left.sum()
    again = features.robustness(r, groups, x, y, key, attack=fgsm(0), among=left)
    np.testing.assert_array_equal(again, left)
    clean = features.usefulness(r, groups, x, y)
    rest = features.robustness(r, groups, x, y, key, attack=fgsm(0), among=~left)
    np.testing.assert_array_equal(rest, clean & ~left)  # what is wrong stays wrong
    with pytest.raises(ValueError, match=r"among: shape \(2, 40\) .* is \(3, 40\)"):
        features.robustness(r, groups, x, y, key, attack=weak, among=left[:2])


def test_robustness_falls_with_the_radius_and_knows_wrong_from_broken(key):
    r, x = regressor(1, cubic), points(30, seed=1)
    shares = [
        features.robustness(r, range(4), x, labels(30, 2), key, attack=fgsm(e)).mean()
        for e in (0, 0.01, 0.05, 0.3)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < shares[0] / 2
    # The top feature has one sign everywhere. Where that is wrong, nothing is attacked.
    first = features.usefulness(r, [0], x, np.ones(30, int))[0].mean()
    assert first in (0, 1)

    def refuse(*_):
        raise AssertionError

    wrong = np.full(30, int(first == 0))
    assert not features.robustness(r, [0], x, wrong, key, attack=refuse).any()


def test_features_are_attacked_at_unit_scale(key):
    # The cross-entropy of an output like 1e-9 is log 2, to all digits of float32.
    r, x, y, sizes = regressor(1, cubic).at(1e-12), points(30, seed=1), labels(30, 2), []

    def measure(function, x, y, key):
        sizes.append(float(jnp.sqrt(jnp.mean(function(r.x) ** 2))))
        losses = attacks.loss_per_point(function(x), y, "ce")
        assert len(jnp.unique(losses)) > 1
        return x

    features.robustness(r, [1, 5, range(3, N)], x, y, key, attack=measure)
    np.testing.assert_allclose(sizes, 1, rtol=1e-2)
    tiny = features.logits_fn(r, 5)(jnp.asarray(x))
    assert len(jnp.unique(attacks.loss_per_point(tiny, jnp.asarray(y), "ce"))) == 1


# --- fgsm ---


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "kernel_fn", [cubic, MLP, models.get("cnn", n_classes=1, depth=2, readout="flatten")]
)
@pytest.mark.parametrize("time", [None, 0.7])
def test_fgsm_images_are_those_of_attacks_one_by_one(kernel_fn, time):
    new, truth = jnp.asarray(points(9, 1, dtype=float).clip(0.1)), jnp.asarray(labels(9, 2))
    y = np.where(labels(N, 2) == 1, 1.0, -1.0)[:, None]
    r = infinite.Regressor(kernel_fn, points(N, dtype=float), y, time=time)
    groups = [0, 3, N - 1, range(2, 7), range(N)]
    images = features.fgsm(r, groups, new, truth, epsilon=0.2, clip=(0.1, 1.0))
    assert images.shape == (len(groups), *new.shape)
    assert images.dtype == new.dtype
    for found, members in zip(images, groups, strict=True):
        function = features.logits_fn(r, members, unit=True)
        expected = attacks.fgsm(function, new, truth, epsilon=0.2, clip=(0.1, 1.0))
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=20)
@given(st.sets(st.integers(0, 7), min_size=1), st.floats(0, 2), st.integers(1, 300))
def test_fgsm_images_of_linear_features_are_known(members, epsilon, n):
    # Whatever the number of training images is: their gradients are computed in batches.
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 2, 4, 1)).astype(np.float32), rng.choice([-1.0, 1.0], (n, 1))
    r = infinite.Regressor(linear, x, y, ridge=0.1)
    members = sorted(i for i in members if i < n) or [0]
    new, truth = rng.normal(size=(5, 2, 4, 1)).astype(np.float32), rng.integers(0, 2, 5)
    [images] = features.fgsm(r, [members], new, truth, epsilon=epsilon, clip=(-99, 99))
    w = r.x.reshape(n, 8).T @ r.eigenvectors[:, members] @ r.eigenvectors[:, members].T
    w = (w @ r.coefficients).reshape(2, 4, 1)
    expected = new - epsilon * (2 * truth - 1)[:, None, None, None] * np.sign(w)
    np.testing.assert_allclose(images, expected, atol=1e-5)
    assert (np.abs(np.asarray(images) - new) <= np.float32(epsilon)).all()


def test_points_may_have_any_shape_and_be_lists():
    rng = np.random.default_rng(0)
    x, y, new = (rng.uniform(size=shape) for shape in ((8, 5), (8, 1), (4, 5)))
    truth = [0, 1, 1, 0]
    r = infinite.Regressor(cubic, x.astype(np.float32), y)
    arrays_ = features.usefulness(r, [0, range(8)], new.astype(np.float32), np.array(truth))
    np.testing.assert_array_equal(
        features.usefulness(r, [0, range(8)], new.tolist(), truth), arrays_
    )


# --- eigenspaces ---


@given(st.integers(2, 12), st.data())
def test_overlap_is_the_mean_squared_cosine_of_principal_angles(n, data):
    k = data.draw(st.integers(1, n))
    a, b = (scipy.stats.ortho_group.rvs(n, random_state=seed)[:, :k] for seed in (1, n))
    expected = [
        np.mean(np.cos(scipy.linalg.subspace_angles(a[:, :j], b[:, :j])) ** 2)
        for j in range(1, k + 1)
    ]
    np.testing.assert_allclose(features.overlap(a, b), expected, atol=1e-9)
    np.testing.assert_allclose(features.overlap(b, a), expected, atol=1e-9)


def test_overlap_of_equal_and_of_complementary_eigenspaces():
    v = scipy.stats.ortho_group.rvs(9, random_state=0)
    np.testing.assert_allclose(features.overlap(v, -v), 1)
    # A turn within the first four leaves their span as it is.
    turned = v.copy()
    turned[:, :4] = v[:, :4] @ scipy.stats.ortho_group.rvs(4, random_state=1)
    overlaps = features.overlap(v, turned)
    np.testing.assert_allclose(overlaps[3:], 1)
    assert overlaps[:3].max() < 0.99
    np.testing.assert_allclose(features.overlap(v[:, :4], v[:, 4:8]), 0, atol=1e-12)


def test_overlap_of_random_subspaces_is_their_share_of_the_space():
    n, draws = 20, scipy.stats.ortho_group.rvs(20, size=400, random_state=2)
    overlaps = np.stack([features.overlap(a, b) for a, b in draws.reshape(200, 2, n, n)])
    np.testing.assert_allclose(overlaps.mean(0), np.arange(1, n + 1) / n, atol=0.02)


@given(arrays(np.float64, (8, 3), elements=st.floats(-10, 10)).filter(lambda y: abs(y).max() > 0.1))
def test_label_energy_is_a_distribution(y):
    v = scipy.stats.ortho_group.rvs(8, random_state=3)
    energy = features.label_energy(v, y)
    assert (energy >= 0).all()
    assert energy.sum() == pytest.approx(1)
    projection = v[:, :3] @ v[:, :3].T @ y
    assert energy.cumsum()[2] == pytest.approx((projection**2).sum() / (y**2).sum(), abs=1e-9)
    np.testing.assert_allclose(features.label_energy(v[:, :3], 2 * y), energy[:3], atol=1e-12)


def test_label_energy_of_an_eigenvector_is_its_own():
    v = scipy.stats.ortho_group.rvs(5, random_state=3)
    np.testing.assert_allclose(features.label_energy(v, v[:, [2]]), np.eye(5)[2], atol=1e-12)


# --- pictures ---


@pytest.mark.usefixtures("x64")
def test_gradient_images_are_finite_differences():
    r = infinite.Regressor(MLP, points(N, dtype=np.float64), np.eye(3)[labels(N, 3)])
    x, h = points(3, seed=1, dtype=np.float64), 1e-6
    for members, output in ((1, 0), (range(2, 6), 2)):
        function = features.logits_fn(r, members)
        images = features.gradient_images(function, x, output=output)
        assert images.shape == x.shape
        for row, column in ((0, 0), (2, 1)):
            moved = np.zeros_like(x[0])
            moved[row, column] = h
            change = (function(x + moved) - function(x - moved))[:, output] / (2 * h)
            np.testing.assert_allclose(images[:, row, column, 0], change, rtol=1e-4, atol=1e-6)
        check_grads(function, (x,), order=1, modes=("rev",), rtol=1e-4)


def test_gradient_images_of_one_feature_are_the_same_for_all_outputs():
    function, x = features.logits_fn(regressor(3), 2), points(4, seed=1)
    a, b = (np.asarray(features.gradient_images(function, x, output=c)) for c in (0, 2))
    scale = (a * b).sum() / (a * a).sum()
    np.testing.assert_allclose(b, scale * a, atol=1e-4 * np.abs(b).max())


@given(
    arrays(np.float32, array_shapes(min_dims=2, max_dims=4), elements=st.floats(-50, 50, width=32))
)
def test_min_max_scales_each_image_to_the_unit_range(images):
    scaled = features.min_max(images)
    for image, original in zip(scaled, images, strict=True):
        assert image.min() == 0
        span = np.ptp(original.astype(np.float64))
        assert image.max() == (span > 0)
        np.testing.assert_allclose(image * span + original.min(), original, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16), (9, 9), (8, 12)])
def test_a_wave_has_its_frequency(shape):
    h, w = shape
    rows = np.arange(h)[:, None, None]
    waves = np.stack(
        [np.broadcast_to(np.cos(2 * np.pi * c * rows / h + 0.3), (h, w, 2)) for c in range(4)]
    )
    for turned in (waves, np.swapaxes(waves, 1, 2)):
        np.testing.assert_allclose(features.mean_frequency(turned), np.arange(4) / h, atol=1e-12)
    # A sum of two waves has the mean of their frequencies, weighted with their squares.
    both = features.mean_frequency(waves[[1]] + 2 * waves[[3]])
    assert both == pytest.approx((1 + 4 * 3) / 5 / h)


def test_a_chequerboard_has_the_highest_frequency():
    board = (-1.0) ** np.add.outer(np.arange(8), np.arange(8))[None, :, :, None]
    assert features.mean_frequency(board) == pytest.approx(0.5**0.5)


def test_white_noise_has_all_frequencies_alike():
    noise = np.random.default_rng(0).normal(scale=3, size=(400, 16, 16, 3))
    rows = np.fft.fftfreq(16)
    np.testing.assert_allclose(
        features.mean_frequency(noise).mean(), np.hypot(rows[:, None], rows).mean(), rtol=0.01
    )


@settings(max_examples=50)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(1, 3), st.floats(0.01, 100))
def test_frequencies_do_not_depend_on_place_and_scale(h, w, c, scale):
    images = np.random.default_rng(h * w).normal(size=(2, h, w, c))
    assert (features.mean_frequency(images) <= 0.5**0.5 + 1e-12).all()
    shifted = np.roll(images, (h // 2, w // 3), (1, 2))
    np.testing.assert_allclose(
        features.mean_frequency(scale * shifted), features.mean_frequency(images), atol=1e-12
    )


# --- bad input ---


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        (-1, ValueError, "members: -1 is out of range; indices are 0 to 11"),
        (N, ValueError, "members: 12 is out of range"),
        ([1, 2, 1], ValueError, r"members: \[1, 2, 1\] has an index twice"),
        ([], ValueError, r"members: \[\] is not allowed; it is an index"),
        (range(5, 5), ValueError, "it is an index, or a list of some"),
        (np.zeros((1, 1), int), ValueError, "it is an index, or a list of some"),
        ([True], TypeError, r"members: \[True\] is not allowed; indices are whole"),
    ],
)
def test_bad_features_are_named(members, error, message, key):
    r, x, y = regressor(), points(4), labels(4, 2)
    for call in (
        lambda: features.logits_fn(r, members),
        lambda: features.usefulness(r, [0, members], x, y),
        lambda: features.robustness(r, [0, members], x, y, key, attack=fgsm(0.1)),
        lambda: features.fgsm(r, [0, members], x, y, epsilon=0.1),
    ):
        with pytest.raises(error, match=message):
            call()


X, Y, V = points(4), labels(4, 2), np.eye(4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: features.usefulness(r, [0], X[:, :2], Y), ValueError, "x: its rows have"),
        (lambda r: features.usefulness(r, [0], X[:0], Y[:0]), ValueError, "x: shape"),
        (lambda r: features.usefulness(r, [0], X, Y[:3]), ValueError, r"y: shape \(3,\)"),
        (
            lambda r: features.usefulness(r, [0], X, Y + 1),
            ValueError,
            "y: has labels from .*; they are 0 to 1",
        ),
        (
            lambda r: features.usefulness(r, [0], X, Y - 1),
            ValueError,
            "y: has labels from .*; they are 0 to 1",
        ),
        (lambda r: features.usefulness(r, [0], X * np.nan, Y), ValueError, "not finite"),
        (
            lambda r: features.robustness(
                r, [0], X, Y, jax.random.key(0), attack=fgsm(0.1), batch_size=0
            ),
            ValueError,
            "batch_size: 0",
        ),
        (lambda r: features.fgsm(r, [0], X, Y + 1, epsilon=0.1), ValueError, "y: has labels from"),
        (lambda r: features.fgsm(r, [0], X, Y, epsilon=-1), ValueError, "epsilon: -1"),
        (lambda r: features.fgsm(r, [0], X + 1, Y, epsilon=0.1), ValueError, "x: has values outs"),
        (lambda r: features.fgsm(r, [0], X.astype("f2"), Y, epsilon=1), TypeError, "dtype float16"),
        (
            lambda r: features.fgsm(regressor(3), [0], X, Y, epsilon=0.1),
            ValueError,
            "regressor: has 3 outputs; it is one with a single",
        ),
        (
            lambda r: features.gradient_images(features.logits_fn(r, 0), X, output=1),
            ValueError,
            "output: 1 is out of range",
        ),
        (lambda r: features.overlap(V, V[:, :2]), ValueError, r"b: shape \(4, 2\) is not allowed"),
        (lambda r: features.overlap(V[0], V[0]), ValueError, r"a: shape \(4,\)"),
        (lambda r: features.overlap(V, 2 * V), ValueError, "b: columns are not orthonormal"),
        (lambda r: features.overlap(V * np.nan, V), ValueError, "a: columns are not orthonormal"),
        (lambda r: features.label_energy(2 * V, V), ValueError, "eigenvectors: columns are not"),
        (lambda r: features.label_energy(V, V[:3]), ValueError, r"y: shape \(3, 4\)"),
        (lambda r: features.label_energy(V, 0 * V), ValueError, "y: is zero"),
        (lambda r: features.mean_frequency(X[0]), ValueError, r"it is \(m, h, w, c\)"),
        (lambda r: features.mean_frequency(X[:0]), ValueError, "images: shape"),
        (lambda r: features.mean_frequency(X * np.inf), ValueError, "not finite"),
        (lambda r: features.mean_frequency(0 * X), ValueError, "images: one is zero"),
        (lambda r: features.min_max(X * np.nan), ValueError, "images: has values that are not"),
        (lambda r: features.min_max(X[:0]), ValueError, "images: shape"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(regressor())
