"""What the scripts of deploy/ do on a server, with an ssh that runs commands in a folder here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import commit, ok, run
from support.project import FEW_STACKS

pytestmark = pytest.mark.pairs(FEW_STACKS[:1])  # the same code for all

# ssh passes its last argument to a shell in the home directory of the server.
SSH = """#!/bin/bash
echo "$*" >> {folder}/commands
cd {folder}/home
{fault}
exec sh -c "${{@: -1}}"
"""
# In place of the scripts on the server, which need a real one.
PRINT = '#!/bin/sh\necho "$(pwd)" "$0" "$@"\n'
SERVER = "root@server.example.com"
CALL = "import remote, sys; sys.exit(remote.on_server(*sys.argv[1:]))"


class Laptop:
    """A project with a first commit, and a server with a home directory.

    project: what is committed has scripts that only print how they are called.
    home: the home directory on the server.
    """

    def __init__(self, project: Path, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        (folder / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
        (folder / "sudo").chmod(0o755)
        self.project = Path(shutil.copytree(project, folder / "my-app"))
        for name in ("setup", "release", "doctor", "backup"):
            (self.project / "deploy" / name).write_text(PRINT)
        commit(self.project, "First")

    def call(self, *arguments: str, fault: str = "") -> subprocess.CompletedProcess[str]:
        """Run a script on the server. fault: what happens on the way."""
        (self.folder / "ssh").write_text(SSH.format(folder=self.folder, fault=fault))
        (self.folder / "ssh").chmod(0o755)
        path = f"{self.folder}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        command = (sys.executable, "-c", CALL, *arguments)
        return run(*command, cwd=self.project / "deploy", env=environment)


@pytest.fixture
def laptop(project: Path, tmp_path: Path) -> Laptop:
    return Laptop(project, tmp_path)


def test_release_is_sent_set_up_and_run(laptop):
    """Each with the options that it was given."""
    done = laptop.call("release", SERVER, "--https")
    assert done.returncode == 0, done.stdout
    there = laptop.home / "my-app.upload"
    assert done.stdout.splitlines()[1:] == [
        f"{there}/deploy ./setup --https",
        f"{there}/deploy ./release --https",
    ]
    assert done.stdout.startswith("-- Send ")
    assert done.stdout.splitlines()[0].endswith(" First")
    assert (there / "app/main.py").read_text() == (laptop.project / "app/main.py").read_text()
    assert SERVER in (laptop.folder / "commands").read_text()


def test_only_what_is_committed_is_sent(laptop):
    (laptop.project / "app/main.py").write_text("broken")
    (laptop.project / "new.txt").write_text("new")
    done = laptop.call("release", SERVER)
    assert "Not committed, so not sent:\n M app/main.py\n?? new.txt\n" in done.stdout
    assert (laptop.home / "my-app.upload/app/main.py").read_text() != "broken"
    assert not (laptop.home / "my-app.upload/new.txt").exists()


def test_project_from_windows_is_released(laptop):
    """There, git does not mark scripts as executable."""
    for path in (laptop.project / "deploy").iterdir():
        if path.is_file():
            path.chmod(0o644)
    commit(laptop.project, "Second")
    assert laptop.call("release", SERVER).returncode == 0
    sent = laptop.home / "my-app.upload/deploy"
    modes = {
        path.name: path.stat().st_mode & 0o111 for path in sent.iterdir() if path.is_file()
    }
    assert {name for name, mode in modes.items() if mode} == {
        name for name in modes if "." not in name
    }


def test_deleted_files_are_deleted_on_the_server(laptop):
    laptop.call("release", SERVER)
    (laptop.project / "app/static/style.css").unlink()
    commit(laptop.project, "Second")
    laptop.call("release", SERVER)
    assert not (laptop.home / "my-app.upload/app/static/style.css").exists()
    assert [path.name for path in laptop.home.iterdir()] == ["my-app.upload"]


@pytest.mark.parametrize("size", [0, 1, 1000, 10240])
def test_what_arrives_in_part_is_not_used(laptop, size):
    """The connection is lost in the middle: what was sent before stays, and nothing runs."""
    laptop.call("release", SERVER)
    before = (laptop.home / "my-app.upload/app/main.py").read_text()
    (laptop.project / "app/main.py").write_text("later")
    commit(laptop.project, "Second")
    done = laptop.call("release", SERVER, fault=f"exec < <(head --bytes {size})")
    assert done.returncode == 1
    assert "did not get the files. Run the same command again." in done.stdout
    assert "./release" not in done.stdout
    assert (laptop.home / "my-app.upload/app/main.py").read_text() == before
    assert laptop.call("release", SERVER).returncode == 0
    assert (laptop.home / "my-app.upload/app/main.py").read_text() == "later"


def test_rollback_sends_nothing(laptop):
    laptop.call("release", SERVER)
    (laptop.project / "app/main.py").write_text("later")
    commit(laptop.project, "Second")
    done = laptop.call("release", SERVER, "--rollback")
    assert done.stdout == f"{laptop.home}/my-app.upload/deploy ./release --rollback\n"
    assert (laptop.home / "my-app.upload/app/main.py").read_text() != "later"


@pytest.mark.parametrize("script", ["doctor", "backup"])
def test_other_scripts_run_there(laptop, project, script):
    """The script itself, as emitted, with its options, and words that a shell would read."""
    laptop.call("release", SERVER)
    options = ["--restore", "a b'$(id)"] if script == "backup" else []
    shutil.copy(project / "deploy" / script, laptop.project / "deploy")
    command = [sys.executable, "-B", script, SERVER, *options]
    environment = os.environ | {"PATH": f"{laptop.folder}:{os.environ['PATH']}"}
    output = ok(*command, cwd=laptop.project / "deploy", env=environment)
    words = " ".join([f"{laptop.home}/my-app.upload/deploy ./{script}", *options])
    assert output == f"{words}\n"


@pytest.mark.parametrize(
    ("status", "says"), [(255, "was disconnected. Run the same command"), (7, "")]
)
def test_status_of_the_script_is_returned(laptop, status, says):
    """Or 1 if the connection is lost, with what to do."""
    (laptop.project / "deploy/release").write_text(f"#!/bin/sh\nexit {status}\n")
    commit(laptop.project, "Second")
    done = laptop.call("release", SERVER)
    assert done.returncode == (1 if status == 255 else status)
    assert says in done.stdout


def test_project_without_a_commit_is_refused(laptop):
    shutil.rmtree(laptop.project / ".git")
    done = laptop.call("release", SERVER)
    assert done.returncode == 1
    assert "not a git repository" in done.stdout
    assert 'see "Keep it in git" in README.md' in done.stdout
    assert list(laptop.home.iterdir()) == []
