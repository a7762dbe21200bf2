"""Networks as pure functions: by name, or from any flax module."""

from ntklib.models._model import Model, Variables, antisymmetric, from_flax
from ntklib.models._named import NAMES, get

__all__ = ["NAMES", "Model", "Variables", "antisymmetric", "from_flax", "get"]
