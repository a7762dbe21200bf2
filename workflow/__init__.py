"""The runner: notebooks to executed notebooks, results and a rendered book."""

import os

# Pages with many programs compile for a third of their time. With level 2 of LLVM in place of 3,
# with XLA's older emitters and one module a program they do so for half as long or less, and what
# is made is about as fast. Whoever gives a value for one of these gets it.
_QUICK = {
    "--xla_backend_optimization_level": "2",
    "--xla_cpu_use_fusion_emitters": "false",
    "--xla_cpu_parallel_codegen_split_count": "1",
}
_given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join(
    [_given, *(f"{flag}={value}" for flag, value in _QUICK.items() if flag not in _given)]
).strip()
