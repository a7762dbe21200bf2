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
# # The kernel of an adversarially trained network carries robustness

# %% tags=["hide-input"]
from ntklib import claims

claims.load()["L2"]

# %% tags=["hide-input"]
claims.load()["L4"]

# %% [markdown]
# ## The idea
#
# Adversarial training (AT) changes two things at once: the features of a network, that is, its
# tangent kernel, and the function that is made of these features. To tell them apart, training is
# cut in two. In the first phase a network is trained as usual, standard or adversarially, until it
# has the parameters $\theta_t$. In the second, the network is replaced by
#
# $$f(x) = J_{\theta_t}(x)\,(\theta - \theta_t), \qquad
# J_{\theta_t}(x) = \partial f_\theta(x) / \partial \theta \,\big|_{\theta_t} ,$$
#
# a linear model that starts at zero and forgets what the network had learnt to say. It keeps only
# the features, and its kernel $K_t(x, x') = J_{\theta_t}(x) J_{\theta_t}(x')^\top$ is the one of
# the network at $\theta_t$ for ever. Its training is called lazy; it may be benign, on clean images
# only, or adversarial, where the attack is on the linear model itself.
#
# If benign training on the kernel of an adversarially trained network gives a robust classifier,
# while the same on the kernel of a standard network does not, then the robustness is in the kernel.
# The second claim asks for more: whether adversarial images help in either phase, in a table of two
# kinds of kernel by two kinds of lazy training.
#
# One trap is the learning rate. A kernel is larger or smaller by factors from one checkpoint to
# another, and at a common rate the small ones, above all that of the untrained network, would be
# judged before they have learnt anything. So the rate is $1/h$ for each kernel, with the largest
# curvature $h$ of its loss at $f = 0$, a bit more than a quarter of what is stable there. What is
# still missing can be read off the accuracy on clean images, which stands beside each robust
# accuracy.
#
# Another trap is the attack. The Jacobian of a ReLU network jumps where the image makes a ReLU
# switch, and so does $f$; an attack by gradients does not see the jumps. *Adversarial training on a
# fixed kernel gives a robust classifier* shows what that hides. So every model here is attacked by
# its own gradients and through a copy of itself whose ReLUs are smooth, and those that are judged
# by a search without gradients, too. An image counts as withstood if it withstands all of them.
#
# ## Parameters
#
# The values are those of the profile `laptop`. Papermill replaces them.

# %% tags=["parameters"] bounds={"n_clean": [20, 10000]}
profile: str = "laptop"  # which margins the verdict is held against
dataset: str = "mnist5k"  # where the images come from
seeds: list = [
    20,
    21,
    22,
    23,
    24,
    25,
]  # each is a start of the network, and an order of the batches
epsilon: float = 0.1  # radius of the attack, in pixels that range from 0 to 1
n_train: int = 2000  # training images, the same for all seeds
n_test: int = 200  # test images that are attacked
n_clean: int = 1000  # test images on which it is seen whether training has converged
n_kernel: int = 100  # training images on which the curvature of the loss is computed
pool: int = 2  # pixels are averaged over squares of this side
network: str = "cnn_mnist"  # the network, see `ntklib.models.get`
epochs: int = 20  # passes over the training images in the first phase
lazy_epochs: int = 5  # passes of adversarial training in the second phase; benign has four times
batch_size: int = 100  # images of a batch
learning_rate: float = 0.05  # of gradient descent with momentum 0.9, in the first phase
attack_steps: int = 5  # steps of the attack in training
queries: int = 1000  # of the search without gradients, for each test image

# %% [markdown]
# ## Setup

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

from ntklib import cores, data, plots

draw = data.load(dataset, n_train=n_train, n_test=n_test, pool=pool)
draw.provenance

# %%
page = claims.Page("06_robust_kernel", profile=profile, seeds=seeds, provenance=draw.provenance)

# %% [markdown]
# ## The first phase
#
# These are the trainings of *Adversarial training settles on a kernel of its own*. Adversarial
# training makes two updates for each batch, as the official code does, one on the clean images and
# one on the attacked ones; standard training goes on for twice as many epochs.

# %% tags=["trainings"]
from ntklib import attacks, models, phases, training

pgd = attacks.partial(attacks.pgd, epsilon=epsilon, steps=attack_steps)
adversarial = {"adversary": pgd, "clean_first": True}
sgd = training.SGD(learning_rate)
recipe = training.Recipe(epochs=epochs, optimizer=sgd, batch_size=batch_size, loss="ce")
study = phases.Study(network, phases.Images(dataset, n_train, pool), seeds, recipe)
first = {"standard": study.learn(epochs=2 * epochs), "adversarial": study.learn(**adversarial)}

# %% [markdown]
# ## The second phase
#
# Benign training on the kernel of every checkpoint; adversarial training on the first kernel and
# on the two last ones. The two kinds of first phase have the same start.

# %% tags=["trainings"]

smooth = models.get(network, n_classes=study.images.n_classes, softplus=20.0)
through_smooth = {"adversary": attacks.smoothed(pgd, smooth), "clean_first": True}
kernels = {
    "adversarial": (first["adversarial"], epochs),
    "standard": (first["standard"], epochs),
    "initial": (first["adversarial"], 0),
    "standard, twice the epochs": (first["standard"], 2 * epochs),
}
lazy_times = lazy_epochs, 2 * lazy_epochs, round(8 / 3 * lazy_epochs), 4 * lazy_epochs


def lazy(kernel, **changes):
    """The second phase on one of the kernels."""
    options = {"epochs": 4 * lazy_epochs, "n_curvature": n_kernel} | changes
    return study.fix(*kernels[kernel], **options)


benign = {kernel: lazy(kernel, keep=lazy_times[:-1]) for kernel in kernels}
seeing = {k: lazy(k, epochs=lazy_epochs, **through_smooth) for k in ("standard", "adversarial")}
trainings = first, benign, seeing

# %%
runs, trained = phases.make(trainings, page.store)

# %% [markdown]
# The attacks are projected gradient descent (PGD) with 20 steps on the model itself, PGD with 50
# steps on the copy with smooth activations, $\log(1 + e^{\beta z}) / \beta$ with $\beta = 20$ in
# place of each ReLU, and a search that needs no gradient (Square). The last one is the slowest, and
# is made on the models that are judged.

# %%
smooth = models.get(network, n_classes=draw.train.n_classes, softplus=20.0)
pgd_20 = attacks.partial(pgd, steps=20)
through_smooth = attacks.smoothed(attacks.partial(pgd, steps=50), smooth)
search = attacks.partial(attacks.square, epsilon=epsilon, queries=queries)
test = draw.test

levels = ("accuracy", "accuracy under PGD", "accuracy under both PGD", "accuracy under attack")

# %%
networks = {}
for kind, of_kind in runs.items():
    last = [run.logits_fn(epochs) for run in of_kind]
    networks[kind] = study.withstood(last, test, pgd_20, through_smooth, search)
lazy = {}
for phase, of_phase in trained.items():
    for place, of_place in of_phase.items():
        searched = [search] if place in both else []
        tried, last = (
            (pgd_20, through_smooth, *searched),
            [run.logits_fn() for run in of_place],
        )
        lazy[phase, *place] = study.withstood(last, test, *tried)

# %% [markdown]
# ## What was measured

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
for kind in runs:
    along = [("benign", kind if t else "adversarial", t) for t in checkpoints]
    for axes, i in ((left, 0), (right, 2)):
        plots.band(axes, checkpoints, [claims.estimate(lazy[p][i]) for p in along], kind)
for axes in (left, right):
    axes.set(xlabel="epoch of the first phase", ylim=(0, 1.02))
    axes.xaxis.get_major_locator().set_params(integer=True)
left.set(ylabel="accuracy", title="clean images")
right.set(title="under both kinds of PGD")
left.legend(title="first phase", loc="lower right")
last = {kind: lazy["benign", kind, epochs][2].mean() for kind in runs}
plots.show(
    figure,
    name="fig-robust-kernel-time",
    alt="Accuracy of benign training on a fixed kernel against the epoch from which the kernel is, "
    "on clean images and under attack. On the last kernel of adversarial training "
    f"{last['adversarial']:.2f} of the test images withstand the attack, on that of standard "
    f"training {last['standard']:.2f}.",
    caption="No classifier here is trained on attacked images, but the network of one curve is. "
    f"ε = {epsilon:.3g}; bands are 95 % intervals over {len(seeds)} seeds "
    f"and {n_test} test images.",
)

# %% [markdown]
# The table of both phases, at the end of the first one.

# %% tags=["hide-input"]
kinds, phase_kinds = ("standard", "adversarial"), ("benign", "adversarial")
cells = {(k, p): claims.estimate(lazy[p, k, epochs][3]) for k in kinds for p in phase_kinds}
figure, axes = plt.subplots(figsize=(6, 3))
values = [[cells[k, p] for p in phase_kinds] for k in kinds]
plots.matrix(axes, values, kinds, phase_kinds, highest=1)
axes.set(xlabel="training on the fixed kernel", ylabel="training of the network", aspect="auto")
plots.show(
    figure,
    name="fig-robust-kernel-table",
    alt="Table of accuracies under attack. "
    + " ".join(f"Kernel of {k} training, {p} on it: {e.value:.2f}." for (k, p), e in cells.items()),
    caption="Accuracy under all three attacks of the four combinations, with 95 % intervals.",
)

# %% [markdown]
# ## Is the attack sound?
#
# The checks are made on the classifier that claims the most: benign training on the last kernel of
# adversarial training, of the first seed. Among the attacks are images crafted on the network from
# which the kernel is. The last check is a search with twice the queries and other random numbers,
# on the classifier of each seed: it must not do better than the three attacks together, on any. If
# it does, the accuracies under attack are too high, and the verdicts are inconclusive, whatever
# their checks say. When the records of `cifar` and `cifar8` were made, this check, too, was made on
# the first seed alone.

# %%
suspect = trained["benign"]["adversarial", epochs][0].logits_fn()
source, key = runs["adversarial"][0].logits_fn(epochs), jax.random.key(seeds[0])
crafted = pgd_20(source, test.x, test.y, key)
findings = attacks.soundness(
    suspect,
    test.x,
    test.y,
    key,
    epsilon=epsilon,
    queries=0,
    transferred={"the adversarially trained network": crafted},
)


# %%
def search_again(classifier, seed):
    """By how much a longer search with other random numbers beats the three attacks."""
    f, x, y, key = classifier.logits_fn(), test.x, test.y, jax.random.key(seed)
    together = attacks.ensemble(pgd_20, through_smooth, search)(f, x, y, key)
    longer = search(f, x, y, jax.random.fold_in(key, 3), queries=2 * queries)
    return attacks.black_box(f, y, white_box=together, searched=longer)


of_seeds = zip(trained["benign"]["adversarial", epochs], seeds, strict=True)
longer = max(cores.share(search_again, of_seeds), key=lambda found: found.value)
page.soundness = [*findings, longer]

# %% [markdown]
# ## Verdict

# %%
clean, robust = ({place: outcome[i] for place, outcome in lazy.items()} for i in (0, -1))
on_adversarial, on_standard, on_initial = (
    robust["benign", kind, epoch]
    for kind, epoch in (("adversarial", epochs), ("standard", epochs), ("adversarial", 0))
)
gains = "gain_over_standard_kernel", "gain_over_initial_kernel"
measurements = {
    "gain over the standard kernel of twice the epochs, both PGD": claims.difference(
        lazy["benign", "adversarial", epochs][2], lazy["benign", "standard", 2 * epochs][2]
    )
}

# %%
for kind, outcome in networks.items():
    for name, right in zip(levels, outcome, strict=False):
        measurements[f"{name}, {kind} network"] = claims.estimate(right)
for (phase, kind, epoch), outcome in lazy.items():
    kernel = f"{kind} kernel of epoch {epoch}" if epoch else "kernel at the start"
    for name, right in zip(levels, outcome, strict=False):
        measurements[f"{name}, {phase} training on the {kernel}"] = claims.estimate(right)

# %%
outcome = page.judge(
    "L2",
    {
        "clean_accuracy": claims.estimate(
            *(clean["benign", kind, epochs] for kind in kinds), statistic=np.minimum
        ),
        "gain_over_standard_kernel": claims.difference(on_adversarial, on_standard),
        "gain_over_initial_kernel": claims.difference(on_adversarial, on_initial),
    },
    measurements=measurements,
)
outcome


# %% [markdown]
# An effect of L4 is a difference of two means, over the levels of the other part of training.


# %%
def effect(high, low):
    """Mean of two accuracies minus the mean of two others."""
    places = [(*place, epochs) for place in (*high, *low)]
    return claims.estimate(
        *(robust[place] for place in places), statistic=lambda a, b, c, d: (a + b - c - d) / 2
    )


# %%
of_kernel = [[(p, k) for p in phase_kinds] for k in kinds]
of_phase = [[(p, k) for k in kinds] for p in phase_kinds]
page.judge(
    "L4",
    {
        "kernel_effect": effect(*of_kernel[::-1]),
        "lazy_phase_effect": effect(*of_phase[::-1]),
    },
)

# %% tags=["hide-input"]
Markdown(
    "Benign training on the last kernel of adversarial training withstands all attacks on "
    f"{claims.estimate(on_adversarial)} of the test images, on the last kernel of standard "
    f"training on {claims.estimate(on_standard)}, and on the kernel at the start on "
    f"{claims.estimate(on_initial)}. The adversarially trained network itself has "
    f"{claims.estimate(networks['adversarial'][3])}. Brackets hold 95 % intervals."
)

# %% [markdown]
# A kernel does not know the labels, but the features of a trained network do: a few passes of
# benign training find again what adversarial training had put there. What this does not say is that
# the kernel of adversarial training makes every classifier robust. It makes the one robust that
# gradient descent finds from zero.

# %% tags=["hide-input"]
over = " and ".join(str(outcome.checks[name]) for name in gains)
unsound = (
    ". So both claims are left inconclusive, whatever their checks say, and the accuracies under "
    "attack are upper bounds"
)
Markdown(
    f"The gains over the standard kernel and over the one at the start are {over}. On the "
    "classifier on which it does best, the longer search beats the three attacks together by "
    f"{longer.value:.3f}, where {longer.limit:g} is allowed{'' if longer.ok else unsound}."
)

# %% [markdown]
# At laptop size `seeds=[6,7,8]` were tried as well. The gains were far above the margins of L2, and
# the longer search broke more images of one classifier than it may.

# %% [markdown]
# A larger network on photographs, trained for fewer epochs, is that of the profiles `cifar` and
# `cifar8`. Their records tell of benign training on the last kernel of adversarial training, on the
# last one of standard training, and on the one at the start. What PGD on the model itself shows and
# all attacks do not leave is gradients that lead nowhere.


# %%
def benign(record, kernel, level="accuracy"):
    return record.measurements[f"{level}, benign training on the {kernel}"]


# %% tags=["hide-input"]
def of_record(record):
    end = f"kernel of epoch {record.parameters['epochs']}"
    names = f"adversarial {end}", f"standard {end}", "kernel at the start"
    over = " and ".join(str(record.claims["L2"].checks[name]) for name in gains)
    pgd, *others = (benign(record, name, "accuracy under PGD") for name in names)
    few, right = (benign(record, name) for name in names[::-2])
    held = [benign(record, name, "accuracy under attack").value for name in names[::-2]]
    return (
        f"under PGD on the model itself the first is right on {pgd}, {pgd.beside(others[0])} the "
        f"second's {others[0]} and {pgd.beside(others[1])} the third's {others[1]}; under all "
        f"attacks its gains over them are {over}. On clean images the third is right on {few}, "
        f"{few.beside(right)} the first's {right}; of these it withstands all attacks on "
        f"{held[0] / few.value:.2f}, the first on {held[1] / right.value:.2f}."
    )


# %% tags=["hide-input"]
Markdown(page.records(of_record, "cifar", "cifar8"))

# %% [markdown]
# The same on the kernel after one epoch of adversarial training, beside the last one, under both
# kinds of PGD. Whether a longer first phase changes this, the records do not say.


# %% tags=["hide-input"]
def of_early(record):
    early, last = (f"adversarial kernel of epoch {t}" for t in (1, record.parameters["epochs"]))
    levels = "accuracy under both PGD", "accuracy"
    pairs = [(benign(record, early, level), benign(record, last, level)) for level in levels]
    (robust, of_last), (clean, clean_of_last) = pairs
    return (
        f"it withstands both on {robust}, {robust.beside(of_last)} the last one's {of_last}. It is "
        f"right on {clean} of clean images, {clean.beside(clean_of_last)} its {clean_of_last}."
    )


Markdown(page.records(of_early, "cifar", "cifar8"))

# %% [markdown]
# ## Fidelity: what is done differently
#
# - The paper trains a ResNet-18 on all of CIFAR-10 for a hundred epochs and its linearisation for
#   another hundred; the profile `laptop` has a network of two convolutions on digits, and far fewer
#   epochs of both.
# - The learning rate of the second phase is one number in the official code, for every kernel. Here
#   it follows the curvature of each.
# - The official code attacks with 20 steps in training and 100 in evaluation. Steps are of twice
#   the radius over their number; here of 2.5 times the radius over their number. It has no attack
#   through a smooth model. The table of results has the accuracies under PGD alone, too.
# - The model of the second phase is the centred one. The official code also has the linearised
#   network, $f_{\theta_t}$ included; that one inherits the robustness of $f_{\theta_t}$ itself, so
#   it would not show what is due to the kernel.
# - The table of both phases, and its reading as two effects, are ours.
#
# ## What would change our mind
#
# - Benign training on the kernel of a standard network is as robust once that network has made as
#   many updates. The control with twice the epochs is in the table of results.
# - An attack that breaks the linear model on the kernel of adversarial training and was not tried.
# - A larger network on photographs does not show it: see the end of *Verdict*. A still larger one,
#   trained for as long as in the paper, is prepared (profile `paper`).
