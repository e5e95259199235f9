"""Data on a real Debian: no acknowledged row is lost, whatever is released, killed or full.

Writers post rows meanwhile, and a row is acknowledged when its answer has arrived. At the
end of each test, every acknowledged row of the site is there exactly once.
"""

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.commands import ok
from support.machine import Machine, root_file_system
from support.online import (
    DATA_SITES,
    LOCKS,
    Online,
    Writing,
    domain,
    edited,
    kill_a_worker,
    kill_release,
    put_online,
)
from support.project import edit, section, shell_blocks
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
        assert missing[:9] == []
        assert repeated[:9] == []
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

    def greet(self, text: str) -> tuple[str, str]:
        """Send the form with a new name, and return the status and the body."""
        name = f"{text} {time.time_ns()}"
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


def on_one_machine(cases: dict[str, list], first: int = 0) -> pytest.MarkDecorator:
    """Run each case for a site on one machine, the next one on the other.

    cases: the names of arguments, and their values. first: the machine of the first case.
    """
    [(names, values)] = cases.items()
    found = [(MACHINES[number % 2], *case) for number, case in enumerate(values, first)]
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
        assert keeper.greet("first")[0] == "303"
        assert keeper.names()[-1] == keeper.rows[-1]
        keeper.check()
        files = keeping.machine.ok(f"ls /var/lib/{keeper.site}/")
        assert ("app.db" in files) == (keeper.site in SQLITE)
    assert keeping.machine.run("setpriv --reuid=nobody ls /var/lib/private").returncode != 0


@on_one_machine({"site": [(site,) for site in FEW]})
def test_one_off_command_runs_as_the_app(keeper):
    """With its user, settings, packages and data, in its sandbox; nothing else is writable."""
    run = f"/opt/{keeper.site}/deploy/run"
    assert keeper.machine.ok(f"{run} id -un") == f"{keeper.site}\n"
    assert keeper.machine.ok(f"{run} printenv APP_ENV") == "production\n"
    settings = keeper.machine.ok(f"cat /etc/{keeper.site}.env")
    assert keeper.machine.ok(f"{run} printenv SECRET_KEY").strip() in settings
    program = "import os, sys, app.main; print(os.environ['STATE_DIRECTORY'], sys.prefix)"
    release = keeper.machine.ok(f"readlink /opt/{keeper.site}").strip()
    places = f"/var/lib/{keeper.site} {release}/.venv\n"
    assert keeper.machine.ok(f'{run} python -c "{program}"') == places
    assert keeper.machine.ok(f"echo typed | {run} cat") == "typed\n"
    assert keeper.machine.run(f"{run} sh -c 'exit 3'").returncode == 3
    assert keeper.machine.run(f"{run} cat /etc/{keeper.site}.env").returncode
    for place in ("/opt", "/etc", "/root", "/var/backups"):
        assert keeper.machine.run(f"{run} touch {place}/made").returncode, place
    keeper.machine.ok(f"{run} sh -c 'touch $STATE_DIRECTORY/made'")
    owner = f"stat -c %U /var/lib/{keeper.site}/made /var/lib/{keeper.site}/app.db"
    made, database = keeper.machine.ok(owner).split()  # newer versions of systemd map them
    assert made == database
    keeper.machine.ok(f"rm /var/lib/{keeper.site}/made")
    done = keeper.machine.run(f"setpriv --reuid=nobody {run} id")
    assert (done.returncode, "sudo deploy/run" in done.stdout) == (1, True)
    assert keeper.status() == "200"


@on_one_machine({"site": [(FEW[0],)]})
def test_one_off_command_of_the_framework(keeper):
    """Flask's shell, as deploy/README.md shows it."""
    script = "from app.models import Greeting; print(Greeting.__tablename__)"
    shell = f"/opt/{keeper.site}/deploy/run flask shell"
    assert "greetings" in keeper.machine.ok(f"echo '{script}' | {shell}")


def release_in_a_row(keeper: Keeper, count: int) -> Writing:
    """Release under load: a column is added, then deleted, then the next is added."""
    with keeper.writing() as writing:
        for number in range(count):
            if number % 2 == 0:
                keeper.add_column(f"extra_{number}")
            else:
                keeper.drop_column(f"extra_{number - 1}")
            keeper.released()
            assert keeper.live()[1] == keeper.revision
    return writing


# How many releases in a row. Ten take three minutes.
COUNTS = dict.fromkeys(DATA_SITES, 1) | {FEW[0]: 10, POSTGRESQL[1]: 10}


@on_one_machine({"site count": sorted(COUNTS.items(), key=lambda each: -each[1])})
def test_releases_with_migrations_lose_nothing(keeper, count):
    """They expand the tables and contract them; see "Change tables" in deploy/README.md."""
    writing = release_in_a_row(keeper, count)
    assert writing.failed == []
    assert len(writing.acknowledged) > 10 * count
    assert writing.longest < 30
    keeper.check()
    assert min(3, count + 1) <= len(keeper.backups("release")) <= 3


@on_one_machine({"site": [(FEW[0],)]}, first=1)
def test_rollback_is_refused_if_the_older_code_cannot_use_the_tables(keeper):
    """One over a migration that only adds is not, and then backups are restored as ever."""
    name = f"note_{keeper.revision}"
    with keeper.writing() as first:
        keeper.add_column(name)
        keeper.released()
        keeper.released("--rollback")
    assert first.failed == []
    for options in ("", "--restore"):
        keeper.machine.ok(f"{keeper.checkout}/deploy/backup {options}")
    with keeper.writing() as writing:
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
STEPS = {"Preflight": (0.7, 2), "Back up": (0,), "Switch": (0, 0.3, 1.5)}
MOMENTS = [(step, delay) for step, delays in STEPS.items() for delay in delays]
# For the live data only; the second one does it once, and not again after a reboot.
SLOWLY = "if not trial:\n        time.sleep({})\n    "
SLOWLY_ONCE = """slow = os.environ["STATE_DIRECTORY"] + "/slow"
    if not trial and not os.path.exists(slow):
        open(slow, "w").close()
        time.sleep(600)
    """


@on_one_machine(
    {
        "site step delay": [
            (site, *each) for site, each in zip(DATA_SITES, MOMENTS, strict=False)
        ]
    }
)
def test_killed_release_with_a_migration_loses_nothing(keeper, step, delay):
    """And the next one completes it."""
    keeper.add_column(f"killed_{keeper.revision}", SLOWLY.format(2))
    with keeper.writing() as writing:
        kill_release(keeper.machine, f"{keeper.checkout}/deploy", step, delay)
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


@on_one_machine(
    {"site fault": [(site, each) for each in FAULTS for site in (FEW[1], POSTGRESQL[0])]}
)
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


@on_one_machine({"site": [(FEW[0],)]})
def test_requests_wait_for_a_migration_that_takes_long(keeper):
    keeper.add_column(f"slow_{keeper.revision}", SLOWLY.format(12))
    with keeper.writing() as writing:
        keeper.released()
    assert writing.failed == []
    assert 12 < writing.longest < 60
    keeper.check()


@on_one_machine({"site": [(POSTGRESQL[1],)]})
def test_migration_waits_for_a_lock_for_seconds_only(keeper):
    """If another program reads the table in a transaction that it does not end."""
    statement = "BEGIN; SELECT count(*) FROM greetings; SELECT pg_sleep(900)"
    psql = f"sudo -u postgres psql -qd {keeper.site} -c '{statement}'"
    keeper.machine.ok(f"systemd-run --quiet --unit=reader {psql}")
    try:
        keeper.add_column("odd")
        before = keeper.live()
        with keeper.writing() as writing:
            done = keeper.release()
    finally:
        keeper.machine.ok("systemctl stop reader")
    assert done.returncode == 1
    assert "lock timeout" in done.stdout
    assert writing.failed == []
    assert keeper.live() == before
    keeper.check()


@on_one_machine({"site": [(FEW[1],)]}, first=1)
def test_release_that_fails_after_its_migration_is_undone(keeper):
    """The older code cannot run on the new tables, so the migration is undone first."""
    name = f"gone_{keeper.revision}"
    keeper.add_column(name)
    keeper.released()
    keeper.drop_column(name)
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


# What is killed.


def test_killed_processes_lose_only_their_own_requests(keeping, keepers):
    """Workers, and the main process with all its workers."""

    def kill(keeper: Keeper) -> None:
        for number in range(6):
            if number % 3 == 2:
                # Once it has started: the health check of a start waits for up to 60 s.
                keeping.machine.wait_until(f"systemctl is-active {keeper.site}", 60)
                main = f"$(systemctl show -P MainPID {keeper.site})"
                keeping.machine.ok(f"kill -KILL {main}")
            else:
                kill_a_worker(keeping, keeper.site)
            time.sleep(1)
            keeper.wait_until_healthy()

    for keeper, writing in at_once([*keepers.values()], kill).items():
        # At most what the two writers had sent to the killed processes.
        assert len(writing.failed) <= 12, writing.failed
        assert len(writing.acknowledged) >= 5
        keeper.check()
        units = f"{keeper.site}.service {keeper.site}.socket"
        keeping.machine.ok(f"systemctl reset-failed {units}")


def kill_backup(keeper: Keeper, options: str, step: str, delay: float) -> int:
    """Kill deploy/backup some time after it has begun a step, or has started.

    Return how many processes were killed: none if it was complete.
    """
    script = f"{keeper.checkout}/deploy/backup"
    command = keeper.machine.command(f"exec {script} {options}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if step:
            assert any(line.startswith(f"-- {step}") for line in process.stdout)
        time.sleep(delay)
        return keeper.machine.kill(f"/usr/bin/python3 -B {script}")


@pytest.fixture
def upload(keeper) -> Iterator[str]:
    """A file of random bytes among the data, so that a backup takes some time."""
    path = f"/var/lib/private/{keeper.site}/upload"
    keeper.machine.ok(
        f"head -c 30M /dev/urandom > {path}; chown --reference $(dirname {path}) {path}"
    )
    yield path
    keeper.machine.ok(f"rm -f {path}")


@on_one_machine({"site": [(FEW[1],), (POSTGRESQL[0],)]})
def test_killed_backup_leaves_no_backup_that_is_incomplete(keeper, upload):
    """And the next one is complete."""
    before = keeper.backups()
    with keeper.writing() as writing:
        killed = [kill_backup(keeper, "", "", n / 5) for n in range(1, 8)]
        keeper.machine.ok(f"{keeper.checkout}/deploy/backup")
    assert sum(killed) >= 3
    assert writing.failed == []
    for path in {*keeper.backups()} - {*before}:
        assert "data/upload" in keeper.machine.ok(f"tar -tzf {path}")
    keeper.machine.ok(f"{keeper.checkout}/deploy/backup --check")
    keeper.machine.ok(f"test ! -e /var/backups/{keeper.site}/.work")
    keeper.check()


@on_one_machine(
    {
        "step delay site": [
            (step, delay, site)
            for step, delay in [
                ("Unpack", 0.1),
                ("Replace", 0),
                ("Replace", 0.3),
                ("Replace", 1),
            ]
            for site in (FEW[0], POSTGRESQL[1])
        ]
    }
)
def test_killed_restore_is_undone_by_the_next_command(keeper, step, delay):
    keeper.machine.ok(f"{keeper.checkout}/deploy/backup")
    assert keeper.greet("later")[0] == "303"
    assert kill_backup(keeper, "--restore", step, delay)
    keeper.machine.ok(f"systemctl start {keeper.site}-backup")  # in its sandbox
    keeper.wait_until_healthy()
    keeper.check()


# Disks that are full.


@contextlib.contextmanager
def small_disk(keeper: Keeper, path: str) -> Iterator[None]:
    """Give a directory a disk of its own, with 4 MB, while the block runs."""
    stop, start = (f"systemctl {verb} {keeper.site}.service" for verb in ("stop", "start"))
    kept = f"/srv/kept-{keeper.site}"
    owned = f"chown --reference {kept} {path}; chmod --reference {kept} {path}"
    keeper.machine.ok(
        f"{stop}; cp -a {path} {kept}; mount -t tmpfs -o size=4m tmpfs {path}; {owned};"
        f" cp -a {kept}/. {path}/; rm -r {kept}; {start}"
    )
    try:
        yield
    finally:
        keeper.machine.ok(
            f"{stop}; cp -a {path} {kept}; umount {path}; find {path} -mindepth 1 -delete;"
            f" cp -a {kept}/. {path}/; {owned}; rm -r {kept}; {start}"
        )


def fill(keeper: Keeper, path: str) -> None:
    assert "No space left" in keeper.machine.run(f"cat /dev/zero > {path}/filler").stdout


@on_one_machine({"site": [(site,) for site in SQLITE]})
def test_full_disk_refuses_rows_and_loses_none(keeper):
    """Pages are still read, a form gets an error page, and no restart is needed after."""
    path = f"/var/lib/private/{keeper.site}"
    with small_disk(keeper, path):
        fill(keeper, path)
        with keeper.writing() as writing:
            time.sleep(1)
            status, page = keeper.greet("too much")
        assert status == "500"
        assert "Something broke" in page
        assert {tuple(each[1:]) for each in writing.failed} == {("POST", "/hello/", 500)}
        assert writing.acknowledged == []
        keeper.machine.ok(f"rm {path}/filler")
        assert keeper.greet("enough")[0] == "303"
        assert compare([], writing.uncertain, keeper.names()).unexpected == []
        keeper.check()
    keeper.check()


@on_one_machine({"site": [(FEW[0],)]})
def test_full_disk_in_a_migration_changes_nothing(keeper):
    """The trial had more room."""
    keeper.add_column("odd")
    keeper.migrate('op.execute("CREATE TABLE bulk AS SELECT zeroblob(9000000) AS data")')
    with small_disk(keeper, f"/var/lib/private/{keeper.site}"):
        before = keeper.live()
        with keeper.writing() as writing:
            done = keeper.release()
        assert done.returncode == 1
        assert "disk is full" in done.stdout
        assert f"-> {keeper.revision}" in done.stdout
        assert writing.failed == []
        assert keeper.live() == before
        keeper.check()


@on_one_machine({"site": [(FEW[1],), (POSTGRESQL[0],)]})
def test_full_disk_stops_the_backup_and_the_release_that_needs_one(keeper, upload):
    path = f"/var/backups/{keeper.site}"
    keeper.add_column("odd")
    before = keeper.live()
    keeper.machine.ok(f"mount -t tmpfs -o size=4m tmpfs {path}")
    try:
        with keeper.writing() as writing:
            for script in ("backup", "release"):
                done = keeper.machine.run(f"{keeper.checkout}/deploy/{script}")
                assert done.returncode == 1, done.stdout
                assert "No space left on device" in done.stdout
                assert keeper.machine.ok(f"ls -A {path}") == ".lock\n"
    finally:
        keeper.machine.ok(f"umount {path}")
    assert writing.failed == []
    assert keeper.live() == before
    keeper.check()


# The file of SQLite.


@contextlib.contextmanager
def stopped(keeper: Keeper) -> Iterator[str]:
    """Stop the app while the block runs, and start it again. Yields its database's path."""
    keeper.machine.ok(f"systemctl stop {keeper.site}.socket {keeper.site}.service")
    try:
        yield f"/var/lib/private/{keeper.site}/app.db"
    finally:
        keeper.machine.run(f"systemctl start {keeper.site}.socket {keeper.site}.service")


def start_again(keeper: Keeper) -> None:
    units = f"{keeper.site}.socket {keeper.site}.service"
    keeper.machine.ok(f"systemctl reset-failed {units}; systemctl restart {units}")


@on_one_machine({"site": [(site,) for site in FEW]})
def test_read_only_database_is_read(keeper):
    with stopped(keeper) as path:
        keeper.machine.ok(f"chmod 400 {path}")
    try:
        assert keeper.status("/hello/") == "200"
        assert keeper.greet("not this one")[0] == "500"
        assert "readonly database" in keeper.journal(time.time() - 10)
    finally:
        keeper.machine.ok(f"chmod 600 {path}")
        start_again(keeper)
    assert keeper.greet("writable")[0] == "303"
    keeper.check()


DAMAGE = {
    "missing": ("rm $DB", "There is no "),
    "empty": ("truncate --size 0 $DB", "it is at revision None"),
    "without a header": (
        "dd if=/dev/urandom of=$DB bs=100 count=1 conv=notrunc status=none",
        "file is not a database",
    ),
    "with damaged pages": (
        "dd if=/dev/urandom of=$DB bs=4096 seek=1 count=100 conv=notrunc status=none",
        "malformed",
    ),
}
FEW_STARTS = "[Unit]\\nStartLimitBurst=2\\n"


@contextlib.contextmanager
def damaged(keeper: Keeper, script: str) -> Iterator[None]:
    """Damage the database until the end of the block. The app has given up to start."""
    drop_in = f"/run/systemd/system/{keeper.site}.service.d"
    kept = f"/srv/{keeper.site}.db"
    with stopped(keeper) as path:
        keeper.machine.ok(
            f"cp -a {path} {kept}; DB={path}; {script}; mkdir -p {drop_in};"
            f" printf '{FEW_STARTS}' > {drop_in}/few.conf; systemctl daemon-reload"
        )
    try:
        keeper.machine.wait_until(f"systemctl is-failed {keeper.site}.socket", 30)
        yield
    finally:
        keeper.machine.ok(f"rm {drop_in}/few.conf; systemctl daemon-reload")
        if keeper.status() != "200":
            with stopped(keeper) as path:
                keeper.machine.ok(f"cp -a {kept} {path}")
            start_again(keeper)
        keeper.machine.ok(f"rm {kept}")


@on_one_machine({"site damage": [(FEW[n // 2 % 2], each) for n, each in enumerate(DAMAGE)]})
def test_damaged_database_is_restored_from_the_backup(keeper, damage):
    """The app, a release and a backup say what is wrong, and none makes it worse."""
    script, reason = DAMAGE[damage]
    keeper.machine.ok(f"{keeper.checkout}/deploy/backup")
    backups, since = keeper.backups(), time.time()
    with damaged(keeper, script):
        assert reason in keeper.journal(since)
        before = keeper.machine.ok(f"readlink /opt/{keeper.site}")
        for command in ("release", "backup"):
            done = keeper.machine.run(f"{keeper.checkout}/deploy/{command}")
            assert done.returncode == 1, done.stdout
            assert "app.db" in done.stdout or reason in done.stdout
        assert keeper.machine.ok(f"readlink /opt/{keeper.site}") == before
        assert keeper.backups() == backups
        keeper.machine.ok(f"{keeper.checkout}/deploy/backup --restore {backups[-1]}")
        assert keeper.status() == "200"
    keeper.check()


# PostgreSQL.


@pytest.mark.parametrize("site", POSTGRESQL)
def test_app_comes_back_with_postgresql(keeper):
    """Within seconds and without a restart; what it acknowledged before is there."""
    restarts = f"systemctl show -P NRestarts {keeper.site}"
    before = keeper.machine.ok(restarts)
    with keeper.writing() as writing:
        time.sleep(1)
        keeper.machine.ok("systemctl stop postgresql")
        time.sleep(2)
        assert keeper.status() in ("500", "503")
        keeper.machine.ok("systemctl start postgresql")
        keeper.wait_until_healthy(10)
        time.sleep(1)
    assert {result for *_, result in writing.failed} <= {500, 503}
    assert keeper.machine.ok(restarts) == before
    keeper.check()


def restart_until(keeper: Keeper, message: str, since: float) -> None:
    """Restart the app, and wait until its journal has a message: it need not start."""
    keeper.machine.ok(f"systemctl restart --no-block {keeper.site}")
    journal = f"journalctl --unit={keeper.site} --since=@{int(since)}"
    keeper.machine.wait_until(f"{journal} | grep -F '{message}'", 30)


@on_one_machine({"site": [(site,) for site in POSTGRESQL]})
def test_app_starts_before_postgresql(keeper):
    since = time.time()
    keeper.machine.ok("systemctl stop postgresql")
    restart_until(keeper, "Check DATABASE_URL", since)
    keeper.machine.ok("systemctl start postgresql")
    keeper.wait_until_healthy(30)
    keeper.check()


@on_one_machine({"site": [(site,) for site in POSTGRESQL]})
def test_wrong_password_is_in_no_log(keeper):
    before, since = keeper.live(), time.time()
    url = f"postgresql://{keeper.site}:wrong-secret@127.0.0.1/{keeper.site}"
    with edited(keeper.online, f"/etc/{keeper.site}.env", f"\nDATABASE_URL={url}\n"):
        restart_until(keeper, "password authentication failed", since)
        outputs = [
            keeper.machine.run(f"{keeper.checkout}/deploy/{script}").stdout
            for script in ("release", "backup", "run alembic current")
        ]
    for text in (keeper.journal(since), *outputs):
        assert "wrong-secret" not in text
        assert "password authentication failed" in text
    start_again(keeper)
    assert keeper.live() == before
    keeper.check()


@on_one_machine({"site": [(POSTGRESQL[0],)]}, first=1)
def test_database_with_a_password(keeper):
    """As on another machine: over TCP. No log and no list of processes has the password."""
    machine, since = keeper.machine, time.time()
    password, encoded = "p@ss:w/rd%1", "p%40ss%3Aw%2Frd%251"
    statement = f"ALTER ROLE \"{keeper.site}\" CREATEDB PASSWORD '{password}'\n"
    machine.path("/root/statement").write_text(statement)
    machine.ok("sudo -u postgres psql -q < /root/statement")
    url = f"postgresql://{keeper.site}:{encoded}@127.0.0.1/{keeper.site}"
    processes = "while :; do cat /proc/[0-9]*/cmdline >> /root/processes 2>/dev/null; done"
    machine.ok(f"systemd-run --quiet --unit=look sh -c '{processes}'")
    try:
        with edited(keeper.online, f"/etc/{keeper.site}.env", f"\nDATABASE_URL={url}\n"):
            start_again(keeper)
            with keeper.writing() as writing:
                keeper.add_column(f"remote_{keeper.revision}")
                keeper.released()
            assert writing.failed == []
            machine.ok(f"{keeper.checkout}/deploy/backup")
            machine.ok(f"{keeper.checkout}/deploy/backup --restore")
            keeper.check()
    finally:
        machine.run("systemctl stop look")
    start_again(keeper)
    seen = machine.ok("tr '\\0' ' ' < /root/processes; rm /root/processes")
    assert "pg_dump" in seen
    for text in (seen, keeper.journal(since)):
        assert password not in text
        assert encoded not in text


@on_one_machine({"site": [(site,) for site in POSTGRESQL]})
def test_too_few_connections_lose_nothing(keeper):
    def limit(count: int) -> str:
        statement = f'ALTER ROLE \\"{keeper.site}\\" CONNECTION LIMIT {count}'
        return f'sudo -u postgres psql -qc "{statement}"'

    activity = f"pg_stat_activity WHERE usename = '{keeper.site}'"
    end = f'sudo -u postgres psql -qc "SELECT pg_terminate_backend(pid) FROM {activity}"'
    with keeper.writing("--writers=6", "--pause=0.1") as writing:
        time.sleep(1)
        keeper.machine.ok(f"{limit(1)}; {end}")
        time.sleep(3)
        keeper.machine.ok(limit(-1))
        keeper.wait_until_healthy(10)
    assert {result for *_, result in writing.failed} <= {500, 503}
    keeper.check()


# Backups.


@on_one_machine({"site": [(FEW[1],)]}, first=1)
def test_backup_from_two_releases_ago_is_restored(keeper):
    """With the rows of then and the tables of now; nobody gets an error meanwhile."""
    then = [*keeper.rows]
    for _ in range(2):
        keeper.add_column(f"later_{keeper.revision}")
        keeper.released()
        assert keeper.greet("later")[0] == "303"
    backup = keeper.backups("release")[-2]
    with keeper.writing() as writing:
        keeper.machine.ok(f"{keeper.checkout}/deploy/backup --restore {backup}")
    assert writing.failed == []
    names = keeper.names()
    assert {*then} <= {*names}
    assert keeper.rows[-1 - len(writing.acknowledged)] not in names
    assert keeper.live()[1] == keeper.revision
    keeper.rows = then + [name for name in writing.acknowledged if name in {*names}]
    keeper.check()


@on_one_machine({"site": [(FEW[0],), (POSTGRESQL[0],)]})
def test_backups_are_copied_elsewhere(keeper):
    """As deploy/README.md says, but into a directory instead of over SSH."""
    project = keeper.online.projects[keeper.site]
    guide = section(project, "Data and backups")
    [drop_in] = re.findall(r"(?ms)^```ini\n(.*?)^```$", guide)
    set_up, bring_back = (
        block for block in shell_blocks(project, "Data and backups") if "restic" in block
    )
    edit_unit = f"sudo systemctl edit {keeper.site}-backup\n"
    assert set_up.endswith(edit_unit)
    elsewhere = f"/var/elsewhere-{keeper.site}"

    def type_in(block: str) -> None:
        address = f"sftp:you@backup.example.com:{keeper.site}"
        assert address in block
        keeper.machine.ok(block.replace(address, elsewhere))

    folder = f"/etc/systemd/system/{keeper.site}-backup.service.d"
    try:
        type_in(set_up.removesuffix(edit_unit))
        type_in(f"mkdir {folder}; cat > {folder}/override.conf <<'END'\n{drop_in}END\n")
        keeper.machine.ok("systemctl daemon-reload")
        assert keeper.greet("before")[0] == "303"
        keeper.machine.ok(f"systemctl start {keeper.site}-backup")
        newest = keeper.backups()[-1]
        keeper.machine.ok(f"rm /var/backups/{keeper.site}/*.tar.gz")
        type_in(bring_back)
        assert keeper.backups()[-1] == newest
        keeper.machine.ok(f"{keeper.checkout}/deploy/backup --restore")
        keeper.check()
    finally:
        keeper.machine.ok(f"rm -rf {folder}; systemctl daemon-reload")


@on_one_machine({"site": [(POSTGRESQL[1],)]})
def test_backup_is_restored_on_another_machine(keeper, tmp_path_factory):
    """On which the site was deployed by hand before, with the commands of deploy/README.md."""
    keeper.machine.ok(f"{keeper.checkout}/deploy/backup")
    backup = keeper.backups()[-1]
    code_name = keeper.machine.ok(". /etc/os-release; echo $VERSION_CODENAME").strip()
    folder = tmp_path_factory.mktemp(f"second-{code_name}")
    root = folder / "root"
    ok("cp", "--archive", root_file_system(code_name, LOCKS), root)
    ok("git", "clone", "--quiet", "--bare", keeper.folder, root / f"srv/git/{keeper.site}.git")
    machine = Machine(root, [domain(keeper.site)])
    try:
        put_online(machine, {keeper.site: keeper.online.projects[keeper.site]}, by_hand=True)
        shutil.copy(keeper.machine.path(backup), root / "root/backup.tar.gz")
        second = Online(machine, keeper.online.projects, by_hand=True)
        machine.ok(f"/opt/{keeper.site}/deploy/backup --restore /root/backup.tar.gz")
        assert second.status(keeper.site, "/healthz") == "200"
        assert Writing(second, keeper.site).names() == keeper.names()
    finally:
        machine.stop()


def test_machine_that_is_cut_off_loses_nothing(keeping, keepers):
    """Two of the sites are migrated at that moment. Last, because it reboots the machine."""
    migrated = [keepers[FEW[0]], keepers[POSTGRESQL[1]]]

    def begin(keeper: Keeper) -> None:
        keeper.add_column(f"cut_{keeper.revision}", SLOWLY_ONCE)
        command = keeper.machine.command(f"exec {keeper.checkout}/deploy/release")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        stack.callback(process.communicate)
        stack.callback(process.kill)  # nsenter, outside of the machine
        assert any(line.startswith("-- Switch") for line in process.stdout)

    with contextlib.ExitStack() as stack:
        for keeper in keepers.values():
            stack.enter_context(keeper.writing("--writers=2", "--pause=0.2"))
        for keeper in migrated:
            begin(keeper)
        for keeper in migrated:
            slow = f"/var/lib/private/{keeper.site}/slow"
            keeping.machine.wait_until(f"test -e {slow}", 30)
        keeping.machine.cut_off()
    keeping.machine.start()
    for keeper in keepers.values():
        keeper.wait_until_healthy()
        keeper.check()
    for keeper in migrated:
        assert keeper.live()[1] == keeper.revision
        keeper.released()
        keeper.check()
