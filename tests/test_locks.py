"""The lock of each pair: complete, current, and good for every Python and platform."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, Pair, ok, shell_blocks
from test_pythons import MINORS

pytestmark = pytest.mark.slow  # because of many questions to the package index

PLATFORMS = ("linux", "macos", "windows")


def lock_command(project: Path) -> str:
    """The command of the README that renews the lock."""
    readme = (project / "README.md").read_text(encoding="utf-8")
    [block] = shell_blocks(readme, "Add a package")
    [command] = [line for line in block.splitlines() if line.startswith("uv pip compile")]
    return command


def template_lock(pair: Pair) -> Path:
    """Where the template keeps the lock of a pair."""
    return ROOT / f"template/{{% if pair == '{pair}' %}}requirements.lock{{% endif %}}"


def test_lock_is_current(pair, project, tmp_path, request):
    """Locking again changes nothing. With --renew-locks, the newest versions are locked."""
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    renew = request.config.getoption("--renew-locks")
    command = lock_command(tmp_path) + (" --upgrade" if renew else "")
    ok("bash", "-euc", command, cwd=tmp_path)
    renewed = (tmp_path / "requirements.lock").read_text(encoding="utf-8")
    if renew:
        template_lock(pair).write_text(renewed, encoding="utf-8")
        return
    remedy = "renew it: .venv/bin/pytest tests/test_locks.py --renew-locks"
    assert template_lock(pair).read_text(encoding="utf-8") == renewed, remedy


def test_each_package_has_checksums(project):
    lock = (project / "requirements.lock").read_text(encoding="utf-8")
    packages = re.findall(r"^[a-z][^ =]*==\S+.*\n((?: .*\n)+)", lock, re.MULTILINE)
    assert len(packages) == len(re.findall(r"^[^ #]", lock, re.MULTILINE)) >= 7
    assert all("--hash=sha256:" in rest for rest in packages)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("minor", MINORS)
def test_lock_installs_without_a_compiler(pair, project, tmp_path, platform, minor):
    """There is a wheel for each Python on each platform, and the lock has its checksum."""
    # fmt: off
    output = ok(
        "uv", "pip", "install", "--dry-run", "--require-hashes", "--only-binary=:all:",
        f"--python-platform={platform}", f"--python-version=3.{minor}",
        f"--target={tmp_path}", "--requirements", project / "requirements.lock",
    )
    # fmt: on
    assert f"+ {'flask' if pair.framework == 'flask' else 'fastapi'}==" in output
    served = pair.server != "uwsgi" or platform != "windows"
    package = pair.facts["package"].split("[")[0].split("~")[0]
    assert (f"+ {package}==" in output) == served
