"""`copier update`: fixes of the template reach projects, and no line of an owner is lost."""

import filecmp
import re
import shutil
from collections import Counter

import pexpect
import pytest
from support.commands import commit, free_port, ok, run
from support.owner import DELETED, REPLACED, install_packages, publish
from support.project import (
    ANSWERS_FILE,
    ASKED,
    FIRST_PAIRS,
    PAIRS,
    append,
    files,
    lock_command,
    recorded,
    shell_blocks,
)
from support.prompt import ENTER, at_terminal, question
from support.serve import http_client, serving
from support.update import (
    ANSWERS,
    FROZEN,
    MARKERS,
    OLD_TEXT,
    OLDER,
    OWN_TEXT,
    RELEASES,
    assert_same,
    conflicts,
    lines,
    merged,
    release_as,
    skip_if_newer,
    start,
    update,
)


@pytest.mark.slow_pairs
def test_older_release_differs_in_every_file(pair, history, fresh, tmp_path):
    """The model of an older release leaves no file out."""
    older = start(history, tmp_path, pair, OLDER)
    names = files(older)
    assert names == files(fresh(pair))
    same, _, _ = filecmp.cmpfiles(older, fresh(pair), names, shallow=False)
    assert sorted(same) == FROZEN


@pytest.mark.slow_pairs
@pytest.mark.parametrize("tag", RELEASES)
def test_untouched_project_becomes_a_new_one(pair, tag, history, fresh, tmp_path):
    skip_if_newer(pair, tag, history)
    project = start(history, tmp_path, pair, tag)
    update(project)
    assert_same(project, fresh(pair))


@pytest.mark.slow
@pytest.mark.parametrize("tag", RELEASES)
def test_edited_project_keeps_every_line(pair, tag, history, aged_project, fresh, tmp_path):
    """After a year of work on both sides: no conflict, no line is lost, and it works.

    What the owner deleted does not come back, and what the owner replaced stays. In all
    other files are the owner's lines and those of the release, each exactly once.
    """
    skip_if_newer(pair, tag, history)
    if tag == OLDER and pair not in FIRST_PAIRS:
        pytest.skip("the pairs of a framework are tested with the real releases")
    untouched, year = aged_project(pair, tag)
    project = shutil.copytree(year, tmp_path / "my-app")
    update(project)
    assert conflicts(project) == set()

    old, new = {*files(untouched)}, {*files(fresh(pair))}
    assert {*files(project)} == {*files(year)} | (new - old)
    assert not any((project / name).exists() for name in DELETED)
    assert (project / ".env").read_text() == (year / ".env").read_text()
    for name in files(year):
        if name in REPLACED or name not in old:
            assert (project / name).read_bytes() == (year / name).read_bytes(), name
        else:
            expected = merged(untouched / name, year / name, fresh(pair) / name)
            assert Counter(lines(project / name)) == expected, name
            assert OLD_TEXT not in (project / name).read_text(), name

    install_packages(project)
    assert re.search(r"\d+ passed in", ok(".venv/bin/pytest", cwd=project))
    port, state = free_port(), tmp_path / "state"
    with (
        serving(project, f"127.0.0.1:{port}", tmp_path / "log", STATE_DIRECTORY=str(state)),
        http_client(port, headers={"Host": ANSWERS["domain"]}) as client,
    ):
        assert "Nobody has written anything yet." in client.get("/").text
        assert publish(client, pair, "News of the day").status_code in (201, 303)
        assert "News of the day" in client.get("/").text
        assert client.get("/hello/").status_code == 404
    assert [path.name for path in state.iterdir()] == ["blog.sqlite"]


@pytest.mark.slow
def test_update_command_of_the_readme(history, fresh, tmp_path):
    """With uvx, and Enter at each question."""
    project = start(history, tmp_path, PAIRS[0], OLDER)
    [block] = shell_blocks(project, "Update from the template")
    *_, command = block.splitlines()
    child = at_terminal("bash", "-c", command, folder=project)
    for name in ASKED:
        child.expect_exact(question(name))
        child.send(ENTER)
    child.expect_exact("The files are updated")
    child.expect(pexpect.EOF)
    assert_same(project, fresh(PAIRS[0]))


@pytest.mark.slow
def test_line_changed_on_both_sides_is_a_visible_conflict(pair, history, tmp_path):
    """In any file: both texts stay, git names the file, and the message says what to do."""
    project = start(history, tmp_path, pair, OLDER)
    names = {*files(project)} - {ANSWERS_FILE, *FROZEN}
    for name in names:
        text = (project / name).read_text(encoding="utf-8")
        (project / name).write_text(text.replace(OLD_TEXT, OWN_TEXT), encoding="utf-8")
    commit(project)
    message = update(project)
    assert conflicts(project) == names
    status = ok("git", "status", cwd=project)
    markers = run("git", "diff", "--check", cwd=project).stdout
    for name in names:
        assert OWN_TEXT in (project / name).read_text(encoding="utf-8")
        assert re.search(
            rf"both (modified|added): +{re.escape(name)}$", status, re.MULTILINE
        ), name
        assert re.search(
            rf"^{re.escape(name)}:\d+: leftover conflict", markers, re.MULTILINE
        ), name
    for hint in ("git status", "both modified", "<<<<<<<", "git diff --check"):
        assert hint in message

    # The owner keeps both, as the message says.
    for name in names:
        kept = [line for line in lines(project / name) if not line.startswith(MARKERS)]
        (project / name).write_text("\n".join(kept) + "\n", encoding="utf-8")
    assert run("git", "diff", "--check", cwd=project).returncode == 0
    commit(project)
    assert conflicts(project) == set()


@pytest.mark.slow
def test_own_file_conflicts_with_a_new_one_of_that_name(tmp_path):
    """A release adds a file that the owner already has: a conflict shows both."""
    template = tmp_path / "template"
    release_as(
        template, "v1.0.0", lambda template: (template / "template/pytest.ini.jinja").unlink()
    )
    release_as(template, "v2.0.0")
    project = start(template, tmp_path / "my-app", PAIRS[0], "v1.0.0")
    (project / "pytest.ini").write_text("[pytest]\naddopts = --quiet\n")
    commit(project)
    update(project)
    assert conflicts(project) == {"pytest.ini"}
    assert {"addopts = --quiet", "filterwarnings ="} <= {*lines(project / "pytest.ini")}


@pytest.mark.slow
@pytest.mark.first_pairs
def test_one_command_resolves_a_conflict_in_the_lock(pair, history, installed, tmp_path):
    """The owner's package is next to one that the template has updated."""
    project = start(history, tmp_path / "my-app", pair, OLDER)
    append(project / "requirements.txt", "markdown~=3.10\n")
    ok("bash", "-euc", lock_command(project), cwd=project)
    commit(project)
    message = update(project)
    assert conflicts(project) == {"requirements.lock"}
    assert "regenerate it" in message

    (project / ".venv").symlink_to(installed.path / ".venv")
    failed = run(".venv/bin/pytest", "tests/test_lock.py", cwd=project).stdout
    command = f"{recorded(lock_command(project))} --upgrade"
    assert f"run {command}" in failed
    ok("bash", "-euc", command, cwd=project)
    commit(project)
    assert conflicts(project) == set()
    ok(".venv/bin/pytest", "tests/test_lock.py", cwd=project)
    locked = (project / "requirements.lock").read_text()
    assert re.search("^markdown==3", locked, re.MULTILINE)
    assert "markupsafe==3.0.2" not in locked
