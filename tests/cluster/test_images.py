"""The image of each pair, built by podman from its Dockerfile; see README.md."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import ASK, SECRET, emit_for_cluster
from support.commands import commit
from support.containers import Built, build, make_bases, podman
from support.nodes import wait_until

pytestmark = pytest.mark.cluster

# As restricted as a pod, and what README.md shows besides.
RESTRICTED = [
    "--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=all",
    "--security-opt=no-new-privileges", f"--env=SECRET_KEY={SECRET}",
]  # fmt: skip
OWN_SECRET = "a-secret-that-must-not-be-in-the-image"


@pytest.fixture(scope="session")
def project(pair, template, tmp_path_factory) -> Path:
    """A project for Kubernetes, with a secret in a file that git ignores, and in a commit."""
    path = tmp_path_factory.mktemp("images") / f"{pair}"
    project = emit_for_cluster(template, path, pair)
    (project / "notes.txt").write_text(OWN_SECRET)
    commit(project)
    for name in (".env", "app/.env"):
        (project / name).write_text(f"SECRET_KEY={OWN_SECRET}\n")
    return project


@pytest.fixture(scope="session")
def image(pair, project) -> Built:
    """The image of the project."""
    make_bases()
    built = build(project, f"localhost/{pair}:test")
    print(f"{pair}: {built.size / 1e6:.0f} MB, built in {built.seconds:.0f} s")
    return built


@contextlib.contextmanager
def running(image: Built, *options: str) -> Iterator[str]:
    """Run an image, and return the id of its container once it answers."""
    container = podman("run", "--detach", *RESTRICTED, *options, image.name).strip()
    try:
        script = (
            "until python -c \"import socket; socket.create_connection(('127.0.0.1', 8000))\""
        )
        podman("exec", container, "timeout", "20", "sh", "-c", f"{script} 2>&1; do :; done")
        yield container
    finally:
        print(podman("logs", container))
        podman("rm", "--force", "--time=0", container)


def ask(container: str, *requests: list) -> list[list]:
    """Send requests to the site, and return the status, headers and body of each response."""
    question = json.dumps(["127.0.0.1:8000", requests])
    return json.loads(podman("exec", container, "python", "-c", ASK, question))


def test_image_works_without_nginx(pair, image):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with running(image) as container:
        answers = ask(
            container,
            ["GET", "/", {}, None],
            ["POST", "/hello/", form, "name=Ada"],
            ["GET", "/hello/Ada", {}, None],
            ["GET", "/items/42?q=tea", {}, None],
            ["GET", "/healthz", {}, None],
            ["GET", "/static/style.css", {}, None],
            ["GET", "/missing", {}, None],
        )
        assert podman("exec", container, "id", "--user").strip() == "10001"
    assert [status for status, _, _ in answers] == [200, 303, 200, 200, 200, 200, 404]


def test_image_without_a_secret_says_so(image):
    container = podman("run", "--detach", *RESTRICTED[:-1], image.name).strip()
    try:
        wait_until(
            lambda: "SECRET_KEY in " in podman("logs", container), "SECRET_KEY in the log", 30
        )
    finally:
        podman("rm", "--force", "--time=0", container)


def test_image_and_its_history_have_no_secret(image, tmp_path):
    podman("save", "--quiet", f"--output={tmp_path}/image.tar", image.name)
    content = (tmp_path / "image.tar").read_bytes()
    assert b"/static/style.css" in content  # layers are not compressed
    assert OWN_SECRET.encode() not in content
    history = podman("history", "--no-trunc", "--format={{.CreatedBy}}", image.name)
    assert "USER 10001:10001" in history
    assert "SECRET" not in history
