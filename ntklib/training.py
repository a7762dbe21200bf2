"""Training of finite networks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ntklib.attacks import Loss, correct, loss_per_point
from ntklib.data import Split
from ntklib.models import Model

Variables = Any


class DivergedError(RuntimeError):
    """Training produced a loss that is not finite."""


@dataclass
class History:
    """What `fit` returns: the last variables, and a loss and an accuracy an epoch.

    Both are measured on the batches during the epoch, before each update.
    """

    variables: Variables
    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)


def fit(
    model: Model,
    variables: Variables,
    data: Split,
    key: PRNGKeyArray,
    *,
    epochs: int,
    optimizer: optax.GradientTransformation,
    batch_size: int | None = None,
    loss: Loss = "mse",
    on_epoch: Callable[[int, Variables], None] | None = None,
) -> History:
    r"""Minimises the mean loss $\frac1b\sum_{i} \ell(f(x_i), y_i)$ of batches of size $b$.

    With `batch_size=None` an epoch is one step on all the data: gradient descent.

    Args:
        model: the network.
        variables: where training starts, as returned by `model.init`.
        data: training images and labels.
        key: shuffles the data anew each epoch.
        epochs: number of passes over the data, at least 1.
        optimizer: an optax optimiser.
        batch_size: size of a batch, the last one of an epoch may be smaller; None means all.
        loss: see `ntklib.attacks.loss_per_point`.
        on_epoch: called after each epoch with its number, from 1, and the variables.

    Returns:
        The last variables and the course of the loss and the accuracy.

    Raises:
        ValueError: if `epochs` or `batch_size` is out of range.
        DivergedError: if the loss is not finite, naming the epoch.
    """
    n = len(data)
    batch_size = n if batch_size is None else batch_size
    if epochs < 1:
        raise ValueError(f"epochs: {epochs} is out of range; it is a whole number >= 1")
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size: {batch_size} is out of range; it is from 1 to {n}")

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(
        variables: Variables, state: Any, x: Array, y: Array
    ) -> tuple[Variables, Any, Float[Array, ""], Float[Array, ""]]:
        def objective(v: Variables) -> tuple[Array, Array]:
            logits = model.apply(v, x)
            return jnp.mean(loss_per_point(logits, y, loss)), jnp.mean(correct(logits, y))

        (value, accuracy), gradient = jax.value_and_grad(objective, has_aux=True)(variables)
        updates, state = optimizer.update(gradient, state, variables)
        return optax.apply_updates(variables, updates), state, value, accuracy

    x, y = jnp.asarray(data.x), jnp.asarray(data.y)
    variables = jax.tree.map(jnp.array, variables)  # a copy: `step` overwrites its arguments
    state = optimizer.init(variables)
    history = History(variables)
    for epoch in range(1, epochs + 1):
        key, key_order = jax.random.split(key)
        order = jnp.arange(n) if batch_size == n else jax.random.permutation(key_order, n)
        totals = jnp.zeros(2)
        for batch in jnp.split(order, list(range(batch_size, n, batch_size))):
            variables, state, value, accuracy = step(variables, state, x[batch], y[batch])
            totals += jnp.stack([value, accuracy]) * len(batch) / n
        mean_loss, mean_accuracy = map(float, totals)
        if not jnp.isfinite(mean_loss):
            raise DivergedError(f"epoch {epoch}: the loss is {mean_loss}; lower the learning rate")
        history.loss.append(mean_loss)
        history.accuracy.append(mean_accuracy)
        if on_epoch is not None:
            on_epoch(epoch, variables)
    history.variables = variables
    return history
