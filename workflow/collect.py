"""Takes the result out of an executed notebook, and says whether both can be trusted."""

import hashlib
import json
from typing import Any

import nbformat

from ntklib import claims
from workflow import plan

Result = dict[str, Any]


def seal(content: nbformat.NotebookNode) -> str:
    """SHA-256 of the cells of a notebook: another one when it was changed after execution."""
    return hashlib.sha256(json.dumps(content.cells, sort_keys=True).encode()).hexdigest()


def collect(content: nbformat.NotebookNode) -> Result:
    """The result that an executed notebook carries, in the schema of a result file.

    Raises:
        ValueError: if the notebook does not carry exactly one, of its own claim and parameters.
    """
    about, run = content.metadata["ntklib"], content.metadata["papermill"]
    found = [
        output["data"][claims.MIME]
        for cell in content.cells
        for output in cell.get("outputs", [])
        if claims.MIME in output.get("data", {})
    ]
    if len(found) != 1:
        raise ValueError(f"{len(found)} outcomes of ntklib.claims.judge are shown, not one")
    expected = {
        "claim": plan.claim_of(about["notebook"]).id,
        "profile": run["parameters"]["profile"],
        "seeds": run["parameters"]["seeds"],
    }
    for name, value in expected.items():
        if found[0][name] != value:
            raise ValueError(f"judged with {name} {found[0][name]}, not {value}")
    return {
        **found[0],
        "notebook": about["notebook"],
        "parameters": run["parameters"],
        "provenance": {
            "commit": about["commit"],
            "dirty": about["dirty"],
            "started": run["start_time"],
            "seconds": round(run["duration"], 1),
            "key": about["key"],
            **found[0]["provenance"],
        },
    }


def trusted(
    notebook: str, profile: str, values: dict[str, Any]
) -> tuple[nbformat.NotebookNode, Result]:
    """An executed notebook and its result.

    Args:
        notebook: its name.
        profile: the profile it was run with.
        values: the parameters it should have been run with.

    Raises:
        plan.BuildError: if they were made by another program than the one in the tree, or were
            changed since.
    """
    executed = plan.EXECUTED.format(notebook=notebook, profile=profile)
    result = plan.RESULT.format(notebook=notebook, profile=profile)
    key = plan.key(notebook, values)
    try:
        content = nbformat.read(plan.ROOT / executed, as_version=4)
        if content.metadata["ntklib"]["key"] != key:
            raise ValueError("its key does not fit the tree")
        if content.metadata["ntklib"]["seal"] != seal(content):
            raise ValueError("it was changed after its execution")
        found = claims.read_result(plan.ROOT / result)
        if found != collect(content):
            raise ValueError(f"{result} is not its result")
    except Exception as error:  # whatever is wrong with a file, it is not trusted
        reason = " ".join(str(error).split())[:200]
        raise plan.BuildError(
            f"{executed} is not trusted: {reason}. Delete it, so that it is made again"
        ) from None
    return content, found
