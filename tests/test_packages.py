"""deploy/release installs packages once for all releases that have the same ones."""

import importlib.util
import shutil
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
from support.commands import ok
from support.project import FEW_STACKS

pytestmark = pytest.mark.pairs(FEW_STACKS[:1])  # the same code for all
MODULES = ("assets", "https", "remote", "server", "tls", "trial")


@pytest.fixture
def script(project: Path, tmp_path: Path, monkeypatch):
    """deploy/release as a module, whose releases are in tmp_path."""
    monkeypatch.syspath_prepend(str(project / "deploy"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("release", str(project / "deploy/release"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("release", loader))
    loader.exec_module(module)
    monkeypatch.setattr(module, "VERSIONS", tmp_path)
    yield module
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def install(script, project: Path, tmp_path: Path):
    """Returns a function that makes a release with one package, and returns its packages."""
    lock = (project / "requirements.lock").read_text()
    markupsafe = lock[lock.index("markupsafe==") :].split("\n    # via")[0]

    def install(name: str, more: str = "", python: str = sys.executable) -> Path:
        version = tmp_path / name
        version.mkdir()
        (version / "requirements.lock").write_text(f"{markupsafe}\n{more}")
        packages = script.install_packages(version, python)
        (version / ".released").touch()
        assert (version / ".venv").resolve() == packages
        ok(version / ".venv/bin/python", "-c", "import markupsafe")
        return packages

    return install


def test_packages_are_shared_while_they_are_the_same(install, script, tmp_path, capsys):
    first = install("20260101-000000")
    assert "Install packages" in capsys.readouterr().out
    assert install("20260102-000000") == first
    assert "Install packages" not in capsys.readouterr().out
    other = install("20260103-000000", "# another lock\n")
    assert other != first
    for name in ("20260101-000000", "20260102-000000"):
        script.remove_unused_packages()
        assert first.exists()
        shutil.rmtree(tmp_path / name)
    script.remove_unused_packages()
    assert not first.exists()
    assert other.exists()


def test_packages_that_are_not_as_installed_are_not_used_again(install, script, tmp_path):
    """The current release keeps them; the new one gets its own."""
    packages = install("20260101-000000")
    lock, wanted = tmp_path / "20260101-000000/requirements.lock", packages / "installed"
    python = packages / "bin/python"

    def found():
        return script.find_packages(text, lock)

    text = wanted.read_text()
    assert found() == packages
    target = python.readlink()
    python.unlink()
    python.symlink_to("/usr/bin/python3.0")  # as after an update of the system
    assert found() is None
    python.unlink()
    python.symlink_to(target)
    assert found() == packages
    ok(python, "-m", "pip", "uninstall", "--quiet", "--yes", "markupsafe")
    assert found() is None
    wanted.unlink()  # the installation was killed
    assert found() is None
