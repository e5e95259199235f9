"""The image of each pair, built by podman from its Dockerfile, on its own and in the pod."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import ASK, SECRET
from support.commands import commit, tool
from support.containers import PYTHON, Built, build, configure, make_base, podman
from support.nodes import wait_until
from support.pod import CLUSTER, Pod, check_routes, running
from support.project import PAIRS, add_routes, emit, probes
from support.serve import FORGED

pytestmark = [pytest.mark.slow, pytest.mark.pairs(PAIRS)]

# As restricted as a container of the pod.
RESTRICTED = [
    "--network=none", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges",
]  # fmt: skip
WITH_SECRET = f"--env=SECRET_KEY={SECRET}"
OWN_SECRET = "a-secret-that-must-not-be-in-the-image"


@pytest.fixture(scope="session")
def project(pair, release, tmp_path_factory) -> Path:
    """A project for Kubernetes, with a secret in a file that git ignores, and in a commit."""
    path = tmp_path_factory.mktemp(f"{pair}-image") / "my-app"
    project = emit(release, path, **pair._asdict() | {"platform": "kubernetes"})
    add_routes(project, probes(pair))
    (project / "notes.txt").write_text(OWN_SECRET)
    commit(project)
    for name in (".env", "app/.env"):
        (project / name).write_text(f"SECRET_KEY={OWN_SECRET}\n")
    return project


@pytest.fixture(scope="session")
def image(pair, project) -> Iterator[Built]:
    """The image of the project."""
    make_base(PYTHON)
    built = build(project, f"localhost/{pair}:{uuid.uuid4().hex}")
    print(f"{pair}: {built.size / 1e6:.0f} MB, built in {built.seconds:.0f} s")
    yield built
    podman("rmi", "--force", built.name)


def test_image_and_its_history_have_no_secret(image, tmp_path):
    podman("save", "--quiet", f"--output={tmp_path}/image.tar", image.name)
    content = (tmp_path / "image.tar").read_bytes()
    assert b"/static/style.css" in content  # layers are not compressed
    assert OWN_SECRET.encode() not in content
    history = podman("history", "--no-trunc", "--format={{.CreatedBy}}", image.name)
    assert "USER 10001:10001" in history
    assert "SECRET" not in history


# The image on its own.


@contextlib.contextmanager
def container_of(image: Built, *options: str) -> Iterator[str]:
    """Run an image, and return the id of its container."""
    container = podman("run", "--detach", *RESTRICTED, *options, image.name).strip()
    try:
        yield container
    finally:
        print(podman("logs", container))
        podman("rm", "--force", "--time=0", container)


def ask(container: str, *requests: list) -> list[list]:
    """Send requests to the site, and return the status, headers and body of each response."""
    question = json.dumps(["127.0.0.1:8000", requests])
    return json.loads(podman("exec", container, "python", "-c", ASK, question))


CONNECT = "import socket; socket.create_connection(('127.0.0.1', 8000))"


def test_image_works_without_nginx(image):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with container_of(image, WITH_SECRET, "--tmpfs=/tmp") as container:
        script = f'until python -c "{CONNECT}" 2>&1; do :; done'
        podman("exec", container, "timeout", "20", "sh", "-c", script)
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
    with container_of(image, "--tmpfs=/tmp") as container:
        wait_until(
            lambda: "SECRET_KEY in " in podman("logs", container), "SECRET_KEY in the log", 30
        )


# The image in the pod.


class ImagePod(Pod):
    """A pod whose containers, except that of nginx, run in the image of the project."""

    def __init__(self, project: Path, folder: Path, image: Built) -> None:
        self.image, self.id = image, uuid.uuid4().hex
        super().__init__(project, folder)

    def prepare_files(self) -> None:
        """Make the volumes, and run the container that fills that of nginx."""
        for name in ("run", "tmp", "static"):
            path = self.folder / name
            path.mkdir(exist_ok=True)
            path.chmod(0o777)  # a cluster gives volumes to fsGroup
        self.paths["/opt/my-app.versions"] = f"{self.folder}/static"
        self.paths["/opt/my-app/app;"] = f"{self.folder}/static;"
        podman(*self.command("static"))

    def command(self, name: str) -> list[str]:
        """Return the arguments of podman that run a container."""
        container = self.containers[name]
        variables = {each["name"]: each["value"] for each in container.get("env", [])}
        return [
            *("run", "--rm", f"--name={name}-{self.id}", *RESTRICTED, WITH_SECRET),
            *(f"--env={name}={value}" for name, value in variables.items()),
            *(
                f"--volume={self.folder}/{each['name']}:{each['mountPath']}"
                for each in container["volumeMounts"]
            ),
            *(self.image.name, *container["command"]),
        ]

    def start(self, name: str) -> None:
        """Start a container, as the kubelet does."""
        if name == "nginx":
            super().start(name)
        else:
            command = [tool("podman", "podman"), *self.command(name)]
            self.launch(name, command, os.environ | configure())

    def kill(self, name: str) -> None:
        """Kill all processes of a container at once."""
        if name != "nginx":
            podman("rm", "--force", "--ignore", "--time=0", f"{name}-{self.id}")
        super().kill(name)


@pytest.fixture(scope="session")
def pod(project, image, tmp_path_factory) -> Iterator[ImagePod]:
    """The pod at work."""
    with running(ImagePod(project, tmp_path_factory.mktemp("pod"), image)) as pod:
        yield pod


def test_every_route_works_in_the_pod(pair, pod):
    check_routes(pair, pod)


def test_visitor_cannot_forge_anything_in_the_pod(pod):
    assert pod.seen("127.2.9.9", **FORGED) == {
        "address": "127.2.9.9",
        "scheme": "http",
        "url": "http://example.com/",
    }
    proxied = FORGED | {"X-Forwarded-For": "6.6.6.6, 198.51.100.7"}
    assert pod.seen(f"{CLUSTER}.1", **proxied) == {
        "address": "198.51.100.7",
        "scheme": "https",
        "url": "https://example.com/",
    }
