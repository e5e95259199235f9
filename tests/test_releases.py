"""A release is refused if changelog, tags and tests contradict each other."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from releases import Release, commits, main, parse, problems
from support.commands import commit, ok
from support.project import ROOT

FIRST = "# Changes\n\n## 1.0.0 - 2026-01-02\n\nThe first.\n"
SECOND = FIRST.replace("## 1.0.0", "## 1.1.0 - 2026-03-04\n\nMore.\n\n## 1.0.0")


def record(repository: Path, changelog: str) -> str:
    """Commit a changelog, and return the id of the commit."""
    (repository / "CHANGELOG.md").write_text(changelog)
    commit(repository)
    return ok("git", "rev-parse", "HEAD", cwd=repository).strip()


@pytest.fixture(scope="module")
def prepared(isolated, tmp_path_factory) -> Path:
    """One release, tagged; work after it; and the heading of the next."""
    tmp_path = tmp_path_factory.mktemp("repository")
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / ".ci/run").chmod(0o755)
    record(tmp_path, FIRST)
    ok("git", "tag", "v1.0.0", cwd=tmp_path)
    record(tmp_path, FIRST.replace("## 1.0.0", "## Unreleased\n\nMore.\n\n## 1.0.0"))
    record(tmp_path, SECOND)
    return tmp_path


@pytest.fixture
def repository(prepared, tmp_path) -> Path:
    """A copy of the prepared repository that a test may change."""
    return shutil.copytree(prepared, tmp_path / "repository")


def test_own_changelog_is_valid():
    parse((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))


def test_releases_are_read_newest_first():
    assert [str(release.version) for release in parse(SECOND)] == ["1.1.0", "1.0.0"]
    assert parse("# Changes\n\n## Unreleased\n\nNothing yet.\n") == []


@pytest.mark.parametrize(
    ("heading", "says"),
    [
        ("## 1.0 beta - 2026-03-04\n\nMore.", "is not of the form"),
        ("## v1.1.0 - 2026-03-04\n\nMore.", "is not of the form"),
        ("## 1.1.0 - 2026-02-30\n\nMore.", "is not of the form"),
        ("## 1.1.0\n\nMore.", "is not of the form"),
        ("## 1.1.0 - 2026-03-04", "says what changes"),
        ("## 1.0.0 - 2026-03-04\n\nMore.", "is below"),
        ("## 1.1.0 - 2025-03-04\n\nMore.", "is below"),
        ("## 0.9.0 - 2026-03-04\n\nMore.", "is below"),
    ],
)
def test_invalid_heading_is_reported(heading, says):
    with pytest.raises(ValueError, match=says):
        parse(FIRST.replace("## 1.0.0", f"{heading}\n\n## 1.0.0"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("### Before you release\n\n- Do it.\n", None),
        ("### Before the release\n\n- Do it.\n", "is not"),
        ("#### Before you release\n\n- Do it.\n", "is not"),
        ("### Before you release\n\n### More\n\nMore.\n", "says what to do"),
        ("### Before you release\n", "says what to do"),
        ("Write `{{ name }}`.\n", "template tag"),
    ],
)
def test_notes_are_those_that_copier_prints(text, says):
    changelog = FIRST + "\n" + text
    if says is None:
        assert len(parse(changelog)) == 1
    else:
        with pytest.raises(ValueError, match=says):
            parse(changelog)


def test_release_is_the_commit_that_added_its_heading(repository):
    found = {release.tag: commit_id for release, commit_id in commits(repository).items()}
    first = ok("git", "rev-parse", "v1.0.0", cwd=repository).strip()
    second = ok("git", "rev-parse", "HEAD", cwd=repository).strip()
    record(repository, SECOND.replace("# Changes\n", "# Changes\n\n## Unreleased\n\nOn.\n"))
    assert found == {"v1.1.0": second, "v1.0.0": first}
    assert {r.tag: c for r, c in commits(repository).items()} == found


def test_shallow_clone_knows_no_release(repository, tmp_path_factory):
    clone = tmp_path_factory.mktemp("shallow") / "clone"
    ok("git", "clone", "--quiet", "--depth=1", f"file://{repository}", clone)
    assert commits(clone) == {}
    assert "git fetch --unshallow" in problems(clone, "1.1.0")[0]


def test_folder_outside_git_knows_no_release(tmp_path):
    assert commits(tmp_path) == {}


def test_valid_release_is_tagged(repository):
    assert problems(repository, "1.1.0") == []
    main("1.1.0", repository)
    tagged = ok("git", "rev-list", "-1", "v1.1.0", cwd=repository)
    assert tagged == ok("git", "rev-parse", "HEAD", cwd=repository)


def test_nothing_is_released_when_the_tests_fail(repository):
    script = repository / ".ci/run"
    script.write_text("#!/bin/sh\nexit 1\n")
    record(repository, FIRST)
    record(repository, SECOND)
    with pytest.raises(SystemExit, match="the tests fail"):
        main("1.1.0", repository)
    assert ok("git", "tag", cwd=repository) == "v1.0.0\n"


def test_release_runs_the_tests_that_take_too_long_for_each_change(repository):
    script = repository / ".ci/run"
    script.write_text('#!/bin/sh\n[ "$BEFORE_RELEASE" = true ]\n')
    record(repository, FIRST)
    record(repository, SECOND)
    main("1.1.0", repository)
    assert "v1.1.0" in ok("git", "tag", cwd=repository)


def disorder(repository: Path, what: str) -> None:
    """Make one contradiction between changelog, tags and history."""
    if what == "uncommitted":
        (repository / "new").touch()
    elif what == "later commit":
        record(repository, SECOND.replace("More.", "More and more."))
    elif what == "unreleased":
        record(repository, SECOND.replace("## 1.1.0", "## Unreleased\n\nOn.\n\n## 1.1.0"))
    elif what == "no heading":
        record(repository, FIRST)
    elif what == "wrong order":
        record(repository, SECOND.replace("1.1.0", "0.1.0"))
    elif what == "tag missing":
        ok("git", "tag", "--delete", "v1.0.0", cwd=repository)
    elif what == "tag moved":
        ok("git", "tag", "--force", "v1.0.0", "HEAD", cwd=repository)
    elif what == "tag unknown":
        ok("git", "tag", "v0.5.0", cwd=repository)
    elif what == "tag taken":
        ok("git", "tag", "v1.1.0", cwd=repository)


@pytest.mark.parametrize(
    ("what", "says"),
    {
        "uncommitted": "git status",
        "later commit": "remove it, commit, add it again",
        "unreleased": 'put "## 1.1.0 - ',
        "no heading": 'put "## 1.1.0 - ',
        "wrong order": "is below the older",
        "tag missing": "v1.0.0 has no tag: git tag v1.0.0 ",
        "tag moved": "v1.0.0 tags ",
        "tag unknown": "v0.5.0 is a tag without a heading",
        "tag taken": "v1.1.0 is already released",
    }.items(),
)
def test_contradiction_is_refused_with_a_fix(repository, what, says):
    disorder(repository, what)
    tags = ok("git", "tag", cwd=repository)
    with pytest.raises(SystemExit) as refused:
        main("1.1.0", repository)
    assert says in str(refused.value)
    assert ok("git", "tag", cwd=repository) == tags


def test_command_requires_a_version():
    done = subprocess.run(
        [sys.executable, ROOT / "tests/releases.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "usage: " in done.stderr


def test_heading_is_written_as_it_is_read():
    [release] = parse(FIRST)
    assert isinstance(release, Release)
    assert f"{release.heading}\n" in FIRST
