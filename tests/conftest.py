"""Fixtures: the template as a release, projects emitted from it, and these at work.

A test that names `pair` runs once for each row of the table in copier.yml. The
projects of a pair are made once in a run: the tests of a pair share a process.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
import yaml
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
LANGUAGES = list(QUESTIONS["language"]["choices"].values())
OTHERS = [language for language in LANGUAGES if language != "en"]


class Pair(NamedTuple):
    """A framework and a server that runs it, as their answers are written."""

    framework: str
    server: str

    @property
    def facts(self) -> dict:
        """The server's row of the table in copier.yml."""
        frameworks = QUESTIONS["frameworks"]["default"]
        return frameworks[self.framework]["servers"][self.server]

    def __str__(self) -> str:
        return f"{self.framework}-{self.server}"


PAIRS = [
    Pair(framework, server)
    for framework, facts in QUESTIONS["frameworks"]["default"].items()
    for server in facts["servers"]
]


# The Debian releases on which sites are put online, by their code names: 12 and 13.
MACHINES = ["bookworm", "trixie"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--renew-locks", action="store_true", help="write newer locks into template/"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    wanted = os.environ.get("CI") or item.config.getoption("--renew-locks")
    if item.get_closest_marker("slow") and not wanted:
        pytest.skip("takes minutes: runs with CI=true in the environment")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "pair" in metafunc.fixturenames:
        metafunc.parametrize("pair", PAIRS, ids=str, scope="session")


class Scheduling(LoadScopeScheduling):
    """Keeps tests in one process that share what takes long: a pair, a machine."""

    def _split_scope(self, nodeid: str) -> str:
        """The machine, or else the pair, that a test's id names."""
        return next((name for name in [*MACHINES, *map(str, PAIRS)] if name in nodeid), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log) -> Scheduling:
    return Scheduling(config, log)


def lacking(what: str) -> NoReturn:
    """Skip the test for want of `what`; under CI, where nothing may be wanting, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {what}: let .ci/run install it", pytrace=False)
    pytest.skip(f"needs {what}")


def tool(name: str, package: str) -> str:
    """The path of the command `name`, which comes with the Debian package `package`."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    return found or lacking(f"{name} (apt-get install {package})")


def run(*command: str | Path, **options) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and catch what it prints; its status is the caller's."""
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
    """Run a command that must succeed, and give what it printed."""
    done = run(*command, **options)
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}"
    return done.stdout


def commit(folder: Path, message: str) -> None:
    """Commit all that a folder has to its git repository, which is made if there is none."""
    ok("git", "init", "--quiet", cwd=folder)
    ok("git", "add", "--all", cwd=folder)
    ok("git", "commit", "--quiet", f"--message={message}", cwd=folder)


def free_port() -> int:
    """A TCP port of this machine on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def isolate(folder: Path) -> None:
    """Keep the developer's own settings of Copier, git and the apps out of this process.

    folder: an empty one, for settings that stand in for them.
    """
    settings = folder / "copier.yml"
    settings.write_text("{}\n")
    # The checkout may belong to another user than the one who tests it.
    git = settings.with_name("gitconfig")
    git.write_text("[safe]\n\tdirectory = *\n")
    os.environ |= {
        # copier, ruff and uv of these tests first, whether or not the venv is active
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
    for name in ("APP_ENV", "API_DOCS", "SECRET_KEY", "WEB_CONCURRENCY", "VIRTUAL_ENV"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tests' own settings in place of the developer's."""
    isolate(tmp_path_factory.mktemp("settings"))


def copy_template(path: Path) -> Path:
    """Put what Copier needs of this working tree into a folder, in place of what is there."""
    path.mkdir(exist_ok=True)
    shutil.copy(ROOT / "copier.yml", path)
    for name in ("template", "texts"):
        shutil.rmtree(path / name, ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, path / name, ignore=ignored)
    return path


def make_release(path: Path) -> Path:
    """The template of this working tree as a git repository with a tagged release."""
    copy_template(path)
    commit(path, "Release")
    ok("git", "tag", "v1.0.0", cwd=path)
    return path


@pytest.fixture(scope="session")
def release(isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as `make_release` makes it. Not to be changed by a test."""
    return make_release(tmp_path_factory.mktemp("release"))


def data(answers: dict[str, str]) -> list[str]:
    """Answers as options of copier."""
    return [f"--data={name}={value}" for name, value in answers.items()]


def emit(release: Path, path: Path, *options: str, **answers: str) -> Path:
    """Emit a project into `path` as a user does, on the command line without --trust.

    answers: those that are not the defaults.
    """
    ok("copier", "copy", "--quiet", "--defaults", *options, *data(answers), release, path)
    return path


@pytest.fixture(scope="session")
def project(pair: Pair, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of the pair, as it is emitted. Not to be changed by a test."""
    return emit(release, tmp_path_factory.mktemp(str(pair)) / "my-app", **pair._asdict())


# The sections of an emitted README. Other languages have them in the same order.
SECTIONS = [
    "Run it here",
    "Change something",
    "Add a package",
    "What is where",
    "Keep it in git",
    "Put it online",
    "Ship a change",
    "The same by hand",
    "Adjust the server",
    "When it goes wrong",
    "Take in fixes of the template",
    "Learn more",
]


def section(project: Path, heading: str) -> str:
    """What stands in the README below a heading of SECTIONS, in the README's own language."""
    text = (project / "README.md").read_text(encoding="utf-8")
    sections = re.split(r"^## .+\n", text, flags=re.MULTILINE)[1:]
    return sections[SECTIONS.index(heading)]


def shell_blocks(project: Path, heading: str) -> list[str]:
    """The ```sh blocks below a heading of the README, without their fences."""
    return re.findall(
        r"^```sh\n(.*?)^```$", section(project, heading), re.MULTILINE | re.DOTALL
    )


class Installed(NamedTuple):
    """A project in which the README's first commands were run."""

    path: Path
    commands: list[str]
    output: str


@pytest.fixture(scope="session")
def installed(pair: Pair, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A copy of the project in which the README's "Run it here" was followed.

    Every line of the block runs as it is written, in one shell, except the last:
    that starts the development server, which `test_readme` does.
    """
    path = tmp_path_factory.mktemp(f"{pair}-installed") / "my-app"
    shutil.copytree(project, path)
    [block] = shell_blocks(path, "Run it here")
    commands = block.splitlines()
    output = ok("bash", "-euc", "\n".join(commands[:-1]), cwd=path)
    return Installed(path, commands, output)


@pytest.fixture(scope="session", params=MACHINES)
def online(
    request: pytest.FixtureRequest, release: Path, tmp_path_factory: pytest.TempPathFactory
):
    """A booted Debian with the site of every pair; see online.py."""
    from online import bring_online

    if os.getuid():
        lacking("root")
    tool("systemd-nspawn", "systemd-container")
    tool("debootstrap", "debootstrap")
    yield from bring_online(request.param, release, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def by_hand(online) -> None:
    """Leave the test to the machine on which the sites were put online by hand."""
    if not online.by_hand:
        pytest.skip("runs on the machine where the sites were put online by hand")


@pytest.fixture
def by_script(online) -> None:
    """Leave the test to the machine on which deploy/release was used from the first."""
    if online.by_hand:
        pytest.skip("runs on the machine where deploy/release has put the sites online")


@pytest.fixture(params=PAIRS, ids=str)
def site(request: pytest.FixtureRequest) -> Pair:
    """A pair whose site is online."""
    return request.param
