"""deploy/release on a real Debian: good versions go online unnoticed, broken ones never."""

import re
import subprocess
import time
from pathlib import Path

import pytest
from conftest import PAIRS, Pair, ok, shell_blocks
from online import Online, domain

pytestmark = pytest.mark.slow

NEXT = "/root/next"  # the owner's copy on the server


def title(text: str) -> str:
    """A command that writes another title into the first page of the project."""
    return f"sed -i 's/<h1>.*<.h1>/<h1>{text}<\\/h1>/' app/templates/home.html"


def prepare(online: Online, site: Pair, change: str = "true") -> None:
    """Put a changed copy of a project into NEXT. `change` runs in its folder."""
    copy = f"rm -rf {NEXT}; git clone -q file:///srv/git/{site}.git {NEXT}; cd {NEXT}"
    online.machine.ok(f"{copy}; SITE={site}; {change}")


def release(online: Online, *options: str) -> subprocess.CompletedProcess[str]:
    return online.machine.run(" ".join([f"{NEXT}/deploy/release", *options]))


def released(online: Online, site: Pair, *options: str) -> str:
    """Release what is in NEXT; it has to succeed."""
    done = release(online, *options)
    assert done.returncode == 0, done.stdout
    return done.stdout


def versions(online: Online, site: Pair) -> list[str]:
    return online.machine.ok(f"ls /opt/{site}.versions").split()


def live(online: Online, site: Pair) -> str:
    """The name of the version that serves."""
    return Path(online.machine.ok(f"readlink /opt/{site}").strip()).name


def nothing_is_left(online: Online, site: Pair) -> None:
    """No trial, no half a version, and what lies in /etc is of the version that serves."""
    machine = online.machine
    assert machine.run(f"ls -d /run/systemd/system/{site}-trial*").returncode == 2
    assert machine.run(f"systemctl is-active {site}-trial.service").stdout != "active\n"
    for version in versions(online, site):
        machine.ok(f"test -f /opt/{site}.versions/{version}/.released")
    machine.ok(f"diff -r /etc/nginx/{site} /opt/{site}/deploy/nginx/{site}")
    for kind in ("service", "socket"):
        unit = f"{site}.{kind}"
        machine.ok(f"diff /etc/systemd/system/{unit} /opt/{site}/deploy/{unit}")


@pytest.mark.usefixtures("by_hand")
def test_release_takes_over_what_was_put_there_by_hand(online, site):
    """And --rollback leads back to it, as often as one likes."""
    prepare(online, site, title("It is released!"))
    with online.load(site, "--fresh", "--calm") as load:
        released(online, site)
    assert load.failed == []
    assert "It is released!" in online.curl(site, "/")
    assert len(versions(online, site)) == 2
    released(online, site, "--rollback")
    assert live(online, site) == "by-hand"
    assert "It is released!" not in online.curl(site, "/")
    nothing_is_left(online, site)
    refused = release(online, "--rollback")
    assert refused.returncode == 1
    assert "There is no earlier version" in refused.stdout


@pytest.mark.usefixtures("by_script")
def test_ten_releases_in_a_row_lose_no_request(online, site):
    with online.load(site, "--fresh", "--calm") as load:
        for number in range(1, 11):
            prepare(online, site, title(f"Version {number}"))
            released(online, site)
            assert f"Version {number}<" in online.curl(site, "/")
    print(f"{site}: {load.sent} sent, {len(load.failed)} lost over 10 releases")
    assert load.sent > 300
    assert load.failed == []
    assert len(versions(online, site)) == 3
    nothing_is_left(online, site)


@pytest.mark.usefixtures("by_script")
def test_rollback_goes_back_one_version_after_the_other(online, site):
    prepare(online, site)
    three = versions(online, site)
    assert live(online, site) == three[2]
    with online.load(site, "--fresh", "--calm") as load:
        released(online, site, "--rollback")
        assert live(online, site) == three[1]
        released(online, site, "--rollback")
        assert live(online, site) == three[0]
    assert load.failed == []
    assert versions(online, site) == three[:1]
    nothing_is_left(online, site)


@pytest.mark.usefixtures("by_script")
def test_static_files_are_sent_as_they_were_compressed(online, site):
    options = ("-H", "Accept-Encoding: gzip", "-o", "/dev/null", "-w", "%{size_download}")
    size = int(online.curl(site, "/static/style.css", *options))
    compressed = f"/opt/{site}/app/static/style.css.gz"
    assert size == int(online.machine.ok(f"stat -c %s {compressed}"))


# What is broken: how, and the cause that the message names.
BROKEN = {
    "syntax error": ("echo 'def (' >> app/routes.py", "SyntaxError: invalid syntax"),
    "missing package": (
        "sed -i '1a import no_such_package' app/routes.py",
        "No module named 'no_such_package'",
    ),
    "package not in the index": (
        "sed -i 's/^markupsafe==.*/markupsafe==0.0.1 \\\\/' requirements.lock",
        "markupsafe==0.0.1",
    ),
    "wrong checksum": (
        "sed -i 's/sha256:..../sha256:0000/' requirements.lock",
        "DO NOT MATCH THE HASHES",
    ),
    "import that raises": ("echo '1 / 0' >> app/routes.py", "ZeroDivisionError"),
    "missing setting": (
        "printf 'import os\\nos.environ[\"API_KEY\"]\\n' >> app/config.py",
        "KeyError: 'API_KEY'",
    ),
    "healthz says 500": (
        'sed -i \'s/return {"status": "ok"}/1 \\/ 0/\' app/routes.py',
        "returned error: 500",
    ),
    "hangs at start": (
        (
            "printf 'import time\\ntime.sleep(600)\\n' >> app/routes.py;"
            " sed -i 's/^TimeoutStopSec=/TimeoutStartSec=3\\n&/' deploy/$SITE.service"
        ),
        "timed out",
    ),
    "bad nginx site": (
        "echo 'nonsense on;' >> deploy/nginx/$SITE/site.conf",
        'unknown directive "nonsense" in /etc/nginx/',
    ),
    "bad unit": (
        "sed -i 's/^ExecStart=.*/ExecStart=/' deploy/$SITE.service",
        "bad unit file setting",
    ),
}


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("what", BROKEN)
def test_broken_version_never_goes_online(online, site, what):
    """The old one serves on, nothing is left behind, and the message names the cause."""
    change, cause = BROKEN[what]
    before = live(online, site), versions(online, site)
    prepare(online, site, change)
    with online.load(site, "--fresh", "--calm") as load:
        done = release(online)
    assert done.returncode == 1, done.stdout
    assert "NOT online" in done.stdout
    assert cause in done.stdout, done.stdout
    assert "README.md" in done.stdout
    assert load.failed == []
    assert (live(online, site), versions(online, site)) == before
    nothing_is_left(online, site)


@pytest.mark.usefixtures("by_hand")
def test_full_disk_never_goes_online(online, site):
    """The versions lie on a disk of which all but 8 MB are used."""
    folder = f"/opt/{site}.versions"
    prepare(online, site)
    before = versions(online, site)
    try:
        online.machine.ok(
            f"mkdir /srv/disk; size=$(( $(du -sm {folder} | cut -f 1) + 8 ));"
            f" mount -t tmpfs -o size=${{size}}m tmpfs /srv/disk; cp -a {folder}/. /srv/disk/;"
            f" mount --bind /srv/disk {folder}"
        )
        with online.load(site, "--fresh", "--calm") as load:
            done = release(online)
        assert done.returncode == 1, done.stdout
        assert "No space left on device" in done.stdout
        assert load.failed == []
        assert versions(online, site) == before
    finally:
        online.machine.run(
            f"umount -l {folder}; umount -l /srv/disk; rmdir /srv/disk; systemctl restart {site}"
        )
    nothing_is_left(online, site)


@pytest.mark.usefixtures("by_script")
@pytest.mark.parametrize(
    ("step", "delay"),
    [
        ("Build", 0),
        ("Install", 1),
        ("Try", 0.5),
        ("Switch", 0),
        ("Switch", 0.3),
        ("Switch", 1),
    ],
)
def test_killed_release_is_mended_by_the_next(online, site, step, delay):
    """Whatever was serving when the power went serves on, and the next run cleans up."""
    prepare(online, site)
    with online.load(site, "--fresh", "--calm") as load:
        command = online.machine.command(f"exec {NEXT}/deploy/release")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if line.startswith(f"-- {step}"):
                    break
            time.sleep(delay)
            online.machine.run(f"pkill -KILL -f {NEXT}/deploy/release")
        time.sleep(1)
        released(online, site)
    assert load.failed == []
    nothing_is_left(online, site)
    assert live(online, site) == versions(online, site)[-1]
    assert not online.machine.path(f"/opt/{site}.versions/switching").exists()


@pytest.mark.usefixtures("by_script")
def test_two_releases_at_once_are_refused(online):
    site = PAIRS[0]
    prepare(online, site)
    command = online.machine.command(f"{NEXT}/deploy/release")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline().startswith("-- Build")
        second = release(online)
        first.stdout.read()
    assert first.returncode == 0
    assert second.returncode == 1
    assert "Another release is under way" in second.stdout


@pytest.mark.usefixtures("by_script")
def test_release_is_for_root_and_from_another_copy(online):
    site = PAIRS[0]
    for command, says in {
        f"setpriv --reuid=nobody /opt/{site}/deploy/release": "sudo deploy/release",
        f"/opt/{site}/deploy/release": "Run it from another copy",
        f"/opt/{site}/deploy/release --help": "--rollback    back to the version before",
    }.items():
        done = online.machine.run(command)
        assert done.returncode == 1
        assert says in done.stdout
    nothing_is_left(online, site)


@pytest.mark.usefixtures("by_script")
def test_release_from_a_laptop_as_the_readme_says(online, site, tmp_path):
    """The README's two commands, with an ssh that leads into the machine."""
    laptop = tmp_path / "laptop"
    ok("git", "clone", "--quiet", online.machine.root / f"srv/git/{site}.git", laptop)
    home = laptop / "app/templates/home.html"
    home.write_text(re.sub("<h1>.*</h1>", "<h1>From afar</h1>", home.read_text()))
    ok("git", "commit", "--quiet", "--all", "--message=Change", cwd=laptop)
    _, block = shell_blocks(online.projects[site], "Ship a change")
    inside = online.machine.command("SCRIPT")
    words = " ".join(f"'{word}'" for word in inside[:-1])
    (tmp_path / "ssh").write_text(
        '#!/bin/bash\n[ "$1" = -t ] && shift\nshift\n' + f'exec {words} "cd /root; $*"\n'
    )
    (tmp_path / "ssh").chmod(0o755)
    with online.load(site, "--fresh", "--calm") as load:
        ok("bash", "-euc", f"PATH={tmp_path}:$PATH\n{block}", cwd=laptop)
    assert load.failed == []
    assert "From afar" in online.curl(site, "/")
    assert domain(site) in online.machine.ok(f"cat /etc/nginx/{site}/site.conf")
