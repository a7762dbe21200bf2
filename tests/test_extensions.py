"""The book's own extensions of Sphinx: formulas, icons, descriptions."""

import re
from pathlib import Path

import about
import mathml
import offline
import pytest
from docutils import nodes
from docutils.utils import new_document

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("display", [True, False])
def test_formulas_are_set_without_a_script(display):
    made = mathml.mathml(r"\Theta(x, x') \le \frac{a}{\sqrt2}", display=display)
    assert f'display="{"block" if display else "inline"}"' in made
    assert "<mfrac>" in made
    assert '<mi mathvariant="normal">&#x00398;</mi>' in made  # upright, as TeX has it
    assert r"""alttext="\Theta(x, x&#x27;) \le""" in made


@pytest.mark.parametrize("tex", [r"\unknown x", r"\left( a", r"a & b"])
def test_a_formula_that_cannot_be_set_is_refused(tex):
    with pytest.raises(ValueError, match=r"^formula '.*' (cannot be set|has)"):
        mathml.mathml(tex, display=False)


FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\w`$])\$([^$`]+?)\$", re.DOTALL)


@pytest.mark.parametrize(
    "page", sorted([*(ROOT / "notebooks").glob("*.py"), *(ROOT / "book").glob("*.md")]), ids=str
)
def test_all_formulas_of_the_book_can_be_set(page):
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    text = re.sub(r"^```(?!\{).*?^```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)
    for block, inline in FORMULA.findall(text):
        mathml.mathml(block or inline, display=bool(block))


def test_icons_that_no_page_uses_are_taken_out():
    script = (
        'i={"magnifying-glass":[512,512,[128269,"search"],"f002","M1z"],bars:[4,5,[],"f0","M2"],'
    )
    script += 'moon:[1,2,[],"f1",["M3","M4"]]};run()'
    left = offline.prune_icons(script, {"search", "moon"})
    assert left == script.replace('bars:[4,5,[],"f0","M2"],', "")


def test_a_page_is_described_by_its_first_words():
    document = new_document("a")
    document += nodes.raw("", '<ul><li><b>T1</b>: It holds. <span class="deciding">1</span>')
    document += nodes.paragraph("", "Another.")
    assert about.description(document) == "T1 : It holds."
    document[0].replace_self(nodes.paragraph("", "word " * 100))
    assert len(about.description(document)) <= about.LONGEST
    assert about.description(document).endswith("word …")
    assert about.description(new_document("b")) == ""


def test_a_page_loads_its_styles_as_one_file_and_scripts_in_order(tmp_path):
    static = tmp_path / "_static"
    (static / "deep").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (static / "basic.css").write_text("b{}\n/*# sourceMappingURL=b.map */")
    (static / "deep/one.css").write_text('@import "../basic.css";\n')
    (static / "two.css").write_text('.fa-x:before{content:"1"}t{}')
    for name in ("one", "two", "three"):
        (static / f"{name}.js").write_text(f"{name}()")
    head = '<link rel="stylesheet" href="../_static/deep/one.css?v=1" />\n'
    head += '<link rel="stylesheet" type="text/css" href="../_static/two.css" />\n'
    head += (
        '<script src="../_static/one.js?v=2"></script>\n<script src="../_static/two.js"></script>\n'
    )
    page = tmp_path / "notebooks" / "page.html"
    tail = '<script>inline()</script>\n<script src="../_static/three.js"></script>\n'
    page.write_text(head + tail + '<script src="../searchindex.js"></script>\n')
    offline.bundle(page, static)
    text = page.read_text()
    style, script = re.findall(r'"\.\./_static/(bundle-\w+\.\w+)"', text)
    assert (static / style).read_text().split() == ["b{}", "t{}"]
    assert (static / script).read_text().split() == ["one();", "two()"]
    assert text.endswith(tail)
