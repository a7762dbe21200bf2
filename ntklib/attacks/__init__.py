"""Adversarial attacks on any function that returns logits, and checks of their soundness.

A classifier is a function `logits_fn` from inputs `x`, one a row and of any shape (images
`(n, h, w, c)`, vectors `(n, d)`), to logits. With two or more columns the prediction is the argmax;
one column means two classes, told apart by the sign of the logit, class 1 being the positive one.
Labels are integers. The entries of inputs lie in `clip`, which is None where there is no such box.

An attack is a function `attack(logits_fn, x, y, key)` that returns inputs: see `Attack`. `fgsm`,
`pgd`, `apgd`, `apgd_targeted`, `square`, `nes`, `noisy_fgsm` and `random_sign`, which is noise,
become one when `partial` sets their keywords; `ensemble` and `smoothed` make attacks of attacks.
All of these are values.

The functions are compiled once per `logits_fn`. To attack the same network, or a linearised one, at
many parameters without compiling again, pass `ntklib.linear.bind(model.apply, variables)`. Of a
function whose output changes from call to call, the compiled attack may see one draw for ever: the
check `stochastic` is there for it.
"""

from ntklib.attacks._apgd import apgd, apgd_targeted
from ntklib.attacks._ball import Ball, Clip, Norm
from ntklib.attacks._combined import ensemble, smoothed
from ntklib.attacks._gradient import fgsm, input_gradient, noisy_fgsm, pgd
from ntklib.attacks._losses import (
    Inputs,
    Labels,
    Logits,
    LogitsFn,
    Loss,
    correct,
    loss_per_point,
    targets,
)
from ntklib.attacks._nes import nes
from ntklib.attacks._noise import random_sign
from ntklib.attacks._protocol import Attack, partial
from ntklib.attacks._robustness import Outcomes, robust_accuracy, withstand
from ntklib.attacks._soundness import (
    Finding,
    black_box,
    budget,
    further,
    more_steps,
    probabilities,
    random_start,
    soundness,
    stochastic,
    transfer,
    unbounded,
    zero_gradient,
)
from ntklib.attacks._square import square

__all__ = [
    "Attack",
    "Ball",
    "Clip",
    "Finding",
    "Inputs",
    "Labels",
    "Logits",
    "LogitsFn",
    "Loss",
    "Norm",
    "Outcomes",
    "apgd",
    "apgd_targeted",
    "black_box",
    "budget",
    "correct",
    "ensemble",
    "fgsm",
    "further",
    "input_gradient",
    "loss_per_point",
    "more_steps",
    "nes",
    "noisy_fgsm",
    "partial",
    "pgd",
    "probabilities",
    "random_sign",
    "random_start",
    "robust_accuracy",
    "smoothed",
    "soundness",
    "square",
    "stochastic",
    "targets",
    "transfer",
    "unbounded",
    "withstand",
    "zero_gradient",
]
