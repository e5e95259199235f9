"""A release with SELinux, and with nginx set up as on Fedora and RHEL, on an emulated machine.

The machine has Debian's policy, so this tests the mechanism: that the rules are installed,
suffice, and are needed. It does not test those distributions.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import commit, skip_or_fail
from support.machine import SERVER
from support.project import PAIRS, emit
from support.virtual import VirtualMachine

pytestmark = pytest.mark.before_release

RELEASE = f"deploy/release root@{SERVER}"
RULES = "my-app-nginx"
LOADED = "Let nginx use the socket, in SELinux"
ROUTES = {
    "/": 200,
    "/hello/": 200,
    "/hello/World": 200,
    "/items/3": 200,
    "/items/x": 404,
    "/static/style.css": 200,
    "/static/favicon.svg": 200,
    "/healthz": 200,
    "/nothing": 404,
}


@pytest.fixture
def project(release: Path, tmp_path: Path) -> Path:
    """A project in git."""
    return commit(emit(release, tmp_path / "my-app", **PAIRS[0]._asdict()), "Start")


@pytest.fixture
def machine(project: Path, tmp_path: Path) -> Iterator[VirtualMachine]:
    if os.getuid():
        skip_or_fail("root")
    folder = tmp_path / "machine"
    folder.mkdir()
    machine = VirtualMachine(folder, project / "requirements.lock", [SERVER, "example.com"])
    yield machine
    machine.stop()


def responses(machine: VirtualMachine) -> dict[str, int]:
    """Return the status of each route, requested from nginx."""
    curl = "curl --silent --output /dev/null --write-out '%{http_code}\\n' http://example.com"
    lines = machine.ok("; ".join(f"{curl}{route}" for route in ROUTES)).split()
    return dict(zip(ROUTES, map(int, lines), strict=True))


def test_nginx_reaches_the_app_with_the_rules_and_only_with_them(machine, project, tmp_path):
    assert machine.ok("getenforce").strip() == "Enforcing"

    without = shutil.copytree(project, tmp_path / "without")
    (without / f"deploy/selinux/{RULES}.cil").unlink()
    commit(without, "Remove the rules")
    refused = machine.from_outside(RELEASE, without)
    assert refused.returncode == 1
    assert "nginx does not serve the site. It answers 502" in refused.stdout
    assert "Permission denied" in refused.stdout
    assert "To see what SELinux refuses: sudo ausearch -m avc -ts recent" in refused.stdout
    assert "Nothing is online yet" in refused.stdout

    done = machine.from_outside(RELEASE, project)
    assert done.returncode == 0, done.stdout
    assert LOADED in done.stdout
    assert responses(machine) == ROUTES

    # What else differs there: the socket's owner, files from a home directory, a limit, and
    # a server of nginx with the name "_".
    assert machine.ok("stat -c %U /run/my-app.sock") == "nginx\n"
    assert "httpd_config_t" in machine.ok("ls -Z /etc/nginx/my-app/site.conf")
    limits = machine.ok("for id in $(pgrep -u nginx nginx); do cat /proc/$id/limits; done")
    assert limits.count("Max open files") == limits.count(" 16384 ") / 2 > 0
    assert "[warn]" not in machine.ok("nginx -t 2>&1")
    machine.ok("systemctl start my-app-backup && ls /var/backups/my-app/*.gz")
    assert "No problems found" in machine.ok("/opt/my-app/deploy/doctor")

    again = machine.from_outside(RELEASE, project)
    assert again.returncode == 0, again.stdout
    assert LOADED not in again.stdout
    assert responses(machine) == ROUTES
