"""The emitted app on each supported version of Python that this machine has."""

import os
import shutil
from pathlib import Path

import pytest
from support.commands import ok, run

MINORS = range(10, 15)


def interpreters() -> dict[int, Path]:
    """Find a working interpreter for each minor version of Python 3 on this machine."""
    found = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in MINORS:
        name = f"python3.{minor}"
        places = [*sorted(pyenv.glob(f"3.{minor}.*/bin")), *os.environ["PATH"].split(":")]
        for place in places:
            path = shutil.which(name, path=str(place))
            if path and run(path, "-c", "").returncode == 0:
                found[minor] = Path(path)
    return found


FOUND = interpreters()


def test_some_python_was_found():
    assert FOUND


@pytest.mark.slow
@pytest.mark.parametrize("minor", MINORS)
def test_own_tests_pass(pair, project, tmp_path, minor):
    """Installed from its lock, as on a server, the project passes its own tests."""
    if minor not in FOUND:
        pytest.skip(f"needs Python 3.{minor}")
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    ok("uv", "venv", "--quiet", "--python", FOUND[minor], cwd=tmp_path)
    install = ("uv", "pip", "install", "--quiet", "--requirements")
    ok(*install, "requirements.lock", "--require-hashes", cwd=tmp_path)
    ok(*install, "requirements-dev.txt", cwd=tmp_path)
    output = ok(".venv/bin/pytest", cwd=tmp_path)
    assert f"Python 3.{minor}." in output
    assert " passed in " in output
