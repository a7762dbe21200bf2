"""The one place that imports neural-tangents.

Version 0.6.5, its last release, asks for names that newer versions of JAX keep elsewhere, and its
`experimental` part imports TensorFlow. Here those names are put back while the package is
imported, an empty module stands in for `experimental`, and three things are exported: `stax`, the
analytic kernels, `batch`, which computes them block by block, and `empirical_ntk_fn`, whose
implementations 1 and 2 are an independent check of ours (3 does not run on JAX >= 0.4.30).
Afterwards JAX is as before. That is enough because these look the names up when they are
imported; what looks some up later is not exported.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import jax

__all__ = ["batch", "empirical_ntk_fn", "stax"]

_KNOWN_TO_WORK = "0.6.2 to 0.12.0"


@contextmanager
def _as_before() -> Iterator[None]:
    """Shows JAX to one import as neural-tangents knows it, and an empty `experimental`."""
    from jax import core
    from jax._src import ad_util, util
    from jax._src import core as private_core
    from jax.interpreters import ad

    # Where neural-tangents looks, where JAX keeps it, and what.
    types = ("AbstractValue", "Jaxpr", "JaxprEqn", "Literal", "ShapedArray", "Value", "Var")
    moved = [(core, private_core, name) for name in (*types, "Primitive")]
    moved.append((ad, ad_util, "zeros_like_p"))
    modules = {"jax.util": util, "neural_tangents.experimental": ModuleType("experimental")}
    hidden = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
    sys.modules.update(modules)
    added = []
    try:
        for public, private, name in moved:
            if name not in vars(public):  # hasattr warns about names that are deprecated
                setattr(public, name, getattr(private, name))
                added.append((public, name))
        yield
    finally:
        for public, name in added:
            delattr(public, name)
        for name in modules:
            del sys.modules[name]
        sys.modules.update(hidden)


try:
    with _as_before():
        from neural_tangents import batch, empirical_ntk_fn, stax
except (ImportError, AttributeError) as error:
    raise ImportError(
        f"neural-tangents 0.6.5 does not import on JAX {jax.__version__} ({error}); "
        f"known to work are JAX {_KNOWN_TO_WORK}"
    ) from error
