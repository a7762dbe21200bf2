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
# # Adversarial training on a fixed kernel gives a robust classifier

# %% tags=["hide-input"]
from ntklib import claims

claims.load()["L3a"]

# %% tags=["hide-input"]
claims.load()["L5"]

# %% [markdown]
# ## The idea
#
# Adversarial training (AT) of a network changes its kernel and, on that kernel, its function. Here
# the kernel stops changing half-way: a network is trained adversarially until it has the parameters
# $\theta_t$, and then replaced by the linear model
#
# $$f(x) = J_{\theta_t}(x)\,(\theta - \theta_t), \qquad
# J_{\theta_t}(x) = \partial f_\theta(x) / \partial \theta \,\big|_{\theta_t} ,$$
#
# which starts at zero and is trained adversarially in its turn: each attack of this training is on
# the linear model. It learns no features. If it becomes as robust as the network that went on with
# ordinary adversarial training, then the second half of that training was not needed for features.
#
# There is a reason for doubt. The network is made of ReLUs. Where the image makes one of them
# switch, the network bends, so its derivative $J_{\theta_t}(x)$ jumps, and with it $f$. The
# gradient of $f$ with respect to the image knows nothing of the jumps: an attack that follows it
# walks past them. A model whose gradients mislead the attack looks robust and is not (Athalye et
# al. 2018).
#
# So the question of this page is whether the robustness of the fixed kernel is real. The claim is
# judged under PGD, as in the paper. Then the model is attacked by more than that: more steps,
# larger steps, several starts, other losses, images crafted on other models, a search that sees no
# gradient, and PGD on a copy of the model in which each ReLU is replaced by the smooth
# $\log(1 + e^{\beta z}) / \beta$, where a jump is a slope that the gradient sees. An image counts
# as withstood only if it withstands all of them.
#
# ## Parameters
#
# The values are those of the profile `laptop`. Papermill replaces them.

# %% tags=["parameters"]
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
n_test: int = 200  # test images
n_kernel: int = 100  # training images on which the curvature of the loss is computed
pool: int = 2  # pixels are averaged over squares of this side
network: str = "cnn_mnist"  # the network, see `ntklib.models.get`
epochs: int = 20  # passes over the training images in the first phase
lazy_epochs: int = 5  # passes in the second phase
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

from ntklib import cores, data, ntk, plots

draw = data.load(dataset, n_train=n_train, n_test=n_test, pool=pool)
images = draw.train.balanced(n_kernel).x
draw.provenance

# %%
page = claims.Page(
    "07_frozen_kernel_accuracy", profile=profile, seeds=seeds, provenance=draw.provenance
)

# %% [markdown]
# ## Both phases
#
# The first phase is that of *Adversarial training settles on a kernel of its own*, and the second
# that of *The kernel of an adversarially trained network carries robustness*, which tells how it is
# done.

# %% tags=["trainings"]
from ntklib import attacks, phases, training

sgd = training.SGD(learning_rate)
recipe = training.Recipe(epochs=epochs, optimizer=sgd, batch_size=batch_size, loss="ce")
study = phases.Study(network, phases.Images(dataset, n_train, pool), seeds, recipe)
pgd = attacks.partial(attacks.pgd, epsilon=epsilon, steps=attack_steps)
adversarial = {"adversary": pgd, "clean_first": True}
first = {"standard": study.learn(epochs=2 * epochs), "adversarial": study.learn(**adversarial)}

# %% [markdown]
# The kernel is that of the middle of training, and beside it that of the start. On each, training
# is adversarial, attacked by the gradients of the linear model as in the paper, or through the
# smooth copy, whose gradients see the jumps. Benign training on the first of them makes as many
# updates: adversarial training makes two for each batch.

# %% tags=["trainings"]
from ntklib import models

half = study.nearest([0.5])[0]
smooth = models.get(network, n_classes=study.images.n_classes, softplus=20.0)
through_smooth = {"adversary": attacks.smoothed(pgd, smooth), "clean_first": True}


def lazy(learnt, epoch, phase=study, **changes):
    """The second phase on the kernel that adversarial training has at this epoch."""
    options = {"epochs": lazy_epochs, "n_curvature": n_kernel} | changes
    return phase.fix(learnt, epoch, **options)


fixed = {
    "fixed kernel": lazy(first["adversarial"], half, **adversarial),
    "fixed kernel, benign": lazy(first["adversarial"], half, epochs=2 * lazy_epochs),
    "fixed kernel, smoothed": lazy(first["adversarial"], half, **through_smooth),
    "initial kernel": lazy(first["adversarial"], 0, **adversarial),
    "initial kernel, smoothed": lazy(first["adversarial"], 0, **through_smooth),
}

# %% [markdown]
# And the control: if it is the jumps that the attack does not see, then a network without jumps
# hides nothing. So the first two are trained once more with smooth activations,
# $\log(1 + e^{\beta z}) / \beta$ with $\beta = 10$, in both phases, for the first few seeds.

# %% tags=["trainings"]
from dataclasses import replace

few = seeds[:3]
without_jumps = replace(study, seeds=few, options=(("softplus", 10.0),))
smooth_network = without_jumps.learn(**adversarial)
control = {
    "smooth network": smooth_network,
    "fixed kernel of the smooth network": lazy(smooth_network, half, without_jumps, **adversarial),
}
trainings = first, fixed, control

# %%
runs, fixed, (benign, seeing) = phases.make(trainings, page.store)
linear_models = fixed[judged]
fixed = {t: [run.logits_fn() for run in of_seeds] for t, of_seeds in fixed.items()}
benign, seeing = ([run.logits_fn() for run in of_seeds] for of_seeds in (benign, seeing))
networks = {f"{kind} network": [run.logits_fn(epochs) for run in runs[kind]] for kind in runs}
named = networks | {
    "fixed kernel": fixed[judged],
    "fixed kernel, benign": benign,
    "fixed kernel, smoothed attack in training": seeing,
    "fixed kernel of the start": fixed[0],
}

# %% [markdown]
# ## Attacks
#
# The attack of the claim is projected gradient descent (PGD) with 20 steps on the cross-entropy.
# The others start from there, or are of another kind.

# %%
pgd_20, pgd_50 = attacks.partial(pgd, steps=20), attacks.partial(pgd, steps=50)
white_box = {
    "PGD-20": pgd_20,
    "PGD-50": pgd_50,
    "PGD-50, steps of ε/4": attacks.partial(pgd_50, step_size=epsilon / 4),
    "PGD-20, 3 starts": attacks.partial(pgd_20, restarts=3),
    "PGD-50, margin": attacks.partial(pgd_50, loss="margin"),
    "PGD-50, DLR": attacks.partial(pgd_50, loss="dlr"),
    "PGD-50, smooth copy": attacks.smoothed(pgd_50, smooth),
    "Square": attacks.partial(attacks.square, epsilon=epsilon, queries=queries),
}

# %%
ratio = 0.25 / (4 / 255 * np.sqrt(32 * 32 * 3))  # of the radii in the official code
radius_2 = ratio * epsilon * np.sqrt(images[0].size)
apart = {
    "random sign": attacks.partial(attacks.random_sign, epsilon=epsilon),
    "PGD-50 in the ℓ2 norm": attacks.partial(
        attacks.pgd, epsilon=radius_2, steps=50, step_size=radius_2 / 20, norm="l2"
    ),
}
test = draw.test

# %%
ours, ordinary = "fixed kernel", "adversarial network"
compared = (ordinary, ours)
repaired = "fixed kernel, smoothed attack in training"
few = ("PGD-20", "PGD-50, smooth copy", "Square")
under, clean = {}, {}
for name, classifiers in named.items():
    names = (*white_box, *apart) if name in compared else few if name == repaired else few[:2]
    tried = {attack: (white_box | apart)[attack] for attack in names}
    for attack, how in tried.items():
        clean[name], under[name, attack] = study.withstood(classifiers, test, how)

# %%
along = {
    judged: [under[ours, attack] for attack in few[:2]],
    0: [under["fixed kernel of the start", attack] for attack in few[:2]],
}
for t in sorted(set(checkpoints) - set(along)):
    tried = [white_box[attack] for attack in few[:2]]
    along[t] = [study.withstood(fixed[t], test, attack)[1] for attack in tried]
along = {t: along[t] for t in checkpoints}

# %% [markdown]
# Images crafted on one model, by the attack of the claim, are shown to the others. Some share a
# kernel: the two that are trained on the judged one, and the network that it is from, whose own
# function is another.


# %%
def craft(classifiers):
    """Images that attack each classifier."""
    pairs = zip(classifiers, seeds, strict=True)
    return [pgd_20(f, test.x, test.y, jax.random.key(seed)) for f, seed in pairs]


def right(classifiers, shown):
    """Which of the images shown to each classifier it gets right: (seeds, images)."""
    pairs = zip(classifiers, shown, strict=True)
    return np.array([attacks.correct(f(z), test.y) for f, z in pairs])


# %%
half_way = [run.logits_fn(judged) for run in runs["adversarial"]]
sharers = named | {"network at that kernel": half_way}
crafted = {name: craft(classifiers) for name, classifiers in sharers.items()}
transfer = {
    (source, target): claims.estimate(right(classifiers, images_of))
    for source, images_of in crafted.items()
    for target, classifiers in sharers.items()
}

# %% [markdown]
# The robustness asked of them so far is that to the radius of the training. Now to others.

# %%
radii = epsilon * np.array([0.5, 1, 1.5, 2])
at_radius = {r: attacks.partial(pgd_20, epsilon=r) for r in radii}
beyond = {
    name: np.array(
        [
            under[name, "PGD-20"] if r == epsilon else study.withstood(named[name], test, attack)[1]
            for r, attack in at_radius.items()
        ]
    )
    for name in (*compared, "fixed kernel, benign")
}

# %% [markdown]
# ## What was measured

# %% tags=["hide-input"]
reference = claims.estimate(under[ordinary, "PGD-20"])
on_kernels = {t: [claims.estimate(robust) for robust in both] for t, both in along.items()}
figure, axes = plt.subplots(figsize=(7, 3.6))
for i, label in enumerate(("PGD on it", "the same and PGD on the smooth copy")):
    withstood = {t: np.logical_and.reduce(both[: i + 1]) for t, both in along.items()}
    plots.band(axes, checkpoints, [claims.estimate(w) for w in withstood.values()], label)
axes.axhline(reference.value, color="k", linestyle=":", label="the network, PGD on it")
axes.axhspan(reference.low, reference.high, color="k", alpha=0.08, linewidth=0)
axes.xaxis.get_major_locator().set_params(integer=True)
axes.set(xlabel="epoch from which the kernel is", ylabel="accuracy", ylim=(0, 1.02))
axes.legend(loc="lower right")
plots.show(
    figure,
    name="fig-frozen-time",
    alt="Accuracy under attack of adversarial training on a fixed kernel, against the epoch from "
    "which the kernel is. Under PGD it is "
    + ", ".join(f"{e[0].value:.2f} (epoch {t})" for t, e in on_kernels.items())
    + f"; the adversarially trained network has {reference.value:.2f}. Through the smooth copy "
    + ", ".join(f"{e[1].value:.2f} (epoch {t})" for t, e in on_kernels.items())
    + ".",
    caption="Adversarial training on kernels of adversarial training, fixed ever earlier. Dotted: "
    f"the network itself at the end. ε = {epsilon:.3g}; bands are 95 % intervals over "
    f"{len(seeds)} seeds and {n_test} test images.",
)

# %% [markdown]
# The stronger attacks, and transfer from the ordinary network, one by one and all at once.

# %% tags=["hide-input"]
for name in compared:
    other = ours if name == ordinary else ordinary
    under[name, "transfer from the other"] = right(named[name], crafted[other]) & clean[name]
    everything = [under[name, attack] for attack in (*white_box, "transfer from the other")]
    under[name, "all of these"] = np.logical_and.reduce(everything)
rows = [*white_box, "transfer from the other", "all of these", *apart]
figure, axes = plt.subplots(figsize=(7, 4.6))
for shift, name in zip((-0.2, 0, 0.2), (*compared, repaired), strict=True):
    tried = [(i, under[name, a]) for i, a in enumerate(rows) if (name, a) in under]
    found = [claims.estimate(outcome) for _, outcome in tried]
    ends = np.abs(np.array([[e.value - e.low, e.high - e.value] for e in found])).T
    place = np.array([i for i, _ in tried]) + shift
    axes.errorbar([e.value for e in found], place, xerr=ends, linestyle="none", label=name)
axes.set_yticks(range(len(rows)), rows)
axes.invert_yaxis()
axes.set(xlabel="accuracy", xlim=(0, 1.02))
axes.legend(loc="lower left")
worst = {name: claims.estimate(under[name, "all of these"]) for name in compared}
plots.show(
    figure,
    name="fig-frozen-attacks",
    alt="Accuracy under each attack of adversarial training on the fixed kernel, and of the "
    "adversarially trained network. Under all of them the first keeps "
    f"{worst[ours].value:.2f}, the second {worst[ordinary].value:.2f}.",
    caption="An image counts for 'all of these' if it withstands every attack above that line. "
    f"Below it, two that are no stronger: noise, and attacks of ℓ2 norm {radius_2:.2g}. The third "
    "model, trained on the same kernel with attacks that see the jumps, is shown for some.",
)

# %% [markdown]
# What do the gradients miss? Between a test image and the image that the search has found, the
# margin (the logit of the class minus the largest other one) falls. The fall is the integral of the
# gradient along the way, if the classifier is continuous.


# %%
@jax.jit
def margin(logits_fn, x, y):
    return -attacks.loss_per_point(logits_fn(x), y, "margin")


@jax.jit
def slope(logits_fn, x, y):
    return jax.grad(lambda z: margin(logits_fn, z, y).sum())(x)


def along_the_way(f, steps=100):
    """Margins of some test images on the way to what the search finds, and their fall as the
    gradient sees it, and as it is: (steps, images), (images,), (images,).
    """
    x, y = test.x[:100], test.y[:100]
    found = attacks.square(f, x, y, jax.random.key(seeds[0]), epsilon=epsilon, queries=queries)
    way = [x + t * (found - x) for t in (np.arange(steps) + 0.5) / steps]
    seen = sum(np.sum(slope(f, z, y) * (found - x), axis=(1, 2, 3)) for z in way) / steps
    return np.array([margin(f, z, y) for z in way]), seen, margin(f, found, y) - margin(f, x, y)


# %%
ways = {name: cores.share(along_the_way, zip(named[name])) for name in compared}
share_seen = {
    name: claims.estimate(
        np.array([seen for _, seen, _ in way]),
        np.array([fall for *_, fall in way]),
        statistic=np.divide,
    )
    for name, way in ways.items()
}

# %% tags=["hide-input"]
margins, _, falls = ways[ours][0]
steps_down = np.abs(np.diff(margins, axis=0)).max(0)
example = int(np.argmax(np.where((margins[0] > 0) & (margins[-1] < 0), steps_down, -1)))
figure, axes = plt.subplots(figsize=(7, 3.4))
share_of_way = (np.arange(len(margins)) + 0.5) / len(margins)
for name in compared:
    axes.plot(share_of_way, ways[name][0][0][:, example], label=name, markersize=2)
axes.axhline(0, color="k", linewidth=1)
axes.set(xlabel="share of the way from the image to the one found", ylabel="margin")
axes.legend()
plots.show(
    figure,
    name="fig-frozen-jumps",
    alt="Margin of one test image on the way to an image that the search has found, each for its "
    "own. The network's margin is a continuous curve; that of the linear model on the fixed kernel "
    f"has jumps, of up to {steps_down[example]:.2f}.",
    caption="One test image, each classifier on the way to the image found for it. Below zero the "
    "image is misclassified. Of the fall of the margin, over all images, the gradient accounts for "
    f"{share_seen[ordinary]} (network) and {share_seen[ours]} (fixed kernel).",
)

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(6, 3.4))
for name, outcomes in beyond.items():
    plots.band(axes, radii, [claims.estimate(o) for o in outcomes], name)
axes.axvline(epsilon, color="0.6", linewidth=1)
axes.set(xlabel="radius of the attack", ylabel="accuracy", ylim=(0, 1.02))
axes.legend()
doubled = {name: claims.estimate(outcomes[-1]).value for name, outcomes in beyond.items()}
plots.show(
    figure,
    name="fig-frozen-radius",
    alt="Accuracy against the radius of the attack. At twice the radius of the training "
    + ", ".join(f"{name}: {value:.2f}" for name, value in doubled.items())
    + ".",
    caption="PGD with 20 steps. The grey line is the radius of the attack in training.",
)

# %% [markdown]
# Which models share their adversarial examples?

# %% tags=["hide-input"]
names = list(sharers)
matrix = np.array([[transfer[source, target].value for target in names] for source in names])
figure, axes = plt.subplots(figsize=(7.4, 4.8))
plots.matrix(axes, matrix, names, names, highest=1, rotation=25)
axes.set(xlabel="classifier", ylabel="attacked model")
plots.show(
    figure,
    name="fig-frozen-transfer",
    alt=f"Matrix of the accuracies of {len(names)} classifiers on images crafted on each of them. "
    "On images crafted on the fixed kernel the adversarially trained network has "
    f"{matrix[2, 1]:.2f}, on its own {matrix[1, 1]:.2f}.",
    caption="Accuracy of each classifier (column) on images crafted on each model (row); on the "
    "diagonal, under its own attack. Low means that the attack transfers.",
)

# %% [markdown]
# ## Is the attack sound?
#
# The findings are on the classifier that is judged, of the first seed, and the search may make
# twice the queries. An attack that is not sound leaves a verdict inconclusive, whatever the checks
# say. Besides, the kernel after training is compared with the one that was given: the claim is
# about a kernel that does not move.

# %%
page.soundness = attacks.soundness(
    fixed[judged][0],
    test.x,
    test.y,
    jax.random.key(seeds[0]),
    epsilon=epsilon,
    queries=2 * queries,
    transferred={"the adversarially trained network": crafted[ordinary][0]},
)


# %%
def moved(trained, learnt):
    """Relative difference of a linear model's kernel from that of the network at its tangent."""
    given = np.asarray(ntk.gram(study.model, learnt[judged], images))
    found = np.asarray(ntk.gram(trained.model, trained.last, images))
    return np.linalg.norm(found - given) / np.linalg.norm(given)


error = [moved(*pair) for pair in zip(linear_models, runs["adversarial"], strict=True)]

# %% [markdown]
# ## Verdict

# %%
robust = {name: under[name, "PGD-20"] for name in named}
whole = {
    name: np.logical_and.reduce([under[name, a] for a in few if (name, a) in under])
    for name in named
}
from_ordinary = right(fixed[judged], crafted[ordinary])
quantities = {
    "fixed_kernel_vs_ordinary": (robust[ours], robust[ordinary]),
    "adversarial_vs_benign_phase": (robust[ours], robust["fixed kernel, benign"]),
    "learnt_vs_initial_kernel": (robust[ours], robust["fixed kernel of the start"]),
    "random_sign_cost": (clean[ours], under[ours, "random sign"]),
    "more_steps_cost": (robust[ours], under[ours, "PGD-50"]),
    "transfer_excess": (robust[ours], from_ordinary),
}
quantities = {name: claims.difference(*pair) for name, pair in quantities.items()}

# %%
quantities["frozen_kernel_error"] = claims.estimate(error)
if profile == "paper":  # the reported number is of that setting
    quantities["robust_accuracy"] = claims.estimate(robust[ours])

# %%
measurements = {
    f"accuracy, {name}, {attack}": claims.estimate(outcome)
    for (name, attack), outcome in under.items()
}
for name in named:
    measurements[f"accuracy, {name}, clean"] = claims.estimate(clean[name])
    tried = [attack for attack in few if (name, attack) in under]
    measurements[f"accuracy, {name}, all of {', '.join(tried)}"] = claims.estimate(whole[name])

# %%
measurements |= {
    f"accuracy, fixed kernel of epoch {t}, {attack}": e
    for t, found in on_kernels.items()
    for attack, e in zip(few, found, strict=False)
}
measurements |= {
    f"share of the fall of the margin that the gradient sees, {name}": e
    for name, e in share_seen.items()
}
measurements["fixed kernel minus adversarial network, all attacks"] = claims.difference(
    under[ours, "all of these"], under[ordinary, "all of these"]
)

# %%
outcome = page.judge("L3a", quantities, measurements=measurements)
outcome

# %%
shared = {source: {target: transfer[source, target] for target in names} for source in names}
page.judge("L5", {}, measurements={"accuracy on images crafted on another model": shared})

# %% tags=["hide-input"]
Markdown(
    f"On the kernel of epoch {judged}, fixed, adversarial training reaches "
    f"{claims.estimate(robust[ours])} under the attack of the claim, and ordinary adversarial "
    f"training {reference}. Under all attacks at once these are {worst[ours]} and "
    f"{worst[ordinary]}. Trained with attacks through the smooth copy, the fixed kernel has "
    f"{claims.estimate(whole[repaired])}. Brackets hold 95 % intervals."
)

# %% [markdown]
# What the attack of the paper finds robust is another thing than what is robust. And what is found
# here is no verdict on fixed kernels: the third model has the same kernel, and was trained with
# attacks through the smooth copy. Adversarial training with an attack that does not see what it
# should teaches a model to hide and not to resist.


# %% tags=["hide-input"]
def reading(one, every, seen):
    """Whether a lead under the one attack is an effect of the attack."""
    if every.beside(one) == "not told apart from":
        return ": as far as the intervals tell, it hides nothing that the network does not"
    if one.low > 0 and every.beside(one) == "below" and seen.high < 1:
        return ": its lead under the one attack is an effect of the attack"
    return ""


# %% tags=["hide-input"]
def of_run(checks, found):
    """What the checks of the claim and the measurements of a run say."""
    one, gain = checks["fixed_kernel_vs_ordinary"], checks["adversarial_vs_benign_phase"]
    every = found["fixed kernel minus adversarial network, all attacks"]
    seen = found["share of the fall of the margin that the gradient sees, fixed kernel"]
    names = (f"accuracy, {name}, all of {', '.join(few)}" for name in (repaired, ordinary))
    third, network = (found[name] for name in names)
    carries = ": as far as that tells, the kernel can carry as robust a classifier"
    return (
        f"the fixed kernel minus the network is {one} under the attack of the claim and {every} "
        f"under all, and its gradient sees {seen} of the fall{reading(one, every, seen)}. Under "
        f"the attacks that the third model was tried with it has {third}, {third.beside(network)} "
        f"the network's {network}{'' if third.beside(network) == 'below' else carries}. Under PGD "
        f"alone, adversarial training on the fixed kernel gains {gain!s} over benign training."
    )


# %% tags=["hide-input"]
Markdown(f"In this run, {of_run(outcome.checks, measurements)}")

# %% [markdown]
# On photographs, the records of the profiles `cifar` (ε = 4/255) and `cifar8` (ε = 8/255) say:


# %% tags=["hide-input"]
def of_record(record):
    return of_run(record.claims["L3a"].checks, record.measurements)


Markdown(page.records(of_record, "cifar", "cifar8"))

# %% [markdown]
# A wider network should have more jumps and smaller ones. Whether the paper's much larger network
# is affected, its number cannot tell, as it is for PGD alone.

# %% [markdown]
# ## Fidelity: what is done differently
#
# - The paper's number, for a ResNet-18 on all of CIFAR-10, is that of the profile `paper`, which
#   needs a GPU; it says on this page if it has been run. The profile `laptop` has a network of two
#   convolutions on digits.
# - The paper's attack has no part that could see the jumps. The verdict is on the attack of the
#   claim, so that it can be compared; the search is what makes it sound or not.
# - From which epoch the paper's kernel is, and whether it is of the centred model, could not be
#   found out. Here it is of the middle of training and centred.
# - The official code evaluates with 100 steps of twice the radius over their number, which change
#   a pixel little once it is at the border of the ball. Ours are fewer and larger, and the stronger
#   ones go to and fro.
# - The official code stores adversarial images as bytes, rounded down, before it shows them to
#   another model. Here they stay as they are.
# - The ℓ2 radius has the same ratio to ε as in the official code. By a comment there, the paper
#   reports ℓ∞ only.
#
# ## What would change our mind
#
# - An attack that breaks the fixed kernel and not the network: add it to `white_box`.
# - The kernel at the start does as well. Then no features had to be learnt.
# - A larger network on photographs is as robust as it looks. What the one of `cifar` and `cifar8`
#   is, stands at the end of *Verdict*.
