"""A site with SQLite moves to PostgreSQL, as deploy/README.md says: no row is lost or changed."""

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import commit, ok, run, skip_or_fail
from support.project import append, edit, emit, install, section

pytestmark = pytest.mark.slow

# Tables as an owner may have them: of each type, with a reference, and without rows.
MODELS = """

class Customer(Base):
    __tablename__ = "customer"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(200), unique=True)
    active: Mapped[bool]
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    birthday: Mapped[date | None]
    balance: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    rating: Mapped[float]
    extra: Mapped[dict] = mapped_column(JSON)
    picture: Mapped[bytes | None]


class Order(Base):
    __tablename__ = "order"  # a word of SQL

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    text: Mapped[str]


class Country(Base):
    __tablename__ = "country"

    code: Mapped[str] = mapped_column(primary_key=True)
"""
IMPORTS = """from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import JSON, DateTime, ForeignKey, MetaData, Numeric, String
"""
FILL = """
from datetime import timezone
from app.models import *

with Session(engine) as session:
    for n in range(1, 2501):
        session.add(Customer(
            id=n * 2, email=f"{n}@例子.example", active=n % 2 == 0,
            created=datetime(2026, 3, 29, 1, n % 60, 0, n, tzinfo=timezone.utc),
            birthday=date(2000, 2, 29) if n % 3 else None, balance=Decimal(n) / 100,
            rating=n / 7, extra={"ü": [n, None]}, picture=bytes([n % 256]) if n % 5 else None,
        ))
    session.flush()
    for n in range(1, 1001):
        session.add(Order(customer_id=n * 2, text="'; DROP TABLE \\n\\t\\U0001f600"))
    session.add(Greeting(name="Ada"))
    session.commit()
"""
READ = """
from datetime import timezone
from app.models import *

def plain(value):  # SQLite returns times in UTC, without their zone
    if isinstance(value, datetime) and value.tzinfo:
        value = value.astimezone(timezone.utc).replace(tzinfo=None)
    return repr(value)

with Session(engine) as session:
    print(json.dumps({
        name: [[plain(value) for value in row] for row in session.execute(
            select(table).order_by(*table.primary_key))]
        for name, table in Base.metadata.tables.items()
    }))
"""
ADD = """
from app.models import *

with Session(engine) as session:
    session.add_all([Greeting(name="Bob"), Order(customer_id=2, text="one more")])
    session.commit()
    print(session.scalar(select(func.max(Greeting.id))), session.scalar(select(func.max(Order.id))))
"""
SCRIPT = """
import json
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from app.config import Settings
from app.database import make_engine

engine = make_engine(Settings.from_env())
"""


@pytest.fixture
def server() -> Iterator[str]:
    """A PostgreSQL of its own, which listens on a socket in the directory returned."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        skip_or_fail("initdb (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="carry-"))
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres")
    folder.chmod(0o755)
    data = folder / "data"
    options = f"-k {folder} -c listen_addresses= -c fsync=off -c timezone=Asia/Shanghai"
    control = [*user, programs[-1].with_name("pg_ctl"), "-D", data, "-w"]
    ok(*user, programs[-1], "--auth=trust", "--username=postgres", "--encoding=UTF8",
       "--locale=C.UTF-8", "-D", data, cwd="/")  # fmt: skip
    ok(*control, "-o", options, "-l", folder / "log", "start", cwd="/")
    try:
        yield str(folder)
    finally:
        run(*control, "-m", "immediate", "stop", cwd="/")
        shutil.rmtree(folder)


@pytest.fixture
def databases(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two empty databases of the README's first step, named in the environment."""
    for variable, name in {
        "DATABASE_URL": "my-app",
        "TEST_DATABASE_URL": "my-app-test",
    }.items():
        options = (f"--host={server}", "--username=postgres")
        run("dropdb", *options, "--if-exists", name)
        ok("createdb", *options, name)
        monkeypatch.setenv(variable, f"postgresql://postgres@/{name}?host={server}")


def python(project: Path, script: str, **environment: str) -> str:
    """Run a script with a project's own Python, and return its output."""
    command = (project / ".venv/bin/python", "-c", SCRIPT + script)
    return ok(*command, cwd=project, env=os.environ | environment)


def copy_rows(project: Path, url: str = "sqlite:///data/app.db"):
    command = (project / ".venv/bin/python", "-m", "migrations.copy_rows")
    return run(*command, url, cwd=project)


@pytest.fixture
def moved(release: Path, databases: None, tmp_path: Path) -> tuple[Path, dict]:
    """A project that was filled with SQLite, then updated; and its rows from before."""
    # The README's first commands, with PostgreSQL: they run the project's own tests, and
    # make the environment, which has what both databases need.
    other = emit(release, tmp_path / "new", database="postgresql")
    installed = install(other, tmp_path / "installed")
    project = emit(release, tmp_path / "my-app", database="sqlite")
    (project / ".venv").symlink_to(installed.path / ".venv")
    models = project / "app/models.py"
    append(models, MODELS)
    edit(models, "from sqlalchemy import MetaData, String\n", IMPORTS)
    alembic, sqlite = project / ".venv/bin/alembic", {"DATABASE_URL": ""}
    for words in ("upgrade head", "revision --autogenerate -m Shop", "upgrade head"):
        ok(alembic, *words.split(), cwd=project, env=os.environ | sqlite)
    python(project, FILL, **sqlite)
    rows = json.loads(python(project, READ, **sqlite))
    commit(project)
    ok("copier", "update", "--quiet", "--defaults", "--data=database=postgresql", cwd=project)
    ok(alembic, "upgrade", "head", cwd=project)
    return project, rows


def change(project: Path, statement: str) -> None:
    """Run a statement in the file of SQLite, which does not check references then."""
    with contextlib.closing(sqlite3.connect(project / "data/app.db")) as database:
        database.execute(statement)
        database.commit()


def test_rows_are_equal_after_the_move(moved):
    project, rows = moved
    numbers = {name: len(each) for name, each in rows.items()}
    assert numbers == {"greetings": 1, "customer": 2500, "order": 1000, "country": 0}

    # The last table cannot be copied: the first ones stay empty.
    change(project, "INSERT INTO \"order\" (customer_id, text) VALUES (1, 'of nobody')")
    done = copy_rows(project)
    assert done.returncode != 0
    assert "violates foreign key constraint" in done.stdout
    assert not any(json.loads(python(project, READ)).values())

    change(project, 'DELETE FROM "order" WHERE customer_id = 1')
    done = copy_rows(project)
    assert done.returncode == 0, done.stdout
    assert "customer: 2500 rows\n" in done.stdout
    assert json.loads(python(project, READ)) == rows

    # New rows get numbers after those that were copied.
    assert python(project, ADD) == "2 1001\n"

    # A second time, it is refused, and changes nothing.
    done = copy_rows(project)
    assert done.returncode != 0
    last = "Nothing was copied: Table customer of PostgreSQL already has rows"
    assert done.stdout.splitlines()[-1] == last
    assert python(project, ADD) == "3 1002\n"


def test_file_that_is_not_there_is_not_created(moved):
    project, _ = moved
    done = copy_rows(project, "sqlite:///data/ap.db")
    assert (done.returncode, done.stdout) == (1, "There is no sqlite:///data/ap.db\n")
    assert not (project / "data/ap.db").exists()


def test_server_guide_has_the_command(release, tmp_path):
    project = emit(release, tmp_path / "my-app", database="postgresql")
    command = "deploy/run python -m migrations.copy_rows sqlite:////var/lib/my-app/app.db\n"
    assert command in section(project, "Data and backups")
