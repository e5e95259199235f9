"""What deploy/backup, the trial and a release do with files, without a server."""

import contextlib
import gzip
import importlib.machinery
import importlib.util
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from support.commands import commit
from support.project import FEW_STACKS

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
