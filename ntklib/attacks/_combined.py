"""Attacks made of attacks."""

import jax
from jax.tree_util import Partial
from jaxtyping import PRNGKeyArray

from ntklib.attacks._ball import choose
from ntklib.attacks._losses import Inputs, Labels, LogitsFn, right
from ntklib.attacks._protocol import Attack, partial
from ntklib.linear import with_network
from ntklib.models import Model


def ensemble(*attacks: Attack) -> Attack:
    """For each input, the first attack that makes the classifier err on it; if none does, the last.

    An input withstands the ensemble if it withstands every attack (Croce & Hein 2020). Each attack
    has a key of its own.
    """
    if not attacks:
        raise ValueError("attacks: there are none; give one or more")
    return partial(_ensemble, attacks=attacks)


def _ensemble(
    logits_fn: LogitsFn, x: Inputs, y: Labels, key: PRNGKeyArray, *, attacks: tuple[Attack, ...]
) -> Inputs:
    found = attacks[0](logits_fn, x, y, key)
    for number, other in enumerate(attacks[1:], 1):
        crafted = other(logits_fn, x, y, jax.random.fold_in(key, number))
        found = choose(right(logits_fn, found, y), crafted, found)
    return found


def smoothed(attack: Attack, network: Model) -> Attack:
    r"""An attack by gradients, of a smooth classifier that is near the one it is meant for.

    The Jacobian $J_{\theta_t}(x)$ of a ReLU network jumps where the input makes a ReLU switch, and
    with it the linearised network. The gradient with respect to the input does not see the jumps,
    so that an attack by gradients may find nothing where there is much to be found. With smooth
    activations a jump becomes a slope. (Athalye et al. 2018 advise to attack through a smooth
    stand-in.)

    It attacks what `ntklib.linear.bind` makes of a network, or of a linearised one, through
    `network`: the same with the option `softplus` of `ntklib.models.get`.
    """
    return partial(_smoothed, attack=attack, network=network)


def _smoothed(
    logits_fn: LogitsFn, x: Inputs, y: Labels, key: PRNGKeyArray, *, attack: Attack, network: Model
) -> Inputs:
    if not isinstance(logits_fn, Partial):
        raise TypeError(
            f"logits_fn: a {type(logits_fn).__name__} is not allowed; for another network in its "
            "place it is bind(model.apply, variables)"
        )
    return attack(with_network(logits_fn, network), x, y, key)
