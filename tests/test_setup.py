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
        self.folder = folder
        self.script, self.calls = project / "deploy/setup", folder / "calls"
        self.programs = folder / "programs"
        self.programs.mkdir()
        for name in ("sh", "env", "cat", "grep", "ls", "head", "dirname", "test"):
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


def fedora(project: Path, folder: Path, *missing: str) -> Server:
    """Return a server with dnf in place of apt, and a firewall that is off."""
    server = Server(project, folder, "apt-get", "dpkg", *missing)
    server.write("dnf", NOTE)
    server.write("systemctl", NOTE + '[ "$1 $2" != "cat certbot-renew.timer" ]\n')
    server.write("firewall-cmd", NOTE + '[ "$2" != --state ]\n')
    return server


def with_old_python(server: Server) -> None:
    """Let the server have no suitable Python, as RHEL 9."""
    deploy = shutil.copytree(server.script.parent, server.folder / "deploy")
    (deploy / "system.py").write_text("raise SystemExit('Python is too old')\n")
    server.script = deploy / "setup"


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


def test_dnf_installs_under_its_own_names(project, pair, tmp_path):
    server = fedora(project, tmp_path, "nginx", "ss", "curl", "certbot")
    with_old_python(server)
    done, calls = server.run("--https")
    [call] = [call for call in calls if " install " in call]
    names = {"python3.12", "nginx", "iproute", "curl", "certbot"}
    assert call.startswith("dnf --quiet --assumeyes install ")
    # This machine may have files of PostgreSQL.
    assert {*call.split()[4:]} - {"postgresql-server"} == names
    assert "apt" not in done.stdout


def test_python_is_installed_where_it_is_too_old(project, pair, tmp_path):
    """On Debian by its own name, which includes venv."""
    server = Server(project, tmp_path)
    with_old_python(server)
    _, calls = server.run()
    assert "python3-venv" in installed(calls)


@pytest.mark.pairs(FEW_STACKS[:1])
def test_epel_is_turned_on_where_only_it_has_certbot(project, pair, tmp_path):
    server = fedora(project, tmp_path, "certbot")
    server.write("dnf", NOTE + '[ "$2" != info ]\n')
    done, calls = server.run("--https")
    assert done.returncode == 0, done.stdout
    assert [call for call in calls if call.startswith("dnf")] == [
        "dnf --quiet info certbot",
        "dnf --quiet --assumeyes install epel-release",
        "dnf --quiet --assumeyes install certbot",
    ]


@pytest.mark.pairs(FEW_STACKS[:1])
def test_missing_epel_is_reported_with_where_to_get_it(project, pair, tmp_path):
    server = fedora(project, tmp_path, "certbot")
    server.write("dnf", "#!/bin/sh\necho 'Unable to find a match: epel-release'; exit 1\n")
    done, _ = server.run("--https")
    assert done.returncode == 1
    assert "Unable to find a match: epel-release" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Turn on EPEL, which has certbot: https://")


@pytest.mark.pairs(FEW_STACKS[:1])
@pytest.mark.parametrize("has_timer", [True, False])
def test_what_dnf_installed_is_started(project, pair, tmp_path, has_timer):
    server = fedora(project, tmp_path)
    if has_timer:
        server.write("systemctl", NOTE)
    done, calls = server.run()
    assert (done.returncode, done.stdout) == (0, "")
    assert [call for call in calls if call.endswith(" nginx")] == [
        "systemctl enable --quiet nginx",
        "systemctl start nginx",
    ]
    timer = "systemctl enable --quiet --now certbot-renew.timer"
    assert (timer in calls) == has_timer
    assert not [call for call in calls if call.startswith("dnf")]


@pytest.mark.pairs(FEW_STACKS[:1])
@pytest.mark.parametrize(
    ("runs", "released", "opened"),
    [(True, False, True), (True, True, False), (False, False, False)],
)
def test_firewall_is_opened_before_the_first_release(
    project, pair, tmp_path, runs, released, opened
):
    """Now and after a restart, without a reload: it would drop what is only for now."""
    server = fedora(project, tmp_path)
    server.script = shutil.copytree(project / "deploy", tmp_path / "deploy") / "setup"
    live = tmp_path if released else tmp_path / "missing"
    text = server.script.read_text()
    assert "/opt/my-app " in text
    server.script.write_text(text.replace("/opt/my-app ", f"{live} "))
    server.write("firewall-cmd", NOTE + f"exit {0 if runs else 252}\n")
    done, calls = server.run()
    assert done.returncode == 0, done.stdout
    added = [call for call in calls if "--add-service=" in call]
    services = "--add-service=http --add-service=https"
    both = [f"firewall-cmd --quiet {services}", f"firewall-cmd --quiet --permanent {services}"]
    assert sorted(added) == (both if opened else [])
    assert not any("--reload" in call for call in calls)


def test_databases_of_postgresql_are_created_once_on_fedora(project, pair, tmp_path):
    if pair.database != "postgresql":
        pytest.skip("the project has no PostgreSQL")
    server = fedora(project, tmp_path)
    server.write("postgresql-setup", NOTE)
    _, calls = server.run()
    steps = [call for call in calls if "postgresql-setup" in call or "now postgresql" in call]
    assert steps == ["postgresql-setup --initdb", "systemctl enable --quiet --now postgresql"]


def test_it_is_a_script_for_any_shell(project, pair):
    assert os.access(project / "deploy/setup", os.X_OK)
    ok("sh", "-n", project / "deploy/setup")
