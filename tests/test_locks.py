"""The locks of each pair: complete, current, installable on every Python and platform."""

import re
import shutil
from pathlib import Path

import pytest
from support.commands import ok, run
from support.project import (
    DATABASES,
    FEW_STACKS,
    PAIRS,
    append,
    edit,
    emit,
    lock_command,
    recorded,
    section,
    shell_blocks,
    template_lock,
)
from test_pythons import MINORS

pytestmark = pytest.mark.slow  # because of many requests to the package index

PLATFORMS = ("linux", "macos", "windows")
LARGEST = [*DATABASES][-1]


def test_lock_is_current(pair, release, tmp_path, request):
    """Locking again changes nothing. With --renew-locks, lock the newest versions.

    First with the database that has all packages: the others need no requests then.
    """
    renew = request.config.getoption("--renew-locks")
    for database in reversed(DATABASES):
        answers = pair._asdict() | {"database": database}
        project = emit(release, tmp_path / database, **answers)
        command = lock_command(project) + (" --upgrade" if renew else "")
        if database != LARGEST:
            command = f"UV_OFFLINE=1 {command} || {command}"
        ok("bash", "-euc", command, cwd=project)
        renewed = (project / "requirements.lock").read_text(encoding="utf-8")
        if renew:
            template_lock(pair, database).write_text(renewed, encoding="utf-8")
        fix = "update it: .venv/bin/pytest tests/test_locks.py --renew-locks"
        assert template_lock(pair, database).read_text(encoding="utf-8") == renewed, fix


@pytest.mark.parametrize("database", DATABASES)
def test_each_package_has_hashes(pair, database):
    lock = template_lock(pair, database).read_text(encoding="utf-8")
    packages = re.findall(r"^[a-z][^ =]*==\S+.*\n((?: .*\n)+)", lock, re.MULTILINE)
    assert len(packages) == len(re.findall(r"^[^ #]", lock, re.MULTILINE)) >= 7
    assert all("--hash=sha256:" in rest for rest in packages)


# The packages of PostgreSQL are those of SQLite and more; they are the same for all pairs.
@pytest.mark.pairs([*PAIRS, FEW_STACKS[-1]])
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("minor", MINORS)
def test_lock_installs_without_a_compiler(pair, project, tmp_path, platform, minor):
    """There is a wheel for each Python on each platform, and the lock has its hash."""
    # fmt: off
    output = ok(
        "uv", "pip", "install", "--dry-run", "--require-hashes", "--only-binary=:all:",
        f"--python-platform={platform}", f"--python-version=3.{minor}",
        f"--target={tmp_path}", "--requirements", project / "requirements.lock",
    )
    # fmt: on
    assert f"+ {'flask' if pair.framework == 'flask' else 'fastapi'}==" in output
    served = platform != "windows" or 'sys_platform != "win32"' not in pair.facts["package"]
    package = pair.facts["package"].split("[")[0].split("~")[0]
    assert (f"+ {package}==" in output) == served


def outdate(project: Path, what: str) -> None:
    """Change the requirements, or the lock, without locking again."""
    lock = project / "requirements.lock"
    if what == "added":
        append(project / "requirements.txt", "Own_Package~=1.0  # ours\n")
    elif what == "raised":
        edit(project / "requirements.txt", "python-dotenv~=1.2", "python-dotenv~=2.0")
    elif what == "removed":
        edit(project / "requirements.txt", "python-dotenv~=1.2  # reads .env\n", "")
    elif what == "unchecked":
        lock.write_text(re.sub(r" \\\n    --hash=\S+", "", lock.read_text()))
    elif what == "conflicted":
        append(lock, "<<<<<<< before updating\n")


@pytest.mark.parametrize(
    ("what", "says"),
    {
        "added": "requirements.lock has no own-package~=1.0; run ",
        "raised": "requirements.lock has no python-dotenv~=2.0; run ",
        "removed": "requirements.lock still has python-dotenv; run ",
        "unchecked": " has none; run ",
        "conflicted": "run ",
    }.items(),
)
def test_own_tests_find_an_outdated_lock(installed, tmp_path, what, says):
    """And name the command that fixes it, which is the README's without --quiet."""
    project = shutil.copytree(installed.path, tmp_path / "my-app", symlinks=True)
    own_pytest = (installed.path / ".venv/bin/pytest", "tests/test_lock.py")
    ok(*own_pytest, cwd=project)
    outdate(project, what)
    failed = run(*own_pytest, cwd=project)
    assert failed.returncode == 1
    assert f"{says}{recorded(lock_command(project))}" in failed.stdout


@pytest.mark.first_pairs
def test_a_package_is_added_as_the_readme_says(installed, tmp_path):
    """Its line in requirements.txt, then the block of the README."""
    project = shutil.copytree(installed.path, tmp_path / "my-app", symlinks=True)
    [line] = re.findall(r"such as `(.+?)`", section(project, "Add a package"))
    [block] = shell_blocks(project, "Add a package")
    append(project / "requirements.txt", f"{line}\n")
    ok("python3", "-m", "venv", "own", cwd=project)
    ok("bash", "-euc", f". own/bin/activate\n{block}", cwd=project)
    name = line.split("~")[0]
    ok("own/bin/python", "-c", f"import {name}", cwd=project)
    ok(installed.path / ".venv/bin/pytest", cwd=project)
