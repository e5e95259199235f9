"""What Copier refuses to update, or leaves to the owner, and what the README says of it."""

import os
import re
import shutil

import pytest
from support.commands import commit, ok, run
from support.owner import LOGO
from support.project import ANSWERS_FILE, PAIRS, Pair, append, edit, emit, read, section
from support.update import (
    LATEST,
    OLD_TEXT,
    OLDER,
    OWN_TEXT,
    conflicts,
    contents,
    make_older,
    release_as,
    start,
    update,
)

MESSAGES = "Messages of `copier update`"
RESTORE = (
    f"commit=$(git log --oneline -- {ANSWERS_FILE} | tail -n 1 | cut -d ' ' -f 1)\n"
    f"git restore --source $commit {ANSWERS_FILE}\ngit add . && git commit -qm 'Restore the answers'"
)


REFUSED = {
    "no git": (
        "rm -rf .git",
        "only supported in git-tracked subprojects",
        'git init && git add . && git commit -m "Start the project"',
    ),
    "dirty": (
        "echo own >> README.md",
        "Destination repository is dirty",
        'git add . && git commit -m "Save my work"',
    ),
    "answers deleted": (
        f"git rm -q {ANSWERS_FILE} && git commit -qm x",
        "Template not found",
        RESTORE,
    ),
    "answers not YAML": (
        f"sed -i 's/flask/\"flask/' {ANSWERS_FILE} && git commit -qam x",
        "ScannerError",
        RESTORE,
    ),
    "answers out of range": (
        f"sed -i 's/server: .*/server: apache/' {ANSWERS_FILE} && git commit -qam x",
        "Invalid choice",
        RESTORE,
    ),
    "answers without release": (
        f"sed -i /_commit/d {ANSWERS_FILE} && git commit -qam x",
        "cannot obtain old template references",
        RESTORE,
    ),
    "template moved": (
        f"sed -i 's#_src_path: #_src_path: /moved#' {ANSWERS_FILE} && git commit -qam x",
        "Local template must be a directory",
        f"sed -i 's#_src_path: /moved#_src_path: #' {ANSWERS_FILE} && git commit -qam y",
    ),
}


# What the README says where an owner has to fill something in.
HINTS = {
    name: "`git restore --source COMMIT .copier-answers.yml`"
    for name, (_, _, remedy) in REFUSED.items()
    if remedy == RESTORE
} | {"template moved": "Set `_src_path` in `.copier-answers.yml` to its new location"}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_refusal_changes_nothing_and_the_readme_fixes_it(case, history, tmp_path):
    project = start(history, tmp_path, PAIRS[0], OLDER)
    done, says, remedy = REFUSED[case]
    ok("bash", "-euc", done, cwd=project)
    before = contents(project)
    refused = run("copier", "update", "--defaults", cwd=project)
    assert refused.returncode == 1
    assert says in refused.stdout
    assert contents(project) == before
    messages = section(project, MESSAGES)
    assert says in messages
    assert HINTS.get(case, remedy) in messages
    ok("bash", "-euc", remedy, cwd=project)
    update(project)
    assert LATEST in (project / ANSWERS_FILE).read_text()


@pytest.mark.slow
def test_downgrade_is_refused_and_git_revert_works(history, tmp_path):
    project = start(history, tmp_path, PAIRS[0], OLDER)
    before = ok("git", "rev-parse", "HEAD^{tree}", cwd=project)
    update(project)
    commit(project)
    refused = run("copier", "update", "--defaults", f"--vcs-ref={OLDER}", cwd=project)
    assert refused.returncode == 1
    assert "Downgrades are not supported" in refused.stdout
    assert not ok("git", "status", "--porcelain", cwd=project)
    assert "`git revert`" in section(project, MESSAGES)
    ok("git", "revert", "--no-edit", "HEAD", cwd=project)
    assert ok("git", "rev-parse", "HEAD^{tree}", cwd=project) == before
    update(project)


@pytest.mark.slow
def test_answer_edited_by_hand_changes_no_file(history, tmp_path):
    """Copier takes the edited answer for the old one. The README says what to do instead."""
    project = start(history, tmp_path, PAIRS[0], LATEST)
    edit(project / ANSWERS_FILE, "domain: www.example.org", "domain: new.example.org")
    commit(project)
    update(project)
    assert not ok("git", "status", "--porcelain", cwd=project)
    assert "Website www.example.org" in (project / "deploy/my-app.service").read_text()
    assert "not here" in (project / ANSWERS_FILE).read_text()

    edit(project / ANSWERS_FILE, "domain: new.example.org", "domain: www.example.org")
    commit(project)
    update(project, domain="new.example.org")
    assert "Website new.example.org" in (project / "deploy/my-app.service").read_text()


def test_update_can_be_undone(history, tmp_path):
    """With the commands of the message: conflicts, new and deleted files, and a .env."""
    project = start(history, tmp_path, Pair("flask", "waitress"), OLDER)
    edit(project / "pytest.ini", OLD_TEXT, OWN_TEXT)
    (project / "app/static/logo.png").write_bytes(LOGO)
    commit(project)
    (project / ".env").write_text("SECRET_KEY=own\n")
    before = contents(project)
    message = update(project, framework="fastapi", server="uvicorn")
    assert conflicts(project)
    commands = re.findall(r"  (git (?:reset|clean) .+)", message)
    assert commands == ["git reset --hard", "git clean -df"]
    assert " && ".join(commands) in section(project, MESSAGES)
    ok("bash", "-euc", "\n".join(commands), cwd=project)
    assert contents(project) == before
    assert not ok("git", "status", "--porcelain", cwd=project)


@pytest.mark.slow
def test_update_that_fails_halfway_can_be_undone(tmp_path):
    """Copier stops in the middle, and the same commands undo it."""
    template = tmp_path / "template"
    release_as(template, "v1.0.0", make_older)
    release_as(
        template,
        "v2.0.0",
        lambda template: append(template / "template/.env.example.jinja", "{{ nonsense }}\n"),
    )
    project = start(template, tmp_path / "my-app", PAIRS[0], "v1.0.0")
    before = contents(project)
    failed = run("copier", "update", "--defaults", cwd=project)
    assert failed.returncode != 0
    assert "'nonsense' is undefined" in failed.stdout
    ok("bash", "-euc", "git reset --hard && git clean -df", cwd=project)
    assert contents(project) == before


@pytest.mark.slow
def test_relative_source_is_recorded_as_an_absolute_path(history, tmp_path):
    """Otherwise an update from another folder would not find the template."""
    ok("copier", "copy", "--defaults", f"--vcs-ref={OLDER}", os.path.relpath(history, tmp_path),
       "my-app", cwd=tmp_path)  # fmt: skip
    project = tmp_path / "my-app"
    commit(project)
    update(project)
    assert f"_src_path: {history}\n" in (project / ANSWERS_FILE).read_text()


def test_url_of_the_template_is_recorded_as_it_is(history, tmp_path):
    source = f"git+file://{history}"
    emit(source, tmp_path / "my-app")
    assert f"_src_path: {source}\n" in (tmp_path / "my-app" / ANSWERS_FILE).read_text()


@pytest.mark.slow
def test_copy_of_an_uncommitted_template_cannot_be_updated(history, tmp_path):
    """Such a copy names a commit that does not exist; the template's README warns of it."""
    template = shutil.copytree(history, tmp_path / "template")
    append(template / "template/README.md.jinja", "Not committed.\n")
    project = tmp_path / "my-app"
    ok("copier", "copy", "--defaults", "--vcs-ref=HEAD", template, project)
    commit(project)
    assert run("copier", "update", "--defaults", cwd=project).returncode != 0
    assert not ok("git", "status", "--porcelain", cwd=project)
    assert "Commit before you try a change" in read("CONTRIBUTING.md")
