"""Several attacks taken together."""

import jax

from ntklib.attacks.gradient import choose
from ntklib.attacks.losses import Images, Labels, LogitsFn, correct
from ntklib.attacks.robustness import Attack


def ensemble(*attacks: Attack) -> Attack:
    """For each image, the first attack that makes the classifier err on it; if none does, the last.

    An image withstands the ensemble if it withstands every attack (Croce & Hein 2020). Each attack
    has a key of its own.

    Args:
        attacks: attacks, at least one.

    Returns:
        The attack `attack(logits_fn, x, y, key)`.

    Raises:
        ValueError: if there is no attack.
    """
    if not attacks:
        raise ValueError("attacks: there are none; give one or more")

    def attack(logits_fn: LogitsFn, x: Images, y: Labels, key: jax.Array) -> Images:
        found = attacks[0](logits_fn, x, y, key)
        for number, other in enumerate(attacks[1:], 1):
            crafted = other(logits_fn, x, y, jax.random.fold_in(key, number))
            found = choose(correct(logits_fn(found), y), crafted, found)
        return found

    return attack
