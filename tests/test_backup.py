"""What deploy/backup, the trial and a release do with files, without a server."""

import contextlib
import gzip
import importlib.machinery
import importlib.util
import os
import sqlite3
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from support.commands import commit
from support.database import Database
from support.project import FEW_STACKS, QUICK_STACKS

pytestmark = pytest.mark.pairs(FEW_STACKS[:1])  # the same code for all


@pytest.fixture
def script(project: Path, deploy_module):
    """Returns a module of deploy/, or one of its scripts."""

    def load(name: str) -> ModuleType:
        loader = importlib.machinery.SourceFileLoader(name, f"{project}/deploy/{name}")
        spec = importlib.util.spec_from_loader(name, loader)
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        return module

    return load


@pytest.fixture
def data(script) -> ModuleType:
    """The module deploy/data.py."""
    return script("data.py")


def test_seven_days_four_weeks_and_three_releases_are_kept(script):
    """Of two backups a day for 60 days, and five before releases."""
    expired = script("backup").expired
    start = datetime(2026, 1, 1, 3, 0, 0)  # a Thursday
    times = [start + timedelta(hours=12 * n) for n in range(120)]
    daily = [Path(f"my-app-{time:%Y%m%d-%H%M%S}-daily.tar.gz") for time in times]
    releases = [Path(f"my-app-{time:%Y%m%d-%H%M%S}-release.tar.gz") for time in times[50:55]]
    backups = sorted(daily + releases)
    kept = [path for path in backups if path not in expired(backups)]
    assert [path for path in kept if path in releases] == releases[-3:]
    days = [path.name[7:15] for path in kept if path in daily]
    # The last seven days, and the newest of each week: Sundays, except of this week.
    assert days == ["20260208", "20260215", "20260222", *(f"202602{n}" for n in range(23, 29)),
                    "20260301"]  # fmt: skip
    assert all(path.name[16:18] == "15" for path in kept if path in daily)  # the newest
    assert expired(kept) == []


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """What an app has written: a database in use, files, and links."""
    state = tmp_path / "state"
    (state / "uploads").mkdir(parents=True)
    (state / "uploads/large").write_bytes(b"x" * 3000)
    (state / "uploads/small").write_bytes(b"y" * 1000)
    (state / "latest").symlink_to("uploads/small")
    (state / "shadow").symlink_to("/etc/shadow")
    (state / "gone").symlink_to("/nowhere")
    with contextlib.closing(sqlite3.connect(state / "app.db")) as database, database:
        database.execute("CREATE TABLE numbers (number)")
        database.execute("INSERT INTO numbers VALUES (1)")
    return state


def test_database_is_copied_without_a_transaction_in_progress(data, state, tmp_path):
    """Even if its pages are in the file already. The journal is not copied."""
    with contextlib.closing(sqlite3.connect(state / "app.db")) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("INSERT INTO numbers VALUES (2)")
        writer.commit()
        writer.execute("INSERT INTO numbers VALUES (3)")
        assert (state / "app.db-wal").exists()
        assert data.copy_files(state, tmp_path / "copy") == []
    assert not (tmp_path / "copy/app.db-wal").exists()
    with contextlib.closing(sqlite3.connect(tmp_path / "copy/app.db")) as copy:
        assert copy.execute("SELECT number FROM numbers").fetchall() == [(1,), (2,)]


def test_links_are_copied_as_links(data, state, tmp_path):
    """Not what they lead to: the app could make root copy a file that it may not read."""
    data.copy_files(state, tmp_path / "copy")
    for name, target in {
        "latest": "uploads/small",
        "shadow": "/etc/shadow",
        "gone": "/nowhere",
    }.items():
        assert (tmp_path / "copy" / name).readlink() == Path(target)


def test_large_files_are_left_out_of_a_trial(data, state, tmp_path):
    left_out = data.copy_files(state, tmp_path / "copy", limit=2000)
    assert left_out == [f"{state}/uploads/large (0 MB)"]
    assert (tmp_path / "copy/uploads/small").read_bytes() == b"y" * 1000
    assert (tmp_path / "copy/app.db").exists()


def test_copy_that_does_not_fit_is_not_begun(data, state, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=5000)  # less than the database and the files need
    monkeypatch.setattr(data.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(data.Failure, match="No space left on device"):
        data.copy_files(state, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_damaged_database_is_not_copied(data, state, tmp_path):
    content = bytearray((state / "app.db").read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    (state / "app.db").write_bytes(content)
    with pytest.raises(data.Failure, match=r"app[.]db"):
        data.copy_files(state, tmp_path / "copy")


@pytest.mark.parametrize("url", ["sqlite:////data/app.db", "sqlite:////var/lib//my-app/app.db"])
def test_database_that_trials_and_backups_do_not_copy_is_refused(
    data, tmp_path, monkeypatch, url
):
    """Otherwise, a trial would migrate the live one, and backups would be without it."""
    for name in ("PRIVATE", "TRIAL", "TRIAL_SETTINGS"):
        monkeypatch.setattr(data, name, tmp_path / name)
    monkeypatch.setattr(data, "SETTINGS", tmp_path / "settings")
    (tmp_path / "settings").write_text(f"DATABASE_URL={url}\n")
    monkeypatch.setattr(data, "read_settings", lambda: {"DATABASE_URL": url})
    for step in (data.prepare_trial, lambda: data.check_complete(tmp_path)):
        with pytest.raises(data.Failure, match="have only what is in /var/lib/my-app, not /"):
            step()
    assert not (tmp_path / "TRIAL_SETTINGS").exists()


# Backups and restores, with a stand-in for the app.


@pytest.fixture
def backup(script, tmp_path, monkeypatch) -> ModuleType:
    """The script deploy/backup, with all its directories in tmp_path.

    `starts` has for each start of the app whether it migrated; `failures`, those to come.
    """
    module = script("backup")
    private, backups = tmp_path / "private", tmp_path / "backups"
    for path in (private / "my-app", backups, tmp_path / "live"):
        path.mkdir(parents=True)
    places = {"PRIVATE": private, "STATE": private / "my-app", "LIVE": tmp_path / "live"}
    places |= {"VERSIONS": tmp_path / "versions", "UNPACKED": private / "my-app.unpacked"}
    places |= {"BACKUPS": backups, "WORK": backups / ".work"}
    places |= {"RESTORING": backups / ".restoring"}
    for name, path in places.items():
        monkeypatch.setattr(module, name, path)
    module.starts, module.failures = [], []

    def start(migrate: bool = False) -> None:
        module.starts.append(migrate)
        if module.failures:
            raise module.failures.pop(0)

    for name in ("run", "capture"):  # everything but systemctl
        command = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, do=command: a[0] == "systemctl" or do(*a))
    monkeypatch.setattr(module, "start", start)
    monkeypatch.setattr(module, "lock", lambda *_: None)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(os, "umask", lambda _: 0)
    return module


def write_rows(backup: ModuleType, *names: str) -> None:
    """Let the app write: each row is a file."""
    for name in names:
        (backup.STATE / name).touch()


def rows(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_restored_data_are_those_of_the_backup(backup, capsys):
    write_rows(backup, "before")
    backup.main([])
    write_rows(backup, "later")
    backup.main(["--restore"])
    assert rows(backup.STATE) == {"before"}
    [aside] = backup.PRIVATE.glob("my-app.*")
    assert rows(aside) == {"before", "later"}
    assert f"To delete it: sudo rm -r {aside}\n" in capsys.readouterr().out
    assert [path.name[-12:] for path in backup.BACKUPS.iterdir()] == ["daily.tar.gz"]


@pytest.mark.parametrize(
    ("answer", "migrated"),
    [("0001\n", True), ("\n", True), ("0002 (head)\n", False), (None, False)],
    ids=["older", "empty", "current", "newer, as after a rollback"],
)
def test_restore_migrates_if_the_code_has_migrations_for_the_backup(
    backup, deploy_module, monkeypatch, answer, migrated
):
    server = deploy_module("server")

    def alembic(*_) -> str:
        if answer is None:
            raise server.Failure("FAILED: Can't locate revision identified by '0002'")
        return answer

    monkeypatch.setattr(server, "alembic", alembic)
    (backup.LIVE / "alembic.ini").touch()
    monkeypatch.setattr(backup, "check_complete", lambda _: None)
    backup.main([])
    backup.main(["--restore"])
    assert backup.starts == [migrated]


def test_backups_on_another_disk_are_restored(backup, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if os.stat(folder).st_dev == backup.PRIVATE.stat().st_dev:
            pytest.skip("/dev/shm is no other file system")
        for name, path in {"BACKUPS": ".", "WORK": ".work", "RESTORING": ".restoring"}.items():
            monkeypatch.setattr(backup, name, Path(folder, path))
        write_rows(backup, "before")
        backup.main([])
        write_rows(backup, "later")
        backup.main(["--restore"])
    assert rows(backup.STATE) == {"before"}


def interrupt(backup: ModuleType, monkeypatch, step: str) -> None:
    """Begin a restore, and cut it off at a step, as a power failure does."""

    def end(*_, **__) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backup, step, end)
        patch.setattr(backup, "undo", lambda: None)
        patch.setattr(backup, "clean", lambda: None)
        with pytest.raises(KeyboardInterrupt):
            backup.restore(backup.find([]))


def test_interrupted_restore_is_undone_and_keeps_what_was_written_since(
    backup, monkeypatch, capsys
):
    """The app has run with the restored data. Only a check leaves them as they are."""
    write_rows(backup, "before")
    backup.main([])
    write_rows(backup, "later")
    interrupt(backup, monkeypatch, "start")
    write_rows(backup, "since")
    with pytest.raises(SystemExit, match="a restore was interrupted"):
        backup.main(["--check"])
    assert rows(backup.STATE) == {"before", "since"}
    backup.main([])
    assert rows(backup.STATE) == {"before", "later"}
    [undone] = backup.PRIVATE.glob("my-app.*")
    assert rows(undone) == {"before", "since"}
    assert f"To delete it: sudo rm -r {undone}\n" in capsys.readouterr().out


@pytest.mark.parametrize("step", ["unpacked_size", "write", "swap"])
def test_restore_interrupted_before_the_data_are_replaced_leaves_nothing(
    backup, monkeypatch, step
):
    write_rows(backup, "before")
    backup.main([])
    interrupt(backup, monkeypatch, step)
    assert backup.UNPACKED.exists()
    backup.main([])
    assert rows(backup.STATE) == {"before"}
    assert rows(backup.PRIVATE) == {"my-app"}
    assert not backup.RESTORING.exists()


def test_restore_that_fails_says_why_also_if_the_data_from_before_fail(backup, capsys):
    """They usually do: this is why they are replaced."""
    write_rows(backup, "broken")
    backup.main([])
    backup.failures += [backup.Failure("backup too new"), backup.Failure("broken as before")]
    with pytest.raises(SystemExit, match="Failed: backup too new\nThe data is as it was"):
        backup.main(["--restore"])
    assert "does not start with the data from before, either: broken as" in (
        capsys.readouterr().out
    )
    assert rows(backup.STATE) == {"broken"}
    assert not backup.RESTORING.exists()


def test_restore_that_cannot_be_undone_says_what_to_run(backup, monkeypatch):
    def fail() -> None:
        raise backup.Failure("disk is read-only")

    backup.main([])
    backup.failures.append(backup.Failure("backup too new"))
    monkeypatch.setattr(backup, "put_back", fail)
    with pytest.raises(SystemExit, match=r"disk is read-only\n.* Run: sudo .*/deploy/backup"):
        backup.main(["--restore"])


def test_second_backup_leaves_the_first_one_alone(backup, monkeypatch):
    """While that is in progress."""

    def lock(*_) -> None:
        raise backup.Failure("Another backup is in progress")

    monkeypatch.setattr(backup, "lock", lock)
    for path in (backup.WORK, backup.UNPACKED):
        path.mkdir()
        with pytest.raises(SystemExit, match="Another backup"):
            backup.main([])
        assert path.exists()


def test_files_of_the_owner_are_no_backups(backup):
    backup.main([])
    [made] = backup.all_backups()
    for name in (
        "before-the-move",
        "2026-copy",
        "20260101-000000-old",
        "20270101-000000-daily-2",
    ):
        (backup.BACKUPS / f"my-app-{name}.tar.gz").touch()
    assert backup.all_backups() == [made]
    assert backup.find([]) == made
    assert backup.problems() == []


def test_backup_that_does_not_fit_is_not_unpacked(backup, data, monkeypatch):
    (backup.STATE / "large").write_bytes(b"x" * 3000)
    backup.main([])
    usage = SimpleNamespace(free=2000)
    monkeypatch.setattr(backup.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SystemExit, match="cannot be restored: No space left on device"):
        backup.main(["--check"])
    with pytest.raises(SystemExit, match="No space left on device"):
        backup.main(["--restore"])
    assert rows(backup.PRIVATE) == {"my-app"}
    assert rows(backup.STATE) == {"large"}


def test_damaged_backup_is_reported(backup):
    (backup.STATE / "large").write_bytes(os.urandom(100_000))
    backup.main([])
    [path] = backup.all_backups()
    whole = path.read_bytes()
    for content in (whole[:50_000], b"", whole[:50_000] + b"x" * 50_000, whole[:-8] + bytes(8)):
        path.write_bytes(content)
        with pytest.raises(SystemExit, match="the newest backup cannot be restored"):
            backup.main(["--check"])


# PostgreSQL.

POSTGRESQL = pytest.mark.pairs(QUICK_STACKS[1:])
# Of the first, only the administrator may create; any owner of a database, the second.
CONTENTS = [
    "CREATE EXTENSION pg_stat_statements",
    "SET ROLE visitor",
    "CREATE SCHEMA shop",
    "CREATE EXTENSION citext SCHEMA shop",
    "CREATE TABLE greetings (name shop.citext)",
    "COMMENT ON TABLE greetings IS 'of visitors'",
    "INSERT INTO greetings VALUES ('Ada')",
]
OWNERS = "SELECT extname, extowner::regrole FROM pg_extension WHERE extname <> 'plpgsql'"


@pytest.fixture
def site(data, databases, tmp_path, monkeypatch) -> Database:
    """The database of a site with extensions, whose owner is not an administrator."""
    database = databases.create()
    name = database.url.partition("@/")[2].partition("?")[0]
    databases.query("CREATE ROLE visitor LOGIN CREATEDB")
    databases.query(f'ALTER DATABASE "{name}" OWNER TO visitor')
    database.query("GRANT CREATE ON SCHEMA public TO visitor", *CONTENTS)
    monkeypatch.setattr(data, "read_settings", lambda: {"DATABASE_URL": database.url})
    yield database
    for each in (name, "my-app-trial", "my-app.aside", "my-app.undone"):
        databases.query(f'DROP DATABASE IF EXISTS "{each}" WITH (FORCE)')
    databases.query("DROP ROLE visitor")


@POSTGRESQL
def test_extensions_are_restored(data, site, tmp_path):
    """Each belongs to whom it belonged, and everything else to the owner of the database."""
    data.dump(tmp_path / "dump")
    data.create_database("my-app-trial")
    data.load(tmp_path / "dump", "my-app-trial")
    copy = Database(data.with_name(site.url, "my-app-trial"))
    assert sorted(copy.query(OWNERS)) == ["citext|visitor", "pg_stat_statements|tests"]
    assert copy.query("SELECT * FROM greetings") == ["Ada"]
    assert copy.query("SELECT tableowner FROM pg_tables WHERE schemaname = 'public'") == [
        "visitor"
    ]
    assert copy.query("SELECT obj_description('greetings'::regclass)") == ["of visitors"]
    assert copy.query("SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'shop'") == [
        "visitor"
    ]


@POSTGRESQL
def test_extension_that_the_user_may_not_create_says_what_to_do(data, site, tmp_path):
    """On another machine, where the scripts are not the administrator."""
    url = site.url.replace("tests@", "visitor@")
    data.read_settings = lambda: {"DATABASE_URL": url}
    data.dump(tmp_path / "dump")
    data.create_database("my-app-trial")
    with pytest.raises(data.Failure, match='run: DROP EXTENSION "pg_stat_statements"\n'):
        data.load(tmp_path / "dump", "my-app-trial")


@POSTGRESQL
def test_database_of_an_undone_restore_is_kept(data, site):
    """Visitors may have written to it."""
    data.create_database("my-app.aside")
    data.rename_database("my-app.aside", None, aside="my-app.undone")
    undone = Database(data.with_name(site.url, "my-app.undone"))
    assert undone.query("SELECT * FROM greetings") == ["Ada"]
    assert site.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == ["0"]
    data.rename_database("my-app.aside", None, aside="my-app.again")  # there is none
    assert not data.has_database("my-app.again")


# Releases.


def test_data_in_git_are_part_of_a_release(script, project, tmp_path, monkeypatch):
    """A directory data/ that the owner had before it became that of the app."""
    release = script("release")
    monkeypatch.setattr(release, "SOURCE", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/countries.json").write_text("[]\n")
    assert not release.is_tracked("data")  # not a repository
    (tmp_path / ".gitignore").write_text("/data/\n")
    commit(tmp_path)
    assert not release.is_tracked("data")
    (tmp_path / ".gitignore").write_text("\n")
    commit(tmp_path)
    assert release.is_tracked("data")


@pytest.fixture
def releasing(script, tmp_path, monkeypatch) -> ModuleType:
    """The script deploy/release, with a stand-in for the server, and one release online."""
    module = script("release")
    monkeypatch.setattr(module, "VERSIONS", tmp_path)
    monkeypatch.setattr(module, "LIVE", tmp_path / "live")
    monkeypatch.setattr(module, "SWITCHING", tmp_path / "switching")

    def activate(version: Path) -> None:
        module.replace(module.LIVE, lambda link: link.symlink_to(version))

    monkeypatch.setattr(module, "activate", activate)
    monkeypatch.setattr(module, "build", lambda version: version.mkdir())
    monkeypatch.setattr(module, "run", lambda *_: "")
    monkeypatch.setattr(module, "capture", lambda *_: SimpleNamespace(returncode=0))
    for name in ("pending_from", "preflight", "start", "reload_nginx"):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    monkeypatch.setattr(module, "remove_unused_packages", lambda _: None)
    first = tmp_path / "20260101-000000"
    first.mkdir()
    (first / ".released").touch()
    activate(first)
    return module


def test_release_that_cannot_be_recorded_is_undone(releasing, tmp_path, monkeypatch):
    """For example without free inodes. What is online is never deleted."""

    def fail(*_, **__) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", fail)
        with pytest.raises(OSError, match="No space left"):
            releasing.release()
    first = tmp_path / "20260101-000000"
    assert releasing.current_release() == first
    assert [*tmp_path.glob("2*")] == [first]
    assert not releasing.SWITCHING.exists()


def test_release_that_is_online_is_not_deleted(releasing, monkeypatch):
    """Also if the previous one could not be restored."""

    def fail(*_) -> None:
        raise releasing.Failure("no nginx")

    monkeypatch.setattr(releasing, "reload_nginx", fail)
    monkeypatch.setattr(releasing, "restore", fail)
    with pytest.raises(releasing.Failure, match="no nginx"):
        releasing.release()
    assert releasing.LIVE.exists()


@pytest.fixture
def assets(script, tmp_path, monkeypatch) -> ModuleType:
    """The module deploy/assets.py, with a directory of its own."""
    assets = script("assets.py")
    monkeypatch.setattr(assets, "BY_HASH", tmp_path / "by-hash")
    return assets


def write_release(assets: ModuleType, path: Path, **texts: str) -> Path:
    """Write a release with these style sheets, compress them, and keep them by their hashes."""
    for name, text in texts.items():
        file = path / f"app/static/{name}/style.css"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    assets.prepare_assets(path)
    return path


def kept(assets: ModuleType) -> dict[str, str]:
    """Return the texts of the style sheets that nginx finds, by hash and path."""
    paths = assets.BY_HASH.rglob("*.css")
    return {str(path.relative_to(assets.BY_HASH)): path.read_text() for path in paths}


# The first digits of their SHA-256.
RED, BLUE, GREEN = "b1f51a51", "16477688", "ba4788b2"


def test_static_files_of_all_releases_are_kept(assets, tmp_path):
    """Each by its hash, readable by nginx, with what gzip_static needs; the same file once."""
    first = write_release(assets, tmp_path / "first", a="red", b="blue")
    second = write_release(assets, tmp_path / "second", a="green", b="blue")
    of_first = {f"{RED}/static/a/style.css": "red", f"{BLUE}/static/b/style.css": "blue"}
    of_second = {f"{GREEN}/static/a/style.css": "green", f"{BLUE}/static/b/style.css": "blue"}
    assert kept(assets) == of_first | of_second
    for name, text in kept(assets).items():
        compressed = assets.BY_HASH / f"{name}.gz"
        assert gzip.decompress(compressed.read_bytes()).decode() == text
    modes = {
        path.stat().st_mode & 0o777 for path in [assets.BY_HASH, *assets.BY_HASH.rglob("*")]
    }
    assert modes == {0o755, 0o644}
    assets.remove_unused([first, second])
    assert kept(assets) == of_first | of_second
    assets.remove_unused([second])
    assert kept(assets) == of_second
    assert {path.name for path in assets.BY_HASH.iterdir()} >= {GREEN, BLUE}
    assert not (assets.BY_HASH / RED).exists()


def test_kept_file_stays_if_the_one_of_the_release_is_edited(assets, tmp_path):
    """Somebody may do that on the server. The hash is still that of the content."""
    first = write_release(assets, tmp_path / "first", a="red")
    with (first / "app/static/a/style.css").open("a") as file:
        file.write(" and more")
    assert kept(assets) == {f"{RED}/static/a/style.css": "red"}


def test_damaged_copy_is_replaced(assets, tmp_path):
    """Of a release that ended while it was written; what such a copy leaves is removed."""
    first = write_release(assets, tmp_path / "first", a="red")
    copy = assets.BY_HASH / f"{RED}/static/a/style.css"
    copy.write_text("")
    left = copy.with_name("style.css.new")
    left.write_text("r")
    assets.keep(first)
    assets.remove_unused([first])
    assert kept(assets) == {f"{RED}/static/a/style.css": "red"}
    assert not left.exists()


URLS = """a { background: url(icon.svg), url("../b/icon.svg") url('/static/a/icon.svg') }
@import url(other.css);
a { background: url(gone.svg), url(icon.svg?v=1), url(icon.svg#id), url(#id), url(..),
    url(data:image/svg+xml,x), url(//host.example/a.svg), url("https://host.example/a.svg") }
"""


def test_urls_in_style_sheets_have_hashes(assets, tmp_path):
    """Of files that are there. When one changes, the style sheet has another hash."""
    for release, text in {"first": "red", "second": "blue"}.items():
        for folder in ("a", "b"):
            (tmp_path / release / "app/static" / folder).mkdir(parents=True)
        (tmp_path / release / "app/static/a/icon.svg").write_text(text)
        (tmp_path / release / "app/static/b/icon.svg").write_text("green")
        (tmp_path / release / "app/static/a/other.css").write_text("green")
        (tmp_path / release / "app/static/a/style.css").write_text(URLS)
        assets.prepare_assets(tmp_path / release)
    sheets = {name: text for name, text in kept(assets).items() if "style" in name}
    first, rest = URLS.split("\n", 1)
    assert sorted(text.split("\n", 1)[0] for text in sheets.values()) == sorted(
        first.replace("(icon.svg", f"(icon.svg?v={hash_}")
        .replace("b/icon.svg", f"b/icon.svg?v={GREEN}")
        .replace("a/icon.svg", f"a/icon.svg?v={hash_}")
        for hash_ in (RED, BLUE)
    )
    assert {text.split("\n", 1)[1] for text in sheets.values()} == {rest}
    assert len({name.split("/")[0] for name in sheets}) == 2


def test_style_sheet_elsewhere_is_not_changed(assets, tmp_path):
    """One that a link leads to."""
    (tmp_path / "first/app/static").mkdir(parents=True)
    (tmp_path / "first/app/static/icon.svg").write_text("red")
    sheet = tmp_path / "elsewhere.css"
    sheet.write_text("a { background: url(icon.svg) }")
    (tmp_path / "first/app/static/style.css").symlink_to(sheet)
    assets.prepare_assets(tmp_path / "first")
    assert sheet.read_text() == "a { background: url(icon.svg) }"


def test_link_is_not_kept(assets, tmp_path):
    """What it leads to may change, and be outside the release."""
    (tmp_path / "first/app/static").mkdir(parents=True)
    (tmp_path / "first/app/static/passwd").symlink_to("/etc/passwd")
    assets.keep(tmp_path / "first")
    assert [*assets.BY_HASH.iterdir()] == []


def test_written_file_is_whole_or_as_before(script, tmp_path, monkeypatch):
    """Also if the script ends before the text is written: an empty note of a restore would
    take the directory of all data for those to put back."""
    server, path = script("server.py"), tmp_path / "file"
    server.write(path, "first", mode=0o600)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("first", 0o600)

    def end(_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(server.os, "fsync", end)
        with pytest.raises(KeyboardInterrupt):
            server.write(path, "second")
    assert path.read_text() == "first"
    server.write(path, "third")
    assert path.read_text() == "third"
    assert [*tmp_path.iterdir()] == [path]
