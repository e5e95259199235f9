"""Data on a real Debian: no acknowledged row is lost, whatever is released, killed or full.

Writers post rows meanwhile, and a row is acknowledged when its answer has arrived. At the
end of each test, every acknowledged row of the site is there exactly once.
"""

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.commands import ok
from support.online import DATA_SITES, Online, Writing, domain, kill_a_worker, put_online
from support.project import edit
from support.writers import compare

pytestmark = pytest.mark.slow

SQLITE = [name for name, (_, database) in DATA_SITES.items() if database == "sqlite"]
POSTGRESQL = [name for name in DATA_SITES if name not in SQLITE]
# One of each framework with SQLite.
FEW = ["flask-gunicorn-sqlite", "fastapi-uvicorn-sqlite"]
MACHINES = ["data-bookworm", "data-trixie"]

MIGRATION = '''"""A change of the tables."""

import os
import time

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{previous}"
trial = os.environ["STATE_DIRECTORY"].endswith("-trial")


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    {downgrade}
'''
ADD = 'op.add_column("greetings", sa.Column("{}", sa.Integer(), server_default="7"))'
DROP = """with op.batch_alter_table("greetings") as table:
        table.drop_column("{}")"""
NAME = "    name: Mapped[str] = mapped_column(String(40))\n"
OWNER = "-c user.name=Owner -c user.email=owner@example.com"
COLUMN = '    {}: Mapped[int | None] = mapped_column(server_default="7")\n'


class Keeper:
    """The owner of a site on a machine, with the checkout of its project there.

    rows: the names of all rows that were acknowledged. uncertain: those whose answer was an
    error, or did not arrive; they may be there or not.
    """

    def __init__(self, online: Online, site: str) -> None:
        self.online, self.machine, self.site = online, online.machine, site
        self.checkout = f"/root/{site}"
        self.folder = self.machine.path(self.checkout)
        self.rows, self.uncertain = self.names(), []

    # Rows.

    @contextlib.contextmanager
    def writing(self, *options: str) -> Iterator[Writing]:
        """Let writers post rows while the block runs."""
        writing = Writing(self.online, self.site, *options)
        try:
            with writing:
                yield writing
        finally:
            self.rows += writing.acknowledged
            self.uncertain += writing.uncertain
            print(
                f"{self.site}: {writing.sent} requests, {len(writing.failed)} failed,"
                f" {len(writing.acknowledged)} rows, longest wait {writing.longest:.1f} s"
            )

    def names(self) -> list[str]:
        return Writing(self.online, self.site).names()

    def check(self) -> None:
        """Check that every acknowledged row is there exactly once, and no other row."""
        names = self.names()
        missing, repeated, _ = compare(self.rows, self.uncertain, names)
        assert (missing, repeated) == ([], [])
        assert {*names} - {*self.rows} - {*self.uncertain} == set()
        if self.site in SQLITE:
            script = f"import sqlite3; print(*sqlite3.connect('/var/lib/{self.site}/app.db')"
            script += ".execute('PRAGMA integrity_check').fetchone())"
            assert self.run_in_production("python", "-c", script) == "ok\n"

    # Changes and releases.

    @property
    def revision(self) -> str:
        """The revision of the last migration in the checkout."""
        files = sorted((self.folder / "migrations/versions").glob("[0-9]*.py"))
        return files[-1].name[:4]

    def migrate(self, upgrade: str, downgrade: str = "pass") -> None:
        """Add a migration to the checkout."""
        number = int(self.revision) + 1
        text = MIGRATION.format(
            revision=f"{number:04}",
            previous=f"{number - 1:04}",
            upgrade=upgrade,
            downgrade=downgrade,
        )
        (self.folder / f"migrations/versions/{number:04}_change.py").write_text(text)

    def add_column(self, name: str, before: str = "") -> None:
        """Add a column to the model and to the table. before: what the migration does first."""
        edit(self.folder / "app/models.py", NAME, NAME + COLUMN.format(name))
        self.migrate(before + ADD.format(name), DROP.format(name))

    def drop_column(self, name: str, before: str = "") -> None:
        edit(self.folder / "app/models.py", COLUMN.format(name), "")
        self.migrate(before + DROP.format(name), ADD.format(name))

    def release(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.machine.run(" ".join([f"{self.checkout}/deploy/release", *options]))

    def released(self, *options: str) -> None:
        """Release the checkout, successfully, and commit it."""
        done = self.release(*options)
        assert done.returncode == 0, done.stdout
        if not options:
            self.git("add --all")
            self.git(f"{OWNER} commit --quiet --allow-empty --message=Change")

    def git(self, command: str) -> str:
        return self.machine.ok(f"git -C {self.checkout} {command}")

    def forget_changes(self) -> None:
        """Go back to what was released last."""
        self.git("reset --quiet --hard")
        self.git("clean --quiet -d --force")

    # What is live.

    def run_in_production(self, *command: str) -> str:
        words = " ".join(f'"{word}"' for word in command)
        return self.machine.ok(f"/opt/{self.site}/deploy/run {words}")

    def live(self) -> tuple[str, str]:
        """Return the current release, and the revision of the database."""
        output = self.run_in_production("alembic", "current")
        release = self.machine.ok(f"readlink /opt/{self.site}").strip()
        return release, re.findall(r"(?m)^(\d{4})\b", output)[-1]

    def status(self, path: str = "/healthz") -> str:
        return self.online.status(self.site, path)

    def wait_until_healthy(self, seconds: float = 60) -> None:
        url = f"https://{domain(self.site)}/healthz"
        self.machine.wait_until(f"curl -sf {url}", seconds)

    def greet(self, name: str) -> tuple[str, str]:
        """Send the form, and return the status and the page that follows."""
        form = ("-d", f"name={name}", "-w", "%{http_code}")
        body = self.online.curl(self.site, "/hello/", *form)
        if body.endswith("303"):
            self.rows.append(name)
        return body[-3:], body[:-3]

    def backups(self, kind: str = "*") -> list[str]:
        """Return the paths of the backups, oldest first."""
        path = f"/var/backups/{self.site}/*-{kind}.tar.gz"
        return self.machine.run(f"ls {path} 2>/dev/null").stdout.split()

    def journal(self, since: float) -> str:
        self.machine.ok("journalctl --sync")
        return self.machine.ok(f"journalctl --no-pager --since=@{int(since)}")


@pytest.fixture(scope="module")
def keepers(keeping) -> dict[str, Keeper]:
    """The owners of all sites of the machine."""
    return {site: Keeper(keeping, site) for site in DATA_SITES}


@pytest.fixture
def keeper(keepers, site) -> Iterator[Keeper]:
    """The owner of the site; what a test leaves in the checkout is removed."""
    yield keepers[site]
    keepers[site].forget_changes()


def on_one_machine(cases: dict[str, list]) -> pytest.MarkDecorator:
    """Run each case for a site on one machine, the next one on the other.

    cases: the names of arguments, and their values.
    """
    [(names, values)] = cases.items()
    found = [(MACHINES[number % 2], *case) for number, case in enumerate(values)]
    return pytest.mark.parametrize(
        ("keeping", *names.split()), found, indirect=["keeping"], ids=str, scope="session"
    )


def at_once(keepers: list[Keeper], action) -> None:
    """Run an action for several sites at the same time, each with writers of its own."""

    def act(keeper: Keeper) -> Writing:
        with keeper.writing("--writers=2", "--pause=0.2") as writing:
            action(keeper)
        return writing

    with ThreadPoolExecutor(len(keepers)) as pool:
        return dict(zip(keepers, pool.map(act, keepers), strict=True))


# Releases.


def test_sites_run_on_the_databases_of_their_answers(keeping, keepers):
    """As their READMEs put them online; nobody but root and the app reads the data."""
    for keeper in keepers.values():
        assert keeper.greet(f"first of {keeper.site}")[0] == "303"
        assert keeper.names()[-1] == f"first of {keeper.site}"
        keeper.check()
        files = keeping.machine.ok(f"ls /var/lib/{keeper.site}/")
        assert ("app.db" in files) == (keeper.site in SQLITE)
    assert keeping.machine.run("setpriv --reuid=nobody ls /var/lib/private").returncode != 0


def ten_releases(keeper: Keeper) -> Writing:
    """Release ten times under load: a column is added, used and deleted, and so on."""
    with keeper.writing() as writing:
        for number in range(1, 11):
            if number % 2:
                keeper.add_column(f"extra_{number}")
            else:
                keeper.drop_column(f"extra_{number - 1}")
            keeper.released()
            assert keeper.live()[1] == keeper.revision
    return writing


@on_one_machine({"site": [(site,) for site in DATA_SITES]})
def test_ten_releases_with_migrations_lose_nothing(keeper):
    """Each expands the tables or contracts them; see "Change tables" in deploy/README.md."""
    writing = ten_releases(keeper)
    assert writing.failed == []
    assert len(writing.acknowledged) > 100
    assert writing.longest < 30
    keeper.check()
    assert len(keeper.backups("release")) == 3


@pytest.mark.parametrize("site", [FEW[0], POSTGRESQL[1]])
def test_rollback_is_refused_if_the_older_code_cannot_use_the_tables(keeper):
    """One over a migration that only adds is not."""
    name = f"note_{keeper.revision}"
    with keeper.writing() as writing:
        keeper.add_column(name)
        keeper.released()
        keeper.released("--rollback")
        keeper.released()
        keeper.drop_column(name)
        keeper.released()
        before = keeper.live()
        done = keeper.release("--rollback")
    assert done.returncode == 1
    assert f"it is newer than the code: column greetings.{name} is missing" in done.stdout
    assert writing.failed == []
    assert keeper.live() == before
    keeper.check()


# A step that a release prints, how many seconds after it, and in what it is then.
STEPS = {
    "Build": (0, 0.05),
    "Install packages": (1,),
    "Preflight": (0, 0.7, 2),
    "Back up": (0, 0.1),
    "Switch": (0, 0.3, 1.5, 3),
}
MOMENTS = [(step, delay) for step, delays in STEPS.items() for delay in delays]
# For the live data only.
SLOWLY = "if not trial:\n        time.sleep({})\n    "


def kill_release(keeper: Keeper, step: str, delay: float) -> None:
    """Kill a release some time after it has begun a step, or if it is complete by then."""
    command = keeper.machine.command(f"exec {keeper.checkout}/deploy/release")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith(f"-- {step}"):
                break
        else:
            pytest.fail(f"no step {step}")
        time.sleep(delay)
        keeper.machine.run(f"pkill -KILL -f '^/usr/bin/python3 -B {keeper.checkout}/deploy/'")


@on_one_machine(
    {"site step delay": [([*DATA_SITES][n % 7], *moment) for n, moment in enumerate(MOMENTS)]}
)
def test_killed_release_with_a_migration_loses_nothing(keeper, step, delay):
    """And the next one completes it."""
    keeper.add_column(f"killed_{keeper.revision}", SLOWLY.format(2))
    with keeper.writing() as writing:
        kill_release(keeper, step, delay)
        time.sleep(1)
        keeper.released()
    assert writing.failed == []
    keeper.check()
    assert keeper.live()[1] == keeper.revision
    assert keeper.machine.run(f"ls -d /var/lib/private/{keeper.site}-trial").returncode


RAISE = "op.execute(\"INSERT INTO greetings (name) VALUES ('half')\")\n    "
FAULTS = {
    "in its middle": RAISE + 'raise ValueError("too odd")',
    "in its middle, with the live data only": (
        RAISE + 'if not trial:\n        raise ValueError("too odd")'
    ),
}


@pytest.mark.parametrize("site", [FEW[1], POSTGRESQL[0]])
@pytest.mark.parametrize("fault", FAULTS)
def test_migration_that_fails_changes_nothing(keeper, fault):
    keeper.add_column("odd")
    keeper.migrate(FAULTS[fault])
    before = keeper.live()
    with keeper.writing() as writing:
        done = keeper.release()
    assert done.returncode == 1, done.stdout
    assert "too odd" in done.stdout
    assert f"{int(keeper.revision) - 1:04} -> {keeper.revision}" in done.stdout, done.stdout
    assert "The previous release is still live" in done.stdout
    assert writing.failed == []
    assert keeper.live() == before
    keeper.check()


@pytest.mark.parametrize("site", [FEW[0], POSTGRESQL[1]])
def test_requests_wait_for_a_migration_that_takes_long(keeper):
    keeper.add_column(f"slow_{keeper.revision}", SLOWLY.format(20))
    with keeper.writing() as writing:
        keeper.released()
    assert writing.failed == []
    assert 20 < writing.longest < 60
    keeper.check()


@pytest.mark.parametrize("site", [FEW[0], POSTGRESQL[1]])
def test_release_that_fails_after_its_migration_is_undone(keeper):
    """The older code cannot run on the new tables, so the migration is undone first."""
    keeper.add_column(f"gone_{keeper.revision}")
    keeper.released()
    keeper.drop_column(f"gone_{int(keeper.revision) - 1:04}")
    routes = keeper.folder / "app/routes.py"
    check = "\nif not os.environ['STATE_DIRECTORY'].endswith('-trial'):\n    1 / 0\n"
    routes.write_text(routes.read_text() + check)
    before = keeper.live()
    with keeper.writing() as writing:
        done = keeper.release()
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stdout
    assert writing.failed == []
    assert keeper.live() == before
    keeper.check()
