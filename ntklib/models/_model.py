"""What a network is to the rest of the library, and how to make one of a flax module."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from math import sqrt
from typing import Any, TypeAlias

import flax.linen as nn
from jaxtyping import Array, PRNGKeyArray

from ntklib.models.stacks import Stack

Variables: TypeAlias = Any  # what flax's `init` returns: {"params": {...}, ...}


@dataclass(frozen=True, repr=False)
class Model:
    """A network as pure functions: `init(key, x)`, `apply(variables, x)`, and maybe one more.

    Of the batch x, `init` takes only the shape. `apply` gives logits (n, n_classes), in inference
    mode. In training mode, `apply_train(variables, x, key) -> (logits, state)`: dropout draws from
    the key, batch normalisation takes the statistics of the batch, and `state` has all collections
    but "params" as they are afterwards, {"batch_stats": ...}. It is None if this is the same as
    `apply`.

    With an infinite twin (see `ntklib.infinite.twin`) a model has a `stack`, its layers. The name
    is what is shown; that of a network of `get` has all that makes it.
    """

    init: Callable[..., Variables]
    apply: Callable[..., Any]
    stack: Stack | None = None
    apply_train: Callable[..., Any] | None = None
    name: str = "Model"

    def __repr__(self) -> str:
        return self.name


def from_flax(module: nn.Module) -> Model:
    """Any module of `flax.linen` as a model without an infinite twin, named as the module's class.

    The module takes the inputs, and returns logits (n, n_classes). If it also takes a keyword
    `train` or `deterministic`, that says whether it is in training mode, or is not, and the model
    gets `apply_train`, whose key serves every stream of random numbers, "dropout" or another.
    """
    if not isinstance(module, nn.Module):
        kind = module if isinstance(module, type) else type(module)
        raise TypeError(
            f"module: {kind.__module__}.{kind.__qualname__} is not allowed; it is an object of a "
            "class of flax.linen"
        )
    parameters = inspect.signature(module.__call__).parameters
    name = type(module).__name__
    for keyword, training in (("train", True), ("deterministic", False)):
        if keyword in parameters:
            inference: dict[str, Any] = {keyword: not training}
            return Model(
                partial(module.init, **inference),
                partial(module.apply, **inference),
                apply_train=partial(_apply_train, module, {keyword: training}),
                name=name,
            )
    return Model(module.init, module.apply, name=name)


@cache
def antisymmetric(model: Model) -> Model:
    """Two copies of a model subtracted, so that the output starts at exactly zero.

    f = (g(theta_1) - g(theta_2)) / sqrt(2), where theta_1 = theta_2 at the start, and both are
    trained, with one dropout for both. Then f = 0 at the start (a compiler that treats the copies
    differently leaves rounding), and the tangent kernel of f there is that of g (Chizat et al.
    2019; Zhang et al. 2020), as is the infinite twin. For one g it is always the same f.
    """

    def init(key: PRNGKeyArray, x: Array) -> Variables:
        variables = model.init(key, x)
        return {kind: {"first": tree, "second": tree} for kind, tree in variables.items()}

    def both(
        function: Callable[..., Any], variables: Variables, *arguments: Array
    ) -> tuple[Any, Any]:
        first, second = (
            function({kind: trees[copy] for kind, trees in variables.items()}, *arguments)
            for copy in ("first", "second")
        )
        return first, second

    def apply(variables: Variables, x: Array) -> Array:
        first, second = both(model.apply, variables, x)
        return (first - second) / sqrt(2)

    def apply_train(variables: Variables, x: Array, key: PRNGKeyArray) -> tuple[Array, Variables]:
        assert model.apply_train is not None
        (first, state_1), (second, state_2) = both(model.apply_train, variables, x, key)
        state = {kind: {"first": state_1[kind], "second": state_2[kind]} for kind in state_1}
        return (first - second) / sqrt(2), state

    return Model(
        init,
        apply,
        model.stack,
        apply_train if model.apply_train else None,
        f"antisymmetric({model})",
    )


def _apply_train(
    module: nn.Module, mode: dict[str, Any], variables: Variables, x: Array, key: PRNGKeyArray
) -> tuple[Array, Variables]:
    others = [kind for kind in variables if kind != "params"]
    # One key, and not a dict of keys: flax then draws all streams from it.
    return module.apply(variables, x, **mode, mutable=others, rngs=key)
