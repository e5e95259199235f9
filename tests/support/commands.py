"""Run commands, find tools and ports, and keep the developer's settings out of the tests."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

# What a developer may have set for apps, or for the environment of the tests.
OWN_SETTINGS = (
    *("APP_ENV", "API_DOCS", "SECRET_KEY", "WEB_CONCURRENCY", "VIRTUAL_ENV"),
    *("DATABASE_URL", "TEST_DATABASE_URL", "STATE_DIRECTORY", "NOTIFY_URL"),
)


def skip_or_fail(what: str) -> NoReturn:
    """Skip the test because `what` is missing; fail it in CI, where everything is installed."""
    if os.environ.get("CI"):
        pytest.fail(f"CI needs {what}: install it in .ci/run", pytrace=False)
    pytest.skip(f"needs {what}")


def tool(name: str, package: str) -> str:
    """Return the path of the command `name`, which the Debian package `package` installs."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    return found or skip_or_fail(f"{name} (apt-get install {package})")


def run(*command: str | Path, **options) -> subprocess.CompletedProcess[str]:
    """Run a command and capture its output; the caller checks its status."""
    options = {"stdin": subprocess.DEVNULL, "timeout": 300} | options
    return subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )


def ok(*command: str | Path, **options) -> str:
    """Run a command that must succeed, and return its output."""
    done = run(*command, **options)
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}"
    return done.stdout


def commit(folder: Path, message: str = "Work") -> Path:
    """Commit everything in a folder to its git repository, created if there is none."""
    if not (folder / ".git").exists():
        ok("git", "init", "--quiet", cwd=folder)
    ok("git", "add", "--all", cwd=folder)
    ok("git", "commit", "--quiet", "--allow-empty", f"--message={message}", cwd=folder)
    return folder


def free_port() -> int:
    """Return a TCP port that nothing uses.

    It is not one of those that the kernel gives to clients (from 32768 on, see ip(7)): a
    connection of another test could take it before the server starts.
    """
    while True:
        port = random.randrange(10_000, 32_768)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("", port))
            return port


def isolate(folder: Path) -> None:
    """Replace the developer's settings of Copier, git and the apps for this process.

    folder: an empty one, for the settings used instead.
    """
    settings = folder / "copier.yml"
    settings.write_text("{}\n")
    # The checkout may belong to another user than the one who runs the tests.
    git = folder / "gitconfig"
    git.write_text("[safe]\n\tdirectory = *\n")
    os.environ |= {
        # The copier, ruff and uv of these tests first, whether or not the venv is active.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COPIER_SETTINGS_PATH": str(settings),
        "GIT_CONFIG_GLOBAL": str(git),
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "Tests",
        "GIT_AUTHOR_EMAIL": "tests@example.com",
        "GIT_COMMITTER_NAME": "Tests",
        "GIT_COMMITTER_EMAIL": "tests@example.com",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    for name in OWN_SETTINGS:
        os.environ.pop(name, None)
