r"""Two phases of training: a network learns its kernel, then the kernel is fixed and trained on.

In the second phase the network is replaced by its centred linearisation at the parameters
$\theta_t$ of the first, $J_{\theta_t}(x)\,(\theta - \theta_t)$, whose tangent kernel is that of the
network at $\theta_t$ and stays so. Source: Loo et al. (2022).
"""

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from ntklib import attacks, linear, ntk, training
from ntklib.data import Split
from ntklib.models import Model, Variables

Kind = Literal["standard", "adversarial", "plain adversarial", "plain FGSM"]
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

    @property
    def times(self) -> Int[np.ndarray, " t"]:
        """The epochs at which the first phase is looked at: 21, evenly spaced, the start first."""
        return np.unique(np.linspace(0, self.epochs, 21).round().astype(int))

    @property
    def _keys(self) -> list[Any]:
        return [jax.random.key(seed) for seed in self.seeds]

    def learn(
        self,
        kind: Kind,
        *,
        starts: Sequence[Variables] | None = None,
        after: int = 0,
        order: int = 0,
    ) -> list[Run]:
        """The first phase: the network is trained, and its kernel with it.

        - "standard": on clean images, for twice the epochs, so that it can be compared with
          "adversarial" at as many epochs and at as many updates.
        - "adversarial": two updates a batch, one on the clean images and one on those that attack
          the updated network, as in the official code of Loo et al. (2022).
        - "plain adversarial": one update a batch, on the attacked images (Madry et al. 2018).
        - "plain FGSM": the same, with an attack of one step from the clean image.

        Args:
            kind: one of the above.
            starts: where the networks start, one a seed; None for the seeds' own.
            after: epochs that the networks have behind them at these starts.
            order: another number gives the batches another order, and the attack other keys.

        Returns:
            For each seed, the variables after each of the epochs `times`, not before `after`; for
            "standard", also after as many epochs more.

        Raises:
            ValueError: see `ntklib.training.fit`; or if `kind` is unknown.
            DivergedError: see `ntklib.training.fit`.
        """
        adversaries = {
            "standard": None,
            "adversarial": self._pgd,
            "plain adversarial": self._pgd,
            "plain FGSM": self._fgsm,
        }
        if kind not in adversaries:
            raise ValueError(f"kind: {kind!r} is unknown; it is one of {', '.join(adversaries)}")
        keys = self._keys
        if starts is None:
            starts = [self.model.init(key, self.train.x[:1]) for key in keys]
        if order:
            keys = [jax.random.fold_in(key, order) for key in keys]
        epochs = self.epochs if kind != "standard" else 2 * self.epochs
        keep = sorted({0, *self.times, *(self.times + epochs - self.epochs)})

        def run(start: Variables, key: Any) -> Run:
            history = training.fit(
                self.model,
                start,
                self.train,
                key,
                epochs=epochs - after,
                optimizer=training.momentum_sgd(self.learning_rate),
                batch_size=self.batch_size,
                loss="ce",
                adversary=adversaries[kind],
                clean_first=kind == "adversarial",
                keep=[int(epoch) - after for epoch in keep if epoch >= after],
                store=self.store,
            )
            return {epoch + after: variables for epoch, variables in history.kept.items()}

        return _at_once(run, zip(starts, keys, strict=True))

    def fix(
        self,
        tangents: Mapping[Name, Sequence[Variables]],
        images: Float[Array, "n ..."],
        *,
        adversarial: bool,
        epochs: int,
    ) -> dict[Name, list[Classifier]]:
        r"""The second phase: training with the kernel fixed.

        The learning rate is $4\,n / \lambda_1$ with the largest eigenvalue $\lambda_1$ of the
        kernel with all outputs on n images, so that no kernel is trained faster than another for
        being larger. The Hessian of the cross-entropy is at most 1/2, so that momentum is stable
        up to $7.6\,n / \lambda_1$, if the images stand for the training images.

        Args:
            tangents: by any name, the variables $\theta_t$ whose kernel is fixed, one a seed.
            images: images on which the eigenvalue is found.
            adversarial: whether an update on attacked images follows that on the clean ones, for
                each batch. The attack is on the linearised model.
            epochs: passes over the data.

        Returns:
            By the same names, the trained models, one a seed.

        Raises:
            ValueError: see `ntklib.training.fit`.
            DivergedError: see `ntklib.training.fit`.
        """

        def run(tangent: Variables, key: Any) -> Classifier:
            model = linear.linearize(self.model, tangent, centered=True)
            kernel = np.asarray(ntk.gram(self.model, tangent, images, output="full"))
            largest = float(np.linalg.eigvalsh(kernel)[-1])
            history = training.fit(
                model,
                model.init(key, images),
                self.train,
                key,
                epochs=epochs,
                optimizer=training.momentum_sgd(4 * len(images) / largest),
                batch_size=self.batch_size,
                loss="ce",
                adversary=self._pgd if adversarial else None,
                clean_first=adversarial,
                store=self.store,
            )
            return Classifier(model, history.variables)

        keys = self._keys
        jobs = [
            (name, *job)
            for name, of_seeds in tangents.items()
            for job in zip(of_seeds, keys, strict=True)
        ]
        trained = iter(_at_once(run, [job[1:] for job in jobs]))
        return {name: [next(trained) for _ in of_seeds] for name, of_seeds in tangents.items()}


def _at_once(function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]) -> list[Result]:
    """Calls a function with each tuple of arguments, on the cores of a CPU or one by one."""
    threads = os.cpu_count() if jax.default_backend() == "cpu" else 1
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda job: function(*job), arguments))
