"""What the text of a page names becomes a link, and code, formulas and headings stay."""

import pytest
from nbformat import v4

from ntklib import claims
from workflow.links import Links

GLOSSARY = """\
# Glossary

```{glossary}
:sorted:

NTK
  A kernel of {term}`seed`.

adversarial training (AT)
  Training.

seed
  A number.
```
"""
BIB = "@inproceedings{athalye2018,\n  author    = {Athalye, Anish and Carlini, Nicholas},\n}\n"


@pytest.fixture
def links(tmp_path):
    (tmp_path / "glossary.md").write_text(GLOSSARY)
    (tmp_path / "references.bib").write_text(BIB)
    registry = claims.load()
    titles = {
        "01_ntk_transfer": "Do attacks fool networks?",
        "06_robust_kernel": "What is carried?",
    }
    return Links(tmp_path, registry, titles)


@pytest.mark.parametrize(
    ("text", "linked"),
    [
        ("T1 is", '<a href="01_ntk_transfer.html#T1">T1</a> is'),
        ("L9, F1 and XT1", "L9, F1 and XT1"),  # unknown, without a page, part of a word
        ("as in *What is\ncarried?*", "as in [*What is carried?*](06_robust_kernel.ipynb)"),
        ("*Do attacks fool networks?*", "*Do attacks fool networks?*"),  # this very page
        ("(Athalye et\nal. 2018)", "({cite:alp}`athalye2018`)"),
        ("an NTK, the NTK", "an {term}`NTK <NTK>`, the NTK"),
        ("two seeds", "two {term}`seeds <seed>`"),
        (
            "adversarial training",
            "{term}`adversarial training <adversarial training (AT)>`",
        ),
        ("# T1, NTK\n`T1` $T1$ [T1](x) <b T1>", "# T1, NTK\n`T1` $T1$ [T1](x) <b T1>"),
        ("```\nT1\n```", "```\nT1\n```"),
        ("$$\nT1\n$$", "$$\nT1\n$$"),
    ],
)
def test_what_is_named_is_linked(text, linked, links):
    assert links.linked(text, "01_ntk_transfer", set()) == linked


def test_a_term_is_linked_once_a_page_and_generated_cells_are_left(links):
    texts = ["A seed.", "Another seed.", "T1 has a seed."]
    cells = [v4.new_markdown_cell(text) for text in texts]
    cells[2].metadata["generated"] = True
    links.add(v4.new_notebook(cells=cells), "06_robust_kernel")
    assert [cell.source for cell in cells] == ["A {term}`seed <seed>`.", *texts[1:]]


def test_prose_links_to_the_folder_of_the_pages(links):
    linked = links.claims("See T1.", "../notebooks/")
    assert linked == 'See <a href="../notebooks/01_ntk_transfer.html#T1">T1</a>.'
