"""How a network is trained, as values: equal ones are equal, print alike, and compile once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ntklib import _checks, attacks
from ntklib.attacks import Attack, Loss

Schedule = Literal["constant", "step", "cyclic"]


@cache
def _momentum(momentum: float, weight_decay: float) -> optax.GradientTransformation:
    # The learning rate is part of the state, so that runs with other rates do not compile again.
    sgd = optax.inject_hyperparams(optax.sgd)(learning_rate=1.0, momentum=momentum)
    return optax.chain(optax.add_decayed_weights(weight_decay), sgd) if weight_decay else sgd


@dataclass(frozen=True)
class SGD:
    r"""Gradient descent with momentum.

    In each step $v \leftarrow \mu v + g + \lambda\theta$ and $\theta \leftarrow \theta - \eta v$.
    Serves as an optax optimiser, too. Optimisers that differ in their rates compile once.

    Attributes:
        learning_rate: $\eta$, or its largest value if it changes, above 0.
        momentum: $\mu$, from 0 to below 1.
        weight_decay: $\lambda$, at least 0.
        schedule: how $\eta$ changes: "constant"; "step", a tenth after half of the training and a
            hundredth after three quarters (He et al. 2016); "cyclic", up in a straight line over
            the first two fifths, then down to 0 (Smith & Topin 2018; Wong et al. 2020).
    """

    learning_rate: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = "constant"

    def __post_init__(self) -> None:
        _checks.number("learning_rate", self.learning_rate, above=0)
        _checks.number("weight_decay", self.weight_decay, least=0)
        _checks.one_of("schedule", self.schedule, ("constant", "step", "cyclic"))
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: {self.momentum} is out of range; it is 0 to below 1")

    def rate(self, steps: int) -> optax.Schedule:
        """The learning rate at each of so many steps, counted from 0."""
        peak = self.learning_rate
        if self.schedule == "step":
            return optax.piecewise_constant_schedule(peak, {steps // 2: 0.1, 3 * steps // 4: 0.1})
        if self.schedule == "cyclic":
            up = max(1, 2 * steps // 5)
            ramps = (
                optax.linear_schedule(0.0, peak, up),
                optax.linear_schedule(peak, 0.0, steps - up),
            )
            return optax.join_schedules(ramps, [up])
        return optax.constant_schedule(peak)

    def init(self, params: Any) -> optax.OptState:
        """The state at the start, as optax has it."""
        state = _momentum(self.momentum, self.weight_decay).init(params)
        return optax.tree.set(state, learning_rate=jnp.float32(self.learning_rate))

    @property
    def update(self) -> Callable[..., Any]:
        """One step, as optax has it."""
        return _momentum(self.momentum, self.weight_decay).update


@dataclass(frozen=True)
class Augmentation:
    """Random flips from left to right, and random crops of the image in a frame of zeros."""

    flips: bool = True  # of half of the images
    frame: int = 4  # width, in pixels

    def __post_init__(self) -> None:
        _checks.whole("frame", self.frame, least=0)

    def __call__(self, x: Float[Array, "n h w c"], key: PRNGKeyArray) -> Float[Array, "n h w c"]:
        """Images of the same shape; the key decides what becomes of each."""
        key_flip, key_crop = jax.random.split(key)
        if self.flips:
            flipped = jax.random.bernoulli(key_flip, shape=(len(x), 1, 1, 1))
            x = jnp.where(flipped, x[:, :, ::-1], x)
        side = (self.frame, self.frame)
        framed = jnp.pad(x, ((0, 0), side, side, (0, 0)))
        corners = jax.random.randint(key_crop, (len(x), 2), 0, 2 * self.frame + 1)

        def crop(image: Array, corner: Array) -> Array:
            return jax.lax.dynamic_slice(image, (*corner, 0), x.shape[1:])

        return jax.vmap(crop)(framed, corners)


@dataclass(frozen=True)
class Watch:
    """A look at robustness after each epoch, which stops a training that loses it.

    Training against an attack of one step may turn within an epoch into a network that withstands
    this attack only: catastrophic overfitting (Wong et al. 2020; Andriushchenko & Flammarion 2020).
    A stronger attack on images that are not trained on sees it. Accuracy under it may fall, but
    once it has been above chance, not to less than half of its best.
    """

    attack: Attack
    images: int = 256  # the last ones of the data, at most a tenth; they are not trained on

    def __post_init__(self) -> None:
        _checks.whole("images", self.images)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    r"""What `ntklib.training.fit` does; `dataclasses.replace` makes a variant.

    The mean loss $\frac1b\sum_i \ell(f(x_i), y_i)$ of batches of size b is minimised. With an
    adversary $x_i$ is replaced by the adversary's image, computed at the current parameters (Madry
    et al. 2018). With `clean_first` each batch makes two updates instead: one on the clean images,
    then one on the images that the adversary finds for the updated network (the official code of
    Loo et al. 2022).

    Attributes:
        epochs: passes over the data, at least 1.
        optimizer: an `SGD`, or any optimiser of optax. One made by `optax.inject_hyperparams` lets
            the error of a divergence tell the learning rate.
        batch_size: size of a batch, the last one of an epoch may be smaller; None means all data,
            so that an epoch is one step of gradient descent.
        loss: see `ntklib.attacks.loss_per_point`.
        adversary: an attack, compiled together with the update. Made with `ntklib.attacks.partial`,
            it is a value as all else here.
        augmentation: what becomes of a batch of images before all else.
        averaging: weight a of $\bar\theta \leftarrow a \bar\theta + (1 - a) \theta$ after each
            update, smaller at first, $\min(a, (1 + k) / (10 + k))$ in update k. The averages are
            then what a training returns, those of the statistics of batch normalisation, too.
        watch: what stops a training that loses its robustness.
    """

    epochs: _checks.Number
    optimizer: SGD | optax.GradientTransformation
    batch_size: _checks.Number | None = None
    loss: Loss = "mse"
    adversary: Attack | None = None
    clean_first: bool = False
    augmentation: Augmentation | None = None
    averaging: float | None = None
    watch: Watch | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "epochs", _checks.whole("epochs", self.epochs))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", _checks.whole("batch_size", self.batch_size))
        if self.clean_first and self.adversary is None:
            raise ValueError(
                "clean_first: is True without an adversary; give one, or leave it False"
            )
        if self.averaging is not None and not 0 < self.averaging < 1:
            raise ValueError(f"averaging: {self.averaging} is out of range; it is between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Solve:
    r"""What `ntklib.least_squares.solve` does: conjugate gradients, and when they stop.

    Attributes:
        iterations: at least 1; fewer are a regularisation, too.
        ridge: weight $\lambda$ of the penalty $\frac{\lambda}{2} \|\theta - \theta_t\|^2$ beside
            the mean loss, at least 0.
    """

    iterations: _checks.Number
    ridge: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "iterations", _checks.whole("iterations", self.iterations))
        object.__setattr__(self, "ridge", _checks.number("ridge", self.ridge, least=0))


@dataclass(frozen=True)
class Protocol:
    """How networks are trained in two ways that are compared.

    Attributes:
        standard: training on clean images.
        adversarial: training on attacked ones; it differs in what the attack needs only.
        updates: of adversarial training, for each one of standard training in as many epochs.
    """

    standard: Recipe
    adversarial: Recipe
    updates: int


def protocol(
    name: str,
    *,
    epsilon: _checks.Number,
    epochs: _checks.Number,
    batch_size: _checks.Number,
    learning_rate: float,
    attack_steps: _checks.Number,
) -> Protocol:
    r"""A protocol by name, for attacks in $\ell_\infty$ and the cross-entropy.

    - "official": that of the official code of Loo et al. (2022): a constant learning rate and
      momentum 0.9, adversarial training by `pgd` of `attack_steps` steps, with a clean update
      before each adversarial one.
    - "fast": for photographs on few cores. The learning rate is cyclic, with weight decay 5e-4;
      images are flipped and cropped; the attack is `noisy_fgsm` (Wong et al. 2020; de Jorge et al.
      2022). `Watch` looks at adversarial training by `pgd` of 10 steps.
    """
    _checks.one_of("protocol", name, PROTOCOLS)
    fast = name == "fast"
    sgd = SGD(learning_rate)
    standard = Recipe(
        epochs=epochs,
        optimizer=replace(sgd, weight_decay=5e-4, schedule="cyclic") if fast else sgd,
        batch_size=batch_size,
        loss="ce",
        augmentation=Augmentation() if fast else None,
    )
    pgd = attacks.partial(attacks.pgd, epsilon=epsilon)
    if fast:
        one_step = attacks.partial(attacks.noisy_fgsm, epsilon=epsilon)
        watch = Watch(attacks.partial(pgd, steps=10))
        return Protocol(standard, replace(standard, adversary=one_step, watch=watch), 1)
    steps = attacks.partial(pgd, steps=attack_steps)
    return Protocol(standard, replace(standard, adversary=steps, clean_first=True), 2)


PROTOCOLS = ("official", "fast")
