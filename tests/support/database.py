"""Databases for the tests: files of SQLite, and databases in a cluster of PostgreSQL."""

import contextlib
import itertools
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess

from support.commands import free_port, ok, run, skip_or_fail

# SQLite 3.51.3 or later, with the module that Python has for its own.
NEWER_SQLITE = "pysqlite3~=0.6.1"
USE_NEWER_SQLITE = """
import sys, pysqlite3
sys.modules["sqlite3"], sys.modules["sqlite3.dbapi2"] = pysqlite3, pysqlite3.dbapi2
"""


class Database:
    """A database, by its URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite:///")
        self.path = Path(url.removeprefix("sqlite:///"))

    def query(self, *statements: str) -> list[str]:
        """Run statements, and return the rows of the last one as psql prints them."""
        if self.is_sqlite:
            with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
                for statement in statements:
                    rows = connection.execute(statement).fetchall()
            return ["|".join("" if each is None else str(each) for each in row) for row in rows]
        commands = [f"--command={statement}" for statement in statements]
        options = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align")
        stop = "--set=ON_ERROR_STOP=1"
        return ok(
            client("psql"), f"--dbname={self.url}", *options, stop, *commands
        ).splitlines()

    def schema(self) -> list[str]:
        """Return what the tables look like."""
        if self.is_sqlite:
            return self.query("SELECT name, sql FROM sqlite_master ORDER BY name")
        return self.query(
            "SELECT table_name, column_name, data_type, is_nullable, column_default"
            " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
        )

    def run(self, project: Path, program: str, *arguments: str) -> CompletedProcess[str]:
        """Run a program of a project's environment, with this database in its settings."""
        path = project / ".venv/bin" / program
        return run(path, *arguments, cwd=project, env=os.environ | {"DATABASE_URL": self.url})

    def ok(self, project: Path, program: str, *arguments: str) -> str:
        """Run a program that must succeed, and return its output."""
        done = self.run(project, program, *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def names(self) -> list[str]:
        """Return the names of all greetings."""
        return self.query("SELECT name FROM greetings ORDER BY id")


def client(name: str) -> Path:
    """Return the path of a program of PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not found:
        skip_or_fail("PostgreSQL (apt-get install postgresql)")
    return found[-1]


class SqliteFiles:
    """A folder for databases of SQLite."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers = folder, itertools.count()

    def create(self, template: Database | None = None) -> Database:
        """Return a database that has no file yet, or create a copy of another one."""
        path = self.folder / f"app-{next(self.numbers)}.db"
        if template:
            shutil.copy(template.path, path)
        return Database(f"sqlite:///{path}")


class Cluster:
    """A server of PostgreSQL for the tests, which needs no rights.

    On its socket, everybody is its administrator; connections over TCP need a password.
    """

    def __init__(self, network: Sequence[str] = (), address: str = "127.0.0.1") -> None:
        """Start it.

        network: the start of a command that runs another in a network namespace, as root.
        address: where it listens there.
        """
        initdb = client("initdb")
        # Not below the folder of the tests: the path of a socket is short, and another user
        # than root has to reach it.
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        # initdb refuses to run as root.
        self.user = {}
        if os.getuid() == 0:
            self.user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self.folder, "postgres", "postgres")
        self.network = list(network)
        if network:
            ids = (
                f"--setuid={self.folder.stat().st_uid}",
                f"--setgid={self.folder.stat().st_gid}",
            )
            self.network, self.user = [*network, *ids], {}
        self.port, self.numbers = free_port(), itertools.count()
        auth = ("--username=tests", "--auth-local=trust", "--auth-host=scram-sha-256")
        self.run(initdb, "--no-sync", "--encoding=UTF8", *auth)
        with (self.folder / "data/pg_hba.conf").open("a") as file:
            file.write("host all all 10.0.0.0/8 scram-sha-256\n")
        settings = {
            "listen_addresses": address,
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "off",
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        log = f"--log={self.folder}/log"
        self.run(client("pg_ctl"), "start", "--wait", f"--options={options}", log)

    def run(self, *command: str | Path) -> None:
        """Run a program that works on the cluster's files."""
        ok(*self.network, *command, f"--pgdata={self.folder}/data", cwd="/", **self.user)

    def url(self, name: str) -> str:
        return f"postgresql://tests@/{name}?host={self.folder}&port={self.port}"

    def create(self, template: Database | None = None) -> Database:
        """Create an empty database, or a copy of another one."""
        name = f"app-{next(self.numbers)}"
        old = template.url.split("/")[3].split("?")[0] if template else "template1"
        Database(self.url("postgres")).query(f'CREATE DATABASE "{name}" TEMPLATE "{old}"')
        return Database(self.url(name))

    def query(self, *statements: str) -> None:
        """Run statements as the administrator, each in a transaction of its own."""
        for statement in statements:
            Database(self.url("postgres")).query(statement)

    def stop(self) -> None:
        self.run(client("pg_ctl"), "stop", "--mode=immediate")
        shutil.rmtree(self.folder)
