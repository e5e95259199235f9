"""`copier update` to another framework, server or database, of untouched and edited projects."""

import re
import shutil

import pytest
import yaml
from support.commands import commit, ok
from support.owner import ICON
from support.project import (
    ANSWERS_FILE,
    DATABASES,
    PAIRS,
    Pair,
    append,
    edit,
    emit,
    lock_command,
    section,
)
from support.update import (
    ANSWERS,
    LATEST,
    MARKERS,
    OLD_TEXT,
    OLDER,
    OWN_TEXT,
    added,
    assert_same,
    conflicts,
    lines,
    start,
    update,
)

# From each pair to the next one: within a framework, and between both, in each direction.
RING = list(zip(PAIRS, [*PAIRS[1:], PAIRS[0]], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), RING, ids=str)
def test_switch_and_back_is_a_new_project(one, other, fresh, tmp_path):
    """Each way: what a switch leads to is a new project of that pair, to the byte."""
    project = shutil.copytree(fresh(one), tmp_path / "my-app")
    update(project, **other._asdict())
    assert_same(project, fresh(other))
    commit(project)
    update(project, **one._asdict())
    assert_same(project, fresh(one))
    answers = yaml.safe_load((project / ANSWERS_FILE).read_text())
    assert {name: answers[name] for name in ANSWERS} == ANSWERS


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), RING, ids=str)
def test_switch_of_an_edited_project_loses_no_line(one, other, aged_project, tmp_path):
    """Where the lines of the frameworks differ, there are conflicts, and they show both."""
    untouched, year = aged_project(one, LATEST)
    project = shutil.copytree(year, tmp_path / "my-app")
    update(project, **other._asdict())
    edits = {name: own for name, own in added(untouched, year).items() if own}
    for name, own in edits.items():
        assert [line for line in own if line not in lines(project / name)] == [], name
    for name in ("app/static/logo.png", ICON, ".env", "app/blog.py", "tests/test_blog.py"):
        assert (project / name).read_bytes() == (year / name).read_bytes(), name
    met = edits.keys() if one.framework != other.framework else {"requirements.lock"}
    assert conflicts(project) <= met


@pytest.mark.slow
@pytest.mark.first_pairs
def test_switch_of_the_database_is_a_new_project(pair, history, tmp_path):
    """From each to each other one."""
    fresh = {
        database: emit(
            history, tmp_path / database, LATEST, **ANSWERS, **pair._asdict(), database=database
        )
        for database in DATABASES
    }
    project = start(history, tmp_path / "my-app", pair, LATEST)
    for database in ("sqlite", "postgresql", "none", "postgresql", "sqlite", "none"):
        update(project, database=database)
        assert_same(project, fresh[database])
        commit(project)


@pytest.mark.slow
@pytest.mark.first_pairs
def test_move_to_kubernetes_and_back_is_a_new_project(pair, history, fresh, tmp_path):
    kubernetes = emit(
        history,
        tmp_path / "kubernetes",
        LATEST,
        **ANSWERS,
        **pair._asdict(),
        platform="kubernetes",
    )
    project = start(history, tmp_path / "my-app", pair, LATEST)
    for platform, expected in (("kubernetes", kubernetes), ("server", fresh(pair))):
        update(project, platform=platform)
        assert_same(project, expected)
        commit(project)


@pytest.mark.slow
@pytest.mark.first_pairs
def test_move_of_an_edited_project_to_kubernetes_and_back_loses_no_line(
    pair, aged_project, tmp_path
):
    """Without a conflict. Files that the owner has not edited are those of a new project."""
    untouched, year = aged_project(pair, LATEST)
    project = shutil.copytree(year, tmp_path / "my-app")
    edits = {name: own for name, own in added(untouched, year).items() if own}
    for platform in ("kubernetes", "server"):
        update(project, platform=platform)
        assert conflicts(project) == set()
        for name, own in edits.items():
            assert [line for line in own if line not in lines(project / name)] == [], name
        commit(project)
    assert_same(project, year)


@pytest.mark.slow
def test_edits_of_the_manifests_survive_an_update(history, tmp_path):
    """The image, a setting of the pods, lines for nginx, and resources of the owner's."""
    project = emit(history, tmp_path / "my-app", OLDER, **ANSWERS, platform="kubernetes")
    kustomization = project / "deploy/kustomization.yaml"
    edit(kustomization, "registry.example.com/my-app", "ghcr.io/ada/my-app")
    edit(kustomization, "  # Your own resources:\n", "  # Your own resources:\n  - own.yaml\n")
    append(kustomization, "patches:\n  - path: own-patch.yaml\n")
    edit(project / "deploy/kubernetes/autoscaler.yaml", "maxReplicas: 10", "maxReplicas: 20")
    (project / "deploy/own.yaml").write_text("# mine\n")
    commit(project)
    update(project)
    assert conflicts(project) == set()
    text = kustomization.read_text()
    for own in ("newName: ghcr.io/ada/my-app\n", "  - own.yaml\n", "own-patch.yaml\n"):
        assert own in text
    assert OLD_TEXT not in text
    assert "maxReplicas: 20" in (project / "deploy/kubernetes/autoscaler.yaml").read_text()
    assert (project / "deploy/own.yaml").read_text() == "# mine\n"


MODEL = """

class Reader(Base):
    __tablename__ = "readers"

    id: Mapped[int] = mapped_column(primary_key=True)
"""


def keep_both(project):
    """Resolve conflicts with the lines of both sides."""
    for name in conflicts(project):
        kept = [line for line in lines(project / name) if not line.startswith(MARKERS)]
        (project / name).write_text("\n".join([*kept, ""]))


def regenerate_lock(project):
    """Do what the guide says about a conflict in the lock."""
    lock = project / "requirements.lock"
    lock.unlink()
    ok("bash", "-euc", lock_command(project), cwd=project)


@pytest.mark.slow
@pytest.mark.first_pairs
def test_switch_of_the_database_of_an_edited_project_loses_no_line(
    pair, aged_project, tmp_path
):
    """To SQLite and, with a table of the owner's, to PostgreSQL.

    Adding a database adds imports and fixtures next to lines that the owner has changed:
    there are conflicts, which show both. A change of the database has none but the lock's.
    """
    untouched, year = aged_project(pair, LATEST)
    project = shutil.copytree(year, tmp_path / "my-app")
    own = {name: text for name, text in added(untouched, year).items() if text}
    own.pop("requirements.lock")
    for database, nearby in {
        "sqlite": {"README.md", "app/routes.py", "tests/conftest.py"},
        "postgresql": set(),
    }.items():
        update(project, database=database)
        assert conflicts(project) <= nearby | {"requirements.lock"}
        keep_both(project)
        regenerate_lock(project)
        for name, text in own.items():
            assert [line for line in text if line not in lines(project / name)] == [], name
        if database == "sqlite":
            append(project / "app/models.py", MODEL)
            migration = project / "migrations/versions/0002_readers.py"
            migration.write_text("# The owner's migration.\n")
            own["app/models.py"] = MODEL.splitlines()
            own["migrations/versions/0002_readers.py"] = [migration.read_text().strip()]
        commit(project)


@pytest.mark.slow
def test_edited_file_that_a_switch_deletes_can_be_restored(history, tmp_path):
    """Copier deletes it even if it was edited. The message and the README say how to keep it."""
    project = start(history, tmp_path, Pair("flask", "waitress"), LATEST)
    append(project / "app/serve.py", f"# {OWN_TEXT}\n")
    commit(project)
    message = update(project, server="gunicorn")
    assert not (project / "app/serve.py").exists()
    assert "deleted:    app/serve.py" in ok("git", "status", cwd=project)
    for text in (message, section(project, "Messages of `copier update`")):
        assert re.search(r'"deleted".*`git restore`', text, re.DOTALL)
    ok("git", "restore", "app/serve.py", cwd=project)
    assert OWN_TEXT in (project / "app/serve.py").read_text()
