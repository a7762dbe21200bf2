"""Adversarial attacks on any function that returns logits, and checks of their soundness.

A classifier is a function `logits_fn` from images `x` (shape `(n, h, w, c)`, values in `clip`)
to logits. With two or more columns the prediction is the argmax; one column means two classes,
told apart by the sign of the logit, class 1 being the positive one. Labels are integers.

An attack is a function `attack(logits_fn, x, y, key)` that returns images; the keywords of `pgd`
and `square` are set with `functools.partial`.

The functions are compiled once per `logits_fn`. To attack the same network at many parameters
without compiling again, pass `ntklib.linear.bind(model.apply, variables)`; the network may be a
linearised one. Of a function whose output changes from call to call, the compiled attack may see
one draw for ever: the check `stochastic` is there for it.
"""

from ntklib.attacks.ball import Clip, Norm, random_sign
from ntklib.attacks.ensemble import ensemble
from ntklib.attacks.gradient import fgsm, input_gradient, pgd
from ntklib.attacks.losses import (
    Images,
    Labels,
    Logits,
    LogitsFn,
    Loss,
    correct,
    loss_per_point,
    targets,
)
from ntklib.attacks.robustness import Attack, Robustness, robust_accuracy, withstand
from ntklib.attacks.soundness import (
    Finding,
    black_box,
    budget,
    more_steps,
    probabilities,
    random_start,
    soundness,
    stochastic,
    transfer,
    unbounded,
    zero_gradient,
)
from ntklib.attacks.square import square

__all__ = [
    "Attack",
    "Clip",
    "Finding",
    "Images",
    "Labels",
    "Logits",
    "LogitsFn",
    "Loss",
    "Norm",
    "Robustness",
    "black_box",
    "budget",
    "correct",
    "ensemble",
    "fgsm",
    "input_gradient",
    "loss_per_point",
    "more_steps",
    "pgd",
    "probabilities",
    "random_sign",
    "random_start",
    "robust_accuracy",
    "soundness",
    "square",
    "stochastic",
    "targets",
    "transfer",
    "unbounded",
    "withstand",
    "zero_gradient",
]
