r"""Two phases of training: a network learns its kernel, then the kernel is fixed and trained on.

In the second phase the network is replaced by its linearisation at the parameters $\theta_t$ of the
first, whose tangent kernel is that of the network at $\theta_t$ and stays so. Sources: Loo et al.
(2022); Tsilivis & Kempe (2022).
"""

import os
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int
from scipy.sparse.linalg import eigsh

from ntklib import attacks, linear, ntk, training
from ntklib.data import Split
from ntklib.models import Model, Variables

Kind = str
"""A kind of training, see `Study.learn`."""
Run = dict[int, Variables]
"""The variables of a network after some epochs."""


Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")


class Classifier(NamedTuple):
    """A trained model.

    Attributes:
        model: the network, or its linearisation.
        variables: its variables.
    """

    model: Model
    variables: Variables

    @property
    def logits_fn(self) -> Partial:
        """What attacks take."""
        return linear.bind(self.model.apply, self.variables)


def smoothed(attack: attacks.Attack, smooth: Model) -> attacks.Attack:
    r"""An attack by gradients, of a smooth classifier that is near the one it is meant for.

    The Jacobian $J_{\theta_t}(x)$ of a ReLU network jumps where the image makes a ReLU switch, and
    with it the linearised network. The gradient with respect to the image does not see the jumps,
    so that an attack by gradients may find nothing where there is much to be found. With smooth
    activations a jump becomes a slope. (Athalye et al. 2018 advise to attack through a smooth
    stand-in.)

    Args:
        attack: the attack.
        smooth: the classifier's network with smooth activations: see the option `softplus` of
            `ntklib.models.get`.

    Returns:
        An attack on what `ntklib.linear.bind` makes of a network, or of a linearised one.
    """

    def through(logits_fn: Partial, x: attacks.Images, y: attacks.Labels, key: Any) -> Array:
        return attack(linear.with_network(logits_fn, smooth), x, y, key)

    return through


def at_once(function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]) -> list[Result]:
    """Calls a function with each tuple of arguments, on the cores of a CPU or one by one.

    For work of each seed, as one seed uses about one core.

    Args:
        function: is called from several threads.
        arguments: of each call.

    Returns:
        What the calls return, in the order of the arguments.

    Raises:
        Exception: what the first call to fail, in that order, has raised; after all have ended.
    """
    threads = os.cpu_count() if jax.default_backend() == "cpu" else 1
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda job: function(*job), arguments))


@dataclass(frozen=True)
class Study:
    r"""What all trainings of a study have in common.

    Both phases minimise the cross-entropy by gradient descent with momentum 0.9. The attack in
    training is PGD ($\ell_\infty$) with steps of $2.5\,\epsilon$ over their number, from a random
    start. Runs of several seeds share the cores of a CPU, as one run uses about one of them.

    Attributes:
        model: the network.
        train: training images and labels.
        seeds: each is a start of the network, an order of the batches and the attack's keys.
        epsilon: radius of the attack, in units of pixels.
        attack_steps: steps of the attack in training.
        epochs: passes over the data in the first phase.
        learning_rate: of the first phase.
        batch_size: images of a batch.
        store: see `ntklib.training.fit`.
        smooth: the network with smooth activations, for the kind "smoothed adversarial".
    """

    model: Model
    train: Split
    seeds: Sequence[int]
    epsilon: float | int
    attack_steps: int
    epochs: int
    learning_rate: float | int
    batch_size: int
    store: str | Path | None = None
    smooth: Model | None = None

    def attack(self, steps: int) -> attacks.Attack:
        """PGD as in training, with another number of steps."""
        size = 2.5 * self.epsilon / steps
        return partial(attacks.pgd, epsilon=self.epsilon, steps=steps, step_size=size)

    @cached_property
    def _pgd(self) -> attacks.Attack:
        return self.attack(self.attack_steps)  # one object, so that it compiles once

    @cached_property
    def _fgsm(self) -> attacks.Attack:
        size = self.epsilon
        return partial(attacks.pgd, epsilon=size, steps=1, step_size=size, random_start=False)

    @cached_property
    def _smoothed(self) -> attacks.Attack:
        assert self.smooth is not None
        return smoothed(self._pgd, self.smooth)

    @property
    def times(self) -> Int[np.ndarray, " t"]:
        """The epochs at which the first phase is looked at: 21, evenly spaced, the start first."""
        return np.unique(np.linspace(0, self.epochs, 21).round().astype(int))

    @property
    def _keys(self) -> list[Any]:
        return [jax.random.key(seed) for seed in self.seeds]

    def learn(
        self,
        *kinds: Kind,
        starts: Sequence[Variables] | None = None,
        after: int = 0,
        order: int = 0,
    ) -> dict[Kind, list[Run]]:
        """The first phase: the network is trained, and its kernel with it.

        - "standard": on clean images, for twice the epochs, so that it can be compared with
          "adversarial" at as many epochs and at as many updates.
        - "adversarial": two updates a batch, one on the clean images and one on those that attack
          the updated network, as in the official code of Loo et al. (2022).
        - "plain adversarial": one update a batch, on the attacked images (Madry et al. 2018).
        - "plain FGSM": the same, with an attack of one step from the clean image.
        - "smoothed adversarial": as "adversarial", with the attack through `smooth`.

        Args:
            *kinds: some of the above.
            starts: where the networks start, one a seed; None for the seeds' own.
            after: epochs that the networks have behind them at these starts.
            order: another number gives the batches another order, and the attack other keys.

        Returns:
            For each kind, one a seed: the variables after each of the epochs `times`, not before
            `after`; for "standard", also after as many epochs more.

        Raises:
            ValueError: see `ntklib.training.fit`; or if a kind is unknown.
            DivergedError: see `ntklib.training.fit`.
        """
        keys = self._keys
        if starts is None:
            starts = [self.model.init(key, self.train.x[:1]) for key in keys]
        if order:
            keys = [jax.random.fold_in(key, order) for key in keys]

        def run(kind: Kind, start: Variables, key: Any) -> Run:
            epochs = self.epochs if kind != "standard" else 2 * self.epochs
            keep = sorted({0, *self.times, *(self.times + epochs - self.epochs)})
            history = self._fit(
                kind,
                self.model,
                start,
                key,
                epochs=epochs - after,
                rate=self.learning_rate,
                keep=[int(epoch) - after for epoch in keep if epoch >= after],
            )
            return {epoch + after: variables for epoch, variables in history.kept.items()}

        jobs = [(kind, *job) for kind in kinds for job in zip(starts, keys, strict=True)]
        trained = iter(at_once(run, jobs))
        return {kind: [next(trained) for _ in keys] for kind in kinds}

    def fix(
        self,
        tangents: Mapping[Name, Sequence[Variables]],
        images: Float[Array, "n ..."],
        *,
        kind: Kind,
        epochs: int | Mapping[Name, int],
        centered: bool = True,
    ) -> dict[Name, list[Classifier]]:
        r"""The second phase: training with the kernel fixed.

        The learning rate is $1/h$ with the largest curvature h of the loss where all C classes are
        as likely, which is where the centred model starts: the largest eigenvalue of
        $(I \otimes P)\, K\, (I \otimes P) / (n C)$, for the kernel K with all outputs on n images
        and $P = I - \frac1C \mathbf 1 \mathbf 1^\top$. So no kernel is trained faster than another
        for being larger. Momentum is stable there up to $3.8 / h$.

        Args:
            tangents: by any name, the variables $\theta_t$ whose kernel is fixed, one a seed.
            images: images that stand for the training images where the curvature is computed.
            kind: see `learn`. The attack is on the linearised model.
            epochs: passes over the data, whatever the kind; by the same names, if they differ.
            centered: whether the model is $J_{\theta_t}(x)\,(\theta - \theta_t)$, which starts at
                zero and owes all to its kernel, or continues the network, as
                $f_{\theta_t}(x) + J_{\theta_t}(x)\,(\theta - \theta_t)$.

        Returns:
            By the same names, the trained models, one a seed.

        Raises:
            ValueError: see `ntklib.training.fit`.
            DivergedError: see `ntklib.training.fit`.
        """

        def run(passes: int, tangent: Variables, key: Any) -> Classifier:
            model = linear.linearize(self.model, tangent, centered=centered)
            kernel = ntk.gram(self.model, tangent, images, output="full")
            start, rate = model.init(key, images), 1 / _curvature(kernel, len(images))
            history = self._fit(kind, model, start, key, epochs=passes, rate=rate, keep=())
            return Classifier(model, history.variables)

        jobs = [
            (epochs[name] if isinstance(epochs, Mapping) else epochs, *job)
            for name, of_seeds in tangents.items()
            for job in zip(of_seeds, self._keys, strict=True)
        ]
        trained = iter(at_once(run, jobs))
        return {name: [next(trained) for _ in of_seeds] for name, of_seeds in tangents.items()}

    def withstood(
        self, classifiers: Sequence[Classifier], test: Split, *tried: attacks.Attack
    ) -> Bool[np.ndarray, "k s n"]:
        """Which images each classifier gets right: clean, and under more and more attacks.

        Args:
            classifiers: one a seed, whose key the attacks have.
            test: images and their labels.
            *tried: attacks. Each is on those images only that have withstood all before it.

        Returns:
            Outcomes (1 + attacks, seeds, images): on the clean images, under the first attack,
            under the first and the second, and so on.

        Raises:
            ValueError: see `ntklib.attacks.withstand`.
        """

        def outcomes(classifier: Classifier, key: Any) -> list[Bool[np.ndarray, " n"]]:
            rows = [np.ones(len(test.y), bool)]
            for attack in (_none, *tried):
                rows.append(
                    attacks.withstand(
                        classifier.logits_fn,
                        test.x,
                        test.y,
                        key,
                        among=rows[-1],
                        attack=attack,
                        batch_size=50,  # small: see `attacks.robust_accuracy`
                    )
                )
            return rows[1:]

        of_seeds = at_once(outcomes, zip(classifiers, self._keys, strict=True))
        return np.array(of_seeds).swapaxes(0, 1)

    def _fit(
        self,
        kind: Kind,
        model: Model,
        start: Variables,
        key: Any,
        *,
        epochs: int,
        rate: float | int,
        keep: Collection[int],
    ) -> training.History:
        """One run of either phase."""
        adversaries: dict[str, attacks.Attack | None] = {
            "standard": None,
            "adversarial": self._pgd,
            "plain adversarial": self._pgd,
            "plain FGSM": self._fgsm,
        }
        if self.smooth is not None:
            adversaries["smoothed adversarial"] = self._smoothed
        if kind not in adversaries:
            raise ValueError(f"kind: {kind!r} is unknown; it is one of {', '.join(adversaries)}")
        return training.fit(
            model,
            start,
            self.train,
            key,
            epochs=epochs,
            optimizer=training.momentum_sgd(rate),
            batch_size=self.batch_size,
            loss="ce",
            adversary=adversaries[kind],
            clean_first=kind in ("adversarial", "smoothed adversarial"),
            keep=keep,
            store=self.store,
        )


def _none(logits_fn: Partial, x: attacks.Images, y: attacks.Labels, key: Any) -> attacks.Images:
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
