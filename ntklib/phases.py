r"""Two phases of training: a network learns its kernel, then the kernel is fixed and trained on.

In the second phase the network is replaced by its linearisation at the parameters $\theta_t$ of the
first, whose tangent kernel is that of the network at $\theta_t$ and stays so. Sources: Loo et al.
(2022); Tsilivis & Kempe (2022).

A training is a value that says all of what is done, before it is done. So pages that want the same
training can share it, and it has a name of its own in a folder of trainings.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int
from scipy.sparse.linalg import eigsh

from ntklib import attacks, cores, data, least_squares, linear, models, ntk, training
from ntklib.data import Split
from ntklib.least_squares import Solution
from ntklib.models import Model, Variables
from ntklib.recipes import SGD, Recipe, Solve
from ntklib.training import History

Options = tuple[tuple[str, Any], ...]
_CALIBRATION = 5000  # training images for the statistics of batch normalisation


@dataclass(frozen=True)
class Images:
    """The images that networks are trained on: all classes of a data set."""

    dataset: str  # these three as for `ntklib.data.load`
    n_train: int | None = None
    pool: int = 1

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(data.classes(self.dataset))

    def load(self) -> Split:
        """The images. How many test images are drawn beside them makes no difference."""
        return _train(self)

    def __str__(self) -> str:
        parts = self.dataset, self.n_train, f"pool{self.pool}" if self.pool > 1 else None
        return "-".join(str(part) for part in parts if part is not None)


@cache
def _train(images: Images) -> Split:
    return data.load(images.dataset, n_train=images.n_train, n_test=1, pool=images.pool).train


class Point(NamedTuple):
    """A network after so many epochs of a training."""

    training: "Training"
    epoch: int


@dataclass(frozen=True)
class Training:
    r"""One training of a network or of its linearisation.

    A linearisation is trained at a learning rate in units of $1/h$, for the largest curvature h of
    the loss where all C classes are as likely, which is where the centred model starts: the largest
    eigenvalue of $(I \otimes P)\, K\, (I \otimes P) / (n C)$, for the kernel K with all outputs on
    n images and $P = I - \frac1C \mathbf 1 \mathbf 1^\top$. So no kernel is trained faster than
    another for being larger. With momentum 0.9 a rate is stable there up to $3.8 / h$.

    With a `Solve` for a recipe, the linearisation is not trained but solved, on the squared loss
    (see `ntklib.least_squares`). Iterations stand for epochs; the ridge is in units of h, too, and
    the order of the batches has no meaning.

    Attributes:
        network: name, see `ntklib.models.get`.
        recipe: what is done.
        seed: decides the start of the network, the order of the batches and the attack's keys.
        keep: epochs at which the variables are kept.
        order: another number gives the batches another order, and the attack other keys.
        start: where it starts; None for the seed's own start. Epochs are counted from there.
        tangent: where the network is linearised; None if it is not.
        centered: whether the linearisation is $J_{\theta_t}(x)\,(\theta - \theta_t)$, which starts
            at zero and owes all to its kernel, or continues the network, as
            $f_{\theta_t}(x) + J_{\theta_t}(x)\,(\theta - \theta_t)$.
        n_curvature: number of training images, in equal parts of each class, for h.
        options: those of the network, as pairs of a name and a value.
    """

    network: str
    images: Images
    recipe: Recipe | Solve
    seed: int
    keep: tuple[int, ...] = ()
    order: int = 0
    start: Point | None = None
    tangent: Point | None = None
    centered: bool = True
    n_curvature: int = 0
    options: Options = ()

    def __post_init__(self) -> None:
        if isinstance(self.recipe, Solve) and (self.tangent is None or self.start is not None):
            raise ValueError(
                "recipe: a Solve is of a linearisation, from its tangent point; give a tangent and "
                "no start"
            )

    @property
    def parents(self) -> tuple["Training", ...]:
        """The trainings that have to be made before."""
        return tuple(point.training for point in (self.start, self.tangent) if point is not None)

    @property
    def name(self) -> str:
        """Its path in a folder of trainings, with the beginning of a hash of all that it is."""
        recipe, words = self.recipe, []
        if self.tangent is not None:
            words += ["fixed", str(self.tangent.epoch)]
        if isinstance(recipe, Solve):
            words += ["solved", str(recipe.iterations), "iterations"]
        else:
            words += ["standard" if recipe.adversary is None else "adversarial"]
            words += ["clean-first"] if recipe.clean_first else []
            words += ["from", str(self.start.epoch)] if self.start is not None else []
            words += [str(recipe.epochs), "epochs"]
        words += [sha256(repr(self.unseeded).encode()).hexdigest()[:8]]
        return f"{self.images}/{self.network}/{'-'.join(words)}/seed-{self.seed}"

    @property
    def unseeded(self) -> "Training":
        """The same for seed 0, and so its parents."""
        start, tangent = (
            None if point is None else Point(point.training.unseeded, point.epoch)
            for point in (self.start, self.tangent)
        )
        return replace(self, seed=0, start=start, tangent=tangent)

    def run(self, folder: str | Path | None = None) -> "Trained":
        """Makes the training, or goes on with what its file has, or reads it there: see `make`."""
        return make(self, folder)

    def _fit(self, made: Mapping["Training", "Trained"], folder: Path | None) -> "Trained":
        model = network = _network(self)
        split, first, tangent, h = self.images.load(), 0, None, 1.0
        if self.tangent is not None:
            tangent = made[self.tangent.training][self.tangent.epoch]
            model = linear.linearize(network, tangent, centered=self.centered)
            images = split.balanced(self.n_curvature).x
            h = _curvature(ntk.gram(network, tangent, images, output="full"), len(images))
        if isinstance(self.recipe, Solve):
            last, solve = self.recipe.iterations, replace(self.recipe, ridge=h * self.recipe.ridge)
            run: Callable[..., History | Solution]
            run = partial(
                least_squares.solve,
                network,
                tangent,
                split,
                recipe=solve,
                centered=self.centered,
                keep=self.keep,
            )
        else:
            last, fit, key = self.recipe.epochs, self.recipe, jax.random.key(self.seed)
            start = jax.jit(model.init)(key, split.x[:1])
            if self.start is not None:
                first, start = self.start.epoch, made[self.start.training][self.start.epoch]
            if self.tangent is not None:
                rate = fit.optimizer.learning_rate / h
                fit = replace(fit, optimizer=replace(fit.optimizer, learning_rate=rate))
            if self.order:
                key = jax.random.fold_in(key, self.order)
            keep = [epoch - first for epoch in self.keep if epoch >= first]
            run = partial(training.fit, model, start, split, key, recipe=fit, keep=keep)
        done = run() if folder is None else _from_file(run, folder / f"{self.name}.msgpack")
        variables = done.kept | {int(last): done.variables}
        if self.tangent is None:
            some, key = split.x[:_CALIBRATION], jax.random.key(self.seed)
            variables = {
                epoch: training.recalibrate(network, each, some, key)
                for epoch, each in variables.items()
            }
        return Trained(model, {epoch + first: kept for epoch, kept in variables.items()}, done)


def _from_file(run: Callable[..., History | Solution], done: Path) -> History | Solution:
    """A training whose file appears when it is complete; until then it has a checkpoint."""
    done.parent.mkdir(parents=True, exist_ok=True)
    path = done if done.exists() else done.with_suffix(".checkpoint")
    try:
        found = run(checkpoint=path)
    except training.CheckpointError:  # damaged, or of another version of the program
        path.unlink()
        return _from_file(run, done)
    path.replace(done)
    return found


@dataclass(frozen=True)
class Trained:
    """A trained model: the network, or its linearisation, and its variables after some epochs.

    These are the epochs kept, and the last one; with batch normalisation, networks are
    recalibrated, see `ntklib.training.recalibrate`. The history has losses, accuracies and, where a
    linearisation was solved, residuals; iterations stand for epochs then.
    """

    model: Model
    epochs: dict[int, Variables]
    history: History | Solution

    def __getitem__(self, epoch: int) -> Variables:
        """The variables after so many epochs."""
        return self.epochs[epoch]

    @property
    def last(self) -> Variables:
        """The variables at the end."""
        return self.epochs[max(self.epochs)]

    def logits_fn(self, epoch: int | None = None) -> Partial:
        """What attacks take: the model after so many epochs, or at the end."""
        return linear.bind(self.model.apply, self.last if epoch is None else self[epoch])


def make(trainings: Any, folder: str | Path | None = None) -> Any:
    """Makes trainings, each once, those that others start from first; they share the cores.

    Takes trainings in lists, tuples and dicts of any depth, and returns the same with trained
    models in their place. In the folder each has a file, `NAME.msgpack`. One that is there is read
    if it is of the same program and data, is gone on with if it is not complete, and else made
    anew. Without a folder all stays in memory.
    """
    folder = None if folder is None else Path(folder)
    made: dict[Training, Trained] = {}

    def train(training: Training) -> Trained:
        return training._fit(made, folder)

    for level in _levels(jax.tree.leaves(trainings)):
        made.update(zip(level, cores.share(train, zip(level)), strict=True))
    return jax.tree.map(made.__getitem__, trainings)


def _levels(trainings: Sequence[Training]) -> list[list[Training]]:
    """Trainings and all that they start from, in an order in which they can be made."""
    level = list(dict.fromkeys(trainings))
    parents = [parent for each in level for parent in each.parents]
    if not parents:
        return [level] if level else []
    before = _levels(parents)
    known = {each for earlier in before for each in earlier}
    return [*before, [each for each in level if each not in known]]


@dataclass(frozen=True)
class Study:
    """Trainings of one network on the same images, one a seed.

    The recipe is what all trainings have in common, but for what each changes; `options` are those
    of the network, see `Training`.
    """

    network: str
    images: Images
    seeds: Sequence[int]
    recipe: Recipe
    options: Options = ()

    @property
    def model(self) -> Model:
        """The network."""
        return _network(self)

    @property
    def times(self) -> Int[np.ndarray, " t"]:
        """The epochs at which the first phase is looked at: 21, evenly spaced, the start first."""
        return np.unique(np.linspace(0, self.recipe.epochs, 21).round().astype(int))

    def nearest(self, shares: Sequence[float]) -> list[int]:
        """The times that are nearest to shares of the epochs."""
        places = np.abs(self.times[:, None] - self.recipe.epochs * np.asarray(shares)).argmin(0)
        return [int(epoch) for epoch in np.unique(self.times[places])]

    def learn(
        self,
        *,
        order: int = 0,
        start: Sequence[Training] | None = None,
        after: int = 0,
        **changes: Any,
    ) -> list[Training]:
        """The first phase: the network is trained, and its kernel with it.

        There is one training a seed, kept at `times`. They start at the seeds' own starts, or where
        the trainings in `start`, one a seed, are `after` so many epochs. `order` is that of a
        `Training`; `changes` are values of the recipe.
        """
        recipe = replace(self.recipe, **changes)
        keep = tuple(int(epoch) for epoch in self.times if epoch <= after + recipe.epochs)
        starts = [Point(each, after) for each in start] if start else [None] * len(self.seeds)
        return [
            Training(
                self.network,
                self.images,
                recipe,
                seed,
                keep=keep,
                order=order,
                start=point,
                options=self.options,
            )
            for seed, point in zip(self.seeds, starts, strict=True)
        ]

    def fix(
        self,
        trainings: Sequence[Training],
        epoch: int,
        *,
        n_curvature: int,
        centered: bool = True,
        keep: Sequence[int] = (),
        images: Images | None = None,
        solve: Solve | None = None,
        **changes: Any,
    ) -> list[Training]:
        """The second phase: training with the kernel of an epoch fixed, at the learning rate 1/h.

        Takes trainings of the first phase, one a seed, and returns as many. `n_curvature`,
        `centered` and `keep` are those of a `Training`; `images` may be fewer than those of the
        first phase, None for the same; `changes` are values of the recipe, which has neither
        augmentation nor a watch here, and in place of which there may be one to solve.
        """
        if solve is not None and changes:
            raise ValueError(f"solve: has no {', '.join(changes)}; give one or the other")
        changes = {"optimizer": SGD(1.0), "augmentation": None, "watch": None} | changes
        recipe = solve or replace(self.recipe, **changes)
        return [
            Training(
                self.network,
                images or self.images,
                recipe,
                each.seed,
                keep=tuple(keep),
                tangent=Point(each, epoch),
                centered=centered,
                n_curvature=n_curvature,
                options=self.options,
            )
            for each in trainings
        ]

    def withstood(
        self, logits_fns: Sequence[Partial], test: Split, *tried: attacks.Attack
    ) -> Bool[np.ndarray, "k s n"]:
        """Which images each classifier gets right: clean, and under more and more attacks.

        The classifiers are one a seed, whose key the attacks have. Each attack is on those images
        only that have withstood all before it. Outcomes are (1 + attacks, seeds, images): on the
        clean images, under the first attack, under the first and the second, and so on.
        """
        steps: tuple[attacks.Attack, ...] = (_none, *tried)

        def outcomes(logits_fn: Partial, seed: int) -> list[Bool[np.ndarray, " n"]]:
            key, rows = jax.random.key(seed), [np.ones(len(test.y), bool)]
            # Small batches: see `attacks.robust_accuracy`.
            withstand = partial(attacks.withstand, logits_fn, test.x, test.y, key, batch_size=50)
            for attack in steps:
                rows.append(withstand(among=rows[-1], attack=attack))
            return rows[1:]

        of_seeds = cores.share(outcomes, zip(logits_fns, self.seeds, strict=True))
        return np.array(of_seeds).swapaxes(0, 1)


def _network(of: Training | Study) -> Model:
    return models.get(of.network, n_classes=of.images.n_classes, **dict(of.options))


def _none(logits_fn: Any, x: attacks.Inputs, y: Any, key: Any) -> attacks.Inputs:
    """No attack."""
    return x


def _curvature(kernel: Float[Array, "nc nc"], n: int) -> float:
    """Largest eigenvalue of the Hessian of the mean cross-entropy, at equal probabilities."""
    c = len(kernel) // n
    blocks = np.asarray(kernel, np.float64).reshape(n, c, n, c)
    blocks = blocks - blocks.mean(1, keepdims=True)
    blocks = blocks - blocks.mean(3, keepdims=True)
    # By products with vectors: a factorisation on all cores would wait for other runs there.
    start = np.random.default_rng(0).normal(size=n * c)
    largest = eigsh(
        blocks.reshape(n * c, n * c), k=1, which="LA", v0=start, return_eigenvectors=False
    )
    return float(largest[0]) / (n * c)
