"""Sites on a real Kubernetes: no request is lost in what a cluster does every day.

Each prints what was lost of how many requests: add -s.
"""

import json
import re
import signal
import time
from pathlib import Path

import pytest
from support import nodes
from support.commands import commit
from support.project import Pair, append, edit
from support.writers import compare

pytestmark = pytest.mark.cluster

ONE_PAIR = pytest.mark.pairs([Pair("flask", "gunicorn")])


# Every pair.


def test_every_route_works(pair, site):
    answers = site.ask(
        ("GET", "/"),
        ("GET", "/hello/"),
        ("POST", "/hello/", "name=Ada"),
        ("GET", "/hello/Ada"),
        ("GET", "/items/42?q=tea"),
        ("GET", "/items/tea"),
        ("GET", "/healthz"),
        ("GET", "/static/style.css"),
        ("GET", "/missing"),
        ("GET", "/openapi.json"),
    )
    fastapi = pair.framework == "fastapi"
    wrong, schema = (422, 200) if fastapi else (404, 404)
    expected = [200, 200, 303, 200, 200, wrong, 200, 200, 404, schema]
    assert [status for status, _, _ in answers] == expected
    assert "max-age=" in answers[0][1]["Strict-Transport-Security"]


def test_app_sees_the_visitor_behind_proxies(site):
    chains = ["20.1.2.3", "6.6.6.6, 20.1.2.3", "6.6.6.6, 20.1.2.3, 10.9.8.7"]
    for chain in chains:
        [[_, _, text]] = site.ask(("GET", "/whoami"), **{"X-Forwarded-For": chain})
        assert '"20.1.2.3"' in text
        assert f'"https://{site.domain}/"' in text


def test_containers_have_no_privileges(site):
    script = (
        "import json, os\n"
        "lines = open('/proc/1/status').read().splitlines()\n"
        "print(json.dumps({l.split(':')[0]: l.split()[1] for l in lines if l.split()[1:]}))\n"
        "try: open('/written', 'w')\n"
        "except OSError as error: print(error.strerror)\n"
        "print(os.path.exists('/var/run/secrets/kubernetes.io'))"
    )
    pod = site.pods()[0]
    for container in ("app", "socket"):
        found = site.in_container(pod, container, "python", "-c", script)
        lines = found.splitlines()
        status = json.loads(lines[0])
        names = ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
        nothing = "0" * 16
        assert {name: status[name] for name in names} == {"Uid": "10001", "CapEff": nothing, "CapBnd": nothing,
                          "NoNewPrivs": "1", "Seccomp": "2"}  # fmt: skip
        assert lines[1:] == ["Read-only file system", "False"]


def test_rollout_loses_no_request(site):
    with site.loaded("rollout") as load:
        site.release_version("2")
        assert site.version() == "2"
    assert load.result.failed == []


# The first pair of each framework: this does not depend on the server.


@pytest.mark.first_pairs
def test_rollback_loses_no_request(site):
    before = site.version()
    site.release_version("3")
    with site.loaded("rollback") as load:
        done = site.release("--rollback")
        assert done.returncode == 0, done.stdout
        assert site.version() == before
    assert load.result.failed == []


@pytest.mark.first_pairs
def test_scaling_loses_no_request(site):
    with site.loaded("from 2 pods to 4 and back") as load:
        site.scale(4)
        site.scale(2)
    assert load.result.failed == []


@pytest.mark.first_pairs
def test_changed_secret_takes_effect_and_loses_no_request(site):
    with site.loaded("changed secret") as load:
        site.set_secret(SECRET_KEY="f" * 64)
        site.restart()
        keys = {site.in_container(pod, "app", "printenv", "SECRET_KEY") for pod in site.pods()}
    assert keys == {"f" * 64 + "\n"}
    assert load.result.failed == []


@pytest.mark.first_pairs
def test_drain_loses_no_request(site):
    site.wait_for(2)
    # The visitors are on the first node.
    [node, *_] = {pod["spec"]["nodeName"] for pod in site.pods()} - {site.cluster.nodes()[0]}
    options = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s")
    try:
        with site.loaded("drained node") as load:
            site.cluster.kubectl("drain", node, *options)
            site.wait_for(2)
        assert node not in {pod["spec"]["nodeName"] for pod in site.pods()}
    finally:
        site.cluster.kubectl("uncordon", node)
    assert load.result.failed == []


@pytest.mark.first_pairs
def test_broken_release_is_undone_and_loses_no_request(site):
    routes = site.project / "app/routes.py"
    before = routes.read_text()
    version = site.version()
    append(routes, '\nraise RuntimeError("this release is broken")\n')
    (site.project / "app/static/version.txt").write_text("broken")
    commit(site.project)
    with site.loaded("release that does not start") as load:
        done = site.release()
        assert site.version() == version
    routes.write_text(before)
    commit(site.project)
    assert done.returncode == 1
    assert "RuntimeError: this release is broken" in done.stdout
    assert "Release failed: " in done.stdout
    site.wait_for(2)
    assert load.result.failed == []


@pytest.mark.first_pairs
def test_release_that_cannot_be_pulled_is_undone_and_loses_no_request(site):
    """Once the cluster gets the image, the same release succeeds."""
    version = site.version()
    site.change("4")
    with site.loaded("release whose image cannot be pulled") as load:
        done = site.release(pushed=False)
        assert site.version() == version
    assert_cannot_be_pulled(site, done)
    site.wait_for(2)
    assert load.result.failed == []
    done = site.release()
    assert done.returncode == 0, done.stdout
    assert site.version() == "4"


def assert_cannot_be_pulled(site, done) -> None:
    """The release says so, with what the registry says, and what to do."""
    assert done.returncode == 1
    text = done.stdout.partition("Release failed: ")[2]
    image = f"registry.example.net/{site.name}:"
    assert re.search(f'Failed to pull image "{image}.*registry.example.net', text), done.stdout
    assert 'run\nthe last two commands of step 2 of "Deploy"' in text


@ONE_PAIR
def test_first_release_that_cannot_be_pulled_says_why(new_site):
    done = new_site.release(pushed=False)
    assert_cannot_be_pulled(new_site, done)
    assert "Nothing is online yet" in done.stdout
    new_site.release_version("1")
    assert new_site.version() == "1"


@pytest.mark.first_pairs
def test_killed_app_costs_only_its_own_requests(own_cluster, site):
    site.wait_for(2)
    pod = site.pods()[0]
    node, container = pod["spec"]["nodeName"], site.container(pod, "app")
    with site.loaded("killed app") as load:
        nodes.signal_container(node, container, signal.SIGKILL)
        time.sleep(15)
    # Each of the visitors' 16 threads can have one request in progress.
    assert len(load.result.failed) <= 16
    site.wait_for(2)


@pytest.mark.first_pairs
def test_killed_node_is_left_out_after_a_while(own_cluster, site):
    """Kubernetes waits for 40 seconds before it gives up a node."""
    site.wait_for(2)
    [node, *_] = {pod["spec"]["nodeName"] for pod in site.pods()} - {own_cluster.nodes()[0]}
    try:
        with site.loaded("killed node") as load:
            start = time.monotonic()
            nodes.kill_node(node)
            nodes.wait_until(lambda: len(site.pods()) < 2, "a pod less", 120)
            print(f"{node} left out after {time.monotonic() - start:.0f} seconds")
            time.sleep(5)
            left_out = time.time()
            time.sleep(15)
    finally:
        nodes.revive_node(node)
        nodes.wait_until(nodes.is_up, "the nodes", 90)
    times = [failure[3] for failure in load.result.failed]
    print(f"{len(times)} failures, the last one {max(times, default=0) - left_out:.0f} s later")
    site.wait_for(2)


@pytest.mark.first_pairs
def test_hung_app_is_left_out_and_restarted(own_cluster, site):
    site.wait_for(2)
    pod, before = site.pods()[0], site.restarts()
    node, container = pod["spec"]["nodeName"], site.container(pod, "app")
    with site.loaded("hung app") as load:
        start = time.monotonic()
        nodes.signal_container(node, container, signal.SIGSTOP)
        nodes.wait_until(lambda: len(site.pods()) < 2, "a pod less", 60)
        print(f"left out after {time.monotonic() - start:.0f} seconds")
        nodes.wait_until(lambda: site.restarts() > before, "a restart", 240)
        print(f"restarted after {time.monotonic() - start:.0f} seconds")
    site.wait_for(2)
    # Each of the visitors' 16 threads can have one request in progress. A kept connection
    # stays with nginx in the pod, which answers 504 once a minute until the app restarts.
    minutes = 1 + (time.monotonic() - start) // 60
    assert len(load.result.failed) <= 16 * minutes


@pytest.mark.first_pairs
def test_without_waiting_in_pre_stop_requests_are_lost(site):
    """The control: the tests above can fail."""
    for number in range(len(site.pods()[0]["spec"]["containers"])):
        container = site.pods()[0]["spec"]["containers"][number]
        if "lifecycle" in container:
            path = f"/spec/template/spec/containers/{number}/lifecycle"
            patch = f'[{{"op": "remove", "path": "{path}"}}]'
            site.kubectl("patch", site.deployment, "--type=json", f"--patch={patch}")
    site.rollout()
    site.wait_for(2)
    with site.loaded("rollouts without preStop") as load:
        for _ in range(3):
            site.restart()
    site.kubectl("rollout", "undo", site.deployment)
    assert load.result.failed != []


# Data.

MIGRATION = '''"""A change of the tables."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{previous}"


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    pass
'''
ADD = 'op.add_column("greetings", sa.Column("note", sa.Integer(), server_default="7"))'
NAME = "    name: Mapped[str] = mapped_column(String(40))\n"
COLUMN = '    note: Mapped[int | None] = mapped_column(server_default="7")\n'


def migrate(site, upgrade: str) -> Path:
    """Write a migration into the site's project, and return its path."""
    folder = site.project / "migrations/versions"
    previous = max(path.name for path in folder.glob("*.py")).partition("_")[0]
    revision = f"{int(previous) + 1:04}"
    path = folder / f"{revision}_change.py"
    path.write_text(MIGRATION.format(revision=revision, previous=previous, upgrade=upgrade))
    return path


def test_backups_are_restored(data_site, backups):
    """With the commands of deploy/README.md, also after a migration."""
    text = (data_site.project / "deploy/README.md").read_text()
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```$", text.partition("## Data and backups")[2])
    backup, restore, other = blocks[:3]
    data_site.ask(("POST", "/hello/", "name=Ada"))
    data_site.shell(backup)
    [older] = backups.glob("*.dump")
    migrate(data_site, ADD.replace("note", "mark"))
    data_site.release_version("2")
    data_site.ask(("POST", "/hello/", "name=Bo"))
    data_site.kubectl("delete", "job", "backup-now")
    assert older.name in data_site.shell(backup)
    data_site.ask(("POST", "/hello/", "name=Cy"))
    assert data_site.names() == ["Ada", "Bo", "Cy"]
    data_site.shell(restore)
    data_site.rollout()
    assert data_site.names() == ["Ada", "Bo"]
    data_site.kubectl("delete", "job", "restore-now")
    other = other.replace("NAME.dump", older.name)
    data_site.shell("\n".join([other, *restore.splitlines()[1:]]))
    data_site.rollout()
    assert data_site.names() == ["Ada"]
    assert "0002 (head)" in data_site.in_container(
        data_site.pods()[0], "app", ".venv/bin/alembic", "current"
    )


def test_migration_in_a_rollout_loses_no_row(data_site):
    migrate(data_site, ADD)
    edit(data_site.project / "app/models.py", NAME, NAME + COLUMN)
    with data_site.written() as writers:
        data_site.release_version("3")
        assert data_site.version() == "3"
    found = compare(writers["acknowledged"], writers["uncertain"], data_site.names())
    print(f"{len(writers['acknowledged'])} rows acknowledged, {found}, {writers['failed']}")
    assert len(writers["acknowledged"]) > 100
    assert found.missing == found.repeated == []
    assert writers["failed"] == []


def test_failing_migration_leaves_the_old_release_online(data_site):
    migration = migrate(data_site, 'op.execute("SELECT nonsense")')
    with data_site.written() as writers:
        commit(data_site.project)
        done = data_site.release()
    migration.unlink()
    commit(data_site.project)
    assert done.returncode == 1
    assert 'column "nonsense" does not exist' in done.stdout
    assert writers["failed"] == []
    found = compare(writers["acknowledged"], [], data_site.names())
    assert found.missing == found.repeated == []
    data_site.wait_for(2)
