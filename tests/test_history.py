import os
import subprocess

import pytest
import yaml

from workflow.history import Change, history, reasons

AT = "2026-01-01T00:00:00Z"


def check(name, **changed):
    return {"name": name, "quantity": "q", "predicate": ">=", "margin": 0.1} | changed


@pytest.fixture
def commit(tmp_path):
    """Commits a registry of these claims; returns the hash."""
    environ = {
        f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    environ |= {"GIT_AUTHOR_DATE": AT, "GIT_COMMITTER_DATE": AT}
    (tmp_path / "book").mkdir()

    def git(*arguments):
        done = subprocess.run(
            ["git", *arguments],
            cwd=tmp_path,
            env=os.environ | environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    git("init", "--quiet")

    def commit(message, **claims):
        content = {"claims": [{"id": name, "checks": checks} for name, checks in claims.items()]}
        (tmp_path / "book" / "claims.yml").write_text(yaml.safe_dump(content))
        git("add", ".")
        git("commit", "--quiet", "--message", message)
        return git("rev-parse", "--short", "HEAD")

    return commit


def test_each_check_has_the_commit_that_set_it_and_those_that_changed_it(tmp_path, commit):
    first = commit("Set", A1=[check("gap"), check("gone")], L3=[check("both")])
    commit("Something else", A1=[check("gap", why="pilot")], L3=[check("both")])
    last = commit(
        "Wider",
        A1=[check("gap", margin=0.2, kind="gate")],
        L3a=[check("both")],
        L3b=[check("both")],
    )
    found = history(tmp_path)
    told = {"kind": "evidence", "predicate": ">=", "margin": 0.1, "quantity": "q"}
    assert found == {
        ("A1", "gap"): [
            Change("2026-01-01", first, "Set", {}, told),
            Change(
                "2026-01-01",
                last,
                "Wider",
                {"kind": "evidence", "margin": 0.1},
                {"kind": "gate", "margin": 0.2},
            ),
        ],
        ("L3a", "both"): [
            Change("2026-01-01", first, "Set", {}, told)
        ],  # of the claim it was a part of
        ("L3b", "both"): [Change("2026-01-01", last, "Wider", {}, told)],
    }


def test_where_git_knows_nothing_nothing_is_told(tmp_path, commit):
    assert history(tmp_path / "book") in (None, {})
    commit("Set", A1=[check("gap")])
    commit("Set again", A1=[check("gap", margin=1)])
    source, shallow = f"file://{tmp_path}", tmp_path / "shallow"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", source, shallow], check=True)
    assert history(shallow) is None


def test_outside_a_repository_there_is_no_history(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert history(tmp_path) is None


def test_reasons_are_the_sections_on_predicates_checks_and_verdicts():
    told = "### Changed predicates\n\n- b\n\n### Verdicts\n\n- c"
    assert reasons(f"# Log\n\n## 1.0\n\n### Added\n\n- a\n\n{told}\n") == told
