# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Where does adversarial training of a wide network end?

# %% tags=["hide-input"]
from ntklib import claims

claims.load()["F1"]

# %% tags=["hide-input"]
claims.load()["F2"]

# %% tags=["hide-input"]
claims.load()["F3"]

# %% tags=["hide-input"]
claims.load()["F4"]

# %% [markdown]
# ## The idea
#
# In the paper's theory the attack is itself a flow. It moves a training input $x_i$ along the
# gradient of the loss, $\partial_s x_{i,s} = \eta_i\, \nabla_x L$, at a rate $\eta_i$ and for a
# length $S$. No ball holds it back. Training is gradient flow in the parameters, on the inputs as
# the attack has left them.
#
# Two kernels say what comes of it. The tangent kernel $\Theta(x, x') = \partial_\theta f(x)\,
# \partial_\theta f(x')^\top$ says how training on one input changes the output for another. The
# adversarial regularisation kernel (ARK) $\Theta_x(x) = \partial_x f(x)\, \partial_x f(x)^\top$
# says how much the output changes when its input does.
#
# If both kernels stand still, everything can be solved. Take the residual $r_i = y_i - f(x_i)$ of
# the squared loss, which is what the network still gets wrong. Along the attack it grows as
# $\partial_s r_i = \eta_i\, \Theta_x(x_i)\, r_i$, so that in the end it is $e^{\Theta_x(x_i)\,
# \eta_i S}$ times as large. Training pulls with this larger residual. So it runs faster by that
# factor on the input $i$, and nothing else has changed.
#
# It is as if each input had a clock of its own. With the time that has passed on each,
#
# $$\Xi(t) = \mathrm{diag}_i \int_0^t e^{\Theta_x(x_i)\, \eta_i S}\, d\tau, \qquad
# f_t(x) = f_0(x) + \Theta(x, X)\, \Theta^{-1} \left(I - e^{-\Theta\, \Xi(t)}\right)
# (Y - f_0(X)) .$$
#
# Without an attack $\Xi(t) = t I$, which is ordinary training. With one, some inputs are ahead of
# others, and for a while $f_t$ is another function.
#
# But $\Xi$ says when an input is learnt, not what is learnt. As $t$ grows, the exponential goes to
# zero in every direction. What is left, $f_0(x) + \Theta(x, X)\, \Theta^{-1} (Y - f_0(X))$, has no
# $\eta$ in it. Training without attacks ends there, too. The paper calls this degeneration.
#
# One thing follows at once. Let $\eta$ be the same for all inputs, as $\Theta_x$ is in the limit
# of width and pixels. Then $\Xi(t) = e^{\Theta_x \eta S}\, t I$: adversarial training is training
# without attacks, on a faster clock, all along. So the rates differ between inputs here, wherever
# adversarial training is to be something of its own.
#
# ## Parameters
#
# The values are those of the profile `laptop`. Papermill replaces them.

# %% tags=["parameters"] bounds={"width": [256, 4096], "n_finite": [20, 1000]}
profile: str = "laptop"  # which margins the verdict is held against
dataset: str = "mnist5k"  # where the images come from
classes: list = [3, 8]  # the two classes told apart; the first is -1, the second +1
seeds: list = [20, 21, 22, 23, 24, 25]  # each draws its own images, starts and rates of the attack
epsilon: float = 0.1  # radius of the attack in tests, in pixels that range from 0 to 1
n_train: int = 200  # training images of infinite width, half of each class
n_finite: int = 60  # of them, on how many finite networks are trained
n_test: int = 500  # test images, half of each class
pool: int = 2  # pixels are averaged over squares of this side, but for the kernels at the start
width: int = 4096  # units of the widest network; also run: a 4th, a 16th and a 64th of it
steps: int = 40  # steps of gradient descent of finite networks

# %% [markdown]
# ## Setup
#
# Networks have one hidden layer of ReLUs, one output, and the NTK parametrisation, which scales
# each layer such that the tangent kernel (NTK) has a limit for large widths.

# %%
from functools import cache

import jax
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown
from scipy.integrate import quad_vec

from ntklib import attacks, data, explore, infinite, linear, models, ntk, plots, training, wide


def load(seed, **options):
    sizes = {"n_train": n_train, "n_test": n_test, "pool": pool} | options
    return data.load(dataset, classes=classes, seed=seed, **sizes)


draws = [load(seed) for seed in seeds]
page = claims.Page(
    "09_wide_adversarial_training", profile=profile, seeds=seeds, provenance=draws[0].provenance
)
draws[0].provenance

# %%
widths = np.array([width // 64, width // 16, width // 4, width])
nets = {w: models.get("mlp", n_classes=1, width=int(w), depth=1) for w in widths}
net = nets[width]  # its infinite twin is that of all
length = 1.0  # S


# %%
@cache
def shapes(network, shape):
    return jax.eval_shape(network.init, jax.random.key(0), np.zeros(shape, np.float32))


def random_start(network, x, seed):
    """Parameters of a network: standard normal numbers, in this parametrisation."""
    rng = np.random.default_rng(seed)
    leaves = shapes(network, x[:1].shape)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), leaves)


def slope(values, at=widths):
    """Of the logarithm of values (seeds, widths) against that of the width, one a seed."""
    return np.polyfit(np.log(at), np.log(values).T, 1)[0]


# %% [markdown]
# ## Two kernels at the start
#
# Two things are measured for each seed: how much the ARK differs between random starts of the
# network, and how far the NTK is from that of infinite width. The paper's theorem was not seen,
# and the claim names the width alone.
#
# Can width alone be enough? $\partial_x f$ has as many entries as the image has pixels, $d$. In a
# wide network these are about independent Gaussians, and the ARK is the sum of their squares. Such
# a sum keeps a relative spread of $\sqrt{2/d}$ at any width. So the ARK is taken on images of full
# size, and on images of few pixels.

# %%
n_starts = 24
sizes = {"all pixels": 1, "few pixels": 4}  # images are averaged over squares of this side


ark = jax.jit(wide.ark)


def arks(network, x, seed):
    """The ARK of each image at random starts of a seed: (starts, images)."""
    of_starts = (random_start(network, x, (seed, k)) for k in range(n_starts))
    return [ark(linear.bind(network.apply, start), x)[:, 0, 0] for start in of_starts]


def ntk_distance(network, x, seed):
    """Relative distance of the NTK to that of infinite width, mean over a few of these starts."""
    limit = np.asarray(infinite.kernel(network, x))
    of_starts = (random_start(network, x, (seed, k)) for k in range(n_starts // 6))
    grams = (np.asarray(ntk.gram(network, start, x)) for start in of_starts)
    return np.mean([np.linalg.norm(gram - limit) for gram in grams]) / np.linalg.norm(limit)


# %%
means, spreads, pixels = {}, {}, {}
for name, side in sizes.items():
    images = [load(seed, n_train=8, n_test=2, pool=side).train.x for seed in seeds]
    cases = list(zip(images, seeds, strict=True))
    found = np.array([[arks(nets[w], *case) for w in widths] for case in cases])
    means[name], pixels[name] = found.mean((2, 3)), images[0][0].size
    spreads[name] = (found.std(2, ddof=1) / found.mean(2)).mean(2)
    if name == "all pixels":
        distances = np.array([[ntk_distance(nets[w], *case) for w in widths] for case in cases])

# %% [markdown]
# The ARK of a ReLU network has a limit, too, for many units *and* many pixels. It is the constant
# $\sigma_w^2\, (\sigma_w^2/2)^L$. Here $L$ is the number of hidden layers, and the weights of a
# layer have the standard deviation $\sigma_w$ over the root of the number of its inputs. Each
# layer multiplies by $\sigma_w^2$, and each ReLU lets half of the squares pass.

# %%
limit_of_ark = net.stack.w_std**2 * (net.stack.w_std**2 / 2) ** len(net.stack.layers)
ark_by_limit = {
    name: claims.ratio(m[:, -1], np.full(len(m), limit_of_ark)) for name, m in means.items()
}

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), sharex=True)
for name, d in pixels.items():
    plots.band(left, widths, claims.estimates(spreads[name]), f"ARK, {d} pixels")
    left.axhline(np.sqrt(2 / d), color=left.lines[-1].get_color(), linewidth=1, linestyle=":")
plots.band(right, widths, claims.estimates(distances), f"NTK, {pixels['all pixels']} pixels")
left.set(ylabel="coefficient of variation", title="spread over random starts")
right.set(ylabel="relative distance", title="distance to the limit")
for axes in (left, right):
    axes.set(xscale="log", yscale="log", xlabel="width")
    axes.legend()
spread = {name: [e.value for e in claims.estimates(s)] for name, s in spreads.items()}
plots.show(
    figure,
    name="fig-wide-kernels",
    alt="Left, coefficient of variation of the ARK over random starts against the width, both axes "
    "logarithmic. "
    + " ".join(
        f"With {d} pixels it goes from {spread[n][0]:.2f} to {spread[n][-1]:.2f}."
        for n, d in pixels.items()
    )
    + " Right, distance of the NTK to that of infinite width, which goes from "
    f"{distances[:, 0].mean():.2f} to {distances[:, -1].mean():.3f}.",
    caption="Kernels of untrained networks against their width. Dotted: √(2/d), which d pixels "
    f"leave at any width. Bands are 95 % intervals over {len(seeds)} seeds, of {n_starts} random "
    "starts each.",
)

# %% [markdown]
# ## Finite networks and their linearisation
#
# A network and its linearisation at the start are trained in the same way, by full-batch gradient
# descent of small steps on the squared loss. In each step the inputs are attacked first. The
# attack follows its flow in five straight pieces (Euler steps).
#
# Both start from a random $f_0$. An antisymmetric network, the difference of two equal copies,
# starts from zero. At the start it would have no gradient in its inputs, and so no attack.
#
# In the limit of width and pixels this attack makes residuals $e^{2 \eta S}$ times as large, a
# little more than twice. A control trains both without attacks.

# %%
strength, relative_step = 0.4, 0.3  # ηS; steps in units of n / λ₁
flow = attacks.partial(wide.attack_flow, rate=strength, time=length, steps=5)
stops = np.unique(np.geomspace(1, steps, 8).astype(int))
few = [draw.train.balanced(min(n_finite, n_train)) for draw in draws]
grams = [np.asarray(infinite.kernel(net, images.x), np.float64) for images in few]
rates = [relative_step * len(g) / np.linalg.norm(g, 2) for g in grams]  # of gradient descent


# %%
def train(model, start, adversary, i):
    """What a model of the i-th seed is after each of the stops."""
    recipe = training.Recipe(
        epochs=steps,
        optimizer=training.SGD(rates[i], momentum=0.0),
        loss="mse",
        adversary=adversary,
    )
    run = model, start, few[i], jax.random.key(seeds[i])
    kept = training.fit(*run, recipe=recipe, keep=stops.tolist()).kept
    return [linear.bind(model.apply, kept[stop]) for stop in stops]


# %%
predict = jax.jit(lambda f, x: f(x))
attacked = jax.jit(flow)


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def compare(w, i, adversary):
    """The largest error of the linearisation over the stops; and its functions there."""
    start = random_start(nets[w], few[i].x, seeds[i])
    lin = linear.linearize(nets[w], start, centered=False)
    both = [train(model, start, adversary, i) for model in (nets[w], lin)]
    x = draws[i].test.x
    apart = [rms(predict(f, x) - predict(g, x)) for f, g in zip(*both, strict=True)]
    return max(apart), both[1], linear.bind(nets[w].apply, start)


# %%
runs = {w: [compare(w, i, flow) for i in range(len(seeds))] for w in widths}
errors = np.array([[run[0] for run in runs[w]] for w in widths]).T
ends = widths[[0, -1]]  # where the control is run
errors_control = np.array([[compare(w, i, None)[0] for w in ends] for i in range(len(seeds))])

# %% [markdown]
# Three questions at the largest width:
#
# - Does the attack do anything?
# - Is something learnt?
# - Does the simulated linearisation follow the closed form? The formula is given the kernels of
#   this very network at its start.


# %%
def gates(i):
    """Residuals, attacked over clean, mean over stops; they, and the ARK, at the end over start."""
    images, (_, functions, first) = few[i], runs[width][i]
    clean = [rms(images.signs() - predict(f, images.x)) for f in (first, *functions)]
    pulled = [rms(images.signs() - predict(f, attacked(f, images.x, images.y))) for f in functions]
    arks = [float(ark(f, images.x).mean()) for f in (first, functions[-1])]
    return np.mean(np.divide(pulled, clean[1:])), clean[-1] / clean[0], arks[1] / arks[0]


inflation, left_to_learn, ark_change = np.array([gates(i) for i in range(len(seeds))]).T


# %%
def formula_error(i, strength):
    """Of the closed form at the last stop on test images, relative to what was learnt."""
    images, x, (_, functions, first) = few[i], draws[i].test.x, runs[width][i]
    start = random_start(nets[width], images.x, seeds[i])
    cross = np.asarray(ntk.gram(nets[width], start, x, images.x))
    speed = wide.speeds(ark(first, images.x)[:, 0, 0], strength, length)
    time = rates[i] * steps / len(images)
    gram = ntk.gram(nets[width], start, images.x)
    weights = wide.coefficients(gram, time * speed, images.signs() - first(images.x))
    learnt = predict(functions[-1], x) - predict(first, x)
    return rms(cross @ weights - learnt) / rms(learnt)


# %%
form_errors = {s: [formula_error(i, s) for i in range(len(seeds))] for s in (strength, 0.0)}
form_error = {s: claims.estimate(e) for s, e in form_errors.items()}
of_plain = claims.ratio(form_errors[strength], form_errors[0.0])

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(6, 4))
for at, values, label in (
    (widths, errors, "attacked"),
    (ends, errors_control, "without attacks"),
):
    fitted = claims.estimate(slope(values, at))
    plots.band(axes, at, claims.estimates(values), f"{label}, slope {fitted}")
guide = errors.mean(0)[0] * np.sqrt(widths[0] / widths)
axes.plot(widths, guide, color="0.6", linestyle=":", marker="", label="slope −½")
axes.set(xscale="log", yscale="log", xlabel="width", ylabel="error of the linearisation")
axes.legend()
plots.show(
    figure,
    name="fig-wide-linearisation",
    alt="Error of the linearisation against the width, both axes logarithmic. Under attack it goes "
    f"from {errors[:, 0].mean():.3f} to {errors[:, -1].mean():.3f}, without attacks from "
    f"{errors_control[:, 0].mean():.3f} to {errors_control[:, -1].mean():.3f}.",
    caption="Root mean square difference of the outputs of a network and of its linearisation on "
    f"{n_test} test images, the largest in {steps} steps of training; targets are ±1. Bands are "
    f"95 % intervals over {len(seeds)} seeds.",
)

# %% [markdown]
# ## The closed form against the flow
#
# With the kernel of infinite width and its ARK, the flow of training is integrated numerically.
# Rates $\eta_i S$ are drawn uniformly from 0 to 1. The solution is compared with the closed form,
# and with a formula in which nothing is attacked.
#
# Then the rates swing in time, each input in a phase of its own. The closed form takes the
# integrals $\Xi(t)$ over that. In general it is wrong there: the matrices $\Theta\, \dot\Xi$ of
# two times do not commute, so their order matters, and the integrals do not know it.


# %%
def apart(kernels, y, speed, formula):
    """Largest relative error of a formula for the times of inputs, on test images."""
    gram, cross = kernels
    solved = wide.integrate(gram, y, speed, moments)
    formed = [wide.coefficients(gram, formula(t), y) for t in moments]
    pairs = zip(cross @ solved, cross @ np.array(formed), strict=True)
    return max(np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in pairs)


def speeds(rates):
    """How many times faster inputs are learnt at infinite width."""
    return wide.speeds(np.full(len(rates), limit_of_ark), rates, length)


moments = [3.0, 10.0, 30.0, 100.0]  # in units of 1/λ₁


# %%
def against_flow(i):
    """The error of the closed form, of the one without attacks, and with rates that swing."""
    y, rng = few[i].signs(), np.random.default_rng(seeds[i])
    cross = np.asarray(infinite.kernel(net, draws[i].test.x, few[i].x), np.float64)
    kernels = [k / np.linalg.norm(grams[i], 2) for k in (grams[i], cross)]
    rate, phase = rng.uniform(0, 1, len(y)), rng.uniform(0, 2 * np.pi, len(y))
    steady = speeds(rate)

    def swinging(t):
        return speeds(rate * (1 + np.sin(2 * np.pi * t / moments[-1] + phase)))

    def of_steady(formula):
        return apart(kernels, y, lambda _: steady, formula)

    errors = of_steady(lambda t: t * steady), of_steady(lambda t: np.full(len(y), t))
    return *errors, apart(kernels, y, swinging, lambda t: quad_vec(swinging, 0, t)[0])


# %%
closed, plain, swung = np.array([against_flow(i) for i in range(len(seeds))]).T

# %% [markdown]
# ## Infinite width, to the end
#
# Rates are $\eta_i = u_i\, \eta$, with $u_i$ drawn uniformly from 0 to 2 for each input. The start
# is $f_0 = 0$, the mean over random starts.
#
# Each predictor is compared with plain kernel regression, where training without attacks ends. It
# is attacked by projected gradient descent (PGD) of 10 steps on itself.

# %%
strengths = {"no attack": 0.0, "ηS = ½": 0.5, "ηS = 1": 1.0, "ηS = 2": 2.0}
judged = "ηS = 1"
times = np.geomspace(1e-2, 1e4, 10)  # in units of 1/λ₁
pgd = attacks.partial(attacks.pgd, epsilon=epsilon, steps=10)
regressors = [infinite.Regressor(net, draw.train.x, draw.train.signs()) for draw in draws]
crosses = [
    np.asarray(infinite.kernel(net, draw.test.x, draw.train.x), np.float64) for draw in draws
]


def weights(i, strength, time):
    """The coefficients of the predictor of one seed at a time in units of 1/λ₁."""
    regressor, spread = regressors[i], np.random.default_rng(seeds[i]).uniform(0, 2, n_train)
    passed = time / regressor.eigenvalues[0] * speeds(strength * spread)
    return wide.coefficients(regressor.gram, passed, draws[i].train.signs())


# %%
def predictor(i, strength, time):
    return infinite.predictor(net, draws[i].train.x, weights(i, strength, time))


def withstands(function, i, n=n_test):
    """Which of the first n test images a function classifies under PGD."""
    x, y, key = draws[i].test.x[:n], draws[i].test.y[:n], jax.random.key(seeds[i])
    return attacks.robust_accuracy(function, x, y, key, attack=pgd, batch_size=250).robust


def relative(outputs, i):
    """Distance of test outputs to those of kernel regression."""
    end = crosses[i] @ regressors[i].coefficients
    return np.linalg.norm(outputs - end) / np.linalg.norm(end)


# %%
robust, distance = {}, {}
for name, s in strengths.items():
    n = n_test if name in ("no attack", judged) else n_test // 2  # the others are shown only
    robust[name] = np.array(
        [[withstands(predictor(i, s, t), i, n) for t in times] for i in range(len(seeds))]
    )
    distance[name] = np.array(
        [[relative(crosses[i] @ weights(i, s, t), i) for t in times] for i in range(len(seeds))]
    )
robust_end = np.array([withstands(r.logits_fn, i) for i, r in enumerate(regressors)])

# %% [markdown]
# ## What was measured at infinite width

# %% tags=["hide-input", "key-figure"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), sharex=True)
for name in strengths:
    plots.band(left, times, claims.estimates(robust[name]), name)
    plots.band(right, times, claims.estimates(distance[name]), name)
left.axhline(robust_end.mean(), color="black", linewidth=1, linestyle=":")
left.set(ylabel=f"accuracy under PGD, ε = {epsilon:.3g}", ylim=(0, 1))
right.set(ylabel="distance to kernel regression", ylim=(0, 1.02))
for axes in (left, right):
    axes.set(xscale="log", xlabel="training time (1/λ₁)")
left.legend()
curves = {name: robust[name].mean((0, 2)) for name in strengths}
plots.show(
    figure,
    name="fig-wide-degeneration",
    alt="Left, accuracy under PGD against training time: "
    + "; ".join(f"{n}, {c.max():.2f} at best and {c[-1]:.2f} at the end" for n, c in curves.items())
    + ". Right, the relative distance of the outputs to those of kernel regression, at the end "
    f"{distance['no attack'][:, -1].mean():.3f} without attack and "
    f"{distance[judged][:, -1].mean():.3f} for {judged}.",
    caption="Predictors of infinite width along training. Dotted: kernel regression, the end of "
    f"training without attacks. Bands are 95 % intervals over {len(seeds)} seeds and {n_test} test "
    f"images, half of them for ηS = ½ and 2.",
)

# %% [markdown]
# The same as a phase diagram, with a row for each strength of the attack. Had all inputs one rate,
# each row would be the first one, moved to the left by $\Theta_x\, \eta S$ in the natural
# logarithm of time.

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3))
shown = [f"{np.log10(t):.1f}" for t in times]
plots.matrix(axes, [curves[n] for n in strengths], list(strengths), shown, highest=1)
axes.set(xlabel="log₁₀ of the training time (1/λ₁)")
plots.show(
    figure,
    name="fig-wide-phases",
    alt="Accuracy under PGD for four strengths of the attack, one a row, and training times. "
    f"At the first time it is {curves['no attack'][0]:.2f} without attack and "
    f"{curves['ηS = 2'][0]:.2f} for ηS = 2; in the last column it is "
    f"{min(c[-1] for c in curves.values()):.2f} to {max(c[-1] for c in curves.values()):.2f}.",
    caption="Accuracy under PGD by strength of the attack in training and by time, means over "
    "seeds.",
)

# %% tags=["hide-input"]
explore.slider(
    curves,
    [np.format_float_positional(t, precision=2, fractional=False, trim="-") for t in times],
    name="explore-phases",
    label="training time (1/λ₁)",
    quantity="accuracy under PGD",
    start=len(times) // 2,
    alt="Accuracy under PGD against training time on a logarithmic scale, for four strengths of "
    "the attack; the numbers are in the table.",
    caption="The rows of the phase diagram as curves, one training time at a time.",
)


# %% [markdown]
# Robust accuracy is compared at its peak. The best time is found on one half of the test images
# and used on the other, and the other way round. If one set of images served for both, the peak
# would be too high by luck, and some robustness would seem to be lost even if none were.


# %%
half = np.arange(n_test) % 2


def at_best_time(name):
    """What withstands at the time that is best on the other half; and that time's index."""
    best = np.array([[r[:, half != h].mean(1).argmax() for h in (0, 1)] for r in robust[name]])
    return np.take_along_axis(robust[name], best[:, half][:, None], axis=1)[:, 0], best


at_peak, best = at_best_time(judged)
at_plain_peak, best_plain = at_best_time("no attack")
distance_at_peak = np.take_along_axis(distance[judged], best, axis=1).mean(1)

# %% [markdown]
# Does training without attacks pass through the predictor at the peak, too, only at another time?
# We measure how far the nearest predictor on its way is from it.


# %%
def off_path(i):
    """Relative distance, at the peak, to the nearest predictor of training without attacks."""
    outputs = crosses[i] @ weights(i, strengths[judged], times[best[i, 0]])
    path = [
        crosses[i] @ regressors[i].at(t / regressors[i].eigenvalues[0]).coefficients
        for t in np.geomspace(times[0], times[-1], 121)
    ]
    return min(np.linalg.norm(outputs - other) for other in path) / np.linalg.norm(outputs)


off = [off_path(i) for i in range(len(seeds))]

# %% [markdown]
# ## Is the attack sound?
#
# The attack is checked on the predictor of every seed, at its most robust time.


# %%
def check(i):
    function = predictor(i, strengths[judged], times[best[i, 0]])
    test, at_the_end = draws[i].test.balanced(n_test // 2), regressors[i].logits_fn
    later = attacks.fgsm(at_the_end, test.x, test.y, epsilon=epsilon)
    key, options = jax.random.key(seeds[i]), {"epsilon": epsilon, "steps": 10}
    transferred = {"the end of training": later}
    return attacks.soundness(function, test.x, test.y, key, **options, transferred=transferred)


findings = claims.worst([check(i) for i in range(len(seeds))])

# %% [markdown]
# ## Verdict

# %%
spread_ratio = {name: claims.ratio(s[:, -1], s[:, 0]) for name, s in spreads.items()}
outcome_kernels = page.judge(
    "F1",
    {
        "spread_slope": claims.estimate(slope(spreads["all pixels"])),
        "spread_ratio": spread_ratio["all pixels"],
        "few_inputs_spread_ratio": spread_ratio["few pixels"],
        "tangent_kernel_slope": claims.estimate(slope(distances)),
    },
    measurements={f"mean ARK over its limit, {n}": e for n, e in ark_by_limit.items()}
    | {f"spread at the largest width, {n}": claims.estimate(s[:, -1]) for n, s in spreads.items()}
    | {f"√(2/d), {name}": float(np.sqrt(2 / d)) for name, d in pixels.items()},
)
outcome_kernels

# %%
page.judge(
    "F2",
    {
        "error_slope": claims.estimate(slope(errors)),
        "error_ratio": claims.ratio(errors[:, -1], errors[:, 0]),
        "inflation": claims.estimate(inflation),
        "left_to_learn": claims.estimate(left_to_learn),
    },
    measurements={
        "error ratio, without attacks": claims.ratio(errors_control[:, -1], errors_control[:, 0]),
        "error at the largest width, attacked over not": claims.ratio(
            errors[:, -1], errors_control[:, -1]
        ),
    },
)

# %%
page.judge(
    "F3",
    {
        "closed_form_error": claims.estimate(closed),
        "error_without_attack": claims.estimate(plain),
    },
    measurements={
        "error with rates that swing in time": claims.estimate(swung),
        "error on the simulated linearised network": form_error[strength],
        "error on it of the formula without attacks": form_error[0.0],
        "the first of these two over the second": of_plain,
        "ARK of this network at the end over that at the start": claims.estimate(ark_change),
    },
)

# %%
lost = claims.difference(at_peak, robust[judged][:, -1])
gain = claims.difference(at_peak, at_plain_peak)
plain_lost = claims.difference(at_plain_peak, robust["no attack"][:, -1])
measurements = {
    "robustness lost without attacks": plain_lost,
    "distance at the peak to training without attacks": claims.estimate(off),
    "best time (1/λ₁)": claims.estimate(times[best].mean(1)),
    "best time without attacks (1/λ₁)": claims.estimate(times[best_plain].mean(1)),
}

# %%
page.judge(
    "F4",
    {
        "final_distance": claims.estimate(distance[judged][:, -1]),
        "distance_at_peak": claims.estimate(distance_at_peak),
        "robustness_lost": lost,
        "gain_by_attack": gain,
        "control_distance": claims.estimate(distance["no attack"][:, -1]),
    },
    soundness=findings,
    measurements=measurements,
)

# %% tags=["hide-input"]
few_ratio, floor = spread_ratio["few pixels"], np.sqrt(2 / pixels["few pixels"])
Markdown(
    "**The kernels.** From the smallest to the largest width the spread of the ARK falls to "
    f"{spread_ratio['all pixels']} of what it was with {pixels['all pixels']} pixels, and to "
    f"{few_ratio} with {pixels['few pixels']}, where it is at "
    f"{claims.estimate(spreads['few pixels'][:, -1])} beside a √(2/d) of {floor:.2f}. "
    + (
        "Width alone does not make this kernel deterministic: the inputs have to be many, too. "
        if outcome_kernels.checks["few_inputs_spread_ratio"].passed is False
        else ""
    )
    + f"The mean of the ARK is {ark_by_limit['all pixels']} of its limit. The NTK comes nearer to "
    f"that of infinite width with a slope of {claims.estimate(slope(distances))}."
)

# %% tags=["hide-input"]
relevant = 1 / 2  # a formula for the attack should leave less than this of what it explains
little = (
    "So the formula solves the flow of constant kernels, but says little of what the attack does "
    f"to this network of {draws[0].test.x[0].size} pixels, whose ARK does not stand still. "
    if of_plain.value > relevant
    else ""
)

# %% tags=["hide-input"]
Markdown(
    "**The linearisation.** Under attack its error falls with the width with a slope of "
    f"{claims.estimate(slope(errors))}, and at the largest width it is "
    f"{claims.ratio(errors[:, -1], errors_control[:, -1])} times that of training without attacks. "
    f"The attack made residuals {claims.estimate(inflation)} times as large.\n\n"
    "**The closed form** misses the integrated flow by "
    f"{claims.estimate(closed):.1e} if rates do not change in time, and by "
    f"{claims.estimate(swung)} if they swing; leaving out the attack misses it by "
    f"{claims.estimate(plain)}. The formula misses the simulated linearised network of "
    f"largest width by {form_error[strength]}, and by {form_error[0.0]} if the attack is left out: "
    f"{of_plain} times as much with the attack as without it. {little}"
    "At the end of training its ARK on training images is "
    f"{claims.estimate(ark_change)} times what it was at the start."
)

# %% tags=["hide-input"]
own = {
    "above": "So there is robustness that is the attack's own, and it is lost.",
    "below": "Stopping training without attacks in time is the more robust.",
    "not told apart from": "What is lost is no more than early stopping has without any attack.",
}

# %% tags=["hide-input"]
Markdown(
    "**The end.** At the end of training the outputs are "
    f"{claims.estimate(distance[judged][:, -1]):.4f} from kernel regression, at the peak they were "
    f"{claims.estimate(distance_at_peak)} from it. Between the two {lost} of robust accuracy is "
    "lost. Training without attacks loses "
    f"{plain_lost}; the peak of adversarial training is {gain} above its peak. "
    f"{own[gain.beside(0)]} The predictor at the peak is {claims.estimate(off)} from the nearest "
    "one that training without attacks passes through. Brackets hold 95 % intervals."
)

# %% [markdown]
# So why should adversarial training end where ordinary training does? In the theory the attack is
# stronger where the residual is larger, and dies with it: its push is a factor on the residual.
# Such factors decide in what order the residuals go, and which predictors are passed on the way.
# But they cannot move a residual of zero.
#
# ## Fidelity: what is done differently
#
# - The paper's theorems could not be read, only its abstract and reviews. The closed form is our
#   reconstruction. So is the kind of attack, which the reviews describe: a flow of length $S$ with
#   bounded rates and no ball.
# - In the experiments of the paper attacks stay in a ball. Such an attack does not die with the
#   residual. Its push has a fixed length, which is a rate that grows as the residual shrinks, and
#   the theory excludes that. So this page does not say that training with a ball degenerates.
# - Rates are drawn at random, as the theory leaves them open. With one rate for all inputs there
#   would be nothing but a faster clock. Rates that are chosen well may do better than random ones.
# - Flows are approximated: an attack by five Euler steps, training by gradient descent of small
#   steps.
# - We do not know whether the paper's theorem on the ARK lets the number of inputs grow with the
#   width. The claim, as we state it, does not.
#
# ## What would change our mind
#
# - With other rates the peak under attack is far above the one without. Then there is robustness
#   of the attack's own to lose.
# - The error of the linearisation stops falling at larger widths.
# - A theorem says that the ARK becomes deterministic with the width at a fixed number of inputs.
#   The sum of squares of few Gaussians speaks against it.
# - With more pixels (`SET="pool=1"`) the simulated linearised network is no nearer to the closed
#   form. By the theory its ARK should then stand still, as what is learnt has a small gradient in
#   each of many pixels.
# - Other data: try `make run NB=wide_adversarial_training SET="classes=[4,9]"`.
