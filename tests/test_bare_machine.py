"""The commands of README.md on a bare Debian: python3, python3-venv, git, an ordinary user."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from support.commands import ok, skip_or_fail, tool
from support.machine import CACHE, certificate_options, pip_folders
from support.project import ASKED, ROOT

pytestmark = pytest.mark.slow

PACKAGES = ["python3", "python3-venv", "git"]
DEBIANS = {"debian-12": "bookworm", "debian-13": "trixie"}
NEWEST = "debian-13"
CHECKOUT = "/home/user/copier-pyweb"


def command(heading: str) -> str:
    """Return the only sh block below a heading of README.md."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = readme.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    [block] = re.findall(r"(?ms)^```sh\n(.*?)^```$", text)
    return block.strip()


def bare_root(release: str) -> Path:
    """Return the path of a minimal root file system, made if it is not in the cache."""
    root = CACHE / f"bare-{release}"
    stamp = CACHE / f"bare-{release}.txt"
    wanted = " ".join(PACKAGES)
    if not (stamp.is_file() and stamp.read_text() == wanted):
        stamp.unlink(missing_ok=True)
        shutil.rmtree(root, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        include = f"--include={','.join(PACKAGES)}"
        ok("debootstrap", "--variant=minbase", include, release, root, timeout=900)
        stamp.write_text(wanted)
    return root


@pytest.fixture
def machine(debian: str, tmp_path: Path) -> Iterator[list[str]]:
    """The words that run a script as an ordinary user on a bare Debian with a checkout."""
    if os.getuid():
        skip_or_fail("root")
    tool("systemd-nspawn", "systemd-container")
    tool("debootstrap", "debootstrap")
    root = tmp_path / "root"
    ok("cp", "--archive", bare_root(DEBIANS[debian]), root)
    for conf in (Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf"):
        if conf.is_file():
            shutil.copy(conf, root / "etc/pip.conf")
    ok("chroot", root, "useradd", "--create-home", "--shell=/bin/bash", "user")
    ok("git", "clone", "--quiet", ROOT, root / CHECKOUT.lstrip("/"))
    ok("chroot", root, "chown", "--recursive", "user:", CHECKOUT)
    # fmt: off
    yield [
        "systemd-nspawn", "--quiet", f"--directory={root}", "--register=no", "--keep-unit",
        "--console=autopipe", "--user=user", f"--chdir={CHECKOUT}", "--resolv-conf=off",
        *certificate_options(), *(f"--bind-ro={path}" for path in pip_folders()),
        "bash", "-euo", "pipefail", "-c",
    ]
    # fmt: on
    shutil.rmtree(root)


@pytest.mark.parametrize("debian", DEBIANS)
def test_commands_of_the_readme_succeed(machine, debian):
    """The first with Enter at each question; the second, on the newest, passes the tests."""
    began = time.monotonic()
    first = pexpect.spawn(
        machine[0], [*machine[1:], command("Start a project")], encoding="utf-8", timeout=300
    )
    for _ in ASKED:
        first.expect_exact("🎤")
        time.sleep(0.5)
        first.send("\r")
    first.expect_exact("is ready")
    first.expect(pexpect.EOF)
    first.close()
    assert first.exitstatus == 0
    emitted = time.monotonic()
    if debian != NEWEST:  # two minutes of tests that have run with its Python already
        return
    output = ok(*machine, command("Test it"), timeout=1800)
    print(f"first command {emitted - began:.0f} s, second {time.monotonic() - emitted:.0f} s")
    print(output[-500:])
    passed, failed = (re.search(rf"(\d+) {word}", output) for word in ("passed", "failed"))
    assert int(passed[1]) > 400
    assert failed is None
