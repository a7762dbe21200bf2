"""Takes the result out of an executed notebook, and says whether both can be trusted."""

import hashlib
import json
from typing import Any

import nbformat

from ntklib import claims
from workflow.errors import BuildError
from workflow.plan import Project, places


def seal(content: nbformat.NotebookNode) -> str:
    """SHA-256 of the cells of a notebook: another one when it was changed after execution."""
    return hashlib.sha256(json.dumps(content.cells, sort_keys=True).encode()).hexdigest()


def collect(project: Project, content: nbformat.NotebookNode) -> claims.Result:
    """The result that an executed notebook carries.

    A ValueError says that it does not carry one outcome for each of its claims, in the order of the
    registry and for its own parameters.
    """
    about, run = content.metadata["ntklib"], content.metadata["papermill"]
    found = [
        output["data"][claims.MIME]
        for cell in content.cells
        for output in cell.get("outputs", [])
        if claims.MIME in output.get("data", {})
    ]
    judged, own = [o["claim"] for o in found], [c.id for c in project.claims_of(about["notebook"])]
    if judged != own:
        raise ValueError(f"judge shows outcomes of the claims {judged}, not of {own}")
    for outcome in found:
        for name in ("profile", "seeds"):
            if outcome[name] != run["parameters"][name]:
                raise ValueError(
                    f"judged with {name} {outcome[name]}, not {run['parameters'][name]}"
                )
    findings = [f for outcome in found for f in outcome["soundness"]]
    measured = [name for outcome in found for name in outcome["measurements"]]
    if len(set(measured)) < len(measured):
        raise ValueError(f"two outcomes have a measurement of one name, among {measured}")
    verdicts = ("claim", "checks", "verdict", "reason")
    return claims.Result.from_dict(
        {
            "schema": 3,
            "notebook": about["notebook"],
            "profile": run["parameters"]["profile"],
            "seeds": run["parameters"]["seeds"],
            "parameters": run["parameters"],
            "claims": [{name: outcome[name] for name in verdicts} for outcome in found],
            "soundness": [f for i, f in enumerate(findings) if f not in findings[:i]],
            "measurements": {k: v for o in found for k, v in o["measurements"].items()},
            "provenance": {
                "commit": about["commit"],
                "dirty": about["dirty"],
                "started": run["start_time"],
                "seconds": round(run["duration"], 1),
                "key": about["key"],
                **found[0]["provenance"],
            },
        }
    )


def trusted(
    project: Project, notebook: str, profile: str, values: dict[str, Any], point: str = ""
) -> tuple[nbformat.NotebookNode, claims.Result]:
    """An executed notebook and its result, for the parameters it should have been run with.

    These are those of a page, or of a point of a sweep. A BuildError says that they were made by
    another program than the one in the tree, or were changed since.
    """
    executed, result = places(notebook, profile, point)
    key = project.key(notebook, values)
    try:
        content = nbformat.read(project.root / executed, as_version=4)
        if content.metadata["ntklib"]["key"] != key:
            raise ValueError("its key does not fit the tree")
        if content.metadata["ntklib"]["seal"] != seal(content):
            raise ValueError("it was changed after its execution")
        found = claims.read_result(project.root / result)
        if found.as_dict() != collect(project, content).as_dict():
            raise ValueError(f"{result} is not its result")
    except Exception as error:  # whatever is wrong with a file, it is not trusted
        reason = " ".join(str(error).split())[:200]
        raise BuildError(
            f"{executed} is not trusted: {reason}. Delete it, so that it is made again"
        ) from None
    return content, found
