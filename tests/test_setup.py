"""What deploy/setup installs, with programs in place of those of Debian that note their call."""

import os
import shutil
from pathlib import Path

import pytest
from support.commands import ok, run
from support.project import FEW_STACKS

pytestmark = pytest.mark.pairs(FEW_STACKS)

NOTE = '#!/bin/sh\necho "${0##*/} $*" >> "$CALLS"\n'
# What dpkg and apt-get say while another program installs packages.
LOCKED = [
    ("dpkg", "dpkg: error: dpkg frontend lock was locked by another process with pid 7"),
    ("apt-get", "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7"),
    ("apt-get", "E: Unable to acquire the lock, is another process using it?"),
]


class Server:
    """A PATH with only the programs that setup calls. missing: those that are not there yet."""

    def __init__(self, project: Path, folder: Path, *missing: str) -> None:
        self.script, self.calls = project / "deploy/setup", folder / "calls"
        self.programs = folder / "programs"
        self.programs.mkdir()
        for name in ("sh", "env", "cat", "grep", "ls", "head"):
            (self.programs / name).symlink_to(shutil.which(name))
        for name in {
            *("apt-get", "dpkg", "sed", "systemctl", "sleep", "runuser"),
            *("nginx", "curl", "openssl", "ss", "certbot", "psql"),
        } - {*missing}:
            self.write(name, NOTE)

    def write(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def run(self, *options: str):
        environment = {"PATH": str(self.programs), "CALLS": str(self.calls)}
        done = run("/bin/sh", self.script, *options, env=environment)
        return done, self.calls.read_text().splitlines() if self.calls.exists() else []


def installed(calls: list[str]) -> set[str]:
    """Return the packages of the last call of apt-get."""
    words = [call for call in calls if call.startswith("apt-get")][-1].split()
    return {word for word in words[3:] if not word.startswith(("-", "Dpkg::"))}


def test_what_is_missing_is_installed(project, pair, tmp_path):
    server = Server(project, tmp_path, "nginx", "ss", "certbot")
    done, calls = server.run("--https")
    assert done.returncode == 127 or "nginx" in done.stdout  # there is none after it, either
    found = installed(calls)
    assert {"nginx", "iproute2", "certbot"} <= found
    assert not {"curl", "openssl"} & found
    assert ("libnss-systemd" in found or "postgresql" in found) <= (
        pair.database == "postgresql"
    )


def test_nothing_is_installed_twice(project, pair, tmp_path):
    if pair.database == "postgresql":
        pytest.skip("looks for files of PostgreSQL on this machine")
    server = Server(project, tmp_path)
    done, calls = server.run("--https")
    assert done.returncode == 0, done.stdout
    assert done.stdout == ""
    assert [call for call in calls if not call.startswith("dpkg --audit")] == []


def test_certbot_is_only_for_https(project, pair, tmp_path):
    _, calls = Server(project, tmp_path, "curl", "certbot").run()
    assert "certbot" not in installed(calls)


@pytest.mark.parametrize(("program", "says"), LOCKED)
def test_other_installation_is_waited_for(project, pair, tmp_path, program, says):
    """Then each command is run once more."""
    server = Server(project, tmp_path, "curl")
    locked = (
        f'[ -e "$CALLS.{program}" ] || {{ : > "$CALLS.{program}"; echo "{says}"; exit 2; }}\n'
    )
    audit = '[ "$1" != --audit ] || exit 0\n' if program == "dpkg" else ""
    server.write(program, f"#!/bin/sh\n{audit}{locked}{NOTE.partition(chr(10))[2]}")
    done, calls = server.run()
    waits = "Wait until the other installation of packages has finished"
    # The configuration of what was interrupted may fail; its output is not shown.
    assert done.stdout.count(waits) == 1
    assert "sleep 10" in calls
    assert "curl" in installed(calls)


def test_interrupted_installation_is_completed(project, pair, tmp_path):
    server = Server(project, tmp_path)
    server.write("dpkg", '#!/bin/sh\n[ "$1" = --audit ] && echo nginx\n' + NOTE[10:])
    _, calls = server.run()
    assert any(call.endswith("--configure -a") for call in calls)
    assert any(call.endswith("--fix-broken") for call in calls)


def test_reason_of_a_failure_is_shown(project, pair, tmp_path):
    server = Server(project, tmp_path, "curl")
    server.write("apt-get", '#!/bin/sh\necho "E: Unable to locate package curl"\nexit 100\n')
    done, _ = server.run()
    assert done.returncode != 0
    assert "E: Unable to locate package curl" in done.stdout


def test_packages_are_named_without_apt(project, pair, tmp_path):
    server = Server(project, tmp_path, "curl", "apt-get", "dpkg")
    done, _ = server.run()
    assert done.returncode != 0
    assert "Install these packages, then run this again:" in done.stdout
    assert " curl" in done.stdout


def test_it_is_a_script_for_any_shell(project, pair):
    assert os.access(project / "deploy/setup", os.X_OK)
    ok("sh", "-n", project / "deploy/setup")
