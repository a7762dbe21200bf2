"""The work that is timed: for each kind ours and that of its peers, on the same inputs."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from benchmarks import resnet
from ntklib import advntk, attacks, infinite, linear, models, ntk, training
from ntklib._neural_tangents import batch, empirical_ntk_fn, stax
from ntklib.data import Split

Run = Callable[[], Any]


@dataclass(frozen=True)
class Target:
    """What the ratio of a peer's time to ours has to reach; at most 1 where ours may be slower."""

    peer: str
    ratio: float


@dataclass(frozen=True)
class Work:
    """One row of the table.

    Attributes:
        title: What is computed.
        runs: Ours (named "ntklib") and the peers, as functions without arguments.
        targets: The ratios to reach.
        flops: Multiplications and additions that the method needs, if there is a floor to compare
            with; it is timed as one matrix product of 2048 x 2048 and scaled.
        tolerance: Largest difference from ours, relative to the largest entry; None if results
            are not comparable.
        memory: Bytes that the whole process may have with ours; None if not bounded.
        lean: What the ratio of a peer's peak memory to ours has to reach; it is what a call adds to
            a process of its own.
    """

    title: str
    runs: dict[str, Run]
    targets: tuple[Target, ...]
    flops: float | None = None
    tolerance: float | None = 1e-3
    memory: int | None = None
    lean: Target | None = None


def _conv3(n: int) -> tuple[models.Model, Any, jax.Array]:
    model = models.get("conv3", n_classes=10)
    x = jax.random.uniform(jax.random.key(0), (n, 32, 32, 3))
    return model, jax.jit(model.init)(jax.random.key(1), x[:1]), x


class _FlaxConv3(nn.Module):
    """The same net with flax's own convolutions, as anybody else would write it."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for channels, stride in ((32, 1), (64, 2), (64, 2)):
            x = nn.relu(nn.Conv(channels, (3, 3), stride)(x))
        return nn.Dense(10)(x.mean((1, 2)))


def _gram_flops(n: int) -> float:
    """Arithmetic of the layer-wise traced Gram of the 3-conv net, from its shapes.

    For each conv layer of p positions, window a, b channels and k = 10 outputs: forward 2pab,
    cotangents 2pabk (not for the first layer, whose input needs none), parameter gradients 2pabk
    an image, and half of the k n^2 products of length ab, as the Gram is symmetric.
    """
    layers = [(1024, 27, 32), (256, 288, 64), (64, 576, 64)]
    each = sum(2 * p * a * b * (1 + 10 + 10 * (i > 0)) for i, (p, a, b) in enumerate(layers))
    return n * each + n**2 * sum(10 * a * b for _, a, b in layers)


def _torch_conv3(variables: Any, x: jax.Array) -> tuple[Callable[..., Any], Any, Any]:
    """The same net in PyTorch: the Jacobian of one image's outputs, the parameters, the images."""
    import torch
    from torch import nn

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    layers: list[nn.Module] = []
    for name, stride in (("Conv_0", 1), ("Conv_1", 2), ("Conv_2", 2)):
        kernel = torch.tensor(np.asarray(variables["params"][name]["kernel"]).transpose(3, 2, 0, 1))
        conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, stride)
        conv.weight.data = kernel.contiguous()
        conv.bias.data = torch.tensor(np.asarray(variables["params"][name]["bias"]))
        pad = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
        layers += [nn.ZeroPad2d(pad), conv, nn.ReLU()]
    head = nn.Linear(64, 10)
    head.weight.data = torch.tensor(np.asarray(variables["params"]["Dense_0"]["kernel"]).T.copy())
    head.bias.data = torch.tensor(np.asarray(variables["params"]["Dense_0"]["bias"]))
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    params = {name: p.detach() for name, p in net.named_parameters()}

    def single(params: Any, image: Any) -> Any:
        return torch.func.functional_call(net, params, (image[None],))[0]

    jacobian = torch.func.vmap(torch.func.jacrev(single), (None, 0))
    return jacobian, params, torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())


def _torch_gram(variables: Any, x: jax.Array, block: int) -> np.ndarray:
    """The traced Gram by blocks, those above the diagonal only."""
    import torch

    jacobian, params, images = _torch_conv3(variables, x)
    n = len(images)
    gram = np.zeros((n, n), np.float32)
    for i in range(0, n, block):
        rows = jacobian(params, images[i : i + block])
        for j in range(i, n, block):
            columns = rows if i == j else jacobian(params, images[j : j + block])
            part = sum(
                torch.einsum("ncd,mcd->nm", rows[name].flatten(2), columns[name].flatten(2))
                for name in params
            )
            gram[i : i + block, j : j + block] = part.numpy() / 10
            gram[j : j + block, i : i + block] = part.numpy().T / 10
    return gram


def gram_256() -> Work:
    """Every implementation at a size where the gradients of all images fit."""
    model, variables, x = _conv3(256)

    def peer(apply: Callable[..., jax.Array]) -> Run:
        kernel = empirical_ntk_fn(apply, trace_axes=(-1,), vmap_axes=0, implementation=1)
        compiled = jax.jit(lambda x, variables: kernel(x, None, variables))
        return lambda: compiled(x, variables)

    return Work(
        "traced Gram, 256 images of 32x32x3, 3-conv net",
        {
            "ntklib": lambda: ntk.gram(model, variables, x),
            "torch.func": lambda: _torch_gram(variables, x, 256),
            "neural-tangents": peer(_FlaxConv3().apply),
            "neural-tangents with ntklib's convolutions": peer(model.apply),
        },
        (
            Target("torch.func", 2),
            Target("neural-tangents", 5),
            Target("floor", 0.5),
        ),
        flops=_gram_flops(256),
    )


def gram_1024() -> Work:
    """A size at which the gradients do not fit in the memory."""
    model, variables, x = _conv3(1024)
    blocks = (64, 128, 256)
    return Work(
        "traced Gram, 1,024 images of 32x32x3, 3-conv net, 2 GB",
        {"ntklib": lambda: ntk.gram(model, variables, x, memory=1_300_000_000)}
        | {f"torch.func, blocks of {b}": partial(_torch_gram, variables, x, b) for b in blocks},
        tuple(Target(f"torch.func, blocks of {b}", 2) for b in blocks),
        flops=_gram_flops(1024),
        memory=2_000_000_000,
    )


def resnet18() -> Work:
    """A deep net with BatchNorm and 11 million parameters."""
    model = models.get("resnet18", n_classes=10, zero_head=False)
    x = jax.random.uniform(jax.random.key(0), (64, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(1), x[:1])

    @jax.jit
    def by_gradients(variables: Any, x: jax.Array) -> jax.Array:
        def output(params: Any, x: jax.Array) -> jax.Array:
            return model.apply({**variables, "params": params}, x[None])[0, 0]

        trees = jax.vmap(jax.grad(output), (None, 0))(variables["params"], x)
        rows = [a.reshape(len(x), -1) for a in jax.tree.leaves(trees)]
        return sum(a @ a.T for a in rows)

    return Work(
        "Gram of one output, 64 images, ResNet-18",
        {
            "ntklib": lambda: ntk.gram(model, variables, x, output=0, memory=4 * 2**30),
            "vmap of grad, then product": lambda: by_gradients(variables, x),
        },
        (Target("vmap of grad, then product", 2),),
    )


def pgd() -> Work:
    """The attack of robust accuracies."""
    import eagerpy
    import foolbox

    model, variables, x = _conv3(1000)
    y = jax.random.randint(jax.random.key(2), (1000,), 0, 10)
    logits_fn = Partial(model.apply, variables)
    ours = partial(attacks.pgd, epsilon=8 / 255, steps=20, step_size=2 / 255)
    peer = foolbox.models.JAXModel(jax.jit(lambda x: model.apply(variables, x)), bounds=(0, 1))
    theirs = foolbox.attacks.LinfPGD(steps=20, abs_stepsize=2 / 255, random_start=True)

    def foolbox_attack(batch: int) -> list[jax.Array]:
        return [
            theirs.run(
                peer,
                eagerpy.astensor(x[i : i + batch]),
                eagerpy.astensor(y[i : i + batch]),
                epsilon=8 / 255,
            ).raw
            for i in range(0, 1000, batch)
        ]

    def accuracy() -> np.ndarray:
        key = jax.random.key(3)
        return attacks.robust_accuracy(logits_fn, x, y, key, attack=ours, batch_size=25).robust

    batches = (25, 100, 1000)
    return Work(
        "PGD-20, 1,000 images, 3-conv net",
        {"ntklib": accuracy}
        | {f"foolbox (JAX), batches of {b}": partial(foolbox_attack, b) for b in batches},
        tuple(Target(f"foolbox (JAX), batches of {b}", 1.5) for b in batches),
        tolerance=None,  # the random starts differ
    )


def centred_training() -> Work:
    """What linearisation costs in adversarial training."""
    model, variables, x = _conv3(128)
    y = jax.random.randint(jax.random.key(2), (128,), 0, 10)
    data = Split(np.asarray(x), np.asarray(y, np.int32), 10)
    centred = linear.linearize(model, variables, centered=True)
    adversary = partial(attacks.pgd, epsilon=8 / 255, steps=7, step_size=3 / 255)
    options = {"epochs": 4, "batch_size": 64, "loss": "ce", "adversary": adversary}
    sgd = optax.sgd(0.01)

    def train(model: models.Model) -> Run:
        key = jax.random.key(4)
        start = {"params": variables["params"]}
        return lambda: training.fit(model, start, data, key, optimizer=sgd, **options).variables

    return Work(
        "8 steps of centred linearised AT, PGD-7, 3-conv net",
        {"ntklib": train(centred), "the same steps of ordinary AT": train(model)},
        (Target("the same steps of ordinary AT", 1 / 2.6),),
        tolerance=None,  # another model
    )


def _step(title: str, *, steps: int, lean: Target | None = None) -> Work:
    """One step of training of a ResNet, on images under PGD of so many steps."""
    model, variables, data, options = _resnet9()
    epsilon = 8 / 255
    if steps:
        options["adversary"] = partial(
            attacks.pgd, epsilon=epsilon, steps=steps, random_start=False
        )

    def ours() -> jax.Array:
        trained = training.fit(model, variables, data, jax.random.key(4), **options).variables
        return trained["params"]["head"]["kernel"] - variables["params"]["head"]["kernel"]

    theirs = resnet.torch_step(
        variables, data.x, data.y, learning_rate=0.01, steps=steps, epsilon=epsilon
    )
    return Work(
        f"{title}, 128 images of 32x32x3, ResNet-9",
        {"ntklib": ours, "PyTorch": theirs},
        (Target("PyTorch", 0.75),),
        tolerance=2e-2 if steps else 1e-3,  # rounding decides signs of tiny gradients
        lean=lean,
    )


def _resnet9() -> tuple[models.Model, Any, Split, dict[str, Any]]:
    model = models.from_flax(resnet.ResNet9())
    x = jax.random.uniform(jax.random.key(0), (128, 32, 32, 3))
    y = np.asarray(jax.random.randint(jax.random.key(2), (128,), 0, 10), np.int32)
    options = {"epochs": 1, "loss": "ce", "optimizer": training.SGD(0.01, momentum=0.0)}
    variables = jax.jit(model.init)(jax.random.key(1), x[:1])
    return model, variables, Split(np.asarray(x), y, 10), options


def sgd_step() -> Work:
    """What standard training spends its time on."""
    return _step("a step of SGD", steps=0, lean=Target("PyTorch", 1 / 1.5))


def fast_at_step() -> Work:
    """What adversarial training with one step of attack spends its time on."""
    return _step("a step of adversarial training, FGSM", steps=1)


def pgd_at_step() -> Work:
    """What adversarial training spends its time on."""
    return _step("a step of adversarial training, PGD-10", steps=10)


def linearised_step() -> Work:
    """What linearisation costs in training."""
    model, variables, data, options = _resnet9()
    linearised = linear.linearize(model, variables, centered=True)

    def step(model: models.Model) -> Run:
        key = jax.random.key(4)
        return lambda: training.fit(model, variables, data, key, **options).variables["params"]

    return Work(
        "a step of SGD of the centred linearised net, 128 images of 32x32x3, ResNet-9",
        {"ntklib": step(linearised), "the step of the net": step(model)},
        (Target("the step of the net", 1 / 2.2),),
        tolerance=None,  # another model
    )


def analytic_kernel() -> Work:
    """The kernel of an infinitely wide net on as many images as CIFAR-10 has of two classes."""
    n = 10_000
    x = np.asarray(jax.random.uniform(jax.random.key(0), (n, 32, 32, 3)))
    model = models.get("mlp", n_classes=1, depth=3)
    layers = [stax.Dense(1, W_std=2**0.5, b_std=0.1), stax.Relu()] * 3
    *_, kernel_fn = stax.serial(stax.Flatten(), *layers, stax.Dense(1, W_std=2**0.5, b_std=0.1))
    batched = batch(kernel_fn, batch_size=1000, store_on_device=False)
    flat = jnp.asarray(x.reshape(n, -1))
    product = jax.jit(lambda a: a @ a.T)
    return Work(
        "NTK of a 3-layer MLP, 10,000 x 10,000 images of 32x32x3",
        {
            "ntklib": lambda: infinite.kernel(model, x),
            "neural-tangents, nt.batch": lambda: batched(x, None, "ntk"),
            "one matrix product of that size": lambda: product(flat),
        },
        (
            Target("neural-tangents, nt.batch", 2),
            Target("one matrix product of that size", 0.5),
        ),
        tolerance=None,  # stax is off by 1e-4 where an input meets itself
    )


def kernel_gradient() -> Work:
    """What attacks on kernel predictors spend their time on."""
    x = jax.random.uniform(jax.random.key(0), (500, 14, 14, 1))
    new = jax.random.uniform(jax.random.key(1), (250, 14, 14, 1))
    weights = jax.random.normal(jax.random.key(2), (500,))
    model = models.get("mlp", n_classes=1, depth=2)
    layers = [stax.Dense(1, W_std=2**0.5, b_std=0.1), stax.Relu()] * 2
    *_, kernel_fn = stax.serial(stax.Flatten(), *layers, stax.Dense(1, W_std=2**0.5, b_std=0.1))

    def gradient(kernel_fn: Callable[..., Any]) -> Run:
        compiled = jax.jit(jax.grad(lambda z: jnp.sum(kernel_fn(z, x, "ntk") @ weights)))
        return lambda: compiled(new)

    return Work(
        "input gradient of a kernel predictor, 250 on 500 digits, 2-layer MLP",
        {"ntklib": gradient(infinite.twin(model)), "neural-tangents": gradient(kernel_fn)},
        (Target("neural-tangents", 1),),
    )


def _adv_ntk(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Adv-NTK after some steps: kernel, weights, targets, and 128 held-out images with theirs."""
    net = models.get("mlp", n_classes=10, depth=4, w_std=1.76, b_std=0.18)
    x = jax.random.uniform(jax.random.key(0), (n + 128, 3072), minval=-0.5, maxval=0.5)
    targets = np.eye(10)[np.random.default_rng(0).integers(0, 10, n + 128)]
    times = np.random.default_rng(1).gamma(2.0, 250 / n, (n, 1))  # 500 in all
    gram, cross = infinite.kernel(net, x[:n]), infinite.kernel(net, x[n:], x[:n])
    gram, cross = (np.asarray(k, np.float64) for k in (gram, cross))
    return gram, times, targets[:n], cross, targets[n:]


def _adv_ntk_gradient(gram: Any, times: Any, targets: Any, cross: Any, wanted: Any) -> np.ndarray:
    coefficients, pullback = advntk.flow(gram, times, targets)
    return pullback(cross.T @ (cross @ coefficients - wanted) / len(cross))


def adv_ntk() -> Work:
    """The gradient of a step of Adv-NTK, at a size where matrices can be factorised."""
    given = _adv_ntk(1000)
    gram, times, targets, cross, wanted = (jnp.asarray(a, jnp.float32) for a in given)
    inverse = jnp.asarray(np.linalg.inv(given[0]), jnp.float32)

    @jax.jit
    @jax.grad
    def official(times: jax.Array) -> jax.Array:
        left = jax.scipy.linalg.expm(-gram * times.T) @ targets
        outputs = cross @ (inverse @ (targets - left))
        return ((outputs - wanted) ** 2).sum() / (2 * len(cross))

    return Work(
        title="gradient in the weights of Adv-NTK, 1,000 images",
        runs={
            "ntklib": lambda: _adv_ntk_gradient(*given),
            "matrix exponential, float32": lambda: official(times),
        },
        targets=(Target("matrix exponential, float32", 3.0),),
        tolerance=5e-2,  # what float32 leaves of the peer
    )


def adv_ntk_10000() -> Work:
    """The same at the paper's size, beside one product of the kernel and ten columns."""
    given = _adv_ntk(10_000)
    return Work(
        title="gradient in the weights of Adv-NTK, 10,000 images",
        runs={
            "ntklib": lambda: _adv_ntk_gradient(*given),
            "one pass over the kernel": lambda: given[0] @ given[2],
        },
        targets=(Target("one pass over the kernel", 1 / 100),),
        tolerance=None,
        memory=6 * 10**9,
    )


ALL = {
    work.__name__: work
    for work in (
        gram_256,
        gram_1024,
        resnet18,
        pgd,
        centred_training,
        sgd_step,
        fast_at_step,
        pgd_at_step,
        linearised_step,
        analytic_kernel,
        kernel_gradient,
        adv_ntk,
        adv_ntk_10000,
    )
}
