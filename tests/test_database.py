"""The database of the emitted projects: what the app starts on, and what is never lost."""

import http.client
import json
import os
import re
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from urllib.parse import urlencode

import pytest
from support.commands import free_port, ok, run, skip_or_fail
from support.database import NEWER_SQLITE, USE_NEWER_SQLITE, Database
from support.project import (
    FEW_STACKS,
    QUICK_STACKS,
    SQLITE_STACKS,
    add_routes,
    append,
    edit,
    remove_examples,
)
from support.serve import http_client, serving

pytestmark = pytest.mark.pairs(FEW_STACKS)

MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{previous}"


def upgrade():
    {upgrade}
"""


def migrate(
    project: Path, upgrade: str, revision: str = "0002", previous: str = "0001"
) -> None:
    """Add a migration to a project."""
    path = project / f"migrations/versions/{revision}_change.py"
    path.write_text(MIGRATION.format(upgrade=upgrade, revision=revision, previous=previous))


def start(project: Path, database: Database) -> CompletedProcess[str]:
    """Start the app of a project, as a server does."""
    return database.run(project, "python", "-c", "import app.main")


def refusal(project: Path, database: Database) -> str:
    """Return the last line of the log of an app that must not start."""
    done = start(project, database)
    assert done.returncode == 1, done.stdout
    return done.stdout.splitlines()[-1]


# The emitted tests, and the migrations.


def own_tests(project: Path, database: Database, *options: str) -> CompletedProcess[str]:
    """Run a project's own tests, on an empty database if they need a server for it."""
    environment = os.environ | {"TEST_DATABASE_URL": database.url}
    return run(project / ".venv/bin/pytest", "-q", *options, cwd=project, env=environment)


@pytest.mark.slow_pairs
@pytest.mark.pairs([*FEW_STACKS, *SQLITE_STACKS[1:3]])
def test_own_tests_pass(own, databases):
    done = own_tests(own, databases.create())
    assert re.search(r"\d+ passed", done.stdout), done.stdout
    assert done.returncode == 0, done.stdout
    assert not list((own / "data").glob("*"))  # the developer's


@pytest.mark.slow
@pytest.mark.pairs(FEW_STACKS[-1:])
def test_own_tests_say_what_is_missing(own, tmp_path):
    done = own_tests(own, Database(f"postgresql:///site?host={tmp_path}"))
    assert done.returncode == 1
    for hint in ("sudo apt install postgresql", "createdb my-app-test", "TEST_DATABASE_URL"):
        assert hint in done.stdout


# The project's own test that compares the models with the tables.
THEIR_MIGRATIONS = ("tests/test_database.py", "-k", "have_their_migrations")


@pytest.mark.pairs(QUICK_STACKS)
def test_changed_model_is_found_and_the_command_fixes_it(own, database, databases):
    """By the app when it starts, and by the project's own tests."""
    column = "    country: Mapped[str | None] = mapped_column(String(2))\n"
    edit(own / "app/models.py", "\n\n# Your own models:", f"{column}\n\n# Your own models:")
    command = 'alembic revision --autogenerate -m "What changes"'
    assert refusal(own, database).endswith(
        f"a migration is missing: column greetings.country is missing. Run: {command}"
    )
    failed = own_tests(own, databases.create(), *THEIR_MIGRATIONS)
    assert f"Run: {command}" in failed.stdout
    assert failed.returncode == 1

    database.ok(own, "alembic", "revision", "--autogenerate", "-m", "What changes")
    database.ok(own, "alembic", "upgrade", "head")
    ok("ruff", "check", "--isolated", "migrations", cwd=own)
    assert start(own, database).returncode == 0
    database.ok(own, "alembic", "check")


@pytest.mark.slow
@pytest.mark.pairs(FEW_STACKS[-1:])
def test_model_may_have_a_schema(own, database):
    """Of PostgreSQL."""
    database.query("CREATE SCHEMA shop")
    model = (
        '\n\nclass Order(Base):\n    """An order."""\n\n    __tablename__ = "orders"\n'
        '    __table_args__ = {"schema": "shop"}\n\n'
        "    id: Mapped[int] = mapped_column(primary_key=True)\n"
    )
    append(own / "app/models.py", model)
    assert "table shop.orders is missing" in refusal(own, database)
    database.query("CREATE TABLE shop.orders (id SERIAL PRIMARY KEY)")
    assert start(own, database).returncode == 0


# What only the tables still have, when a release has removed it from the models.
LEFT_OVER = """op.create_table(
        "visits",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("greeting", sa.Integer(), sa.ForeignKey("greetings.id"), index=True),
    )
    with op.batch_alter_table("greetings") as batch:
        batch.add_column(sa.Column("country", sa.Text()))
        batch.add_column(sa.Column("age", sa.Integer(), nullable=False, server_default="7"))
        reference = sa.ForeignKey("visits.id", name="fk_greetings_visit_visits")
        batch.add_column(sa.Column("visit", sa.Integer(), reference))
        batch.create_index("ix_greetings_name", ["name"])"""


@pytest.mark.slow
def test_what_is_removed_from_the_models_only_is_accepted(own, database, databases):
    """By the project's own tests and by the app, until a later release removes the rest."""
    migrate(own, LEFT_OVER)
    tested = own_tests(own, databases.create(), *THEIR_MIGRATIONS)
    assert "1 passed" in tested.stdout, tested.stdout
    database.ok(own, "alembic", "upgrade", "head")
    assert start(own, database).returncode == 0


@pytest.mark.slow
def test_examples_are_removed_a_release_before_their_table(own, database, databases):
    """As the README says for a site that is online."""
    remove_examples(own)
    models = own / "app/models.py"
    model = re.search(r"(?s)class Greeting.+?\n\n\n", models.read_text())[0]
    edit(models, model, "")
    tested = own_tests(own, databases.create())
    assert tested.returncode == 0, tested.stdout
    assert start(own, database).returncode == 0
    database.ok(own, "alembic", "revision", "--autogenerate", "-m", "Drop the table")
    database.ok(own, "alembic", "upgrade", "head")
    assert "greetings" not in "".join(database.schema())


# What needs a migration: a column has another type and may be empty; the rest is new.
NAME = "name: Mapped[str] = mapped_column(String(40))"
UNMIGRATED = """name: Mapped[str | None] = mapped_column(String(50))
    language: Mapped[str | None]


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
"""
UNIQUE = """with op.batch_alter_table("greetings") as batch:
        batch.create_unique_constraint("uq_greetings_name", ["name"])"""


@pytest.mark.slow
def test_each_change_without_a_migration_is_found(own, databases):
    """Next to what only the tables still have, and with a constraint that they still check."""
    edit(own / "app/models.py", NAME, UNMIGRATED)
    migrate(own, LEFT_OVER)
    migrate(own, UNIQUE, "0003", "0002")
    failed = own_tests(own, databases.create(), *THEIR_MIGRATIONS)
    assert failed.returncode == 1
    start_of_message = "(?m)^E +Failed: app/models.py has changed: "
    [message] = re.findall(f"{start_of_message}(.+)", failed.stdout)
    changes = ["add_column", "add_table", "modify_nullable", "modify_type", "remove_constraint"]
    found = re.findall(r"\('((?:add|modify|remove)_\w+)'", message)
    assert sorted(found) == changes
    assert message.endswith('. Run: alembic revision --autogenerate -m "What changes"')


# What a migration does before it fails.
HALF = """op.add_column("greetings", sa.Column("country", sa.Text()))
    op.execute("UPDATE greetings SET country = 'xx', name = 'changed'")
    op.create_table("countries", sa.Column("id", sa.Integer(), primary_key=True))
    op.execute("DELETE FROM greetings")
    raise ValueError("in its middle")"""


@pytest.mark.pairs(QUICK_STACKS)
def test_migration_that_fails_changes_nothing(own, database):
    """Nor do those before it that ran at the same time."""
    database.query("INSERT INTO greetings (name) VALUES ('Ada'), ('Bob')")
    before = database.schema()
    migrate(own, 'op.add_column("greetings", sa.Column("language", sa.Text()))')
    migrate(own, HALF, "0003", "0002")
    failed = database.run(own, "alembic", "upgrade", "head")
    assert failed.returncode == 1
    assert failed.stdout.splitlines()[-1] == "ValueError: in its middle"
    assert "Running upgrade 0002 -> 0003" in failed.stdout
    assert database.schema() == before
    assert database.names() == ["Ada", "Bob"]
    assert database.query("SELECT version_num FROM alembic_version") == ["0001"]


PARENTS = """op.create_table(
        "visits",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("greeting", sa.Integer(), sa.ForeignKey("greetings.id", ondelete="CASCADE")),
    )
    op.execute("INSERT INTO greetings (name) VALUES ('Ada')")
    op.execute("INSERT INTO visits (greeting) SELECT id FROM greetings")"""
# SQLite cannot change a column: Alembic copies the table and drops the old one.
RENAMED = """with op.batch_alter_table("greetings") as batch:
        batch.alter_column("name", type_=sa.Text(), nullable=True)"""


@pytest.mark.pairs(QUICK_STACKS)
def test_migration_of_a_table_keeps_the_rows_that_refer_to_it(own, database):
    migrate(own, PARENTS)
    migrate(own, RENAMED, "0003", "0002")
    database.ok(own, "alembic", "upgrade", "head")
    assert database.names() == ["Ada"]
    assert database.query("SELECT greeting FROM visits") == ["1"]


@pytest.mark.pairs(QUICK_STACKS[:1])
def test_migration_that_breaks_a_foreign_key_is_refused(own, database):
    """SQLite does not check them while a migration may copy tables."""
    migrate(own, PARENTS)
    migrate(own, 'op.execute("DELETE FROM greetings")', "0003", "0002")
    failed = database.run(own, "alembic", "upgrade", "head")
    assert failed.returncode == 1
    assert "Foreign keys without their rows" in failed.stdout.splitlines()[-1]
    assert database.query("SELECT version_num FROM alembic_version") == ["0001"]


# What the app starts on.


@pytest.mark.slow
@pytest.mark.pairs(QUICK_STACKS)
def test_app_starts_once_the_tables_are_created(own, databases):
    database = databases.create()
    assert refusal(own, database).endswith(" Run: alembic upgrade head")
    assert not database.is_sqlite or not database.path.exists()
    database.ok(own, "alembic", "upgrade", "head")
    assert start(own, database).returncode == 0


@pytest.mark.pairs(QUICK_STACKS)
def test_app_does_not_start_on_older_tables(own, database):
    migrate(own, "pass")
    assert refusal(own, database).endswith(
        ": it is at revision 0001, the code needs 0002. Run: alembic upgrade head"
    )


# What newer code may have done to the tables.
NEWER = "UPDATE alembic_version SET version_num = 'newer'"
ADDED = {
    "nothing": ["SELECT 1"],
    "a table": ["CREATE TABLE visits (id INTEGER PRIMARY KEY, day TEXT NOT NULL)"],
    "a column": ["ALTER TABLE greetings ADD COLUMN country TEXT"],
    "a column with a default": [
        "ALTER TABLE greetings ADD COLUMN age INT NOT NULL DEFAULT 7",
    ],
    "an index": ["CREATE INDEX ix_greetings_name ON greetings (name)"],
}
CHANGED = {
    "column greetings.name is missing": ["ALTER TABLE greetings RENAME COLUMN name TO title"],
    "table greetings is missing": ["DROP TABLE greetings"],
    "column greetings.age needs a value": [
        "DROP TABLE greetings",
        "CREATE TABLE greetings (id INTEGER PRIMARY KEY, name TEXT NOT NULL, age INT NOT NULL)",
    ],
}
# Prints for each URL of a database with which error the app does not start, if any.
START_ON_EACH = """
import json, os, sys

os.environ["DATABASE_URL"] = sys.argv[1]
from app.config import Settings
from app.main import app, create_app


def greet(app):
    try:
        client = app.test_client()
    except AttributeError:
        from fastapi.testclient import TestClient

        client = TestClient(app, follow_redirects=False)
    assert client.post("/hello/", data={"name": "Ada"}).status_code == 303
    assert "Ada" in client.get("/items/").text
    assert client.get("/healthz").status_code == 200


for url in sys.argv[1:]:
    os.environ["DATABASE_URL"] = url
    try:
        greet(create_app(Settings.from_env()))
        print(json.dumps(None))
    except RuntimeError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture(scope="session")
def outcomes(installed, databases, migrated) -> dict[str, tuple[Database, str | None]]:
    """The database after each change, and the error of older code on it, if any."""
    changed = {name: databases.create(migrated) for name in [*ADDED, *CHANGED]}
    for name, statements in (ADDED | CHANGED).items():
        changed[name].query(NEWER, *statements)
    urls = [database.url for database in changed.values()]
    fine = databases.create(migrated)
    output = fine.ok(installed.path, "python", "-c", START_ON_EACH, fine.url, *urls)
    none, *errors = [json.loads(line) for line in output.splitlines()]
    assert none is None
    return dict(zip(changed, zip(changed.values(), errors, strict=True), strict=True))


@pytest.mark.slow
@pytest.mark.pairs(QUICK_STACKS)
@pytest.mark.parametrize("added", ADDED)
def test_older_code_runs_on_tables_that_were_added_to(outcomes, added):
    """It stores a row as well: a rollback keeps the schema."""
    database, error = outcomes[added]
    assert error is None
    assert database.names() == ["Ada"]


@pytest.mark.pairs(QUICK_STACKS)
@pytest.mark.parametrize("reason", CHANGED)
def test_older_code_does_not_start_on_changed_tables(outcomes, reason):
    _, error = outcomes[reason]
    assert error.endswith(f": it is newer than the code: {reason}. Deploy the newer code")


# What the URL says.

PASSWORD = "correct-horse"


def assert_hidden(project: Path, url: str) -> None:
    """Check that neither the app nor Alembic runs, or shows the password."""
    database = Database(url)
    migration = database.run(project, "alembic", "upgrade", "head")
    assert migration.returncode == 1
    app = start(project, database)
    assert app.returncode == 1
    assert "DATABASE_URL" in app.stdout.splitlines()[-1]
    assert PASSWORD not in migration.stdout + app.stdout


@pytest.mark.slow
@pytest.mark.pairs(FEW_STACKS[:1])
@pytest.mark.parametrize(
    "url",
    [
        f"{PASSWORD}",
        "sqlite://",
        f"mysql://site:{PASSWORD}@127.0.0.1/site",
        f"sqlite://site:{PASSWORD}@127.0.0.1:nonsense/site",
    ],
)
def test_wrong_url_is_refused_without_the_password(own, url):
    assert_hidden(own, url)


@pytest.mark.slow
@pytest.mark.pairs(FEW_STACKS[-1:])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://tests:{password}@127.0.0.1:{closed}/site",
        "postgresql://tests:{password}@127.0.0.1:{port}/postgres",
    ],
)
def test_server_that_refuses_is_reported_without_the_password(own, cluster, url):
    """A server that does not run, or a wrong password."""
    values = {"password": PASSWORD, "port": cluster.port, "closed": free_port()}
    assert_hidden(own, url.format(**values))


@pytest.mark.slow
@pytest.mark.pairs(FEW_STACKS[-1:])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///site?user=tests&password={password}",
        "postgresql://tests:sec/{password}@127.0.0.1/site",
        "postgresql+psycopg://tests:{password}@127.0.0.1/site",
    ],
)
def test_url_that_pg_dump_reads_differently_is_refused(own, url):
    """It would show the password to all users of the machine, or fail."""
    assert_hidden(own, url.format(password=PASSWORD))
    assert refusal(own, Database(url)).endswith(
        "must be like postgresql:///my-app: see .env.example"
    )


# Connections and transactions.

FACTS = """
import json
from app.config import Settings
from app.database import make_engine

with make_engine(Settings.from_env()).connect() as connection:
    names = ["foreign_keys", "journal_mode", "mmap_size", "busy_timeout", "synchronous"]
    read = connection.exec_driver_sql
    print(json.dumps({name: read(f"PRAGMA {name}").scalar() for name in names}))
    print(read("SELECT sqlite_version()").scalar())
"""


@pytest.fixture(params=["Python's", "newer"])
def sqlite(request: pytest.FixtureRequest, installed) -> str:
    """Code at whose beginning that SQLite is used."""
    if request.param != "newer":
        return ""
    python = f"--python={installed.path}/.venv/bin/python"
    if run("uv", "pip", "install", "--quiet", python, NEWER_SQLITE).returncode:
        skip_or_fail(NEWER_SQLITE)
    return USE_NEWER_SQLITE


def journal(newer: bool) -> str:
    """Return the journal mode that is safe with a newer SQLite, or with Python's."""
    return "wal" if newer or sqlite3.sqlite_version_info >= (3, 51, 3) else "delete"


@pytest.mark.pairs(SQLITE_STACKS[:1])
def test_connections_of_sqlite_are_set_up(own, database, sqlite):
    """The journal is the one that cannot be corrupted: see app/database.py."""
    facts, version = database.ok(own, "python", "-c", sqlite + FACTS).splitlines()
    assert json.loads(facts) == {
        "foreign_keys": 1,
        "journal_mode": journal(bool(sqlite)),
        "mmap_size": 0,
        "busy_timeout": 20_000,
        "synchronous": 2,
    }
    assert not sqlite or tuple(map(int, version.split("."))) >= (3, 51, 3)


@pytest.mark.slow
@pytest.mark.pairs(SQLITE_STACKS[:1])
def test_own_tests_pass_with_a_newer_sqlite(own, database, sqlite):
    if sqlite:
        code = f"{sqlite}\nimport pytest\nsys.exit(pytest.main(['-q']))"
        assert " passed" in database.ok(own, "python", "-c", code)


WRITE = """
import sys
from sqlalchemy import select
from sqlalchemy.orm import Session
from app.config import Settings
from app.database import make_engine
from app.models import Greeting

engine = make_engine(Settings.from_env())
for number in range(60):
    with Session(engine) as session:
        session.scalars(select(Greeting).limit(1)).all()  # reads first, then writes
        session.add(Greeting(name=f"{sys.argv[1]} {number}"))
        session.commit()
    if number % 20 == 0:  # does nothing without WAL
        connection = engine.raw_connection()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.close()
    if number % 7 == 0:
        engine.dispose()
"""


@pytest.mark.slow
@pytest.mark.pairs(SQLITE_STACKS[:1])
def test_processes_that_write_at_once_lose_no_row(own, database, sqlite):
    arguments = ("python", "-c", sqlite + WRITE)
    with ThreadPoolExecutor(4) as pool:
        writers = [
            pool.submit(database.ok, own, *arguments, f"writer {number}") for number in range(4)
        ]
        for writer in writers:
            writer.result()
    expected = [f"writer {number} {row}" for number in range(4) for row in range(60)]
    assert sorted(database.names()) == sorted(expected)
    assert database.query("PRAGMA integrity_check") == ["ok"]


PROBES = {
    "flask": """

@pages.post("/half")
def half():
    get_session().add(examples.Greeting(name="half"))
    get_session().flush()
    raise ValueError("in the middle of a request")
""",
    "fastapi": """

@pages.post("/half")
def half(session: SessionDep):
    session.add(examples.Greeting(name="half"))
    session.flush()
    raise ValueError("in the middle of a request")
""",
}


@pytest.fixture
def served(own, database, pair, tmp_path):
    """The port of the site, by its server with one process."""
    add_routes(own, PROBES[pair.framework])
    port, log = free_port(), tmp_path / "log"
    settings = {"DATABASE_URL": database.url, "WEB_CONCURRENCY": "1"}
    with serving(own, f"127.0.0.1:{port}", log, **settings):
        with http_client(port) as client:
            assert client.get("/healthz").status_code == 200
        yield port


def test_error_in_a_request_leaves_no_row(served, database):
    """Nor a connection in use: there are as many as requests here and more would wait."""
    with http_client(served) as client:
        for _ in range(12):
            headers = {"Connection": "close"}
            assert client.post("/half", headers=headers).status_code == 500
        assert client.post("/hello/", data={"name": "Ada"}).status_code == 303
        assert [each["name"] for each in client.get("/items/").json()["items"]] == ["Ada"]
    assert database.names() == ["Ada"]


def visit(port: int, number: int) -> list[int]:
    """Be a visitor: request three pages, and return their status."""
    statuses = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for turn in range(3):
        headers = {"Host": "example.com", "Connection": "close" if turn == 2 else "keep-alive"}
        if number % 4:
            connection.request("GET", "/items/", headers=headers)
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            form = urlencode({"name": f"visitor {number} {turn}"})
            connection.request("POST", "/hello/", form, headers)
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    connection.close()
    return statuses


@pytest.mark.slow_pairs
@pytest.mark.pairs([*FEW_STACKS, *SQLITE_STACKS[1:3], *SQLITE_STACKS[4:]])
def test_two_hundred_visitors_at_once_wait_for_each_other(served, database):
    """In one process: 150 read and 50 write, none gets an error, and it ends soon."""
    begin = time.monotonic()
    with ThreadPoolExecutor(200) as pool:
        found = [*pool.map(lambda number: visit(served, number), range(200))]
    assert time.monotonic() - begin < 60
    assert [each for each in found if each not in ([200] * 3, [303] * 3)] == []
    expected = [f"visitor {number} {turn}" for number in range(0, 200, 4) for turn in range(3)]
    assert sorted(database.names()) == sorted(expected)
