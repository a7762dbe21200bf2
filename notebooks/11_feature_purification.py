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
# # What does adversarial training change in the weights of a network?

# %% tags=["hide-input"]
from ntklib import claims

claims.load()["P1"]

# %% tags=["hide-input"]
claims.load()["P2"]

# %% tags=["hide-input"]
claims.load()["P3"]

# %% tags=["hide-input"]
claims.load()["P4"]

# %% tags=["hide-input"]
claims.load()["P5"]

# %% [markdown]
# ## The idea
#
# The principle first, as a drawing. Inputs are made of few features out of many.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np

from ntklib import plots

rng = np.random.default_rng(1)
floor, shown = rng.uniform(0.06, 0.1, 60), np.arange(60)
places = rng.choice(60, 6, replace=False)
figure, panels = plt.subplots(1, 3, figsize=(9, 2.8), sharey=True)
drawn = {
    "one neuron": (places[:1], floor),
    "all neurons that are active": (places, 6 * floor),
    "the same, purified": (places, 0.4 * floor),
}
for axes, (title, (own, dense)) in zip(panels, drawn.items(), strict=True):
    axes.bar(shown, np.where(np.isin(shown, own), 0, dense), width=1, color=plots.COLOURS[1])
    axes.bar(own, 1, width=1.4, color=plots.COLOURS[0])
    axes.set(title=title, xlabel="feature", xticks=[])
panels[0].set(ylabel="weight", yticks=[])
plots.show(
    figure,
    name="fig-purification-principle",
    alt="A drawing in three panels. One neuron has one large weight and a low floor of small "
    "weights on all other features. The sum over six active neurons has six large weights, and a "
    "floor that is six times as high. After purification the six large weights are left, on a low "
    "floor.",
    caption="A drawing, not a result. Left: a neuron has learnt one feature, and a little of all "
    "others. Middle: how the network's output depends on each feature is the sum over active "
    "neurons. Their features differ, while their floors add up. An attack that moves all features "
    "a little, none of them noticeably, goes along the floor. Right: what adversarial training is "
    "said to do.",
)

# %% [markdown]
# Each floor is too low to matter for a neuron, and all of them point in the same direction, that
# of the labels. It is no accident that they do: features that are not a neuron's own go with the
# label, too, and whenever the neuron is active, training adds a little of them to it. A classifier
# has no reason to get rid of that as long as nobody pushes along it.
#
# Now in formulas. An input $x = Mz \in \mathbb R^d$ is a sum of about $k$ columns of an
# orthonormal matrix $M$, the features, with coefficients $\pm 1/\sqrt k$, and now and then one of
# $\pm 1$. The label is $y = \mathrm{sign}\langle w^\star, z\rangle$, to which all features
# contribute about alike. The network is
#
# $$f(x) = \sum_{i=1}^m \mathrm{ReLU}(\langle w_i, x\rangle - b_i)
# - \mathrm{ReLU}(-\langle w_i, x\rangle - b_i) .$$
#
# A neuron that has specialised on the feature $j$ is active on a share $k/d$ of the inputs. On
# these, its gradient holds the own feature always, and each other one $k/d$ times as much, in the
# direction of its label weight. So, up to constants,
#
# $$w_i \propto \mathrm{sign}(w^\star_j)\, M_j + \beta \sum_{l \ne j} w^\star_l M_l, \qquad
# \beta \approx k/d .$$
#
# The floor has the norm $\beta \sqrt d \approx k/\sqrt d$, which is small if $k \ll \sqrt d$. But
# $k$ active neurons add it up to $k^2/\sqrt d$, along one direction $u = Mw^\star/\|w^\star\|$
# that is the same for all inputs. An attack along it succeeds at a radius of about
# $\sqrt d/k^2$. Without the floor, an attack has only the active features to work on, whose
# gradient has the norm $\sqrt k$; it needs a radius of about $1/\sqrt k$. The second radius is
# larger than the first if $k > d^{1/3}$. So the claims live in the window
# $d^{1/3} < k < \sqrt d$.
#
# This is our own argument from scales; the proofs of the paper we could not read.
#
# ## Parameters
#
# The values are those of the profile `laptop`. Papermill replaces them.

# %% tags=["parameters"] bounds={"d": [40, 8192], "k": [2, 200], "width": [20, 65536]}
profile: str = "laptop"  # which margins the verdict is held against
seeds: list = [26, 27, 28, 29]  # each draws labels, inputs and the first weights
epsilon: float = 0.25  # radius of attacks in the l2 norm, in units of 1/√k
d: int = 400  # features, and entries of an input
k: int = 8  # active features, on average
width: int = 800  # neurons
steps: int = 240  # steps of adversarial training; clean training has 17/12 as many
batch_size: int = 800  # fresh inputs in a step
n_test: int = 500  # test inputs
n_few: int = 1  # seeds on which the further controls and the variants are run
dimensions: list = [400]  # numbers of features for which scaling is looked at, with d among them
actives: list = [8]  # and numbers of active features, at d features

# %% [markdown]
# ## Setup
#
# The task, the network and its training are in `ntklib.sparse_coding`. Inputs are fresh in every
# step, drawn from a key. There is no data set, and no box around inputs.

# %%
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from IPython.display import Markdown

from ntklib import attacks, explore, linear, sparse_coding
from ntklib.cores import share

page = claims.Page(
    "11_feature_purification", profile=profile, seeds=seeds, provenance={"sha256": {}}
)
tau = epsilon / k**0.5
relative = epsilon * 2.0 ** np.arange(-2, 2.5, 0.5)  # radii of curves, in units of 1/√k
few = seeds[:n_few]

# %% [markdown]
# Clean training has two phases. In the first one each bias is tied to the norm of its weights,
# $b_i = \kappa \|w_i\|/\sqrt k$, with a factor that falls. In the second one it is frozen. The bias
# keeps a neuron silent on most inputs. Without it the network could stay a linear function, which
# is enough for this label, and would need no features.

# %%
kappas = 0.45, 0.2  # at the start and at the end of the first phase
rates = {"clean": 1 / 25, "AT": 1 / 100}  # learning rates, in units of d
neurons_per_feature = width / d


@dataclass
class Run:
    """A task, the training of a network on it, and what the network is after each kind of it."""

    task: sparse_coding.Task
    train: partial
    key: jax.Array
    test: sparse_coding.Sample
    nets: dict

    def function(self, name):
        return linear.bind(self.train.args[0].apply, self.nets[name])

    def weights(self, name):
        return self.nets[name]["params"]["weights"]


# %%
def clean_run(seed, d=d, k=k, batch_size=batch_size, smoothing=0.0, decay=0.0, **options):
    """Clean training, in its two phases, on a task of the seed."""
    keys = jax.random.split(jax.random.key(seed), 6)
    task = sparse_coding.task(keys[0], d, k, **options)
    thresholds = [kappa / k**0.5 for kappa in kappas]
    size = {"width": round(neurons_per_feature * d), "threshold": thresholds[0]}
    model = sparse_coding.learner(**size, smoothing=smoothing)
    settings = {"inputs": task, "batch_size": batch_size, "decay": decay}
    train = partial(sparse_coding.train, model, **settings)
    start, rate = model.init(keys[1], jnp.zeros((1, d))), rates["clean"] * d
    growth = {"steps": -(-11 * steps // 12), "thresholds": thresholds}
    grown = train(start, key=keys[2], rate=rate, **growth)
    clean = train(grown, key=keys[3], rate=rate, steps=-(-steps // 2))
    test = task.sample(keys[4], n_test)
    return Run(task, train, keys[5], test, {"start": start, "clean": clean})


# %% [markdown]
# Adversarial training goes on from the clean weights, with the bias as it is. It attacks each batch
# by the fast gradient method (FGM), one step of length $\tau$ along the gradient of the margin
# $y f(x)$. (That of the logistic loss has the same direction, and is zero in floating point where
# an input is classified with great certainty.) The control takes
# as many more steps at the same rate, on the same inputs without attacks. Two more controls are run
# on a few seeds: other inputs, and a learning rate many times larger.


# %%
def attack(radius, attack_steps=1, norm="l2"):
    """FGM; with more than one step, projected gradient descent (PGD)."""
    settings = {"epsilon": radius, "steps": attack_steps, "norm": norm, "loss": "margin"}
    return attacks.partial(attacks.pgd, **settings, random_start=False, clip=None)


def continued(run, adversary, order=0, times=1):
    """The network after further training from the clean weights."""
    rate = times * rates["AT"] * len(run.task.labelling)
    key = jax.random.fold_in(run.key, order)
    return run.train(run.nets["clean"], key=key, steps=steps, rate=rate, attack=adversary)


# %%
large = 4  # times the rate of adversarial training


def full_run(seed):
    """All trainings of a network of one seed."""
    run, fgm = clean_run(seed), attack(tau)
    run.nets["AT"] = continued(run, fgm)
    run.nets["more clean steps"] = continued(run, None)
    if seed in few:
        run.nets["AT, other inputs"] = continued(run, fgm, order=1)
        run.nets["AT, large rate"] = continued(run, fgm, times=large)
    return run


runs = share(full_run, ((seed,) for seed in seeds))

# %% [markdown]
# If the mixture is the cause, it should be enough to take it out by hand: of each clean weight its
# part along $u$, with the bias as it is, and nothing trained.

# %%
judged_nets = ("clean", "AT", "more clean steps", "clean, u removed")
for run in runs:
    weights, u = run.weights("clean"), run.task.direction
    purged = {"params": {"weights": weights - jnp.outer(weights @ u, u)}}
    run.nets["clean, u removed"] = run.nets["clean"] | purged

# %% [markdown]
# ## What do networks withstand?
#
# Robust accuracy is that under all of three attacks: FGM, PGD of 20 steps, and the universal
# direction, $-\tau y u$, which looks neither at the network nor at the input. A random direction of
# the same length stands beside them. The *reference* is what a rule withstands that knows which
# features are active, and uses no others: nobody classifies inputs robustly that are close to the
# boundary.


# %%
def withstood(run, function, radius=tau, norm="l2", attack_steps=20, n=None):
    """Which test inputs are classified, clean, under each attack, and under all of them."""
    x, y, ball = run.test.x[:n], run.test.y[:n], {"epsilon": radius, "norm": norm}
    tried = {
        "FGM": attack(radius, norm=norm),
        "PGD": attack(radius, attack_steps, norm),
        "direction": partial(sparse_coding.universal, direction=run.task.direction, **ball),
    }
    found = {}
    for name, tool in tried.items():
        outcome = attacks.robust_accuracy(function, x, y, run.key, attack=tool, batch_size=n_test)
        found[name] = outcome.robust
    return found | {"all": np.all(list(found.values()), axis=0), "clean": outcome.clean}


# %%
def measured(name, among=runs):
    """The outcomes of a network of each seed: (seeds, inputs) for each attack."""
    of_seeds = [withstood(run, run.function(name)) for run in among]
    return {kind: np.array([found[kind] for found in of_seeds]) for kind in of_seeds[0]}


nets = {name: measured(name) for name in judged_nets}
extra = {
    name: measured(name, runs[:n_few]) for name in ("AT, other inputs", "AT, large rate") if few
}


# %%
def by_chance(run):
    """Which test inputs the clean network classifies after a step in a random direction."""
    anywhere = jax.random.normal(run.key, (d,))
    tool = partial(sparse_coding.universal, direction=anywhere, epsilon=tau)
    points = run.test.x, run.test.y, run.key
    at = {"attack": tool, "batch_size": n_test}
    return attacks.robust_accuracy(run.function("clean"), *points, **at).robust


at_random = np.array([by_chance(run) for run in runs])
reference = np.array([sparse_coding.ceiling(r.task, r.test.z, epsilon=tau) for r in runs])

# %% [markdown]
# The same against the radius. The linear rule is $\langle w^\star, z\rangle$ itself, which makes no
# error on clean inputs; what it withstands is known exactly.

# %%
points = min(n_test, 500)  # of the test inputs, for curves


def curve(run, name):
    """What a network withstands up to each radius: (radii, points)."""
    f, radii = run.function(name), relative * run.task.active**-0.5
    at = [withstood(run, f, radius, attack_steps=10, n=points)["all"] for radius in radii]
    return np.logical_and.accumulate(at)


curves = {name: np.array([curve(run, name) for run in runs]) for name in ("clean", "AT")}


# %%
def known(run, radius):
    """What the reference and the linear rule withstand at a radius."""
    test, rule = run.test, run.task.direction
    return (
        sparse_coding.ceiling(run.task, test.z, epsilon=radius),
        sparse_coding.linear_withstands(rule, test.x, test.y, epsilon=radius),
    )


exact = np.array([[known(run, radius) for radius in relative * k**-0.5] for run in runs])
curves |= {"reference": exact[:, :, 0], "linear rule": exact[:, :, 1]}

# %% tags=["hide-input", "key-figure"]
figure, axes = plt.subplots(figsize=(6.4, 3.8))
for name, outcomes in curves.items():
    plots.band(axes, relative, claims.estimates(outcomes), name)
axes.axvline(epsilon, color="0.6", linewidth=1, linestyle=":")
axes.set(xscale="log", xlabel="radius τ (1/√k)", ylabel="robust accuracy", ylim=(0, 1))
axes.set_xticks(relative[::2], [f"{radius:.3g}" for radius in relative[::2]])
axes.legend()
at_tau = {name: outcomes[:, 4].mean() for name, outcomes in curves.items()}
plots.show(
    figure,
    name="fig-purification-radius",
    alt="Robust accuracy against the radius of the attack. At the radius of training it is "
    + ", ".join(f"{value:.2f} ({name})" for name, value in at_tau.items())
    + ".",
    caption="Accuracy under all attacks against their radius; dotted, that of training. Bands are "
    f"95 % intervals over {len(seeds)} seeds.",
)

# %% [markdown]
# And what the universal direction does to outputs, beside a random one. A margin is $y f(x)$, in
# units of its median on clean inputs; below zero an input is misclassified.


# %%
def margins(run, name, direction):
    """Margins of all test inputs at each radius along a direction."""
    function, signs = run.function(name), 2.0 * run.test.y[:, None] - 1
    moved = (run.test.x - r * signs * direction for r in (0, *relative * k**-0.5))
    found = np.array([(signs * function(x))[:, 0] for x in moved])
    return found / np.median(found[0])


# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
anywhere = jax.random.normal(runs[0].key, (d,))
directions = {"universal": runs[0].task.direction, "random": anywhere / jnp.linalg.norm(anywhere)}
middle = {}
for axes, name in zip(panels, ("clean", "AT"), strict=True):
    for label, direction in directions.items():
        found = np.quantile(margins(runs[0], name, direction), (0.1, 0.5, 0.9), axis=1)
        (line,) = axes.plot([0, *relative], found[1], label=label, markersize=3)
        axes.fill_between(line.get_xdata(), found[0], found[2], color=line.get_color(), alpha=0.2)
        middle[name, label] = found[1, 5]
    axes.axhline(0, color="black", linewidth=1)
    axes.axvline(epsilon, color="0.6", linewidth=1, linestyle=":")
    axes.set(title=f"after {'clean training' if name == 'clean' else 'AT'}", xlabel="τ (1/√k)")
panels[0].set(ylabel="margin", ylim=(-4, 3))
panels[0].legend()
plots.show(
    figure,
    name="fig-purification-direction",
    alt="Margins along the universal and along a random direction, for the clean and the "
    "adversarially trained network. At the radius of training the median is "
    + "; ".join(f"{value:.2f} ({name}, {label})" for (name, label), value in middle.items())
    + ".",
    caption="Median margin and the range of four fifths of all test inputs, as these move along a "
    f"direction, the same one for all but for the sign of the label (seed {seeds[0]}). Dotted: the "
    "radius of training.",
)

# %% [markdown]
# ## What is in the weights?
#
# With $a = M^\top w_i$, a neuron's feature $j^\star$ is where $|a_j|$ is largest. The neuron is
# *pure* if more than half of $\|a\|^2$ is there, with the right sign. The *mixture* $\beta$ is
# the coefficient of $w^\star$ in the rest, by least squares, over $|a_{j^\star}|$. Before and
# after, the same neurons are taken, those that are pure after clean training; each network's own
# pure neurons would be different ones. The *dense share* is that of $u$ in $\|W\|^2$, of all
# neurons.

# %%
kinds = ("clean", "AT", "more clean steps")
of_weights = {
    name: [sparse_coding.features(run.weights(name), run.task) for run in runs] for name in kinds
}
pure = [np.asarray(found.pure) for found in of_weights["clean"]]


def of_pure(name, what):
    """Median over the neurons that are pure after clean training, for each seed."""
    values = [np.asarray(getattr(found, what)) for found in of_weights[name]]
    pairs = zip(values, pure, strict=True)
    return np.array([np.median(v[those]) if those.any() else np.nan for v, those in pairs])


mixture = {name: of_pure(name, "mixture") for name in kinds}
alignment = {name: of_pure(name, "alignment") for name in kinds}


# %%
def kept_features():
    """Share of the pure neurons whose feature is the same after adversarial training."""
    pairs = zip(of_weights["clean"], of_weights["AT"], pure, strict=True)
    return np.array([np.mean((a.main == b.main)[those]) for a, b, those in pairs])


dense = {
    name: np.array([sparse_coding.dense_share(run.weights(name), run.task) for run in runs])
    for name in kinds
}
n_pure = {name: [int(found.pure.sum()) for found in of_weights[name]] for name in kinds}
gradients = {
    name: np.array(
        [sparse_coding.gradient_alignment(r.function(name), r.task, r.test).mean(1) for r in runs]
    )
    for name in kinds
}

# %% [markdown]
# $\theta$ is the absolute cosine of two weights of one neuron: at the start ($w_0$), after clean
# training ($w$), after adversarial training ($w'$). Above $1/\sqrt 2$, what two weights have in
# common is more than what they do not.


# %%
def theta(run, first, second):
    return np.asarray(sparse_coding.overlap(run.weights(first), run.weights(second)))


pairs = {
    "w, w′": ("clean", "AT"),
    "w₀, w": ("start", "clean"),
    "w₀, w′": ("start", "AT"),
    "w, more clean steps": ("clean", "more clean steps"),
}
thetas = {label: [theta(run, *pair) for run in runs] for label, pair in pairs.items()}
median = {label: np.array([np.median(t) for t in found]) for label, found in thetas.items()}
above = {label: np.array([np.mean(t > 2**-0.5) for t in t_s]) for label, t_s in thetas.items()}
with_initial = np.maximum(median["w₀, w"], median["w₀, w′"])
large_thetas = [theta(run, "clean", "AT, large rate") for run in runs[:n_few]]
orders = [theta(run, "AT", "AT, other inputs") for run in runs[:n_few]]

# %% tags=["hide-input"]
run, found = runs[0], of_weights["clean"][0]
those = np.flatnonzero(pure[0] if pure[0].any() else ~pure[0])
typical = those[np.argsort(found.mixture[those])[len(those) // 2]]
figure, panels = plt.subplots(2, 1, figsize=(9, 4.4), sharex=True, sharey=True)
order = np.argsort(
    -np.asarray(run.task.labelling * jnp.sign(run.task.labelling[found.main[typical]]))
)
for axes, name in zip(panels, ("clean", "AT"), strict=True):
    row = np.asarray(run.task.coefficients(run.weights(name)[typical]))
    row = row * np.sign(run.task.labelling) / np.abs(row).max()
    axes.bar(np.arange(d), row, width=1, color=plots.COLOURS[1])
    axes.bar(int(found.main[typical]), row[found.main[typical]], width=3, color=plots.COLOURS[0])
    axes.axhline(0, color="black", linewidth=0.5)
    level = np.mean(np.delete(row, found.main[typical]))
    axes.axhline(level, color="black", linewidth=1, linestyle=":")
    axes.set(title="after clean training" if name == "clean" else "after AT", ylabel="coefficient")
panels[1].set(xlabel="feature", ylim=(-0.2, 0.3), xlim=(-1, d))
levels = [float(of_weights[name][0].mixture[typical]) for name in ("clean", "AT")]
plots.show(
    figure,
    name="fig-purification-neuron",
    alt="Coefficients of one neuron on all features, after clean and after adversarial training. "
    f"One is large in both. The mixture coefficient goes from {levels[0]:.4f} to {levels[1]:.4f}.",
    caption="One neuron before and after, the one of median mixture among the pure ones of seed "
    f"{seeds[0]}. Coefficients are over the largest, which is cut off, and times the sign of the "
    "label weight: above zero they help the label. Dotted: the mean of all but the largest.",
)

# %% [markdown]
# Other neurons before and after, from the one of the smallest mixture to the one of the largest
# among the pure ones. Each small square is a feature; the neuron's own is white. The rest is grey
# where a feature does not count, and lighter where it helps the label.

# %% tags=["hide-input"]
browsed = those[np.argsort(found.mixture[those])][np.linspace(0, len(those) - 1, 9).astype(int)]
side = int(np.ceil(d**0.5))


def pictured(name):
    """Coefficients of the browsed neurons as in the figure above, features as a square."""
    rows = np.asarray(run.task.coefficients(run.weights(name)[browsed]))
    rows = rows * np.sign(run.task.labelling) / np.abs(rows).max(1, keepdims=True)
    return 0.5 + 2.5 * np.pad(rows, ((0, 0), (0, side**2 - d))).reshape(-1, side, side, 1)


after = {"after clean training": "clean", "after adversarial training": "AT"}
explore.slider(
    {name: of_weights[of][0].mixture[browsed] * d / k for name, of in after.items()},
    [str(number) for number in range(1, len(browsed) + 1)],
    name="explore-purification",
    label="neuron",
    quantity="mixture (k/d)",
    images={name: pictured(of) for name, of in after.items()},
    start=len(browsed) // 2,
    alt="Mixture of nine neurons after clean and after adversarial training; the numbers are in "
    "the table.",
    caption=f"Nine of the pure neurons of seed {seeds[0]}, by mixture. Coefficients are over the "
    "largest one, and cut off at a fifth of it.",
)

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
for label in ("w, w′", "w₀, w", "w₀, w′"):
    right.hist(
        np.concatenate(thetas[label]), bins=np.linspace(0, 1, 51), label=f"θ({label})", alpha=0.7
    )
left.scatter(thetas["w₀, w"][0], thetas["w, w′"][0], s=4, linewidth=0)
left.axhline(2**-0.5, color="black", linewidth=1, linestyle=":")
right.axvline(2**-0.5, color="black", linewidth=1, linestyle=":")
left.set(xlabel="θ(w₀, w)", ylabel="θ(w, w′)", xlim=(0, 1), ylim=(0, 1))
right.set(xlabel="θ", ylabel="neurons")
right.legend()
plots.show(
    figure,
    name="fig-purification-theta",
    alt="Left, a cloud of all neurons, cosine of initial and clean weight to the right, of clean "
    "and adversarially trained weight upwards. Right, histograms of these and of the cosine of "
    "initial and adversarially trained weight. Medians are "
    + ", ".join(f"{median[label].mean():.2f} for {label}" for label in ("w, w′", "w₀, w", "w₀, w′"))
    + ".",
    caption=f"θ of each neuron; left, those of seed {seeds[0]}, right, of all seeds. Dotted: 1/√2.",
)


# %% [markdown]
# ## Can models of low complexity do it?
#
# The claim is about all algorithms, which no experiment can try. Tried are: the linear rule
# $w^\star$; linear rules, and polynomials of degree 2 and 3, trained adversarially from zero; and
# the tangent kernel of this very network, which is the network with its gates frozen where they
# are at initialisation, trained adversarially in the same way. The gates are open on the more
# inputs the smaller the bias at initialisation is. Of each kind the most robust one counts, for
# each seed; that favours them.
#
# A polynomial of degree 3 can also be written down by someone who knows the features,
# $\sum_j w^\star_j\, (a z_j + z_j^3)$ with $z = M^\top x$: a cube hardly sees what is small. It is
# no result of training, and stands beside the others.

# %%
smaller = -(-batch_size // 4)  # batches; as many steps as the network takes
fgm = attack(tau)


def best_of(run, tries):
    """The outcomes of the most robust of some models: (model, variables) each."""
    found = [
        withstood(run, linear.bind(model.apply, variables), n=points) for model, variables in tries
    ]
    return max(found, key=lambda outcomes: outcomes["all"].mean())


def trained(run, model, start, rate):
    """A model trained adversarially for this task."""
    settings = {"batch_size": smaller, "steps": steps, "attack": fgm}
    return sparse_coding.train(model, start, run.task, run.key, rate=rate, **settings)


# %%
def polynomials(run, degree, rates):
    """Polynomials trained at some rates."""
    model = sparse_coding.polynomial(degree, width // 4)
    start = model.init(run.key, jnp.zeros((1, d)))
    return [(model, trained(run, model, start, rate)) for rate in rates]


def tangent_kernels(run, gates, rates):
    """The tangent kernel at initialisation; gates in standard deviations of their input."""
    for gate in gates:
        model = sparse_coding.learner(width, threshold=gate / d**0.5)
        start = model.init(run.key, jnp.zeros((1, d)))
        tangent = linear.linearize(model, start, centered=True)
        yield from ((tangent, trained(run, tangent, start, rate)) for rate in rates)


# %%
def cubics(run, linear_parts):
    """Cubic polynomials that are written down, with some linear parts a."""
    task = run.task
    outputs = d**0.5 * jnp.stack([jnp.zeros(d), task.labelling])
    known = {"weights": task.inputs(jnp.eye(d)), "outputs": outputs}
    for a in linear_parts:
        params = known | {"linear": a * task.inputs(task.labelling)}
        yield sparse_coding.polynomial(3, d), {"params": params}


# %%
kinds_of_rivals = {
    "linear": lambda run: polynomials(run, 1, (20,)),
    "degree 2": lambda run: polynomials(run, 2, (1,)),
    "degree 3": lambda run: polynomials(run, 3, (1,)),
    "tangent kernel": lambda run: tangent_kernels(run, (1, 2), (5,)),
    "cubic, written down": lambda run: cubics(run, (0, 0.05)),
}


def rivals(run):
    """The best of each kind."""
    return {kind: best_of(run, tries(run)) for kind, tries in kinds_of_rivals.items()}


of_rivals = share(rivals, ((run,) for run in runs))


# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(7, 3.6))
shown = {"network, AT": nets["AT"], "network, clean": nets["clean"]}
shown |= {
    kind: {what: np.array([found[kind][what] for found in of_rivals]) for what in ("clean", "all")}
    for kind in kinds_of_rivals
}
for what, label, marker in (("clean", "clean inputs", "o"), ("all", "under all attacks", "s")):
    found = [claims.estimate(outcomes[what]) for outcomes in shown.values()]
    values = np.array([e.value for e in found])
    low, high = (np.array([getattr(e, end) for e in found]) for end in ("low", "high"))
    errors = np.nan_to_num(np.clip([values - low, high - values], 0, 1))
    axes.errorbar(values, np.arange(len(shown)), xerr=errors, fmt=marker, label=label)
axes.set_yticks(range(len(shown)), shown)
axes.invert_yaxis()
axes.axvline(0.5, color="black", linewidth=1, linestyle=":")
axes.set(xlabel="accuracy", xlim=(0, 1))
figure.legend(loc="outside upper center", ncols=2)
plots.show(
    figure,
    name="fig-purification-rivals",
    alt="Accuracy on clean inputs and under all attacks. "
    + "; ".join(f"{n}, {o['clean'].mean():.2f} and {o['all'].mean():.2f}" for n, o in shown.items())
    + ".",
    caption="The network and models of low complexity at the radius of training. Dotted: a "
    f"constant predictor. Bars are 95 % intervals over {len(seeds)} seeds.",
)

# %% [markdown]
# ## Variants and other sizes
#
# What the task and the network above leave out, one at a time, on a few seeds and in batches of
# half the size. Nothing of this is judged. With $\ell_\infty$ attacks the radius depends on the
# features: where these are single entries of an input it goes with $k^{-7/4}$, the power of the
# paper as we remember it; where they spread over all entries, it is that of $\ell_2$ by $\sqrt d$.


# %%
def of_variant(seed, norm="l2", radius=tau, **options):
    """The row of a variant in the table, for one seed."""
    run = clean_run(seed, batch_size=-(-batch_size // 2), **options)
    run.nets["AT"] = continued(run, attack(radius, norm=norm))
    before, after = (
        withstood(run, run.function(name), radius, norm, n=points) for name in ("clean", "AT")
    )
    found = sparse_coding.features(run.weights("clean"), run.task)
    shares = [float(sparse_coding.dense_share(run.weights(n), run.task)) for n in ("clean", "AT")]
    accuracies = (before["clean"], before["all"], before["direction"], after["clean"], after["all"])
    best = sparse_coding.ceiling(run.task, run.test.z, epsilon=radius, norm=norm)
    size = np.median(found.mixture[found.pure]) * d / k if found.pure.any() else np.nan
    cosine = np.median(theta(run, "clean", "AT"))
    return [*(np.mean(a) for a in (*accuracies, best)), size, shares[1] / shares[0], cosine]


# %%
variants = {
    "as above": {},
    "noise, σₓ = 1/2": {"noise": 0.5},
    "smoothed ReLUs": {"smoothing": 0.02},
    "M rotated": {"dictionary": sparse_coding.rotation(jax.random.key(0), d)},
    "no coefficients of size 1": {"spikes": 0},
    "weight decay": {"decay": 1e-4},
    "ℓ∞, M the identity": {"norm": "linf", "radius": epsilon / k**1.75},
    "ℓ∞, M of cosines": {"norm": "linf", "radius": tau / d**0.5},
}
variants["ℓ∞, M of cosines"]["dictionary"] = sparse_coding.cosine_basis(d)
rows = {
    name: np.mean([of_variant(seed, **options) for seed in few], axis=0)
    for name, options in (variants.items() if few else ())
}

# %% tags=["hide-input"]
columns = ["", "clean", "robust", "direction", "clean, AT", "robust, AT", "reference"]
columns += ["β (k/d)", "dense share, AT over before", "θ(w, w′)"]
lines = [columns, ["---"] * len(columns)]
told = {name: [f"{v:.2f}".replace("nan", "–") for v in row] for name, row in rows.items()}
lines += [[name, *row] for name, row in told.items()]
Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))

# %% [markdown]
# Accuracies: of the clean network on clean inputs, under all attacks, and under the universal
# direction alone; of the adversarially trained one on clean inputs and under all attacks; of the
# reference. Then the mixture of pure neurons after clean training, a dash if none is pure, and what
# adversarial training does to the dense share; the median cosine of weights before and after it.
# Means over seeds.

# %% [markdown]
# Other sizes: the argument says how the mixture goes with the size, and the radius that half of the
# inputs withstand, after clean and after adversarial training. Sizes lie along two ways: to more
# features, with active ones in proportion to $\sqrt d$, and to more active ones among $d$ features.
# This takes long, so it is done in the profile `paper`. A seed without pure neurons has no mixture.
# All sizes have as many steps and as large batches; what longer training would make of large ones,
# this does not say.


# %%
def half_radius(outcomes, active):
    """The radius that half of the inputs withstand, between radii in proportion to logarithms."""
    return np.exp(np.interp(-0.5, -outcomes.mean(1), np.log(relative * active**-0.5)))


def of_size(seed, d, k):
    """Mixture, the two radii, and the gain of robust accuracy by adversarial training."""
    run = clean_run(seed, d, k)
    run.nets["AT"] = continued(run, attack(epsilon / k**0.5))
    found = sparse_coding.features(run.weights("clean"), run.task)
    before, after = (curve(run, name) for name in ("clean", "AT"))
    gain = (after[4] * 1.0 - before[4]).mean()
    radii = half_radius(before, k), half_radius(after, k)
    return np.median(found.mixture[found.pure]) if found.pure.any() else np.nan, *radii, gain


# %%
laws = {
    "mixture (k/d)": lambda d, k: k / d,
    "radius, clean (√d/k²)": lambda d, k: d**0.5 / k**2,
    "radius, AT (1/√k)": lambda d, k: k**-0.5,
    "gain of robust accuracy": lambda d, k: 1.0,
}


def sizes(d, k, dimensions, actives, **_):
    """The numbers of features, and of active ones, along each way."""
    to_more = [(n, round(k * (n / d) ** 0.5)) for n in sorted(dimensions)]
    return {"more features": to_more, "more active ones": [(d, n) for n in sorted(actives)]}


# %%
ways = sizes(d, k, dimensions, actives)
every = sorted({size for way in ways.values() for size in way})
scaling = {}
if len(every) > 1:
    scaling = {size: np.array([of_size(seed, *size) for seed in seeds]).T for size in every}


# %%
def exponent(way, i, law):
    """The power of a law with which a quantity goes along a way, fitted in logarithms."""
    used = [size for size in way if np.isfinite(scaling[size][i]).all()]
    by, values = ([law(*size) for size in used], [scaling[size][i] for size in used])
    if len(used) < 2:
        return claims.estimate(np.full(len(seeds), np.nan))
    return claims.estimate(np.polyfit(np.log(by), np.log(values), 1)[0])


def at_size(name, n, active):
    return f"{name}, d = {n}, k = {active}"


# %%
powers, of_sizes = list(laws)[:3], {}
for i, (name, law) in enumerate(laws.items()):
    for size, found in scaling.items():
        of_sizes[at_size(name, *size)] = claims.estimate(found[i] / law(*size))
    for to, way in ways.items():
        if scaling and name in powers:
            of_sizes[f"power, {name}, {to}"] = exponent(way, i, law)

# %%
record, told = page.record("paper"), of_sizes
if record and not scaling:
    ways, told = sizes(**record.parameters), record.measurements
of_powers = {n.removeprefix("power, "): e for n, e in told.items() if n.startswith("power, ")}
fitted = {name: power for name, power in of_powers.items() if np.isfinite(power.value)}

# %% tags=["hide-input"]
table = [["d", "k", *laws], ["---"] * 6]
for size in sorted({size for way in ways.values() for size in way}):
    if fitted:
        cells = (f"{told[at_size(name, *size)]}" for name in laws)
        table.append([*map(str, size), *(cell.replace("nan (no interval)", "–") for cell in cells)])
says = {"above": "more than one", "below": "less than one"}
lines = [
    f"- {name}: {power}, {says.get(power.beside(1), 'not told apart from one')}"
    for name, power in fitted.items()
]

# %% tags=["hide-input"]
rows = "\n".join(f"| {' | '.join(row)} |" for row in table)
text = "The powers of the laws with which the three go; the argument says one:\n\n"
text += "\n".join(lines) + f"\n\nAll numbers, in units of the laws:\n\n{rows}"
Markdown(text if fitted else "No record tells of other sizes.")

# %% [markdown]
# ## Is the attack sound?
#
# The checks are made on both networks of every seed. Inputs made on the other network, and those
# moved along the universal direction, must not do more than the attack that knows the network.


# %%
def checked(run, name, other):
    """Findings on the attack on one network."""
    x, y = run.test.x[:points], run.test.y[:points]
    f, norm = run.function(name), {"norm": "l2", "clip": None, "loss": "margin"}
    along = sparse_coding.universal(f, x, y, direction=run.task.direction, epsilon=tau)
    moved = attack(tau)(run.function(other), x, y, run.key)
    transferred = {"universal_direction": along, "the_other_network": moved}
    return attacks.soundness(f, x, y, run.key, epsilon=tau, transferred=transferred, **norm)


turns = [(run, *pair) for run in runs for pair in (("clean", "AT"), ("AT", "clean"))]
page.soundness = claims.worst(share(checked, turns))

# %% [markdown]
# ## Verdict

# %%
robust = {name: outcomes["all"] for name, outcomes in nets.items()}
gain = claims.difference(robust["AT"], robust["clean"])
p1 = page.judge(
    "P1",
    {
        "clean_accuracy": claims.estimate(nets["clean"]["clean"]),
        "robust_accuracy": claims.estimate(robust["clean"]),
        "common_direction_excess": claims.difference(nets["clean"]["direction"], robust["clean"]),
        "random_direction_cost": claims.difference(nets["clean"]["clean"], at_random),
        "head_room": claims.difference(reference, robust["clean"]),
    },
    measurements={"accuracy under the direction": claims.estimate(nets["clean"]["direction"])},
)
p1


# %%
def gap(one, other):
    return abs(one - other)


judged = {
    "gain_over_clean": gain,
    "gain_over_control": claims.difference(robust["AT"], robust["more clean steps"]),
    "share_of_reference": claims.ratio(robust["AT"], reference),
    "one_step_vs_many": claims.estimate(nets["AT"]["FGM"], nets["AT"]["PGD"], statistic=gap),
    "clean_cost": claims.difference(nets["clean"]["clean"], nets["AT"]["clean"]),
}
asked = [check.name for check in page.claims["P2"].checks if check.margin_for(profile) is not None]
if "gain_at_larger_dimension" in asked:
    [larger] = [found for (n, _), found in scaling.items() if n == 2 * d]
    judged["gain_at_larger_dimension"] = claims.difference(larger[3], scaling[d, k][3])

# %%
p2 = page.judge(
    "P2",
    judged,
    measurements={
        f"robust accuracy, {name}": claims.estimate(values) for name, values in robust.items()
    }
    | {f"robust accuracy, {name}": claims.estimate(o["all"]) for name, o in extra.items() if few}
    | {"robust accuracy, reference": claims.estimate(reference)}
    | of_sizes,
)
p2

# %%
of_gradients = {
    f"{what}, {name}": claims.estimate(values[:, i])
    for name, values in gradients.items()
    for i, what in enumerate(("cosine of gradients with u", "gradients off the active features"))
}
p3 = page.judge(
    "P3",
    {
        "mixture_size": claims.estimate(mixture["clean"] * d / k),
        "mixture_direction": claims.estimate(alignment["clean"]),
    },
    measurements=of_gradients | {f"pure, {n}": claims.estimate(v) for n, v in n_pure.items()},
)
p3

# %%
p4 = page.judge(
    "P4",
    {
        "median_cosine": claims.estimate(median["w, w′"]),
        "share_above_half": claims.estimate(above["w, w′"]),
        "cosine_with_initial": claims.estimate(with_initial),
        "mixture_ratio": claims.ratio(mixture["AT"], mixture["clean"]),
        "dense_share_ratio": claims.ratio(dense["AT"], dense["clean"]),
        "control_dense_share_ratio": claims.ratio(dense["more clean steps"], dense["clean"]),
        "same_feature": claims.estimate(kept_features()),
        "robust_gain": gain,
    },
    measurements={f"median θ({label})": claims.estimate(t) for label, t in median.items()},
)
p4

# %%
of_kind = {kind: outcomes["all"] for kind, outcomes in shown.items()}
of_kind["linear, exact"] = np.array([known(run, tau)[1][:points] for run in runs])
of_kind["constant"] = np.array([run.test.y[:points] == 1 for run in runs])


def ahead(*kinds):
    """What the network withstands more than the best of some kinds, for each seed its own."""
    best = np.array([max((of_kind[n][i] for n in kinds), key=np.mean) for i in range(len(seeds))])
    return claims.difference(nets["AT"]["all"][:, :points], best)


# %%
p5 = page.judge(
    "P5",
    {
        "advantage_of_the_net": ahead("tangent kernel", "linear", "linear, exact"),
        "advantage_over_polynomials": ahead("degree 2", "degree 3", "constant"),
        "advantage_over_known_cubic": ahead("cubic, written down"),
        "others_learn": claims.estimate(shown["tangent kernel"]["clean"]),
        "robust_gain": gain,
    },
    measurements={f"robust accuracy, {kind}": claims.estimate(o) for kind, o in of_kind.items()},
)
p5

# %% tags=["hide-input"]
along = {name: claims.estimate(outcomes["direction"]) for name, outcomes in nets.items()}
of_clean = (
    f"**The clean network** classifies {p1.checks['clean_accuracy']} of the inputs, and "
    f"{p1.checks['robust_accuracy']} under all attacks, at a radius at which the reference keeps "
    f"{claims.estimate(reference)}. A step of that length in a random direction costs "
    f"{p1.checks['random_direction_cost']}. The universal direction, which has seen neither "
    f"network nor input, leaves {along['clean']}, {p1.checks['common_direction_excess']} more than "
    "all attacks together."
)

# %% tags=["hide-input"]
of_training = (
    f"**Adversarial training** gains {gain} of robust accuracy, {judged['gain_over_control']} more "
    f"than further clean training, and reaches {judged['share_of_reference']} of the reference. It "
    f"costs {judged['clean_cost']} of clean accuracy. The universal direction leaves "
    f"{along['AT']}."
)

# %% tags=["hide-input"]
toward = of_gradients["cosine of gradients with u, clean"]
of_mixture = (
    f"**The mixture.** After clean training the pure neurons, {np.mean(n_pure['clean']):.0f} of "
    f"{width}, have one of {p3.checks['mixture_size']} times k/d, and what they hold besides their "
    f"own feature has a cosine of {p3.checks['mixture_direction']} with the labels' weights. The "
    f"gradients of the network, sums over all active neurons, have one of {toward}, and after "
    f"adversarial training {of_gradients['cosine of gradients with u, AT']}."
)

# %% tags=["hide-input"]
by_hand = claims.difference(robust["clean, u removed"], robust["clean"])
rest = claims.difference(robust["AT"], robust["clean, u removed"])
says_hand = {
    "above": f"so the mixture costs robustness. Adversarial training gains {rest} more than that.",
    "below": "so the mixture is not what costs robustness.",
    "not told apart from": "so the mixture is not seen to cost robustness.",
}[by_hand.beside(0)]
of_hand = (
    "**By hand.** Taking the dense direction out of the clean weights, without training, changes "
    f"robust accuracy by {by_hand}, {says_hand}"
)
Markdown("\n\n".join([of_clean, of_training, of_mixture, of_hand]))

# %% tags=["hide-input"]
happened = (
    "So adversarial training has made the network robust, and has done so by purifying it."
    if p2.verdict == p4.verdict == "reproduced"
    else "The two together do not say that adversarial training makes robust by purifying."
)
of_theta = (
    "**Purified or learnt anew?** Robustness alone does not tell. The median cosine of a neuron's "
    f"weights before and after adversarial training is {p4.checks['median_cosine']}; that with the "
    f"weight at the start is {p4.checks['cosine_with_initial']}, the larger of the two. Of the "
    f"neurons that were pure, {p4.checks['same_feature']} have the same feature, and their mixture "
    f"is {p4.checks['mixture_ratio']} of what it was. The dense share of all weights is "
    f"{p4.checks['dense_share_ratio']} of what it was, and "
    f"{p4.checks['control_dense_share_ratio']} after as many more clean steps. {happened}"
)


# %% tags=["hide-input"]
def of_control(name, thetas):
    """Robust accuracy of a control, against the same seeds' AT, and its median cosine."""
    gained = extra[name]["all"].mean() - robust["AT"][: len(few)].mean()
    return (
        f"{gained:+.3f} of robust accuracy, with {np.mean([np.median(t) for t in thetas]):.2f} for"
    )


of_controls = ""
if few:
    of_controls = (
        f"**Two controls**, on {len(few)} of the seeds. Adversarial training on other inputs "
        f"differs by {of_control('AT, other inputs', orders)} the median cosine of the two "
        f"networks' weights. At {large} times the learning rate it differs by "
        f"{of_control('AT, large rate', large_thetas)} the median cosine with the clean weights."
    )
Markdown("\n\n".join([of_theta, of_controls]))

# %% tags=["hide-input"]
growth = ""
if fitted:
    ends = ways["more features"][0], ways["more features"][-1]
    gains = [told[at_size("gain of robust accuracy", *size)] for size in ends]
    says = {"above": "grows", "below": "shrinks"}.get(gains[1].beside(gains[0]), "stays")
    growth = (
        f"**Larger sizes.** The gain {says}: {gains[0]} with {ends[0][0]} features, {gains[1]} "
        f"with {ends[1][0]} (*Variants and other sizes*)."
    )
Markdown(growth)

# %% tags=["hide-input"]
tangents, by_name = (claims.estimate(of_kind[n]) for n in ("tangent kernel", "cubic, written down"))
cubic = p5.checks["advantage_over_known_cubic"]
says_cubic = {
    "above": "the network is more robust",
    "below": "models of low complexity can be more robust than the network here",
    "not told apart from": "the two are not told apart",
}[cubic.beside(0)]
of_low = (
    "**Models of low complexity.** Robust accuracy of the network minus that of the best linear "
    f"rule and tangent kernel is {p5.checks['advantage_of_the_net']}, minus that of trained "
    f"polynomials, a constant among them, {p5.checks['advantage_over_polynomials']}. A constant "
    f"predictor has one half, whatever the attack; the tangent kernel has {tangents}, "
    f"{tangents.beside(1 / 2)} that."
)

# %% tags=["hide-input"]
of_cubic = (
    f"The cubic polynomial that was written down has {by_name}. The network minus it is {cubic}: "
    f"{says_cubic}. Brackets hold 95 % intervals."
)
Markdown(f"{of_low}\n\n{of_cubic}")

# %% [markdown]
# So how does one step of FGM purify? For a clean network the gradient at every input is nearly the
# same dense direction. Each attacked batch is therefore moved along it, against the labels, and a
# weight that holds some of it is punished on every input on which its neuron is active. A weight's
# own feature is moved by next to nothing. What is learnt against one attack is the direction that
# all attacks use.
#
# ## Fidelity: what is done differently
#
# - There is no official code, and the paper's text could not be read. Data, network and training
#   are as we remember them; sizes, rates and numbers of steps are ours.
# - The paper's bias grows during training. Here it is tied to the norm of the weights with a
#   factor that falls, and then frozen. How the bias is handled decides what is learnt: in our
#   pilots, with a bias on a fixed schedule, the network became linear, with little to purify.
# - The theorems are about large dimensions, and say that robust accuracy goes to zero or to one.
#   Here it stays away from both, and is held against the reference.
# - Without noise, smoothing and weight decay, but for the table of variants; active features have
#   one size, besides the rare larger ones, where the paper allows a range. That is what a cubic
#   polynomial needs.
# - That the theory's tangent kernel is the one with gates at initialisation is our reading. Attacks
#   on it follow gradients that do not see its jumps; a stronger attack would put it further behind.
#
# ## What would change our mind
#
# - A polynomial of low degree, or a way to train the tangent kernel, that is as robust as the
#   network.
# - A network that stays as vulnerable when its mixtures are removed: they would accompany the lack
#   of robustness, and not cause it. Removing one direction by hand is the first test of that.
# - At larger dimensions the gain shrinks, or with longer training there.
# - Another seed, task or size: `make run NB=feature_purification SET="d=300 k=7 width=600"`.
