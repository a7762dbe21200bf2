"""Networks linearised in their parameters, around a tangent point.

The tangent point is an argument of the compiled training or attack, never a constant in it. So
models that differ only in the tangent point (checkpoints of one network) share what was compiled.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from ntklib._checks import logits, parameters
from ntklib.models import Model, Variables


def linearize(model: Model, variables: Variables, *, centered: bool) -> Model:
    r"""The first-order expansion of a model in its parameters, around the tangent `variables`.

    $f_{\mathrm{lin}}(x; \theta) = f_{\theta_0}(x) + J_{\theta_0}(x)\,(\theta - \theta_0)$, or
    without the first term if centred. Its tangent kernel is that of the model at $\theta_0$, for
    every $\theta$, so training it is regression with a fixed kernel; the centred one starts at
    $f = 0$ and owes nothing to $f_{\theta_0}$. An evaluation is one forward-mode pass. Sources: Lee
    et al. (2019); Loo et al. (2022).

    Only the parameters are variables. All other collections, such as the statistics of batch
    normalisation, stay at their values in `variables`, in inference mode, in training too. `init`
    returns a copy of the tangent point, whatever the key and the inputs; `apply` reads "params"
    only, which must have the structure of the tangent point's.

    It has no infinite twin: that of `model` is the kernel of a random $\theta_0$, not of this one.
    """
    tangent = jax.tree.map(jnp.array, parameters("variables", variables))

    def init(_: PRNGKeyArray, __: Array) -> Variables:
        return jax.tree.map(jnp.array, {"params": tangent["params"]})

    apply = Partial(_centered if centered else _linear, bind(model.apply), tangent)
    return Model(init, apply, name=f"linearize({model}, centered={centered})")


def with_network(logits_fn: Partial, network: Model) -> Partial:
    """A classifier with another network in place of its own, such as a smooth one, to attack it.

    The classifier is `bind(model.apply, variables)` of a network, or of one linearised by
    `linearize`, and the other network is then linearised around the same tangent point. Parameters
    that do not fit it are refused when it is applied.
    """
    if logits_fn.func in (_linear, _centered):
        return Partial(logits_fn.func, bind(network.apply), *logits_fn.args[1:])
    return bind(network.apply, *logits_fn.args)


def bind(function: Callable[..., Any], *arguments: Any) -> Partial:
    """A function with its first arguments fixed: attacks take `bind(model.apply, variables)`.

    The result is a `jax.tree_util.Partial`, whose arrays are arguments to what is compiled for it.
    So attacks on another network of the same architecture do not compile again. A `Partial` around
    a `Partial` would hide the arrays of the inner one, for a linearised model the tangent point;
    here they are joined to the outer ones.
    """
    if isinstance(function, Partial):
        return Partial(function.func, *function.args, *arguments, **function.keywords)
    return Partial(function, *arguments)


def _linear(
    apply: Partial, tangent: Variables, variables: Variables, x: Float[Array, "n ..."]
) -> Float[Array, "n k"]:
    value, change = _expand(apply, tangent, variables, x)
    return value + change


def _centered(
    apply: Partial, tangent: Variables, variables: Variables, x: Float[Array, "n ..."]
) -> Float[Array, "n k"]:
    return _expand(apply, tangent, variables, x)[1]


def _expand(
    apply: Partial, tangent: Variables, variables: Variables, x: Float[Array, "n ..."]
) -> tuple[Float[Array, "n k"], Float[Array, "n k"]]:
    r"""The two terms of the expansion, $f_{\theta_0}(x)$ and $J_{\theta_0}(x)(\theta-\theta_0)$."""
    start, params = tangent["params"], parameters("variables", variables)["params"]
    given, allowed = _shapes(params), _shapes(start)
    if given != allowed:
        path = next(p for p in (*allowed, *given) if given.get(p) != allowed.get(p))
        raise ValueError(
            f"variables: params{path} has shape {given.get(path)}; at the tangent point it has "
            f"{allowed.get(path)}"
        )
    shift = jax.tree.map(lambda p, s: jnp.subtract(p, s).astype(s.dtype), params, start)
    value, change = jax.jvp(lambda p: apply(tangent | {"params": p}, x), (start,), (shift,))
    logits(value, len(x))
    return value, change


def _shapes(params: Variables) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(params)
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
