"""Fixtures and hooks: the template as a release, projects emitted from it, running sites.

A test with the argument `pair` runs once for each row of the table of servers, or for the
pairs and stacks of the marker `pairs`. The projects and servers of a pair are made once in
a run: the tests of a pair share a process.
"""

import functools
import importlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import httpx2
import pytest
from xdist.scheduler import LoadScopeScheduling

pytest.register_assert_rewrite("support")

from support.commands import commit, free_port, isolate, skip_or_fail, tool
from support.database import Cluster, Database, SqliteFiles
from support.owner import work_for_a_year
from support.project import (
    FIRST_PAIRS,
    MACHINES,
    PAIRS,
    QUICK_KUBERNETES,
    QUICK_STACKS,
    Installed,
    Pair,
    Stack,
    add_routes,
    answers_of,
    copy_installed,
    copy_template,
    emit,
    install,
    install_together,
    make_release,
    probes,
)
from support.serve import Site, deployed, http_client, serving
from support.update import LATEST, make_history, start

# The ids of the machines whose sites have a database.
DATA_MACHINES = [f"data-{debian}" for debian in MACHINES]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--renew-locks", action="store_true", help="write newer locks into template/"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("before_release") and not os.environ.get("BEFORE_RELEASE"):
        pytest.skip("takes minutes: runs with BEFORE_RELEASE=true in the environment")
    if os.environ.get("CI") or item.config.getoption("--renew-locks"):
        return
    if item.get_closest_marker("slow"):
        pytest.skip("slow: runs with CI=true in the environment")
    pair = item.callspec.params.get("pair") if hasattr(item, "callspec") else None
    quick = [*QUICK_STACKS, *QUICK_KUBERNETES]
    if isinstance(pair, Stack) and pair not in quick:
        pytest.skip("slow: runs for this stack with CI=true in the environment")
    if item.get_closest_marker("slow_pairs") and pair not in [*FIRST_PAIRS, *quick]:
        pytest.skip("slow: runs for this pair with CI=true in the environment")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "pair" in metafunc.fixturenames:
        first = metafunc.definition.get_closest_marker("first_pairs")
        pairs = FIRST_PAIRS if first else PAIRS
        if marker := metafunc.definition.get_closest_marker("pairs"):
            [pairs] = marker.args
        metafunc.parametrize("pair", pairs, ids=str, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start what takes longest first, so that no process is left waiting at the end."""
    names = [*DATA_MACHINES, *MACHINES, "bare_machine", *map(str, PAIRS)]
    ranks = {name: rank for rank, name in enumerate(names)}

    def rank(item: pytest.Item) -> int:
        return next((ranks[name] for name in names if name in item.nodeid), len(names))

    items.sort(key=rank)


class Scheduling(LoadScopeScheduling):
    """Keeps tests in one process that share what takes long: a machine, or else a pair."""

    def _split_scope(self, nodeid: str) -> str:
        """Return the machine, or else the pair, that a test's id names."""
        names = [*DATA_MACHINES, *MACHINES, *map(str, PAIRS)]
        return next((name for name in names if name in nodeid), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log) -> Scheduling:
    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tests' own settings instead of the developer's."""
    isolate(tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="session")
def template(isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template outside git, which is quicker than a release. Tests must not change it."""
    return copy_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def release(isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a git repository with a tagged release. Tests must not change it."""
    return make_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def projects(release: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Pair, Path]:
    """A project of every pair, as emitted. Tests must not change them."""
    folder = tmp_path_factory.mktemp("projects")
    return {pair: emit(release, folder / str(pair), **pair._asdict()) for pair in PAIRS}


@pytest.fixture(scope="session")
def project(pair: Pair, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of the pair, as emitted. Tests must not change it."""
    return emit(release, tmp_path_factory.mktemp(str(pair)) / "my-app", **pair._asdict())


@pytest.fixture
def deploy_module(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], ModuleType]]:
    """Returns a function that imports a module of deploy/; all are forgotten after the test."""
    folder = str(project / "deploy")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module
    for name, module in [*sys.modules.items()]:
        if (getattr(module, "__file__", None) or "").startswith(f"{folder}/"):
            del sys.modules[name]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Returns an environment for a project, which all projects of its framework share."""
    made = {}

    def make(project: Path) -> Path:
        framework = answers_of(project)["framework"]
        if framework not in made:
            path = tmp_path_factory.mktemp(f"{framework}-packages") / "venv"
            made[framework] = install_together(project, path)
        return made[framework]

    return make


@pytest.fixture(scope="session")
def installed(
    pair: Pair,
    project: Path,
    packages: Callable[[Path], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Installed:
    """A copy of the project in which the README's first commands were run.

    Those with a database share an environment instead, see `packages`; without CI=true,
    also those that are not the first pair of their framework.
    """
    path = tmp_path_factory.mktemp(f"{pair}-installed") / "my-app"
    if pair in FIRST_PAIRS or (isinstance(pair, Pair) and os.environ.get("CI")):
        return install(project, path)
    shutil.copytree(project, path)
    (path / ".venv").symlink_to(packages(project))
    return Installed(path, [], "")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A server of PostgreSQL."""
    cluster = Cluster()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def databases(
    pair: Stack, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> SqliteFiles | Cluster:
    """Creates databases of the kind that the project has."""
    if pair.database == "sqlite":
        return SqliteFiles(tmp_path_factory.mktemp("databases"))
    return request.getfixturevalue("cluster")


@pytest.fixture(scope="session")
def migrated(installed: Installed, databases: SqliteFiles | Cluster) -> Database:
    """A database with the project's tables. Tests must not change it."""
    database = databases.create()
    database.ok(installed.path, "alembic", "upgrade", "head")
    return database


@pytest.fixture
def database(databases: SqliteFiles | Cluster, migrated: Database) -> Database:
    """A database with the project's tables, which a test may change."""
    return databases.create(migrated)


@pytest.fixture
def own(installed: Installed, tmp_path: Path) -> Path:
    """A copy of the installed project that a test may change."""
    return copy_installed(installed, tmp_path / "my-app")


@pytest.fixture(scope="session")
def edited(pair: Pair, installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed project with the probes among its routes."""
    path = copy_installed(installed, tmp_path_factory.mktemp(f"{pair}-edited") / "my-app")
    add_routes(path, probes(pair))
    (path / "app/static/site.0123abcd.css").write_text("p { margin: 0 }\n")
    return path


@pytest.fixture(scope="session")
def direct(edited: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client of the edited project's server, without nginx."""
    port = free_port()
    log = tmp_path_factory.mktemp("direct") / "log"
    with serving(edited, f"127.0.0.1:{port}", log) as server, http_client(port) as client:
        yield client
        client.close()
        assert server.stop() in (0, -signal.SIGTERM)


@pytest.fixture(scope="session")
def site(edited: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The edited project behind nginx."""
    with deployed(edited, tmp_path_factory.mktemp("nginx")) as site:
        yield site


@pytest.fixture(params=["direct", "nginx"])
def client(request: pytest.FixtureRequest, pair: Pair) -> httpx2.Client:
    """A client of the edited project, once without nginx and once through it."""
    if request.param == "direct":
        return request.getfixturevalue("direct")
    return request.getfixturevalue("site").client


@pytest.fixture(scope="session")
def history(isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with all its releases, the latest made from the working tree."""
    return make_history(tmp_path_factory.mktemp("history") / "template")


@pytest.fixture(scope="session")
def fresh(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Pair], Path]:
    """Returns a project of a pair by the latest release. Tests must not change it."""

    @functools.cache
    def make(pair: Pair) -> Path:
        return start(history, tmp_path_factory.mktemp(str(pair)), pair, LATEST)

    return make


@pytest.fixture(scope="session")
def aged_project(
    history: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Pair, str], tuple[Path, Path]]:
    """Returns a project of a pair by a release, untouched and after a year of work."""

    @functools.cache
    def make(pair: Pair, tag: str) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp(f"{pair}-{tag}")
        untouched = start(history, folder / "untouched", pair, tag)
        year = shutil.copytree(untouched, folder / "year")
        work_for_a_year(year, pair)
        return untouched, commit(year)

    return make


@pytest.fixture(scope="session", params=MACHINES)
def online(
    request: pytest.FixtureRequest, release: Path, tmp_path_factory: pytest.TempPathFactory
):
    """A booted Debian with the site of every pair; see support/online.py."""
    from support.online import bring_online

    require_machines()
    yield from bring_online(request.param, release, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session", params=DATA_MACHINES)
def keeping(
    request: pytest.FixtureRequest, release: Path, tmp_path_factory: pytest.TempPathFactory
):
    """A booted Debian with sites that have a database; see support/online.py."""
    from support.online import bring_data_online

    require_machines()
    debian = request.param.removeprefix("data-")
    yield from bring_data_online(debian, release, tmp_path_factory.mktemp(request.param))


def require_machines() -> None:
    """Skip the test, or fail in CI, where no machine can be booted."""
    if os.getuid():
        skip_or_fail("root")
    tool("systemd-nspawn", "systemd-container")
    tool("debootstrap", "debootstrap")


@pytest.fixture(params=PAIRS, ids=str)
def service(request: pytest.FixtureRequest) -> Pair:
    """A pair whose service is running on the machine."""
    return request.param


@pytest.fixture
def by_hand(online) -> None:
    """Run the test only on the machine where the sites were deployed by hand."""
    if not online.by_hand:
        pytest.skip("runs on the machine where the sites were deployed by hand")


@pytest.fixture
def by_script(online) -> None:
    """Run the test only on the machine where deploy/release was used from the start."""
    if online.by_hand:
        pytest.skip("runs on the machine where deploy/release deployed the sites")
