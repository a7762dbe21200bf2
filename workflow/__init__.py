"""The runner: notebooks to executed notebooks, results and a rendered book."""
