"""Auto-PGD against its authors' code: `python -m benchmarks.autoattack IMAGES`, after `make peers`.

Both attack a network that was trained adversarially and the solution of least squares on its fixed
kernel. The authors' code runs in PyTorch, which is handed JAX's logits and JAX's gradients. Both
start at random, so each runs with three keys: images on which the two differ are to be told from
those on which one of them differs with itself.
"""

import itertools
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from ntklib import attacks, data, phases, training
from ntklib.recipes import Solve

SEEDS = (0, 1, 2)
EPSILON = 0.1
MOST = 0.005  # difference of mean accuracies
PAIRS = {"apgd": "APGDAttack", "apgd_targeted": "APGDAttack_targeted"}


def classifiers() -> dict[str, Any]:
    """One network and one linearised network."""
    sgd = training.SGD(0.05)
    recipe = training.Recipe(epochs=10, optimizer=sgd, batch_size=100, loss="ce")
    study = phases.Study("cnn_mnist", phases.Images("mnist5k", 2000, 2), [0], recipe)
    learnt = study.learn(adversary=attacks.partial(attacks.pgd, epsilon=EPSILON, steps=5))
    lazy = study.fix(learnt, 10, n_curvature=100, solve=Solve(iterations=30))
    [network], [solved] = phases.make((learnt, lazy))
    return {"network": network.logits_fn(), "fixed kernel": solved.logits_fn()}


def bridge(logits_fn: Any) -> Callable[[Any], Any]:
    """A classifier of JAX as PyTorch sees it: the same logits, and JAX's gradients."""
    import torch

    values = jax.jit(lambda x: logits_fn(x))
    pulled = jax.jit(lambda x, slope: jax.vjp(logits_fn, x)[1](slope)[0])

    class Bridge(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return torch.tensor(np.asarray(values(jax.numpy.asarray(x.numpy()))))

        @staticmethod
        def backward(ctx: Any, slope: Any) -> Any:
            arrays = [jax.numpy.asarray(each.numpy()) for each in (*ctx.saved_tensors, slope)]
            return torch.tensor(np.asarray(pulled(*arrays)))

    return Bridge.apply


def ours(name: str, logits_fn: Any, test: data.Split, seed: int) -> Bool[np.ndarray, " n"]:
    """Which images withstand."""
    attack = attacks.partial(getattr(attacks, name), epsilon=EPSILON, steps=100)
    return attacks.robust_accuracy(
        logits_fn, test.x, test.y, jax.random.key(seed), attack=attack, batch_size=50
    ).robust


def theirs(name: str, logits_fn: Any, test: data.Split, seed: int) -> Bool[np.ndarray, " n"]:
    """Which images withstand."""
    import torch
    from pyautoattack import autopgd_base

    x, y = torch.tensor(np.asarray(test.x)), torch.tensor(np.asarray(test.y), dtype=torch.int64)
    # All images in one batch, whose size changes as images fall: padded to few sizes, JAX compiles
    # few programs.
    padded = bridge(logits_fn)

    def model(z: Any) -> Any:
        size = -(-len(z) // 50) * 50
        return padded(torch.cat([z, z[:1].expand(size - len(z), *z.shape[1:])]))[: len(z)]

    attack = getattr(autopgd_base, PAIRS[name])(
        model, n_iter=100, norm="Linf", eps=EPSILON, seed=seed, device="cpu"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        crafted = attack.perturb(x, y)
    found = attacks.correct(logits_fn(jax.numpy.asarray(crafted.detach().numpy())), test.y)
    return np.asarray(found & attacks.correct(logits_fn(test.x), test.y))


def differ(pairs: Iterable[tuple[Any, Any]]) -> float:
    """The mean number of images that are decided differently in a pair of runs."""
    return float(np.mean([(a != b).sum() for a, b in pairs]))


def main(images: int = 500) -> None:
    """Prints accuracies, and how many images are decided differently between keys and programs."""
    test, far = data.load("mnist5k", n_train=2000, n_test=images, pool=2).test, []
    for (where, logits_fn), name in itertools.product(classifiers().items(), PAIRS):
        own, other = (
            np.array([how(name, logits_fn, test, seed) for seed in SEEDS]) for how in (ours, theirs)
        )

        print(
            f"{where}, {name}: {own.mean():.4f} ours, {other.mean():.4f} theirs; images that "
            f"differ: {differ(itertools.product(own, other)):.1f} between the two, "
            f"{differ(itertools.combinations(own, 2)):.1f} among ours, "
            f"{differ(itertools.combinations(other, 2)):.1f} among theirs, of {images}",
            flush=True,
        )
        far += [f"{where}, {name}"] if abs(own.mean() - other.mean()) > MOST else []
    if far:
        sys.exit(f"error: more than {MOST} apart: {'; '.join(far)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
