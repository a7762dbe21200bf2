"""What holds for the source of every notebook, and what would be found if it did not."""

import ast
import re

import jupytext
import pytest
import toy_book
import yaml

from ntklib import claims
from workflow.errors import UsageError
from workflow.notebook import Notebook
from workflow.plan import Project

SECTIONS = ["The idea", "Parameters", "Setup", "Verdict", "Fidelity", "What would change our mind"]
LONGEST_CELL = 15
HEADER = """\
# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
"""
# What only the book understands: directives, roles, targets, front matter in a cell.
DECIMAL = r"(?<![\w.])\d*\.\d+"
MYST = r"^\s*(`{3,}|:{3,})\s*\{|\{[\w:.-]+\}`|^\([\w-]+\)=|^(\+\+\+|%% )"


def calls(tree, name):
    """The calls of a function, such as `plots.show`."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [node for node in nodes if ast.unparse(node.func) == name]


def heads(cell):
    """The headings of a markdown cell."""
    text = re.sub(r"^```.*?^```", "", cell.source, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#+ .*", text, re.MULTILINE) if cell.cell_type == "markdown" else []


def problems_of_text(content):
    """What is wrong with titles, sections and markdown."""
    titles = [[h for h in heads(cell) if h.startswith("# ")] for cell in content.cells]
    if len(titles[0]) != 1 or any(titles[1:]):
        yield "not one title, in the first cell"
    found = [h for cell in content.cells for h in heads(cell)]
    sections = [s for h in found for s in SECTIONS if h.startswith(f"## {s}")]
    if sections != SECTIONS:
        yield f"the sections are {sections}"
    for cell in content.cells:
        if cell.cell_type == "markdown" and (match := re.search(MYST, cell.source, re.MULTILINE)):
            yield f"only the book understands {match[0]!r}"


def strings(node):
    """The text in code, without the formats of numbers."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    inside = [node.value] if isinstance(node, ast.FormattedValue) else ast.iter_child_nodes(node)
    return " ".join(map(strings, inside))


def problems_of_verdicts(content):
    """Numbers in the section 'Verdict' that no result has given."""
    section = ""
    for cell in content.cells:
        section = [section, *(head for head in heads(cell) if head.startswith("## "))][-1]
        if section == "## Verdict":
            text = strings(ast.parse(cell.source)) if cell.cell_type == "code" else cell.source
            if match := re.search(DECIMAL, re.sub(r"\$.*?\$", "", text, flags=re.DOTALL)):
                yield f"the number {match[0]} is typed by hand"


def problems_of_parameters(content):
    """What is wrong with the cell of parameters, besides what the runner finds."""
    [(place, cell)] = [
        (i, cell)
        for i, cell in enumerate(content.cells)
        if "parameters" in cell.metadata.get("tags", [])
    ]
    if not any(head == "## Parameters" for head in heads(content.cells[place - 1])):
        yield "no heading 'Parameters' above the parameters"
    lines = cell.source.splitlines()
    for node in ast.parse(cell.source).body:
        name, kind = ast.unparse(node.target), ast.unparse(node.annotation).split("[")[0]
        if not re.search(r"  # \S", lines[node.end_lineno - 1]):
            yield f"{name} has no comment"
        if type(ast.literal_eval(node.value)).__name__ != kind:
            yield f"{name} is not of type {kind}"


def problems_of_code(content):
    """What is wrong with cells of code and figures."""
    names = []
    for number, cell in enumerate(content.cells):
        if cell.cell_type != "code":
            continue
        tree = ast.parse(cell.source)
        imports = [
            line
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for line in range(node.lineno, node.end_lineno + 1)
        ]
        lines = sum(bool(line.strip()) for line in cell.source.splitlines()) - len(imports)
        shown = calls(tree, "plots.show")
        if lines > LONGEST_CELL and not shown and not calls(tree, "explore.slider"):
            yield f"cell {number + 1} has {lines} lines"
        made = [call for name in ("subplots", "figure") for call in calls(tree, f"plt.{name}")]
        other = [call for name in ("plt.show", "figure.show") for call in calls(tree, name)]
        if len(made) != len(shown) or other or "savefig" in cell.source:
            yield f"cell {number + 1} has a figure that is not shown by plots.show"
        for call in shown:
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            if set(given) != {"name", "alt", "caption"}:
                yield f"cell {number + 1} has a figure without name, alt or caption"
            names += [ast.literal_eval(value) for key, value in given.items() if key == "name"]
    if len(set(names)) < len(names) or not all(re.fullmatch("fig-[a-z0-9-]+", n) for n in names):
        yield f"names of figures: {names}"


def problems_of_claims(notebook, ids, content, tree):
    """What is wrong with the claims and their verdicts."""
    loaded = re.findall(r'claims\.load\(\)\["(\w+)"\]', ast.unparse(tree).replace("'", '"'))
    if loaded != ids:
        yield f"loads the claims {loaded}; in the registry they are {ids}"
    made = [ast.literal_eval(call.args[0]) for call in calls(tree, "claims.Page")]
    if made != [notebook]:
        yield f"makes the pages {made}"
    if [ast.literal_eval(call.args[0]) for call in calls(tree, "page.judge")] != ids:
        yield "does not call page.judge once a claim"
    sections = [h for cell in content.cells for h in heads(cell) or [cell.source]]
    verdict = [i for i, text in enumerate(sections) if text.startswith("## Verdict")]
    judged = [i for i, text in enumerate(sections) if "page.judge(" in text]
    if verdict and judged and judged[0] < verdict[0]:
        yield "judges before its section 'Verdict'"


def problems(notebook, project):
    """All that is wrong with a notebook."""
    text = project.notebooks[notebook].path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
        ids = [claim.id for claim in project.claims_of(notebook)]
        defaults = project.notebooks[notebook].defaults
        for profile in {*project.profiles_of(notebook), "smoke", "laptop"}:
            project.parameters(notebook, profile)
    except (SyntaxError, UsageError) as error:
        return [str(error)]
    found = []
    found += (
        []
        if text.startswith(HEADER)
        else ["it does not begin as other notebooks do, line for line up to the first text"]
    )
    if project.parameters(notebook, "laptop") != defaults:
        found.append("the defaults are not those of the profile laptop")
    content = jupytext.reads(text, fmt="py:percent")
    found += [*problems_of_text(content), *problems_of_parameters(content)]
    found += problems_of_verdicts(content)
    found += [*problems_of_code(content), *problems_of_claims(notebook, ids, content, tree)]
    return found


@pytest.mark.parametrize("notebook", Project().notebooks)
def test_a_notebook_is_as_all_are(notebook):
    assert problems(notebook, Project()) == []


def test_the_book_has_every_notebook():
    chapters = yaml.safe_load((toy_book.ROOT / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    files = [chapter["file"] for part in chapters for chapter in part["chapters"]]
    notebooks = list(Project().notebooks)
    assert notebooks
    assert notebooks == sorted(Project().published())
    listed = [file for file in files if file.startswith("notebooks/")]
    assert listed == [f"notebooks/{notebook}" for notebook in notebooks]


PARAMETERS = '# %% tags=["parameters"]\n'
JUDGE = '\npage.judge("T1", '
FAULTS = {
    "no Python": ("\npage = ", "\npage -> ", "invalid syntax"),
    "a magic": ("\npage = ", "\n%matplotlib inline\npage = ", "invalid syntax"),
    "another kernel": ("name: python3", "name: julia", "it does not begin as other notebooks do"),
    "no header": ("# ---\n", "", "it does not begin as other notebooks do"),
    "no title": ("\n# # ", "\n# ", "not one title, in the first cell"),
    "two titles": (
        "\n# ## Setup",
        "\n# # Another\n#\n# ## Setup",
        "not one title, in the first cell",
    ),
    "no section": ("\n# ## Fidelity", "\n# ## Differences", "the sections are"),
    "a section twice": ("\n# ## Verdict", "\n# ## Setup\n#\n# ## Verdict", "the sections are"),
    "an order of its own": (
        "\n# ## The idea",
        "\n# ## Verdict\n#\n# ## The idea",
        "the sections are",
    ),
    "a directive": (
        "\n# ## Setup",
        "\n# ```{note}\n# x\n# ```\n# ## Setup",
        "book understands '```{'",
    ),
    "a colon fence": (
        "\n# ## Setup",
        "\n# :::{note}\n# x\n# :::\n# ## Setup",
        "book understands ':::{'",
    ),
    "a role": ("\n# ## Setup", "\n# {cite}`a`\n# ## Setup", "book understands '{cite}`'"),
    "a target": ("\n# ## Setup", "\n# (here)=\n# ## Setup", "book understands '(here)='"),
    "a number in the verdict": (
        "\n# ## Verdict\n",
        "\n# ## Verdict\n#\n# A drop of $0.1 x$ at 4/255 (Athalye et al. 2018), and of 0.35.\n",
        "the number 0.35 is typed by hand",
    ),
    "a number in what the verdict shows": (
        '"Brackets hold 95 % intervals."'[1:],
        'It drops by .35; {1.25:.2f}. Brackets hold 95 % intervals."',
        "the number .35 is typed by hand",
    ),
    "no parameters": (PARAMETERS, "# %%\n", "0 cells are tagged 'parameters'"),
    "an unknown parameter": (
        PARAMETERS,
        f"{PARAMETERS}colour: int = 1  # c\n",
        "'colour' is missing",
    ),
    "no annotation": ("\nepsilon: float =", "\nepsilon =", "not `name: type = value`"),
    "another annotation": ("\nepsilon: float =", "\nepsilon: int =", "epsilon is not of type int"),
    "no comment": (PARAMETERS, f"{PARAMETERS}epsilon: float = 0.1\n", "epsilon has no comment"),
    "a default out of range": (
        "\nepsilon: float = 0.1",
        "\nepsilon: float = 1.0",
        "= 1.0 is not allowed",
    ),
    "another profile": ('"laptop"', '"smoke"', "the defaults are not those of the profile laptop"),
    "no heading": ("\n# ## Parameters", "\n# ## Parameters of all", "no heading 'Parameters'"),
    "a long cell": ("\n# %%\n", "\n# %%\n" + "1\n" * 16 + "\n# %%\n", "has 16 lines"),
    "a bare figure": ("\n# %%\n", "\n# %%\nplt.subplots()\n\n# %%\n", "not shown by plots.show"),
    "plt.show": ("\nplots.show(", "\nplt.show()\nplots.show(", "not shown by plots.show"),
    "savefig": ("\nplots.show(", '\nfigure.savefig("a")\nplots.show(', "not shown by plots.show"),
    "no alt": ("    alt=", "    text=", "without name, alt or caption"),
    "no caption": ("    caption=", "    text=", "without name, alt or caption"),
    "a name twice": (
        'name="fig-transfer-width"',
        'name="fig-transfer-epsilon"',
        "names of figures",
    ),
    "a bad name": ('name="fig-transfer-width"', 'name="Transfer"', "names of figures"),
    "another claim": ('["T1"]', '["T2"]', "loads the claims ['T2']"),
    "no claim": ('claims.load()["T1"]', "None", "loads the claims []"),
    "another page": ('Page("01_ntk', 'Page("02_ntk', "makes the pages ['02_ntk_transfer']"),
    "no page": ("claims.Page(", "print(", "makes the pages []"),
    "no verdict": (JUDGE, "\nprint(", "does not call page.judge once a claim"),
    "two verdicts": (JUDGE, f'\npage.judge("T1", {{}})\n{JUDGE}', "does not call page.judge once"),
    "the verdict of another claim": (JUDGE, '\npage.judge("T2", ', "does not call page.judge once"),
    "a verdict too early": (
        "\n# ## Setup",
        '\n# %%\npage.judge("T1", {})\n\n# %% [markdown]\n# ## Setup',
        "judges before",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault, tmp_path):
    old, new, problem = FAULTS[fault]
    project = Project()
    path = project.notebooks["01_ntk_transfer"].path
    text = path.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / path.name).write_text(text.replace(old, new, 1), encoding="utf-8")
    project.notebooks["01_ntk_transfer"] = Notebook(tmp_path / path.name)
    found = problems("01_ntk_transfer", project)
    assert any(problem in one for one in found), found


@pytest.mark.parametrize("missing", ["smoke", "laptop"])
def test_a_notebook_that_a_profile_lacks_is_found(missing):
    project = Project()
    del project.profiles[missing]["01_ntk_transfer"]
    reason = f"PROFILE: profiles/{missing}.yml has no entry for 01_ntk_transfer"
    assert problems("01_ntk_transfer", project) == [reason]


def test_a_notebook_that_the_registry_lacks_is_found():
    project = Project()
    lineages = project.registry.lineages
    project.__dict__["registry"] = claims.Registry({}, (), lineages)
    [problem] = problems("01_ntk_transfer", project)
    assert problem.startswith("01_ntk_transfer: no claim of book/claims.yml")
