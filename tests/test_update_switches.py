"""`copier update` to another framework or server, of untouched and of edited projects."""

import itertools
import re
import shutil

import pytest
import yaml
from support.commands import commit, ok
from support.owner import ICON
from support.project import ANSWERS_FILE, PAIRS, Pair, append, section
from support.update import (
    ANSWERS,
    LATEST,
    OWN_TEXT,
    added,
    assert_same,
    conflicts,
    lines,
    start,
    update,
)


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(PAIRS, 2)), ids=str)
def test_switch_and_back_is_a_new_project(one, other, fresh, tmp_path):
    """Each way: what a switch leads to is a new project of that pair, to the byte."""
    project = shutil.copytree(fresh(one), tmp_path / "my-app")
    update(project, **other._asdict())
    assert_same(project, fresh(other))
    commit(project)
    update(project, **one._asdict())
    assert_same(project, fresh(one))
    answers = yaml.safe_load((project / ANSWERS_FILE).read_text())
    assert {name: answers[name] for name in ANSWERS} == ANSWERS


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(PAIRS, 2)), ids=str)
def test_switch_of_an_edited_project_loses_no_line(one, other, aged_project, tmp_path):
    """Where the lines of the frameworks differ, there are conflicts, and they show both."""
    untouched, year = aged_project(one, LATEST)
    project = shutil.copytree(year, tmp_path / "my-app")
    update(project, **other._asdict())
    edits = {name: own for name, own in added(untouched, year).items() if own}
    for name, own in edits.items():
        assert [line for line in own if line not in lines(project / name)] == [], name
    for name in ("app/static/logo.png", ICON, ".env", "app/blog.py", "tests/test_blog.py"):
        assert (project / name).read_bytes() == (year / name).read_bytes(), name
    met = edits.keys() if one.framework != other.framework else {"requirements.lock"}
    assert conflicts(project) <= met


@pytest.mark.slow
def test_edited_file_that_a_switch_deletes_can_be_restored(history, tmp_path):
    """Copier deletes it even if it was edited. The message and the README say how to keep it."""
    project = start(history, tmp_path, Pair("flask", "waitress"), LATEST)
    append(project / "app/serve.py", f"# {OWN_TEXT}\n")
    commit(project)
    message = update(project, server="gunicorn")
    assert not (project / "app/serve.py").exists()
    assert "deleted:    app/serve.py" in ok("git", "status", cwd=project)
    for text in (message, section(project, "Messages of `copier update`")):
        assert re.search(r'"deleted".*`git restore`', text, re.DOTALL)
    ok("git", "restore", "app/serve.py", cwd=project)
    assert OWN_TEXT in (project / "app/serve.py").read_text()
