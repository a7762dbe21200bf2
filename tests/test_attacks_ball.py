import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import images, labels, linear, smooth, weights
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jax.tree_util import Partial

from ntklib import attacks, features, infinite

FLOAT = {"allow_subnormal": False, "width": 32}
DRAWN = (3, 3, 2, 2)
drawn_images = arrays.arrays(np.float32, DRAWN, elements=st.floats(0, 1, **FLOAT))
drawn_attacks = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 1000),
        "epsilon": st.floats(0, 2, **FLOAT),
        "step_size": st.floats(0, 4, **FLOAT),
        "steps": st.integers(1, 4),
        "start": st.booleans(),
        "norm": st.sampled_from(["linf", "l2"]),
    }
)
W = weights(4, size=12)


def check_ball_and_box(x, seed, epsilon, step_size, steps, start, norm):
    x, y, key = jnp.asarray(x), labels(len(x), 4, seed), jax.random.key(seed)
    f, options = Partial(smooth, W), {"epsilon": epsilon, "steps": steps, "norm": norm}
    found = [
        attacks.pgd(
            f, x, y, key, step_size=step_size, random_start=start, restarts=1 + start, **options
        ),
        attacks.apgd(f, x, y, key, restarts=2, **options),
        attacks.apgd_targeted(f, x, y, key, **options),
    ]
    if norm == "linf":
        found += [
            attacks.random_sign(None, x, None, key, epsilon=epsilon),
            attacks.square(f, x, y, key, epsilon=epsilon, queries=steps),
        ]
    for z in found:
        assert z.dtype == x.dtype
        assert_inside(z, x, epsilon, norm, (0, 1))


def broken(f, z, y):
    return np.asarray(~attacks.correct(f(jnp.asarray(z)), y))


def assert_inside(z, x, epsilon, norm, clip):
    """In the box and in the ball, exactly, hence also finite."""
    assert clip[0] <= z.min() <= z.max() <= clip[1]
    for dtype in {x.dtype.type, np.float64}:
        moved = (np.asarray(z, dtype) - np.asarray(x, dtype)).reshape(len(x), -1)
        if norm == "l2" and (dtype == np.float64 or epsilon < 1e18):  # the squares have room
            assert np.linalg.norm(moved, axis=1).max() <= epsilon
        elif norm == "linf" and dtype == x.dtype:
            assert np.abs(moved).max() <= dtype(min(epsilon, 1e38))


@settings(max_examples=40)
@given(drawn_images, drawn_attacks)
def test_attacks_stay_in_the_ball_and_the_box_exactly(x, attack):
    check_ball_and_box(x, **attack)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn_images, drawn_attacks)
def test_attacks_stay_in_the_ball_and_the_box_exactly_in_double_precision(x64, x, attack):
    check_ball_and_box(x.astype(np.float64), **attack)


@pytest.mark.parametrize("epsilon", [0.1, 1 / 255, 8 / 255, 0.3])
def test_rounding_of_large_images_does_not_leave_the_ball(epsilon):
    x, radius = images(20, shape=(32, 32, 3)), np.float32(epsilon)
    z = attacks.random_sign(None, x, None, jax.random.key(1), epsilon=epsilon, clip=(-1.0, 2.0))
    assert np.abs(np.asarray(z) - np.asarray(x)).max() <= radius
    direction = jax.random.normal(jax.random.key(1), x.shape)
    for centre in (x, 0 * x):
        z = attacks.Ball.around(centre, epsilon, "l2", (-9.0, 9.0)).project(centre + direction)
        for sum_in in (np.float32, np.float64):
            moved = (np.asarray(z, sum_in) - np.asarray(centre, sum_in)).reshape(20, -1)
            lengths = np.linalg.norm(moved, axis=1)
            assert lengths.max() <= epsilon
            assert lengths.min() >= epsilon * (1 - 1e-3)


@settings(max_examples=40)
@given(drawn_images, st.integers(0, 1000), st.floats(2.0**-100, 2.0**-10, **FLOAT))
def test_a_small_l2_ball_is_filled(x, seed, epsilon):
    x = 0 * jnp.asarray(x)  # no rounding of x + d
    z = attacks.Ball.around(x, epsilon, "l2").project(images(len(x), seed, x.shape[1:]))
    lengths = np.linalg.norm(np.asarray(z, np.float64).reshape(len(x), -1), axis=1)
    np.testing.assert_allclose(lengths, epsilon, rtol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_starts_are_uniform_in_the_ball(norm):
    x = jnp.full((4000, 2, 1, 1), 0.5)
    points = attacks.Ball.around(x, 0.25, norm).uniform(jax.random.key(0), 2)
    assert (points[0] != points[1]).all()
    d = np.asarray(points - x).reshape(-1, 2)
    # A part of the ball has the share of the points that is its share of the area.
    radius = np.linalg.norm(d, axis=1) if norm == "l2" else np.abs(d).max(axis=1)
    sorted_shares = np.sort((radius / 0.25) ** 2)
    assert np.abs(sorted_shares - np.linspace(0, 1, len(d))).max() < 0.03
    np.testing.assert_allclose(d.mean(axis=0), 0, atol=0.01)


def test_random_signs_move_each_pixel_by_epsilon():
    x = 0.5 + 0.1 * images(50)
    z = attacks.random_sign(None, x, None, jax.random.key(0), epsilon=0.1)
    np.testing.assert_allclose(jnp.abs(z - x), 0.1, rtol=1e-5)
    assert abs(float(jnp.mean(jnp.sign(z - x)))) < 0.1


# Whatever the gradients are.

INFINITY = float("inf")


@jax.custom_vjp
def steered(w, slope, x):
    """Logits of a linear model, with a gradient of our own, as a loss may have it in a corner."""
    return linear(w, x)


steered.defvjp(
    lambda w, slope, x: (steered(w, slope, x), slope),
    lambda slope, pulled: (jnp.zeros((slope[0].size, 1)), slope, slope * pulled.reshape(-1, 1)),
)
gradients = arrays.arrays(
    np.float32,
    (4, 6),
    elements=st.sampled_from([0.0, 1.0, -2.0, 1e-45, -1e-40, 1e-30, 3e38, -3e38])
    | st.sampled_from([INFINITY, -INFINITY, float("nan")]),
)


@settings(max_examples=60)
@given(
    gradients,
    arrays.arrays(np.float32, (4, 6), elements=st.floats(-(2.0**99), 2.0**99, **FLOAT)),
    st.sampled_from([0.0, 1e-30, 0.3, 1e6, 1e30, 1e39]),
    st.sampled_from([0.0, 0.1, 1e20, 3e38, 1e300]),
    st.sampled_from(["linf", "l2"]),
    st.booleans(),
    st.booleans(),
)
def test_balls_hold_whatever_the_gradients_are(slope, x, epsilon, step, norm, start, boxed):
    clip = (0.0, 1.0) if boxed else None
    x = np.abs(x) / np.float32(2.0**99) if boxed else x
    # XLA takes what is smaller than any normal number for zero, before an attack begins.
    x = jnp.asarray(np.where(np.abs(x) < np.finfo(np.float32).tiny, np.float32(0), x))
    f = Partial(steered, jnp.ones((6, 1)), jnp.asarray(slope))
    found = attacks.pgd(
        f, x, labels(4, 2), jax.random.key(0), epsilon=epsilon, steps=2, step_size=step, norm=norm,
        random_start=start, restarts=1 + start, loss="margin", clip=clip,
    )  # fmt: skip
    assert_inside(found, x, epsilon, norm, clip or (-INFINITY, INFINITY))
    auto = attacks.apgd(
        f, x, labels(4, 2), jax.random.key(0), epsilon=epsilon, steps=5, norm=norm, loss="margin",
        clip=clip,
    )  # fmt: skip
    assert_inside(auto, x, epsilon, norm, clip or (-INFINITY, INFINITY))
    if not start and norm == "l2":
        stuck = ~np.isfinite(slope).all(axis=1)
        np.testing.assert_array_equal(found[stuck], x[stuck])
    if not start and norm == "linf":
        stuck = np.isnan(slope)
        np.testing.assert_array_equal(found[stuck], x[stuck])


def test_a_derivative_that_is_infinite_has_a_sign_and_one_of_nan_has_none():
    x, slope = jnp.full((1, 3), 0.5), jnp.array([[INFINITY, -INFINITY, jnp.nan]])
    f = Partial(steered, jnp.ones((3, 1)), slope)
    found = attacks.fgsm(f, x, jnp.array([0]), epsilon=0.25, loss="margin")
    np.testing.assert_allclose(found, [[0.75, 0.25, 0.5]])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_derivative_that_is_infinite_at_zero_does_not_stop_the_attack_elsewhere(norm):
    def rooted(w, x):  # the derivative of the square root of a black pixel is infinite
        return linear(w, jnp.sqrt(x))

    x, w = images(16).at[:, :2].set(0.0), weights(4)
    f = Partial(rooted, w)
    y = jnp.argmax(f(x), axis=1)
    radius = 0.1 if norm == "linf" else 0.5
    options = {"epsilon": radius, "steps": 5, "norm": norm}
    found = attacks.pgd(f, x, y, jax.random.key(0), **options)
    assert_inside(found, x, radius, norm, (0, 1))
    assert attacks.correct(f(found), y).mean() < 0.7


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_networks_of_half_precision_are_attacked_in_the_precision_of_the_inputs(dtype, norm):
    def half(w, x):
        return linear(w.astype(dtype), x.astype(dtype))

    x, w = images(50), weights(3)
    f = Partial(half, w)
    y, epsilon = jnp.argmax(f(x), axis=1), 0.1 if norm == "linf" else 0.4
    found = attacks.pgd(f, x, y, jax.random.key(0), epsilon=epsilon, steps=5, norm=norm, restarts=2)
    assert found.dtype == x.dtype
    assert_inside(found, x, epsilon, norm, (0, 1))
    full = attacks.pgd(
        Partial(linear, w), x, y, jax.random.key(0), epsilon=epsilon, steps=5, norm=norm, restarts=2
    )
    auto = attacks.apgd(f, x, y, jax.random.key(0), epsilon=epsilon, steps=5, norm=norm)
    assert_inside(auto, x, epsilon, norm, (0, 1))
    share, expected = (1 - broken(f, z, y).mean() for z in (found, full))
    assert share == pytest.approx(expected, abs=0.05)
    assert share < 0.9
    if norm == "linf":
        found = attacks.square(f, x, y, jax.random.key(0), epsilon=epsilon, queries=20)
        assert_inside(found, x, epsilon, norm, (0, 1))


def test_logits_out_of_range_leave_the_images_alone():
    def overflowing(w, x):
        return linear((1e5 * w).astype(jnp.float16), x.astype(jnp.float16))

    x, y = images(20), labels(20, 3)
    f = Partial(overflowing, weights(3))
    assert not jnp.isfinite(f(x)).all()
    for norm in ("linf", "l2"):
        found = attacks.pgd(f, x, y, jax.random.key(0), epsilon=0.3, steps=3, norm=norm, restarts=2)
        assert_inside(found, x, 0.3, norm, (0, 1))
        found = attacks.apgd(f, x, y, jax.random.key(0), epsilon=0.3, steps=3, norm=norm)
        assert_inside(found, x, 0.3, norm, (0, 1))
    found = attacks.square(f, x, y, jax.random.key(0), epsilon=0.3, queries=9)
    assert_inside(found, x, 0.3, "linf", (0, 1))


# NumPy inputs of a precision that JAX does not have.


def flat_product(a, b, get):
    return a.reshape(len(a), -1) @ b.reshape(len(b), -1).T


EACH = [
    attacks.partial(attacks.fgsm),
    attacks.partial(attacks.random_sign),
    attacks.partial(attacks.noisy_fgsm, noise=0),
    attacks.partial(attacks.square, queries=5),
    attacks.partial(attacks.pgd, steps=2),
    attacks.partial(attacks.pgd, steps=2, norm="l2"),
    attacks.partial(attacks.apgd_targeted, steps=3, norm="l2"),
]


@settings(max_examples=40)
@given(
    st.sampled_from(EACH),
    st.sampled_from([(4, 4, 1), (3, 5, 3)]),
    st.integers(0, 1000),
    st.just(0.0) | st.floats(1e-12, 2.0),
    st.sampled_from([(0.0, 1.0), (-0.3, 1.7), None]),
)
@example(EACH[0], (4, 4, 1), 0, 8 / 255, (0.0, 1.0))
def test_float64_images_stay_in_the_ball_exactly_where_jax_has_float32(
    attack, shape, seed, epsilon, clip
):
    assert jnp.asarray(0.5).dtype == jnp.float32
    x = np.random.default_rng(seed).integers(0, 256, (6, *shape)) / 255.0
    y, f = np.arange(6) % 4, Partial(smooth, weights(4, size=x[0].size))
    norm, attack = (
        attack.keywords.get("norm", "linf"),
        attacks.partial(attack, epsilon=epsilon, clip=clip),
    )
    for each in (attack, attacks.ensemble(attack, attack)):
        z = each(f, x, y, jax.random.key(seed))
        assert z.dtype == x.dtype
        assert_inside(z, x, epsilon, norm, clip or (-9.0, 9.0))
    if epsilon == 0:
        np.testing.assert_array_equal(z, x)


def test_float64_images_are_attacked_as_they_are_when_rounded():
    x, y, f = np.asarray(images(20), np.float64) ** 3, labels(20, 3), Partial(smooth, weights(3))
    for norm in ("linf", "l2"):
        options = {"epsilon": 0.2, "steps": 4, "norm": norm}
        exact = attacks.pgd(f, x, y, jax.random.key(0), **options)
        rounded = attacks.pgd(f, np.float32(x), y, jax.random.key(0), **options)
        np.testing.assert_allclose(exact, rounded, atol=1e-7)
        np.testing.assert_array_equal(broken(f, exact, y), broken(f, rounded, y))


@given(st.integers(0, 1000), st.just(0.0) | st.floats(1e-9, 1.0))
def test_fgsm_of_features_stays_in_the_ball_of_float64_images_exactly(seed, epsilon):
    x = np.random.default_rng(seed).integers(0, 256, (9, 2, 3, 1)) / 255.0
    r = infinite.Regressor(flat_product, x[:4], np.array([[1.0], [-1.0]] * 2), ridge=0.1)
    found = features.fgsm(r, [0, range(3)], x, np.arange(9) % 2, epsilon=epsilon)
    assert found.dtype == x.dtype
    for of_group in found:
        assert_inside(of_group, x, epsilon, "linf", (0, 1))


def test_in_a_compiled_function_float64_images_are_rounded():
    x, y = np.asarray(images(4), np.float64), np.asarray(labels(4, 3))

    @jax.jit
    def attack(w):
        return attacks.fgsm(Partial(smooth, w), x, y, epsilon=0.1)

    found = attack(weights(3))
    assert found.dtype == jnp.float32
    outside = attacks.fgsm(Partial(smooth, weights(3)), np.float32(x), y, epsilon=0.1)
    np.testing.assert_allclose(found, outside, atol=1e-6)


def test_float64_images_outside_the_box_by_less_than_float32_can_tell_are_refused():
    x = np.full((2, 3), 1 + 1e-12)
    with pytest.raises(ValueError, match=r"^x: has values outside clip"):
        attacks.random_sign(None, x, None, jax.random.key(0), epsilon=0.1)
