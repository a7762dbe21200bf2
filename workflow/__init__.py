"""The runner: notebooks to executed notebooks, results and a rendered book."""

import os

# XLA compiles at LLVM's level 3. Level 2 takes two thirds of the time for a step of training, a
# fifth for a random start, and what it makes is as fast. Whoever gives a level gets it.
_LEVEL = "--xla_backend_optimization_level"
if _LEVEL not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_LEVEL}=2".strip()
