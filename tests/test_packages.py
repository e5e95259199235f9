"""Packages are installed once for all releases that have the same ones."""

import sys
from pathlib import Path

import pytest
from support.commands import ok
from support.project import FEW_STACKS

pytestmark = pytest.mark.pairs(FEW_STACKS[:1])  # the same code for all


@pytest.fixture
def module(deploy_module, tmp_path: Path, monkeypatch):
    """deploy/packages.py as a module, for releases in tmp_path."""
    found = deploy_module("packages")
    monkeypatch.setattr(found, "VERSIONS", tmp_path)
    return found


@pytest.fixture
def install(module, project: Path, tmp_path: Path):
    """Returns a function that makes a release with one package, and returns its packages."""
    lock = (project / "requirements.lock").read_text()
    markupsafe = lock[lock.index("markupsafe==") :].split("\n    # via")[0]

    def install(name: str, more: str = "", python: str = sys.executable) -> Path:
        version = tmp_path / name
        version.mkdir()
        (version / "requirements.lock").write_text(f"{markupsafe}\n{more}")
        packages = module.install_packages(version, python)
        assert (version / ".venv").resolve() == packages
        ok(version / ".venv/bin/python", "-c", "import markupsafe")
        return packages

    return install


def test_packages_are_shared_while_they_are_the_same(install, module, tmp_path, capsys):
    first = install("20260101-000000")
    assert "Install packages" in capsys.readouterr().out
    assert install("20260102-000000") == first
    assert "Install packages" not in capsys.readouterr().out
    other = install("20260103-000000", "# another lock\n")
    assert other != first
    releases = sorted(tmp_path.glob("2026*"))
    for number in range(2):
        module.remove_unused_packages(releases[number:])
        assert first.exists()
    module.remove_unused_packages(releases[2:])
    assert not first.exists()
    assert other.exists()


def test_packages_that_are_not_as_installed_are_not_used_again(install, module, tmp_path):
    """The current release keeps them; the new one gets its own."""
    packages = install("20260101-000000")
    lock, wanted = tmp_path / "20260101-000000/requirements.lock", packages / "installed"
    python = packages / "bin/python"

    def found():
        return module.find_packages(text, lock)

    text = wanted.read_text()
    assert found() == packages
    target = python.readlink()
    python.unlink()
    python.symlink_to("/usr/bin/python3.0")  # as after an update of the system
    assert found() is None
    python.unlink()
    python.symlink_to(target)
    assert found() == packages
    [file] = packages.glob("lib/*/site-packages/markupsafe/__init__.py")
    code = file.read_text()
    for damaged in ("", code + "\n"):
        file.write_text(damaged)
        assert found() is None
    file.write_text(code)
    assert found() == packages
    ok(python, "-m", "pip", "uninstall", "--quiet", "--yes", "markupsafe")
    assert found() is None
    wanted.unlink()  # the installation was killed
    assert found() is None
