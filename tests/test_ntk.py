import importlib
import inspect
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import MappingProxyType

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntklib import _contraction, models, ntk
from ntklib._neural_tangents import empirical_ntk_fn

K = 3  # outputs of every net here


def case(net, key, n=5):
    model, x = models.from_flax(net()), jax.random.normal(key, (n, 6, 6, 2))
    return model, nets.random_variables(model, key, x), x


@pytest.fixture
def conv(key):
    return case(nets.Convolutions, key)


@pytest.mark.parametrize(
    ("net", "output"),
    [(net, "full") for net in (*nets.ALL, *nets.INSIDE)]
    + [(nets.Convolutions, "trace"), (nets.Convolutions, 1), (nets.Normalised, "trace")],
)
def test_equals_the_product_of_jacobians(x64, key, net, output):
    model, variables, x = case(net, key)
    expected = nets.plain_gram(model, variables, x, x, output)
    np.testing.assert_allclose(ntk.gram(model, variables, x, output=output), expected, rtol=1e-10)


@pytest.mark.parametrize("net", [nets.Convolutions, nets.Normalised])
def test_in_single_precision(key, net):
    model, variables, x = case(net, key)
    expected = nets.plain_gram(model, variables, x, x, "full")
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        ntk.gram(model, variables, x, output="full"), expected, atol=1e-5 * scale
    )


@pytest.mark.parametrize("output", ["trace", "full", 1])
def test_equals_neural_tangents(x64, key, output):
    model, variables, x = case(nets.Convolutions, key)
    axes = (-1,) if output == "trace" else ()
    peer = jax.jit(empirical_ntk_fn(model.apply, trace_axes=axes, vmap_axes=0, implementation=1))
    expected = peer(x, x[3:], variables)
    if output == "full":
        expected = expected.transpose(0, 2, 1, 3).reshape(len(x) * K, -1)
    elif output != "trace":
        expected = expected[:, :, output, output]
    np.testing.assert_allclose(
        ntk.gram(model, variables, x, x[3:], output=output), expected, rtol=1e-10
    )


def test_equals_torch_func(x64, key):
    # `make peers` installs it, as CI does; elsewhere it may be missing.
    torch = importlib.import_module("torch") if "CI" in os.environ else pytest.importorskip("torch")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 3), strides=2, padding=1)(x))
            x = nn.tanh(nn.Conv(5, (2, 2), padding="VALID")(x))
            return nn.Dense(K)(x.reshape(len(x), -1))

    model, variables, x = case(Net, key)
    peer = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 5, 2),
        torch.nn.Tanh(),
    ).double()
    last = torch.nn.Linear(5 * 2 * 2, K).double()
    params = {}
    for name, layer in (("Conv_0", "0"), ("Conv_1", "2"), ("Dense_0", "last")):
        arrays = variables["params"][name]
        # (window, in, out) to (out, in, window); torch.tensor copies
        kernel = np.moveaxis(np.asarray(arrays["kernel"]), [-1, -2], [0, 1])
        params[f"{layer}.weight"] = torch.tensor(kernel)
        params[f"{layer}.bias"] = torch.tensor(np.asarray(arrays["bias"]))

    def single(params, image):
        body = {name: a for name, a in params.items() if not name.startswith("last")}
        head = {name[5:]: a for name, a in params.items() if name.startswith("last")}
        image = torch.func.functional_call(peer, body, (image[None],))
        flat = image.permute(0, 2, 3, 1).flatten(1)
        return torch.func.functional_call(last, head, (flat,))[0]

    images = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))
    jacobians = torch.func.vmap(torch.func.jacrev(single), (None, 0))(params, images)
    expected = sum(
        torch.einsum("ncd,med->ncme", j.flatten(2), j.flatten(2)) for j in jacobians.values()
    ).reshape(len(x) * K, -1)
    np.testing.assert_allclose(
        ntk.gram(model, variables, x, output="full"), expected.numpy(), rtol=1e-10
    )


def test_closed_form_of_a_linear_model(x64, key):
    model, x = models.from_flax(nn.Dense(K)), jax.random.normal(key, (5, 7))
    variables = nets.random_variables(model, key, x)
    expected = x @ x.T + 1
    np.testing.assert_allclose(ntk.gram(model, variables, x), expected, rtol=1e-12)
    np.testing.assert_allclose(
        ntk.gram(model, variables, x, output="full"), np.kron(expected, np.eye(K)), atol=1e-12
    )


def test_closed_form_of_one_hidden_layer(x64, key):
    """f = a relu(W x): the kernel is sum_i a_i^2 1(w_i x > 0) 1(w_i x' > 0) x x' + relu relu'."""
    model = models.get("mlp", n_classes=1, width=6, depth=1, parametrization="standard")
    x = jax.random.normal(key, (5, 1, 1, 7))
    variables = nets.random_variables(model, key, x)
    hidden = variables["params"]["hidden_0"]["Dense_0"]
    z = x.reshape(5, -1) @ hidden["kernel"] + hidden["bias"]
    a = variables["params"]["readout"]["Dense_0"]["kernel"][:, 0]
    flat = x.reshape(5, -1)
    on = (z > 0) * a
    expected = (on @ on.T) * (flat @ flat.T + 1) + jax.nn.relu(z) @ jax.nn.relu(z).T + 1
    np.testing.assert_allclose(ntk.gram(model, variables, x), expected, rtol=1e-12)


def test_trace_is_the_mean_over_outputs(x64, conv):
    model, variables, x = conv
    full = np.asarray(ntk.gram(model, variables, x, output="full")).reshape(5, K, 5, K)
    single = [ntk.gram(model, variables, x, output=c) for c in range(K)]
    np.testing.assert_allclose([full[:, c, :, c] for c in range(K)], single, rtol=1e-10)
    np.testing.assert_allclose(ntk.gram(model, variables, x), np.mean(single, axis=0), rtol=1e-10)


def least_memory(call):
    """The least that is not refused."""
    with pytest.raises(ValueError, match="at least") as refused:
        call(memory=1)
    return int(re.search(r"needs ([\d,]+) at least", str(refused.value))[1].replace(",", ""))


@pytest.mark.parametrize("output", ["trace", "full"])
def test_the_least_memory_takes_inputs_and_outputs_one_by_one(output, monkeypatch):
    model = models.get("cnn", n_classes=3, width=2, depth=1)
    x = jax.random.normal(jax.random.key(1), (4, 3, 3, 1))
    variables = model.init(jax.random.key(2), x)
    seen, features = set(), _contraction.Machine.features

    def spy(self, apply, variables, points, outputs, *rest):
        seen.add((len(points), len(outputs)))
        return features(self, apply, variables, points, outputs, *rest)

    monkeypatch.setattr(_contraction.Machine, "features", spy)
    call = partial(ntk.gram, model, variables, x, output=output)
    cut = call(memory=least_memory(call))
    assert seen == {(1, 1)}
    expected = nets.plain_gram(model, variables, x, x, output)
    np.testing.assert_allclose(cut, expected, atol=1e-5 * np.abs(expected).max())


@settings(max_examples=12)
@given(
    n1=st.integers(1, 5),
    n2=st.none() | st.integers(1, 5),
    output=st.sampled_from(["trace", "full", 0]),
    block=st.none() | st.integers(1, 6),
    more=st.integers(0, 100_000),
)
def test_blocks_change_nothing(n1, n2, output, block, more):
    model = models.get("cnn", n_classes=2, width=2, depth=1)
    x = jax.random.normal(jax.random.key(1), (5, 3, 3, 1))
    variables = model.init(jax.random.key(2), x)
    x1, x2 = x[:n1], None if n2 is None else x[:n2]
    expected = nets.plain_gram(model, variables, x, x, output)
    k = 2 if output == "full" else 1
    # From the least memory, which takes inputs and outputs one by one, up to all at once.
    call = partial(ntk.gram, model, variables, x1, x2, output=output, block=block)
    cut = call(memory=least_memory(call) + more)
    whole = expected[: n1 * k, : (n1 if n2 is None else n2) * k]
    np.testing.assert_allclose(cut, whole, atol=1e-5 * np.abs(whole).max())


def test_symmetric_positive_and_equivariant(x64, conv):
    model, variables, x = conv
    for output in ("trace", "full"):
        matrix = np.asarray(ntk.gram(model, variables, x, output=output, block=2))
        np.testing.assert_array_equal(matrix, matrix.T)
        assert np.linalg.eigvalsh(matrix).min() > -1e-10 * np.abs(matrix).max()
    order = np.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(
        ntk.gram(model, variables, x[order]),
        ntk.gram(model, variables, x)[order][:, order],
        rtol=1e-10,
    )


@pytest.mark.parametrize("n", [600, 601])
def test_many_inputs(x64, key, n):
    """Enough for the symmetric product to be cut, once in halves that differ in size."""
    model, x = models.from_flax(nn.Dense(K)), jax.random.normal(key, (n, 3, 2))
    variables = nets.random_variables(model, key, x)
    expected = jnp.einsum("ipa,jqa->ipjq", x, x).reshape(n, 3, n, 3)

    class Summed(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(K)(x).sum(1)

    summed = models.from_flax(Summed())
    variables = {"params": {"Dense_0": variables["params"]}}
    np.testing.assert_allclose(ntk.gram(summed, variables, x), expected.sum((1, 3)) + 9, rtol=1e-10)


@pytest.mark.parametrize("output", ["trace", "full", 2])
def test_memory_of_the_compiled_programs_is_within_the_bound(key, output, monkeypatch):
    monkeypatch.setattr(_contraction, "CACHE", 2**18)
    monkeypatch.setattr(ntk, "CACHE", 2**18)
    model, x = models.get("cnn", n_classes=4, width=16, depth=3), np.zeros((64, 8, 8, 3), "f4")
    x = jax.random.normal(key, (64, 8, 8, 3))
    variables = model.init(key, x)
    sizes, peaks = [], []

    def spy(name):
        original = getattr(_contraction, name)

        def compiled(*arguments):
            memory = original.lower(*arguments).compile().memory_analysis()
            mine = [a for a in arguments[:2] if isinstance(a, list)]
            kept = sum(a.nbytes for a in jax.tree.leaves(mine))
            peaks.append(kept + memory.temp_size_in_bytes + memory.output_size_in_bytes)
            return original(*arguments)

        monkeypatch.setattr(_contraction, name, compiled)

    spy("_features")
    spy("_contract")
    for memory in (3_000_000, 6_000_000, 20_000_000):
        ntk.gram(model, variables, x, output=output, memory=memory)
        sizes.append(max(peaks) / memory)
        peaks.clear()
    assert max(sizes) <= 1
    assert max(sizes) > 0.25  # else the bound is not made use of


@pytest.mark.parametrize("output", ["trace", "full", 1])
def test_vector_product(x64, conv, output):
    model, variables, x = conv
    shape = (2, K) if output == "full" else (2,)
    v = jax.random.normal(jax.random.key(5), shape)
    expected = ntk.gram(model, variables, x, x[3:], output=output) @ v.ravel()
    for block in (2, 256):
        product = ntk.vector_product(model, variables, x, v, x[3:], output=output, block=block)
        np.testing.assert_allclose(product.ravel(), expected, rtol=1e-10)
    assert product.shape == ((5, K) if output == "full" else (5,))


def test_vector_product_can_be_compiled(x64, conv):
    model, variables, x = conv
    v = jnp.arange(5.0)
    compiled = jax.jit(lambda v: ntk.vector_product(model, variables, x, v))
    np.testing.assert_allclose(compiled(v), ntk.gram(model, variables, x) @ v, rtol=1e-10)


SPREAD = """
import sys
import jax
if len(sys.argv) > 1:
    process, port = sys.argv[1:]
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(process))
import numpy as np
from ntklib import models, ntk
assert jax.device_count() == 8, jax.devices()
model, key = models.get("cnn", n_classes=2, width=2, depth=1), jax.random.key(0)
x = np.asarray(jax.random.normal(key, (21, 3, 3, 1)))
variables = jax.tree.map(np.asarray, jax.jit(model.init)(key, x))
for output in ("trace", "full"):
    for second in (None, x[5:16]):
        # Without devices each process uses its own.
        one = np.asarray(ntk.gram(model, variables, x, second, output=output))
        for options in ({}, {"block": 1}):
            many = ntk.gram(
                model, variables, x, second, output=output, devices=jax.devices(), **options
            )
            np.testing.assert_allclose(many, one, atol=1e-5 * np.abs(one).max())
print("equal")
"""


def spread(devices, *processes):
    """Runs the check in processes of so many devices; their output and errors."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    options = {"cwd": Path(__file__).parents[1], "env": environment, "text": True}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ExitStack() as stack:
        running = []
        for arguments in processes:
            command = [sys.executable, "-c", SPREAD, *arguments]
            process = stack.enter_context(subprocess.Popen(command, **options, **pipes))
            stack.callback(process.kill)
            running.append(process)
        return [process.communicate(timeout=300) for process in running]


def test_eight_devices():
    ((out, err),) = spread(8, [])
    assert out == "equal\n", err


def test_two_processes_of_four_devices(free_port):
    for out, err in spread(4, ["0", str(free_port)], ["1", str(free_port)]):
        assert out.splitlines()[-1:] == ["equal"], err  # before it the connections are listed


def bad(match, error=ValueError, **changes):
    return pytest.param(changes, error, match, id=match)


X = np.ones((2, 6, 6, 2), np.float32)
# As outside of tests, where nothing looks at the annotations.
gram, vector_product = inspect.unwrap(ntk.gram), inspect.unwrap(ntk.vector_product)


@pytest.fixture(scope="module")
def small():
    model = models.from_flax(nets.Convolutions())
    return model, jax.jit(model.init)(jax.random.key(0), X)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        bad("x1: dtype int32 is not allowed", TypeError, x1=X.astype(np.int32)),
        bad(r"x1: shape \(0, 6, 6, 2\) is not allowed", x1=X[:0]),
        bad("x2: has values that are not finite", x2=X * np.nan),
        bad(r"x2: its rows have shape \(6, 6\); they are of shape \(6, 6, 2\)", x2=X[..., 0]),
        bad("output: 3 is out of range; it is a whole number, 0 to 2", output=3),
        bad("output: -1 is out of range", output=-1),
        bad("output: True is not allowed; it is a whole number", TypeError, output=True),
        bad("block: 0 is out of range; it is a whole number >= 1", block=0),
        bad("block: 2.5 is not whole", block=2.5),
        bad("memory: 0.5 is not whole", memory=0.5),
        bad("memory: 1,000 bytes do not suffice; one input needs", memory=1000),
        bad("memory: 34,000,000 bytes do not suffice; a block of 90 needs",
            x1=np.ones((99, 6, 6, 2), "f4"), block=90, memory=34_000_000),
    ],
)  # fmt: skip
def test_bad_input(small, changes, error, match):
    model, variables = small
    arguments = {"x1": X} | changes
    with pytest.raises(error, match=f"^{match}"):
        gram(model, variables, **arguments)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        bad(r"v: shape \(3,\) is not allowed; it is \(2,\)", v=np.ones(3, np.float32)),
        bad("v: dtype complex64 is not allowed", TypeError, v=np.ones(2, np.complex64)),
        bad("x1: dtype int32 is not allowed", TypeError, x1=X.astype(np.int32)),
        bad(r"x1: shape \(0, 6, 6, 2\) is not allowed", x1=X[:0]),
        bad("x2: its rows have shape", x2=X[..., 0]),
        bad("block: 0 is out of range", block=0),
        bad("block: 2.5 is not whole", block=2.5),
        bad("output: 7 is out of range", output=7),
    ],
)
def test_bad_input_of_the_vector_product(small, changes, error, match):
    model, variables = small
    arguments = {"x1": X, "v": np.ones(2, np.float32)} | changes
    with pytest.raises(error, match=f"^{match}"):
        vector_product(model, variables, **arguments)


BOTH = pytest.mark.parametrize(
    "call", [gram, lambda *arguments: vector_product(*arguments, np.ones(2, np.float32))]
)


@BOTH
@pytest.mark.parametrize(
    ("output", "error", "match"),
    [
        (lambda x: x.sum((1, 2, 3)), ValueError, r"logits: .* shape \(1,\) for 1 points; it is"),
        (lambda x: (x[:, 0, 0], x), TypeError, "logits: the classifier returns a tuple"),
        (lambda x: {"logits": x[:, 0, 0]}, TypeError, "logits: the classifier returns a dict"),
        (lambda x: x[:, 0, 0] > 0, TypeError, "logits: dtype bool is not allowed"),
        (lambda x: x[:, 0, 0] * 1j, TypeError, "logits: dtype complex64 is not allowed"),
    ],
)
def test_a_model_without_logits(call, output, error, match):
    model = models.Model(lambda key, x: {}, lambda variables, x: output(x * variables["params"]))
    with pytest.raises(error, match=f"^{match}") as refused:
        call(model, {"params": jnp.ones(())}, X)
    assert "\n" not in str(refused.value)


@BOTH
@pytest.mark.parametrize(
    ("variables", "error", "match"),
    [
        ({}, ValueError, r"variables: has collections \[\]; the collection 'params'"),
        ({"batch_stats": {}}, ValueError, r"variables: has collections \['batch_stats'\]"),
        ({"params": {"a": {}}}, ValueError, "variables: has collections"),
        (None, ValueError, "variables: has none"),
        ({"params": {"a": {"b": np.ones(3, int)}}}, TypeError,
         r"variables: params\['a'\]\['b'\] has dtype int32; parameters are"),
        ({"params": {"a": jnp.ones(2), "key": jax.random.key(0)}}, TypeError,
         r"variables: params\['key'\] has dtype key<fry>"),
    ],
)  # fmt: skip
def test_variables_that_have_no_gradients(small, call, variables, error, match):
    with pytest.raises(error, match=f"^{match}"):
        call(small[0], variables, X)


def test_what_has_one_meaning_is_accepted(small):
    model, variables = small
    plain = ntk.gram(model, variables, X, output=1, block=1)
    frozen = {name: MappingProxyType(tree) for name, tree in flax.core.freeze(variables).items()}
    one, lists = np.int64(1), X.tolist()
    found = gram(model, frozen, lists, output=one, block=1.0, memory=1e9)
    np.testing.assert_array_equal(found, plain)
    product = vector_product(model, frozen, lists, [1, 1], output=one, block=1.0)
    np.testing.assert_allclose(product, plain.sum(1), rtol=1e-5)


# --- types ---


class Spectral(nn.Module):
    """Complex parameters among real ones, outside and inside of known layers."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(5, param_dtype=x.dtype)(x.reshape(len(x), -1)))
        w = self.param("w", nn.initializers.normal(1.0, jnp.complex128), (3, 4))
        x = nn.Dense(3, param_dtype=jnp.complex128)(jnp.fft.rfft(x) @ w)
        return nn.Dense(K, param_dtype=float)(jnp.abs(x))


def split(model, variables):
    """The model with the real and the imaginary parts as parameters, and these."""
    leaves, tree = jax.tree.flatten(variables["params"])
    parts = [[a.real, a.imag] if jnp.iscomplexobj(a) else [a] for a in leaves]

    def apply(variables, x):
        joined = [a[0] + 1j * a[1] if len(a) == 2 else a[0] for a in variables["params"]]
        return model.apply({"params": jax.tree.unflatten(tree, joined)}, x)

    return models.Model(model.init, apply), {"params": parts}


@pytest.mark.parametrize("output", ["trace", "full", 1])
def test_complex_parameters_count_as_two_real_ones(x64, key, output):
    model, x = models.from_flax(Spectral()), jax.random.normal(key, (5, 12))
    variables = model.init(key, x)
    variables = jax.tree.map(lambda a: a + (0.3 - 0.2j if jnp.iscomplexobj(a) else 0.3), variables)
    assert any(jnp.iscomplexobj(a) for a in jax.tree.leaves(variables))
    expected = nets.plain_gram(*split(model, variables), x, x, output)
    found = ntk.gram(model, variables, x, output=output)
    assert found.dtype == float
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    v = jax.random.normal(key, (5, K) if output == "full" else (5,))
    product = ntk.vector_product(model, variables, x, v, output=output)
    assert product.dtype == float
    np.testing.assert_allclose(product.ravel(), expected @ v.ravel(), rtol=1e-10)


TYPES = ["bfloat16", "float16", "float32", "float64"]


@pytest.mark.parametrize("of_x2", TYPES)
@pytest.mark.parametrize("of_x1", TYPES)
def test_two_sets_of_inputs_of_two_types(x64, key, of_x1, of_x2):
    model, x = models.from_flax(nn.Dense(2)), jnp.array([[0.5, 1.0], [-2.0, 0.25], [1.0, 1.0]])
    variables = jax.tree.map(lambda a: a.astype("bfloat16"), model.init(key, x))
    x1, x2 = x.astype(of_x1), x[1:].astype(of_x2)
    matrix = ntk.gram(model, variables, x1, x2)
    assert matrix.dtype == jnp.result_type(x1, x2, jnp.bfloat16)
    np.testing.assert_allclose(matrix.astype(float), x @ x[1:].T + 1, rtol=1e-2)
    product = ntk.vector_product(model, variables, x1, jnp.ones(2), x2)
    np.testing.assert_allclose(product.astype(float), (x @ x[1:].T + 1).sum(1), rtol=1e-2)


@pytest.mark.parametrize("of_v", [*TYPES, "int32"])
@pytest.mark.parametrize("of_x", TYPES)
@pytest.mark.parametrize("of_net", TYPES)
def test_each_type_of_network_inputs_and_vector(x64, key, of_net, of_x, of_v):
    model, x = models.from_flax(nn.Dense(2)), jnp.array([[0.5, 1.0], [-2.0, 0.25], [1.0, 1.0]])
    variables = jax.tree.map(lambda a: a.astype(of_net), model.init(key, x))
    exact, v = x @ x.T + 1, jnp.array([1, -2, 4])  # all of it small binary fractions
    wide = jnp.promote_types(of_net, of_x)
    if of_v == "int32":
        matrix = ntk.gram(model, variables, x.astype(of_x))
        assert matrix.dtype == wide
        np.testing.assert_allclose(matrix.astype(float), exact, rtol=1e-2)
    product = ntk.vector_product(model, variables, x.astype(of_x), v.astype(of_v))
    assert product.dtype == wide
    np.testing.assert_allclose(product.astype(float), exact @ v, rtol=1e-2)


def test_a_network_that_computes_in_less_than_its_parameters(key):
    model, x = models.from_flax(nn.Dense(2, dtype=jnp.bfloat16)), jnp.eye(3)
    variables = model.init(key, x)
    matrix = ntk.gram(model, variables, x)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, np.eye(3) + 1, rtol=1e-2)
    assert ntk.vector_product(model, variables, x, jnp.ones(3)).dtype == jnp.bfloat16


def test_images_that_fill_up_a_block_do_no_harm(key):
    """A network may have no gradient at the image of zeros."""

    class PerImage(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(x / jnp.linalg.norm(nn.Dense(3)(x), axis=1, keepdims=True))

    model, x = models.from_flax(PerImage()), jax.random.normal(key, (5, 3))
    variables = model.init(key, x)
    expected = ntk.gram(model, variables, x, x[:3]) @ jnp.ones(3)
    for block in (2, 256):
        product = ntk.vector_product(model, variables, x, jnp.ones(3), x[:3], block=block)
        np.testing.assert_allclose(product, expected, rtol=1e-4)
