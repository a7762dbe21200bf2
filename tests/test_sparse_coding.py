from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntklib import attacks, linear
from ntklib import sparse_coding as sc

D, K = 40, 4


def problem(key, **options):
    return sc.task(key, D, K, **options)


def network(key, width=30, smoothing=0.0):
    model = sc.learner(width, threshold=0.2, norm=1.0, smoothing=smoothing)
    return model, model.init(key, jnp.zeros((1, D)))


def l2(epsilon, steps=1):
    size = {"steps": steps, "step_size": epsilon, "random_start": False}
    return attacks.partial(attacks.pgd, epsilon=epsilon, norm="l2", clip=None, **size)


# --- inputs ---


def test_coefficients_have_their_frequencies_and_labels_their_rule(key):
    task = problem(key, spikes=0.5)
    x, y, z = task.sample(key, 20_000)
    counts = {1.0: 0.5, K**-0.5: K, 0.0: D - K - 0.5}
    for size, expected in counts.items():
        share = expected / D
        found = float(jnp.isclose(abs(z), size).mean())
        assert abs(found - share) < 4 * (share * (1 - share) / z.size) ** 0.5
    assert abs(float(jnp.sign(z).mean())) < 4 * ((K + 0.5) / D / z.size) ** 0.5
    np.testing.assert_array_equal(x, z)
    np.testing.assert_array_equal(y, (z @ task.labelling > 0).astype(int))
    assert ((abs(task.labelling) >= 0.75) & (abs(task.labelling) <= 1.25)).all()


def test_samples_are_those_of_the_key(key):
    task, other = problem(key), jax.random.key(1)
    again = task.sample(key, 10)
    np.testing.assert_array_equal(task.sample(key, 10).x, again.x)
    assert (task.sample(other, 10).x != again.x).any()


def test_noise_has_its_variance_and_leaves_the_labels(key):
    quiet, loud = (problem(key, noise=noise) for noise in (0.0, 0.6))
    a, b = (task.sample(key, 4000) for task in (quiet, loud))
    np.testing.assert_array_equal(a.y, b.y)
    xi = b.x - a.x
    assert abs(float(jnp.var(xi)) * D / 0.36 - 1) < 4 * (2 / xi.size) ** 0.5


@pytest.mark.parametrize("dictionary", ["rotation", "cosine_basis"])
def test_a_dictionary_is_orthonormal_and_makes_the_inputs(dictionary, key):
    m = sc.rotation(key, D) if dictionary == "rotation" else sc.cosine_basis(D)
    np.testing.assert_allclose(m.T @ m, np.eye(D), atol=1e-5)
    task = problem(key, dictionary=m)
    x, _, z = task.sample(key, 50)
    np.testing.assert_allclose(x, z @ m.T, atol=1e-6)
    np.testing.assert_allclose(task.coefficients(x), z, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(task.direction), 1, rtol=1e-5)
    if dictionary == "cosine_basis":
        assert abs(m).max() <= (2 / D) ** 0.5 + 1e-6
    else:
        assert abs(jnp.linalg.slogdet(m)[1]) < 1e-4


# --- the network ---


def by_hand(weights, bias, x):
    """The sum of ReLUs of the paper, in double precision, and its gradients."""
    w, b, x = (np.asarray(v, np.float64) for v in (weights, bias, x))
    a = x @ w.T
    f = (np.maximum(a - b, 0) - np.maximum(-a - b, 0)).sum(1)
    gates = (a > b).astype(float) + (-a > b)
    return f, gates, gates @ w


def test_the_learner_and_its_gradients_are_those_by_hand(key):
    model, variables = network(key)
    x, y, _ = problem(key).sample(key, 8)
    weights, bias = variables["params"]["weights"], variables["frozen"]["bias"]
    np.testing.assert_allclose(bias, 0.2 * jnp.linalg.norm(weights, axis=1), rtol=1e-5)
    f, gates, slope = by_hand(weights, bias, x)
    assert 0.1 < gates.mean() < 0.9
    np.testing.assert_allclose(model.apply(variables, x)[:, 0], f, atol=1e-5)
    found = jax.grad(lambda z: model.apply(variables, z).sum())(x)
    np.testing.assert_allclose(found, slope, atol=1e-5)
    of_weights = jax.grad(
        lambda w: attacks.loss_per_point(
            model.apply(variables | {"params": {"weights": w}}, x), y, "ce"
        ).mean()
    )(weights)
    signs = 2.0 * np.asarray(y) - 1
    pull = -signs / (1 + np.exp(signs * f)) / len(x)
    np.testing.assert_allclose(of_weights, (pull[:, None] * gates).T @ np.asarray(x), atol=1e-6)


def test_smoothing_is_the_mean_over_noise(key):
    model, variables = network(key, width=5, smoothing=0.3)
    x = problem(key).sample(key, 3).x
    w, b = (np.asarray(v) for v in (variables["params"]["weights"], variables["frozen"]["bias"]))
    rho = 0.3 * np.random.default_rng(0).standard_normal((200_000, 1, 5))
    a = np.asarray(x) @ w.T
    drawn = np.maximum(a + rho - b, 0) - np.maximum(-a + rho - b, 0)
    error = drawn.sum(2).std(0) / len(rho) ** 0.5
    np.testing.assert_array_less(
        abs(np.asarray(model.apply(variables, x))[:, 0] - drawn.sum(2).mean(0)), 4 * error + 1e-6
    )


def test_little_smoothing_is_none_and_finite_differences_agree(key, x64):
    task = problem(key)
    x = task.sample(key, 6).x.astype(jnp.float64)
    (sharp, variables), (smooth, _) = network(key), network(key, smoothing=1e-6)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
    np.testing.assert_allclose(sharp.apply(variables, x), smooth.apply(variables, x), atol=1e-5)
    wide, _ = network(key, smoothing=0.3)
    direction = jax.random.normal(key, x.shape)
    for model in (sharp, wide):
        f = partial(model.apply, variables)
        _, slope = jax.jvp(f, (x,), (direction,))
        step = 1e-7
        np.testing.assert_allclose(
            (f(x + step * direction) - f(x - step * direction)) / (2 * step), slope, atol=1e-5
        )


def test_a_tangent_model_has_the_gates_of_its_start(key):
    """The tangent kernel of the network: linear in v, with the gates of the first weights."""
    model, variables = network(key)
    x = problem(key).sample(key, 7).x
    tangent = linear.linearize(model, variables, centered=True)
    shift = jax.random.normal(key, variables["params"]["weights"].shape)
    moved = {"params": {"weights": variables["params"]["weights"] + shift}}
    _, gates, _ = by_hand(variables["params"]["weights"], variables["frozen"]["bias"], x)
    expected = (gates * (np.asarray(x) @ np.asarray(shift).T)).sum(1)
    np.testing.assert_allclose(tangent.apply(moved, x)[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_polynomial_has_its_degree(degree, key, x64):
    model = sc.polynomial(degree, 6)
    start = model.init(key, jnp.zeros((1, D)))
    keys = iter(jax.random.split(key, 10))
    variables = jax.tree.map(
        lambda leaf: jax.random.normal(next(keys), leaf.shape, jnp.float64), start
    )
    x = jax.random.normal(key, (4, D), jnp.float64)
    along = np.stack([model.apply(variables, t * x)[:, 0] for t in range(degree + 2)])
    assert (abs(np.diff(along, n=degree, axis=0)) > 1e-3).all()
    np.testing.assert_allclose(np.diff(along, n=degree + 1, axis=0), 0, atol=1e-9)
    assert (along[0] == 0).all()
    assert (model.apply(start, x) == 0).all()


def test_the_cubic_rule_of_the_features_is_a_polynomial(key):
    task = problem(key, dictionary=sc.rotation(key, D))
    x, _, z = task.sample(key, 5)
    params = {
        "linear": 0.1 * task.inputs(task.labelling),
        "weights": task.inputs(jnp.eye(D)),
        "outputs": D**0.5 * jnp.stack([jnp.zeros(D), task.labelling]),
    }
    found = sc.polynomial(3, D).apply({"params": params}, x)[:, 0]
    np.testing.assert_allclose(found, (0.1 * z + z**3) @ task.labelling, atol=1e-5)


# --- training ---


def test_one_step_is_that_of_the_formula(key):
    """Penalty, momentum and the attack of each batch."""
    task, (model, variables) = problem(key), network(key)
    settings = {"steps": 1, "rate": 0.5, "batch_size": 16, "decay": 0.01, "momentum": 0.3}
    found = sc.train(model, variables, task, key, attack=l2(0.2), **settings)
    draw, _ = jax.random.split(jax.random.fold_in(key, 0))
    x, y, _ = task.sample(draw, 16)
    w, b = (np.asarray(v) for v in (variables["params"]["weights"], variables["frozen"]["bias"]))
    signs = 2.0 * np.asarray(y) - 1
    slope = by_hand(w, b, x)[2]
    moved = x - 0.2 * signs[:, None] * slope / np.linalg.norm(slope, axis=1, keepdims=True)
    f, gates, _ = by_hand(w, b, moved)
    pull = -signs / (1 + np.exp(signs * f)) / 16
    norms = np.linalg.norm(w, axis=1, keepdims=True)
    gradient = (pull[:, None] * gates).T @ np.asarray(moved) + 0.01 * (w + norms * w)
    np.testing.assert_allclose(
        found["params"]["weights"], w - 0.5 * 0.7 * gradient, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(found["frozen"]["bias"], b)


def test_a_bias_is_tied_or_frozen_and_runs_are_those_of_the_key(key):
    task, (model, variables) = problem(key), network(key)
    run = partial(sc.train, model, variables, task, steps=4, rate=0.5, batch_size=16)
    found, again = (run(key, thresholds=(0.4, 0.2)) for _ in range(2))
    weights, bias = found["params"]["weights"], found["frozen"]["bias"]
    np.testing.assert_allclose(bias, 0.2 * jnp.linalg.norm(weights, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(weights, again["params"]["weights"])
    assert (run(jax.random.key(1))["params"]["weights"] != weights).any()


def test_two_runs_in_a_row_are_no_restart_of_the_inputs(key):
    """The inputs of a step are those of its number, so that a longer run goes on."""
    task, (model, variables) = problem(key), network(key)
    run = partial(sc.train, model, variables, task, key, rate=0.5, batch_size=16, momentum=0.0)
    one, two = run(steps=1), run(steps=2)
    second = sc.train(
        model, one, task, key, steps=1, rate=0.5, batch_size=16, momentum=0.0
    )  # the first batch once more
    assert (second["params"]["weights"] != two["params"]["weights"]).any()


def turned_and_not(key, steps):
    """What training finds, and what it finds where dictionary and start are rotated."""
    turn = sc.rotation(jax.random.key(7), D)
    model, variables = network(key, width=40)
    turned = sc.tied({"params": {"weights": variables["params"]["weights"] @ turn.T}}, 0.2)
    outcomes = []
    for task, start in ((problem(key), variables), (problem(key, dictionary=turn), turned)):
        run = partial(sc.train, model, start, task, rate=1.0, batch_size=32)
        trained = run(key, steps=steps, attack=l2(0.02))
        x, y, _ = task.sample(jax.random.key(3), 200)
        logits = model.apply(trained, x)
        weights = task.coefficients(trained["params"]["weights"])
        outcomes.append((logits, weights, sc.dense_share(trained["params"]["weights"], task)))
    return float(attacks.correct(logits, y).mean()), zip(*outcomes, strict=True)


def test_it_learns_and_l2_does_not_see_a_rotation(key, x64):
    """In double precision: a neuron that switches by the last bit leads training elsewhere."""
    accuracy, pairs = turned_and_not(key, 60)
    assert accuracy > 0.9
    for a, b in pairs:
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, atol=1e-9 * float(abs(b).max()))


def test_l2_does_not_see_a_rotation_in_single_precision(key):
    _, pairs = turned_and_not(key, 3)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(abs(b).max()))


# --- attacks and exact robust accuracy ---


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_robust_accuracy_of_a_linear_rule_is_exact(norm, key):
    """PGD reaches the closed form, and one direction does, too."""
    task = problem(key, dictionary=sc.rotation(key, D))
    x, y, _ = task.sample(key, 400)
    rule, epsilon = jax.random.normal(key, (D,)) + 2 * task.direction, 0.03
    logits_fn = linear.bind(sc.polynomial(1).apply, {"params": {"linear": rule}})
    exact = np.asarray(sc.linear_withstands(rule, x, y, epsilon=epsilon, norm=norm))
    assert 0.1 < exact.mean() < 0.9
    options = {"epsilon": epsilon, "norm": norm}
    found = [
        attacks.pgd(logits_fn, x, y, key, steps=20, clip=None, **options),
        sc.universal(logits_fn, x, y, direction=rule, **options),
    ]
    size = jnp.inf if norm == "linf" else 2
    for z in found:
        assert (jnp.linalg.norm(z - x, ord=size, axis=1) <= epsilon * (1 + 1e-6)).all()
        np.testing.assert_array_equal(attacks.correct(logits_fn(z), y), exact)


def test_linear_robust_accuracy_has_its_closed_form(key):
    z = jnp.array([[0.5, 0.5, 0, 0], [0.5, -0.4, 0, 0], [0, 0, 1.0, 0]])
    task = sc.Task(jnp.ones(4), None, 2.0, 0.0, 0.0)
    y = jnp.array([1, 1, 1])
    for epsilon, expected in ((0.04, [1, 1, 1]), (0.06, [1, 0, 1]), (0.51, [0, 0, 0])):
        # The margins are 1, .1 and 1; the dual norm of the rule is 2.
        found = sc.linear_withstands(jnp.ones(4), z, y, epsilon=epsilon)
        np.testing.assert_array_equal(found, np.array(expected, bool))
    for epsilon, norm, expected in (
        (0.1, "l2", [1, 0, 1]),  # on the support the norms are √2, √2 and 1
        (0.8, "l2", [0, 0, 1]),
        (0.6, "linf", [0, 0, 1]),  # and 2, 2 and 1
    ):
        found = sc.ceiling(task, z, epsilon=epsilon, norm=norm)
        np.testing.assert_array_equal(found, np.array(expected, bool))


# --- measures ---


@pytest.mark.parametrize("turned", [False, True])
def test_features_and_mixtures_of_weights_built_to_have_them(turned, key):
    task = problem(key, dictionary=sc.rotation(key, D) if turned else None)
    w, betas = task.labelling, jnp.array([0.0, 0.02, -0.05])
    own = jnp.array([3, 17, 39])
    alone = jax.nn.one_hot(own, D) * jnp.sign(w)
    dense = betas[:, None] * w * (1 - jax.nn.one_hot(own, D))
    scales = jnp.array([[1.0], [7.0], [-2.0]])  # the last one has the wrong sign
    weights = task.inputs(scales * (alone + dense))
    found = sc.features(weights, task)
    np.testing.assert_array_equal(found.main, own)
    np.testing.assert_array_equal(found.pure, [True, True, False])
    np.testing.assert_allclose(found.mixture, betas * jnp.sign(scales[:, 0]), atol=1e-6)
    np.testing.assert_allclose(found.alignment[1:], [1, 1], atol=1e-3)
    energy = betas**2 * (w @ w - w[own] ** 2)
    np.testing.assert_allclose(found.purity, 1 / (1 + energy), rtol=1e-5)
    norm = jnp.linalg.norm(w)
    along = scales[:, 0] * (abs(w[own]) + betas * (w @ w - w[own] ** 2)) / norm
    expected = (along**2).sum() / (scales[:, 0] ** 2 * (1 + energy)).sum()
    np.testing.assert_allclose(sc.dense_share(weights, task), expected, rtol=1e-4)


def test_overlap_and_gradients_of_known_functions(key):
    task = problem(key)
    sample = task.sample(key, 30)
    a = jnp.array([[1.0, 0], [1.0, 1]])
    np.testing.assert_allclose(sc.overlap(a, jnp.array([[-3.0, 0], [0, 5]])), [1, 0.5**0.5])
    dense = sc.gradient_alignment(lambda x: (x @ task.direction)[:, None], task, sample)
    off = jnp.where(sample.z == 0, task.labelling**2, 0).sum(1) / (task.labelling**2).sum()
    np.testing.assert_allclose(dense, jnp.stack([jnp.ones(30), off]), rtol=1e-4)
    cubic = sc.gradient_alignment(lambda x: (x**3 @ task.labelling)[:, None], task, sample)
    np.testing.assert_allclose(cubic[1], 0, atol=1e-6)


# --- refusals ---

WRONG = {
    "d: 1 is": lambda key: sc.task(key, 1, 1),
    "k: 0 is": lambda key: sc.task(key, 10, 0),
    "k, spikes: 8": lambda key: sc.task(key, 8, 8),
    "noise: -1 is": lambda key: sc.task(key, 10, 2, noise=-1),
    "dictionary: an array of shape": lambda key: sc.task(key, 10, 2, dictionary=jnp.eye(9)),
    "dictionary: an array": lambda key: sc.task(key, 10, 2, dictionary=2 * jnp.eye(10)),
    "width: 0 is": lambda key: sc.learner(0, threshold=0.1),
    "threshold: -1 is": lambda key: sc.learner(2, threshold=-1),
    "smoothing: nan is": lambda key: sc.learner(2, threshold=0, smoothing=float("nan")),
    "degree: 0 is": lambda key: sc.polynomial(0),
    "steps: 0 is": lambda key: sc.train(*network(key), problem(key), key, steps=0, rate=1),
    "rate: 0 is": lambda key: sc.train(*network(key), problem(key), key, steps=1, rate=0),
    "epsilon: -1 is": lambda key: sc.ceiling(problem(key), jnp.zeros((1, D)), epsilon=-1),
    "y: has labels": lambda key: sc.linear_withstands(
        jnp.ones(2), jnp.ones((1, 2)), jnp.array([-1]), epsilon=1
    ),
}  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_what_is_malformed_is_refused_in_one_line(line, key):
    with pytest.raises(ValueError, match=f"^{line}") as caught:
        WRONG[line](key)
    assert "\n" not in str(caught.value)
