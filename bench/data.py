"""Compare the emitted sites that have a database with the same app as tutorials write it.

    .venv/bin/python bench/data.py

Measures as bench.py does: all set-ups run at the same time, and are loaded in turn. Each
has its own copy of one database, and a request reads or writes at most ten rows. Writes
data.json, from which data_report.py makes the tables. README.md describes the cases.
"""

import contextlib
import json
import shlex
import shutil
import sqlite3
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from bench import (
    BENCH,
    TUTORIALS,
    Case,
    Setup,
    Site,
    isolate,
    load,
    machine,
    ok,
    online,
    parse,
    rotate,
    say,
)

# isort: split
from support.database import NEWER_SQLITE, USE_NEWER_SQLITE, Database
from support.project import FIRST_PAIRS, add_routes, append, edit, emit, make_release
from support.serve import http_client

ROWS = 5000
CASES = {
    "read": Case(["/greetings/42"]),
    "list": Case(["/items/"]),
    "write": Case(["POST /hello/"]),
    "page": Case(["/"]),
}
PAIRS = {pair.framework: pair for pair in FIRST_PAIRS}


class Way(NamedTuple):
    """A way to write the app.

    database: the answer to that question. routes: the file in routes/ that is appended to
    app/routes.py. package: what it needs in addition to the lock. tutorial: whether it
    runs with the command of tutorials; otherwise, as emitted.
    """

    database: str = "none"
    routes: str = ""
    package: str = ""
    tutorial: bool = False

    def cases(self) -> list[str]:
        """Return its cases: those with data if it has some, the page if it is emitted."""
        data = ["read", "list", "write"] if self.routes else []
        return data if self.tutorial else [*data, "page"]


WAYS = {
    "flask-tutorial": Way("none", "flask_sqlite3", tutorial=True),
    "flask-sqlalchemy": Way("none", "flask_sqlalchemy", "flask-sqlalchemy~=3.1", tutorial=True),
    "flask-none": Way(),
    "flask-sqlite": Way("sqlite", "flask"),
    "flask-wal": Way("sqlite", "flask", NEWER_SQLITE),
    "fastapi-tutorial": Way("none", "fastapi_sqlmodel", "sqlmodel~=0.0.50", tutorial=True),
    "fastapi-none": Way(),
    "fastapi-sqlite": Way("sqlite", "fastapi"),
    "fastapi-wal": Way("sqlite", "fastapi", NEWER_SQLITE),
}


def prepare(template: Path, folder: Path, only: str) -> list[Setup]:
    """Emit and install a project for each way, with a database of its own.

    only: a part of the names of the ways to be measured; each framework that has one is
    prepared. What the others are compared with runs twice: the difference is noise.
    """
    frameworks = {name.split("-")[0] for name in WAYS if only in name}
    setups = []
    for name, way in WAYS.items():
        framework = name.split("-")[0]
        if framework not in frameworks:
            continue
        project = folder / name / "my-app"
        emit(template, project, **PAIRS[framework]._asdict(), database=way.database)
        install(project, way)
        if way.routes:
            add_routes(project, (BENCH / f"routes/{way.routes}.py").read_text())
        # nginx would refuse most forms of the only client.
        edit(project / "deploy/nginx/my-app/upstream.conf", "rate=10r/s", "rate=100000r/s")
        command = TUTORIALS[framework][1] if way.tutorial else ""
        setups.append(Setup(name, project, command))
        if name.endswith(("-tutorial", "-none")):
            setups.append(Setup(f"{name}-again", project, command))
    database = make_database(find(setups, "-sqlite").project)
    for setup in setups:
        if way_of(setup).routes:
            (setup.project / "data").mkdir(exist_ok=True)
            shutil.copy(database, setup.project / "data/app.db")
    return setups


def find(setups: list[Setup], end: str) -> Setup:
    """Return the first set-up whose name ends with a word."""
    return next(setup for setup in setups if setup.name.endswith(end))


def way_of(setup: Setup) -> Way:
    return WAYS[setup.name.removesuffix("-again")]


def install(project: Path, way: Way) -> None:
    """Make a project's environment, with the SQLite that its way needs."""
    ok("uv", "venv", "--quiet", "--python=python3", ".venv", cwd=project)
    packages = ["--requirements=requirements.lock", *filter(None, [way.package])]
    ok("uv", "pip", "install", "--quiet", "--python=.venv/bin/python", *packages, cwd=project)
    if way.package == NEWER_SQLITE:
        append(project / "app/__init__.py", USE_NEWER_SQLITE)


def make_database(project: Path) -> Path:
    """Create a database with the tables of a project, and rows. Return its path."""
    path = project.parent / "app.db"
    database = Database(f"sqlite:///{path}")
    database.ok(project, "alembic", "upgrade", "head")
    database.query(
        f"WITH RECURSIVE numbers(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers LIMIT {ROWS})"
        " INSERT INTO greetings (name) SELECT 'Visitor ' || n FROM numbers"
    )
    return path


def journal(setup: Setup) -> str:
    """Return the journal of a set-up's database, which is in the header of the file."""
    if not way_of(setup).routes:
        return ""
    with (setup.project / "data/app.db").open("rb") as file:
        return "WAL" if file.read(20)[18:] == b"\2\2" else "rollback journal"


def newer_sqlite(setups: list[Setup]) -> str:
    """Return the version of SQLite in the package."""
    python = find(setups, "-wal").project / ".venv/bin/python"
    return ok(python, "-c", "import pysqlite3; print(pysqlite3.sqlite_version)").strip()


def compare(sites: dict[Setup, Site]) -> None:
    """Check that all set-ups with rows respond alike. Raises RuntimeError otherwise."""
    for case in ("read", "list", "write"):
        found = {
            setup.name: respond(site, case)
            for setup, site in sites.items()
            if case in way_of(setup).cases()
        }
        if len(set(found.values())) > 1:
            raise RuntimeError(f"{case}: responses differ: {found}")


def respond(site: Site, case: str) -> str:
    """Return what matters of a site's response to a case."""
    with http_client(site.port) as client:
        if case == "write":
            response = client.post("/hello/", data={"name": "Visitor"})
            return f"{response.status_code} {response.headers['Location']}"
        response = client.get(CASES[case].paths[0])
        if response.is_error:
            command = shlex.join(site.server.cmdline())
            raise RuntimeError(f"{case}: {response.status_code} from {command}")
        return json.dumps(response.json(), sort_keys=True)


def measure(setups: list[Setup], folder: Path, rounds: int, seconds: int) -> dict:
    """Return all samples, as set-up -> case -> figure -> one value for each round."""
    samples = {setup.name: defaultdict(lambda: defaultdict(list)) for setup in setups}
    with contextlib.ExitStack() as stack:
        sites = {
            setup: stack.enter_context(online(setup, folder / f"online-{setup.name}"))
            for setup in setups
        }
        time.sleep(10)  # until all workers have started
        compare(sites)
        for number in range(rounds):
            for case, requests in CASES.items():
                for setup in rotate(setups, number):
                    way = way_of(setup)
                    if case not in way.cases():
                        continue
                    sample = load(sites[setup], requests, seconds, may_fail=way.tutorial)
                    for figure, value in sample.items():
                        samples[setup.name][case][figure].append(round(value, 3))
                    time.sleep(0.2)
            say(f"Round {number + 1} of {rounds}")
    return samples


def main() -> None:
    options = parse(__doc__, BENCH / "data.json")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        isolate(folder)
        say("Emit and install a project for each way")
        template = make_release(folder / "template")
        setups = prepare(template, folder / "projects", options.only)
        versions = {"sqlite": sqlite3.sqlite_version, "newer_sqlite": newer_sqlite(setups)}
        setups = [setup for setup in setups if options.only in setup.name]
        samples = measure(setups, folder, options.rounds, options.seconds)
        journals = {setup.name: journal(setup) for setup in setups}
    results = {
        "machine": machine() | versions,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "journals": journals,
        "samples": samples,
    }
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    say(f"Written: {options.output}")


if __name__ == "__main__":
    main()
