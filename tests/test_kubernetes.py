"""platform=kubernetes: the manifests, the image's files, the pod at work, and releases."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
import yaml
from docker.utils import exclude_paths
from support.commands import commit, free_port, ok, run, tool
from support.database import Database, client
from support.github import DEPLOY, ZIZMOR, deploy_step
from support.pod import ADDRESSES, CLUSTER, Pod, check_routes, containers, documents, running
from support.project import (
    PAIRS,
    QUICK_STACKS,
    ROOT,
    SECTIONS,
    Pair,
    add_routes,
    edit,
    emit,
    files,
    probes,
    texts_of,
)
from support.serve import FORGED, get_when_up

# A pair with the database that Kubernetes needs.
STACK = next(each for each in QUICK_STACKS if each.database == "postgresql")
pytestmark = [pytest.mark.pairs([*PAIRS, STACK]), pytest.mark.slow_pairs]
SITE = "my-app"
CHECKOV = "checkov==3.3.30"


@pytest.fixture(scope="session")
def project(pair: Pair, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project for Kubernetes. Tests must not change it."""
    path = tmp_path_factory.mktemp(f"{pair}-kubernetes") / SITE
    return emit(release, path, **pair._asdict() | {"platform": "kubernetes"})


@pytest.fixture(scope="session")
def on_server(pair: Pair, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same project for a server. Tests must not change it."""
    return emit(release, tmp_path_factory.mktemp(f"{pair}-server") / SITE, **pair._asdict())


# The files.


def test_app_and_tests_are_those_of_a_server(project, on_server):
    """Except for where settings are, and how Waitress gets its socket."""
    ours, theirs = texts_of(project), texts_of(on_server)
    same = ("app/", "tests/", "migrations/", "requirements", "pytest.ini", "alembic.ini")
    for name in {*ours, *theirs}:
        if name.startswith(same):
            text = theirs[name].replace("/etc/my-app.env", "the secret my-app")
            text = text.replace(
                "systemctl start my-app", "python deploy/listen.py sh deploy/start"
            )
            assert ours[name] == text, name


SHARED_NGINX = ("upstream.conf", "down.html", "error-pages/400.html", "error-pages/429.html")


def test_nginx_does_what_it_does_on_a_server(project, on_server):
    """Headers, limits and errors are in the same files; scheme, port and keep-alive differ."""
    folder = "deploy/nginx/my-app"
    for name in SHARED_NGINX:
        assert (project / folder / name).read_text() == (on_server / folder / name).read_text()
    ours, theirs = [
        (path / folder / "site.conf").read_text().partition("\nserver_name ")[2]
        for path in (project, on_server)
    ]
    ours = re.sub("keepalive_timeout 3700s;.*", "keepalive_timeout 30s;", ours)
    assert (
        ours.replace("$site_my_app_scheme", "$scheme").replace(
            "$site_my_app_port", "$server_port"
        )
        == theirs
    )


def test_nothing_of_a_server_is_left(project):
    """No unit, no path and no program of a server; requirements name packages so."""
    for name, text in texts_of(project).items():
        if not name.endswith(".lock"):
            found = re.findall(
                r"systemctl|journalctl|/etc/my-app\.env|/etc/systemd|sudo deploy/|root@server|certbot",
                text,
            )
            assert name == "deploy/README.md" or found == [], (name, found)


def test_python_is_clean(project):
    scripts = ("deploy/release",)
    ok(
        "ruff",
        "check",
        "--isolated",
        "--no-cache",
        "--extend-select=B,I,UP",
        ".",
        *scripts,
        cwd=project,
    )
    ok("ruff", "format", "--isolated", "--no-cache", "--check", ".", *scripts, cwd=project)


# The manifests.


def render(project: Path) -> str:
    """Return what kubectl would apply."""
    return ok(tool("kubectl", "kubectl"), "kustomize", project / "deploy")


@pytest.fixture(scope="session")
def rendered(project: Path) -> list[dict]:
    return [*yaml.safe_load_all(render(project))]


KINDS = {
    "Namespace", "Deployment", "Service", "Ingress", "NetworkPolicy", "HorizontalPodAutoscaler",
    "PodDisruptionBudget", "ConfigMap",
}  # fmt: skip
VERSIONS = ["1.35", "1.36", "1.37"]


def validate(path: Path, version: str) -> subprocess.CompletedProcess[str]:
    return run("kubernetes-validate", "--strict", f"--kubernetes-version={version}.0", path)


def test_manifests_are_valid(pair, project, tmp_path):
    """For the newest three versions; a field of another name is refused."""
    path = tmp_path / "all.yaml"
    path.write_text(render(project))
    kinds = {each["kind"] for each in yaml.safe_load_all(path.read_text())}
    database = {"CronJob", "PersistentVolumeClaim"} if pair == STACK else set()
    assert kinds == KINDS | database
    for version in VERSIONS:
        done = validate(path, version)
        assert done.returncode == 0, done.stdout
    path.write_text(path.read_text().replace("preStop:", "beforeStop:"))
    assert validate(path, VERSIONS[-1]).returncode != 0


def test_each_manifest_is_applied_or_an_alternative(project):
    [kustomization] = documents(project, "kustomization.yaml")
    emitted = {f"kubernetes/{path.name}" for path in project.glob("deploy/kubernetes/*")}
    assert {*kustomization["resources"]} == emitted - {"kubernetes/httproute.yaml"}


def pods_of(documents: list[dict]) -> Iterator[dict]:
    """Yield the specifications of all pods."""
    for each in documents:
        if each["kind"] == "Deployment":
            yield each["spec"]["template"]["spec"]
        if each["kind"] == "CronJob":
            yield each["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_pods_are_restricted(rendered):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and more."""
    pods = [*pods_of(rendered)]
    assert pods
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in [*pod.get("initContainers", []), *pod["containers"]]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert each["resources"].keys() == {"requests", "limits"}
            assert "memory" in each["resources"]["limits"]
        for volume in pod["volumes"]:
            assert "hostPath" not in volume


# Rules of Checkov that the manifests break, and why. Other tests check the probes.
BROKEN_RULES = {
    "CKV_K8S_8": "no liveness probe for nginx, which the app's probe goes through",
    "CKV_K8S_9": "no readiness probe for the app, which nginx's probe goes through",
    "CKV_K8S_11": "no CPU limit: it would slow the site down on an idle node",
    "CKV_K8S_15": "images are not pulled again: each release has a tag of its own",
    "CKV_K8S_35": "secrets in the environment, as on a server",
    "CKV_K8S_43": "tags instead of digests, which deploy/release and updates of nginx change",
    "CKV_DOCKER_2": "no HEALTHCHECK in the Dockerfile: Kubernetes does not use it",
}


@pytest.fixture(scope="session")
def checkov(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `checkov`, whose requirements exclude those of the other tests."""
    path = tmp_path_factory.mktemp("checkov")
    ok("uv", "venv", "--quiet", path)
    ok("uv", "pip", "install", "--quiet", f"--python={path}/bin/python", CHECKOV, timeout=300)
    return path / "bin/checkov"


def broken_rules(checkov: Path, project: Path, manifests: str) -> set[str]:
    """Return the rules of Checkov that a Dockerfile and the rendered manifests break."""
    path = project / "rendered.yaml"
    path.write_text(manifests)
    options = ["--skip-download", "--output=json", "--framework", "kubernetes", "dockerfile"]
    done = run(checkov, *options, "--file", path, project / "Dockerfile")
    reports = json.loads(done.stdout)
    assert {each["check_type"] for each in reports} == {"kubernetes", "dockerfile"}
    return {
        failed["check_id"] for each in reports for failed in each["results"]["failed_checks"]
    }


@pytest.mark.slow
@pytest.mark.pairs([STACK])
def test_checkov_finds_nothing_else(checkov, project, tmp_path):
    """https://www.checkov.io/5.Policy%20Index/kubernetes.html"""
    shutil.copy(project / "Dockerfile", tmp_path)
    manifests = render(project)
    assert broken_rules(checkov, tmp_path, manifests) == {*BROKEN_RULES}
    worse = manifests.replace("allowPrivilegeEscalation: false", "")
    assert broken_rules(checkov, tmp_path, worse) == {*BROKEN_RULES, "CKV_K8S_20"}


def test_selectors_find_the_pods_and_only_those(rendered):
    """Not those of the jobs, which are no site."""
    [deployment] = [each for each in rendered if each["kind"] == "Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for each in rendered:
        spec = each.get("spec", {})
        selectors = [spec.get("podSelector"), spec.get("selector")]
        selectors = [one.get("matchLabels", one) for one in selectors if one]
        assert all(one == labels for one in selectors), each["kind"]
        if each["kind"] == "CronJob":
            job = spec["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
            assert not labels.items() <= job.items()


def test_app_outlives_nginx(rendered, project):
    """nginx stops first, when no more requests come; the grace period is enough for both."""
    [pod] = [
        each["spec"]["template"]["spec"] for each in rendered if each["kind"] == "Deployment"
    ]
    hooks = {
        each["name"]: each["lifecycle"]["preStop"]["exec"]["command"][2]
        for each in pod["containers"]
        if "lifecycle" in each
    }
    wait = int(re.fullmatch("touch /run/stopping; sleep (\\d+)", hooks["nginx"])[1])
    [conf] = project.glob("deploy/nginx/*/pod.conf")
    text = conf.read_text()
    shutdown = int(re.search(r"worker_shutdown_timeout (\d+)s;", text)[1])
    assert wait > 5  # the app looks for the file after this
    assert pod["terminationGracePeriodSeconds"] >= wait + shutdown + 15
    assert "[ -e /run/stopping ] && [ -e /run/nginx.pid ]" in hooks["app"]
    assert "pid /run/nginx.pid;" in text


def test_app_waits_for_nginx_only_if_the_pod_stops(project, tmp_path):
    """The hook of the app, with its files in another directory and shorter waits."""
    hook = containers(project)["app"]["lifecycle"]["preStop"]["exec"]["command"][2]
    script = hook.replace("/run/", f"{tmp_path}/").replace("sleep 5", "true")
    pid = tmp_path / "nginx.pid"
    pid.touch()
    ok("sh", "-c", script)  # the liveness probe restarts the app
    (tmp_path / "stopping").touch()
    with subprocess.Popen(["sh", "-c", script]) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        pid.unlink()
        assert process.wait(10) == 0


def test_liveness_is_patient_and_readiness_quick(project):
    found = containers(project)
    live, ready = found["app"]["livenessProbe"], found["nginx"]["readinessProbe"]
    assert [each["httpGet"]["path"] for each in (live, ready)] == ["/livez", "/healthz"]
    assert ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"] <= 10
    assert live["periodSeconds"] * live["failureThreshold"] >= 60
    assert live["timeoutSeconds"] >= 20


@pytest.mark.parametrize("name", ["yes", "Null", "On"])
def test_name_that_yaml_takes_for_another_type_is_a_name(release, tmp_path, name):
    project = emit(release, tmp_path / "project", project_name=name, platform="kubernetes")
    for path in project.glob("deploy/kubernetes/*.yaml"):
        for each in yaml.safe_load_all(path.read_text()):
            assert isinstance(each["metadata"]["name"], str), path.name
            assert "image: true" not in path.read_text()
    [kustomization] = documents(project, "kustomization.yaml")
    assert kustomization["namespace"] == name.lower()
    assert kustomization["images"][0]["name"] == name.lower()
    assert containers(project)["app"]["image"] == name.lower()


# The image.


def test_hadolint_finds_nothing(project, tmp_path):
    """https://github.com/hadolint/hadolint"""
    ok("hadolint", "--no-color", project / "Dockerfile")
    bad = tmp_path / "Dockerfile"
    bad.write_text(
        (project / "Dockerfile").read_text().replace("USER 10001:10001", "USER root")
    )
    assert run("hadolint", bad).returncode == 1


SECRETS = [
    ".env", "app/.env", ".git/config", "tests/test_app.py", "deploy/release", "data/app.db",
    ".venv/bin/python", "key.pem", "kubeconfig", "deploy/kubernetes/secret.yaml", "README.md",
    "app/__pycache__/main.pyc",
]  # fmt: skip


def test_image_gets_what_it_needs_and_no_secret(pair, project, tmp_path):
    """As docker-py, which docker-compose used, evaluates .dockerignore."""
    context = shutil.copytree(project, tmp_path / SITE)
    for name in SECRETS:
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("secret")
    patterns = (context / ".dockerignore").read_text().splitlines()
    patterns = [line for line in patterns if line and not line.startswith("#")]
    sent = {name for name in exclude_paths(context, patterns) if (context / name).is_file()}
    sent -= {".dockerignore", "Dockerfile"}  # which go to the builder, not into the image
    assert sent & {*SECRETS} == set()
    needed = {name for name in files(project) if name.startswith(("app/", "migrations/"))}
    needed |= {"requirements.lock", "deploy/listen.py", "deploy/start", "deploy/assets.py"}
    if pair == STACK:
        needed |= {"alembic.ini", "deploy/migrate.py"}
    if (project / "gunicorn.conf.py").exists():
        needed.add("gunicorn.conf.py")
    assert sent == needed


def test_start_is_the_command_of_the_unit(pair, project):
    text = (project / "deploy/start").read_text().replace(" \\\n   ", "")
    assert f"\nexec {pair.facts['command']}\n" in text
    ok("sh", "-n", project / "deploy/start")


# The READMEs and the workflow.


def test_readme_has_the_sections_of_a_server_and_is_short(pair, project):
    text = (project / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS["README.md"]
    assert len(text.splitlines()) <= (245 if pair == STACK else 205)


def test_files_that_the_readmes_name_exist(project):
    """But for those that the owner may write."""
    texts = [(project / name).read_text() for name in ("README.md", "deploy/README.md")]
    names = {name for text in texts for name in re.findall(r"deploy/[\w./*@-]+\w", text)}
    assert names > {
        "deploy/release",
        "deploy/kustomization.yaml",
        "deploy/kubernetes/network.yaml",
    }
    missing = {name for name in names if not list(project.glob(name))}
    assert missing <= {"deploy/nginx/own.conf"}


def test_owner_writes_own_lines_for_nginx(project, tmp_path):
    """As deploy/README.md and the comments say: the map that the pod mounts exists then."""
    path = shutil.copytree(project, tmp_path / SITE)
    kustomization = path / "deploy/kustomization.yaml"
    text = kustomization.read_text().replace("  # - name: nginx-own", "  - name: nginx-own")
    kustomization.write_text(text.replace("  #   files: [nginx/own", "    files: [nginx/own"))
    (path / "deploy/nginx/own.conf").write_text("location /mine { return 204; }\n")
    found = [*yaml.safe_load_all(render(path))]
    [name] = [
        each["metadata"]["name"] for each in found if "own.conf" in (each.get("data") or {})
    ]
    [pod] = [each["spec"]["template"]["spec"] for each in found if each["kind"] == "Deployment"]
    assert {"name": name, "optional": True} in [
        each.get("configMap") for each in pod["volumes"]
    ]


@pytest.mark.pairs(PAIRS[:1])
def test_workflow_is_valid_and_safe_and_does_nothing_without_its_secret(project, tmp_path):
    ok("check-jsonschema", "--builtin-schema=vendor.github-workflows", project / DEPLOY)
    (tmp_path / "zizmor.yml").write_text(ZIZMOR)
    options = ("--offline", f"--config={tmp_path}/zizmor.yml", "--no-progress")
    ok("zizmor", *options, project / DEPLOY)
    step = deploy_step(project)
    assert step["env"]["ACCESS"] == "${{ secrets.DEPLOY_KUBECONFIG }}"
    environment = {"ACCESS": "", "RUNNER_TEMP": str(tmp_path), "PATH": os.environ["PATH"]}
    output = ok("bash", "-ec", step["run"], cwd=project, env=environment)
    assert "The secret DEPLOY_KUBECONFIG is not set: nothing is deployed." in output
    assert [path.name for path in tmp_path.iterdir()] == ["zizmor.yml"]


# The pod at work.


@pytest.fixture(scope="session")
def pod(pair, project, packages, tmp_path_factory) -> Iterator[Pod]:
    """The pod of the project with the probes among its routes."""
    path = shutil.copytree(project, tmp_path_factory.mktemp(f"{pair}-edited") / SITE)
    add_routes(path, probes(pair))
    (path / ".venv").symlink_to(packages(project))
    with running(Pod(path, tmp_path_factory.mktemp("pod"))) as pod:
        yield pod


at_work = pytest.mark.pairs(PAIRS)


@at_work
def test_every_route_works_in_the_pod(pair, pod):
    check_routes(pair, pod)


@at_work
@pytest.mark.parametrize("header", FORGED)
def test_visitor_without_a_proxy_cannot_forge_anything(pod, header):
    found = pod.seen("127.2.9.9", **{header: FORGED[header]})
    assert found == {"address": "127.2.9.9", "scheme": "http", "url": "http://example.com/"}


PROXY = f"{CLUSTER}.1"
CHAINS = {
    "one": "198.51.100.7",
    "one, forged": "6.6.6.6, 198.51.100.7",
    "one, forged as the cluster's": "127.0.9.5, 198.51.100.7",
    "two": "198.51.100.7, 127.0.9.2",
    "two, forged": "6.6.6.6, 10.0.0.1, 198.51.100.7, 127.0.9.2",
    "two, of another private network": "198.51.100.7, 192.168.3.4",
}


@at_work
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_proxies_in_the_cluster_say_who_the_visitor_is(pod, chain):
    """The last address outside the cluster; only what a proxy sends as https is https."""
    for sent, scheme in {"https": "https", "http, https": "http", "": "http"}.items():
        headers = FORGED | {"X-Forwarded-For": chain, "X-Forwarded-Proto": sent}
        assert pod.seen(PROXY, **headers) == {
            "address": "198.51.100.7",
            "scheme": scheme,
            "url": f"{scheme}://example.com/",
        }


@at_work
def test_hsts_and_redirects_follow_the_scheme(pod):
    visitor = {"X-Forwarded-For": "198.51.100.7"}
    with pod.client(PROXY, **visitor, **{"X-Forwarded-Proto": "https"}) as client:
        for path in ("/", "/nowhere", "/static/style.css"):
            hsts = client.get(path).headers["Strict-Transport-Security"]
            assert hsts == "max-age=63072000"
    with pod.client(PROXY, **visitor, **{"X-Forwarded-Proto": "http"}) as client:
        moved = client.post("/hello/?a=b", data={"name": "Ada"})
        assert (moved.status_code, moved.headers["Location"]) == (
            308,
            "https://example.com/hello/?a=b",
        )
        assert "Strict-Transport-Security" not in moved.headers
    for address, proto in (("127.2.9.9", "https"), ("127.2.9.9", "http"), (PROXY, "")):
        with pod.client(address, **{"X-Forwarded-Proto": proto}) as client:
            page = client.get("/")
            assert page.status_code == 200
            assert "Strict-Transport-Security" not in page.headers


@at_work
def test_limits_count_visitors_not_proxies(pod):
    """Of one visitor, some of many quick requests are refused; another's pass."""

    def statuses(address: str) -> set[int]:
        with pod.client(PROXY, **{"X-Forwarded-For": address}) as client:
            return {client.post("/count").status_code for _ in range(90)}

    assert statuses("198.51.100.21") == {200, 429}
    with pod.client(PROXY, **{"X-Forwarded-For": "198.51.100.22"}) as client:
        assert client.post("/count").status_code == 200


@at_work
def test_other_hosts_get_no_page(pod):
    """The other name redirects, and load balancers may check the health under any."""
    with pod.client(Host="evil.example") as client:
        assert client.get("/").status_code == 421
        assert client.get("/healthz").json() == {"status": "ok"}
    with pod.client(Host="www.example.com") as client:
        moved = client.get("/hello/?a=b")
    assert (moved.status_code, moved.headers["Location"]) == (
        308,
        "https://example.com/hello/?a=b",
    )


@at_work
def test_pod_is_alive_while_its_app_answers(pod):
    """Whatever the answer is, here 404, and under any name."""
    with pod.client(Host="10.9.8.7") as client:
        assert client.get("/livez").status_code == 204
        pod.kill("app")
        with pytest.raises(httpx2.TimeoutException):
            client.get("/livez", timeout=2)
        pod.start("app")
    pod.wait()


def ask(pod: Pod, method: str) -> int:
    with pod.client(next(ADDRESSES)) as client:
        return client.request(method, "/hello/", data={"name": "Ada"}).status_code


@at_work
def test_requests_wait_while_the_app_restarts(pod):
    """Also those that may not be repeated. Requests that it was working on are lost."""
    pod.kill("app")
    with ThreadPoolExecutor(12) as pool:
        sent = [pool.submit(ask, pod, method) for method in ("GET", "POST") * 6]
        time.sleep(0.5)
        assert [each for each in sent if each.done()] == []
        pod.start("app")
        assert {each.result() for each in sent} == {200, 303}


def by_itself(pod: Pod, **settings: str) -> dict:
    """Return the command of the image, and the options to run it without a pod."""
    text = (pod.project / "Dockerfile").read_text(encoding="utf-8")
    [command] = [line[4:] for line in text.splitlines() if line.startswith("CMD ")]
    return {
        "args": json.loads(command),
        "cwd": pod.project,
        "env": pod.environment("app") | settings,
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "start_new_session": True,
    }


@at_work
def test_app_that_cannot_start_ends_and_says_why(pod):
    """So that Kubernetes counts the restarts, and deploy/release shows the reason."""
    options = by_itself(pod, PORT=str(free_port()), SECRET_KEY="")
    done = subprocess.run(**options, check=False, timeout=60)
    assert done.returncode != 0
    assert b"SECRET_KEY in the secret my-app is missing" in done.stdout


@at_work
def test_image_runs_without_a_pod(pod):
    """On the port that a host for containers sets, with the static files from the app."""
    port = free_port()
    with subprocess.Popen(**by_itself(pod, PORT=str(port))) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            assert get_when_up(f"{url}/healthz", process, 30).json() == {"status": "ok"}
            assert httpx2.get(f"{url}/static/style.css").status_code == 200
        finally:
            process.terminate()
            assert process.wait(30) in (0, -signal.SIGTERM)


@at_work
def test_requests_are_refused_without_the_container_that_holds_the_socket(pod):
    """That is what makes them wait: otherwise there is the page for 502."""
    pod.kill("socket")
    assert ask(pod, "GET") == 200  # the app has the socket as well
    pod.kill("app")
    assert ask(pod, "POST") == 502
    pod.start("app")
    pod.start("socket")
    pod.wait()


@at_work
def test_socket_survives_the_container_that_holds_it(pod):
    """If that restarts, the app keeps the old socket, and gets a new one when it restarts."""
    pod.kill("socket")
    pod.start("socket")
    time.sleep(0.3)
    assert ask(pod, "POST") == 303
    pod.kill("app")
    pod.start("app")
    pod.wait()
    assert ask(pod, "POST") == 303


# deploy/release, with a model of a cluster.


class Cluster:
    """A checkout of the project, and a cluster that exists only as a file."""

    def __init__(self, project: Path, folder: Path) -> None:
        self.path, self.file, self.bin = folder / SITE, folder / "state.json", folder / "bin"
        shutil.copytree(project, self.path)
        place = "newName: registry.example.com/my-app"
        edit(self.path / "deploy/kustomization.yaml", place, "newName: ghcr.io/ada/my-app")
        commit(self.path, "Start")
        self.bin.mkdir()
        fake = ROOT / "tests/support/fake_cluster.py"
        for name in ("kubectl", "docker"):
            script = self.bin / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {fake} {name} "$@"\n')
            script.chmod(0o755)
        (self.bin / "git").symlink_to(shutil.which("git"))
        none = {"unreachable": False, "unpullable": False, "restarted": False}
        self.write(calls=[], secret=True, revision=0, images={}, bad=[], **none)

    def read(self) -> dict:
        return json.loads(self.file.read_text())

    def write(self, **state) -> None:
        before = self.read() if self.file.exists() else {}
        self.file.write_text(json.dumps(before | state))

    @property
    def online(self) -> str:
        state = self.read()
        return state["images"][str(state["revision"])]

    def change(self) -> str:
        """Commit a change, and return the image that it should have."""
        commit(self.path, "Change")
        tag = ok("git", "rev-parse", "--short=12", "HEAD", cwd=self.path).strip()
        return f"ghcr.io/ada/my-app:{tag}"

    def release(self, *options: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PATH": str(self.bin), "FAKE_CLUSTER": str(self.file)}
        return run(sys.executable, "deploy/release", *options, cwd=self.path, env=environment)


@pytest.fixture
def cluster_model(project, tmp_path) -> Cluster:
    return Cluster(project, tmp_path)


releasing = pytest.mark.pairs([STACK])

GONE = """\
apiVersion: v1
kind: Config
clusters: [{{name: gone, cluster: {{server: "https://127.0.0.1:{port}"}}}}]
users: [{{name: user, user: {{token: token}}}}]
contexts: [{{name: gone, context: {{cluster: gone, user: user}}}}]
current-context: gone
"""


@releasing
def test_release_builds_pushes_and_applies_the_last_commit(cluster_model):
    image = cluster_model.change()
    (cluster_model.path / "app/uncommitted.py").write_text("")
    done = cluster_model.release()
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("-- Not committed, so not released:\n?? app/uncommitted.py\n")
    assert done.stdout.endswith(f"-- Online: {image}\n")
    assert cluster_model.online == image
    state = cluster_model.read()
    assert [call.split()[:2] for call in state["calls"] if "docker" in call] == [
        ["docker", "build"],
        ["docker", "push"],
    ]
    assert "app/main.py" in state["context"]
    assert "app/uncommitted.py" not in state["context"]
    assert ok("git", "status", "--short", cwd=cluster_model.path) == "?? app/uncommitted.py\n"


@releasing
def test_release_needs_a_commit(cluster_model):
    shutil.rmtree(cluster_model.path / ".git")
    done = cluster_model.release()
    assert done.returncode == 1
    assert 'Commit the project first: see "Keep it in git"' in done.stdout
    assert "Keep it in git" in (cluster_model.path / "README.md").read_text()


@releasing
def test_release_that_does_not_start_is_undone_and_says_why(cluster_model):
    good, other = cluster_model.change(), cluster_model.release()
    assert other.returncode == 0, other.stdout
    bad = cluster_model.change()
    cluster_model.write(bad=[bad.rpartition(":")[2]])
    done = cluster_model.release()
    assert done.returncode == 1
    assert cluster_model.online == good
    for text in (
        "my-app-new is not ready",
        "app: CrashLoopBackOff",
        "SECRET_KEY in the secret ",
    ):
        assert text in done.stdout.partition("Release failed:")[2]
    assert bad not in cluster_model.read()["images"].values()


@releasing
def test_rollback_goes_to_the_previous_good_release(cluster_model):
    """Not to a failed one; one that fails itself leaves the current release online."""
    first = cluster_model.change()
    cluster_model.release()
    second = cluster_model.change()
    cluster_model.release()
    bad = cluster_model.change()
    cluster_model.write(bad=[bad.rpartition(":")[2]])
    cluster_model.release()
    assert cluster_model.online == second
    done = cluster_model.release("--rollback")
    assert done.returncode == 0, done.stdout
    assert cluster_model.online == first
    cluster_model.write(bad=[second.rpartition(":")[2]])
    done = cluster_model.release("--rollback")
    assert done.returncode == 1
    assert cluster_model.online == first


@releasing
def test_first_release_that_fails_says_why(cluster_model):
    cluster_model.change()
    cluster_model.write(bad=["all"])
    done = cluster_model.release()
    assert done.returncode == 1
    assert "Nothing is online yet" in done.stdout
    assert "CrashLoopBackOff" in done.stdout
    assert cluster_model.release("--rollback").returncode == 1
    cluster_model.write(bad=[])  # the secret was wrong
    done = cluster_model.release()
    assert done.returncode == 0, done.stdout


@releasing
def test_release_says_what_is_missing_before_it_builds(cluster_model):
    place = cluster_model.path / "deploy/kustomization.yaml"
    cluster_model.write(secret=False)
    done = cluster_model.release()
    assert done.returncode == 1
    assert 'secrets "my-app" not found' in done.stdout
    assert '"Deploy" in README.md' in done.stdout
    cluster_model.write(secret=True)
    edit(place, "ghcr.io/ada/my-app", "registry.example.com/my-app")
    cluster_model.change()
    done = cluster_model.release()
    assert done.returncode == 1
    assert "Set newName in deploy/kustomization.yaml" in done.stdout
    (cluster_model.bin / "docker").unlink()
    done = cluster_model.release()
    assert done.returncode == 1
    assert "Install docker or podman" in done.stdout
    assert not any("build" in call for call in cluster_model.read()["calls"])


@releasing
def test_release_says_which_cluster_does_not_answer(cluster_model):
    """Before it builds, and without a word on secrets."""
    cluster_model.change()
    cluster_model.write(unreachable=True)
    for options in ([], ["--rollback"]):
        done = cluster_model.release(*options)
        assert done.returncode == 1
        assert "Unable to connect to the server" in done.stdout
        assert 'kubectl uses the context "old-cluster"' in done.stdout
        assert "kubectl config use-context NAME" in done.stdout
        assert "memcache.go" not in done.stdout
        assert "secret" not in done.stdout
    assert not any("build" in call for call in cluster_model.read()["calls"])
    (cluster_model.bin / "kubectl").unlink()
    assert "Install kubectl" in cluster_model.release("--rollback").stdout


@releasing
def test_release_whose_app_runs_again_shows_its_last_run(cluster_model):
    cluster_model.change()
    cluster_model.write(bad=["all"], restarted=True)
    done = cluster_model.release()
    assert "SECRET_KEY in the secret my-app is missing" in done.stdout, done.stdout


@releasing
def test_release_without_an_answer_from_the_cluster_shows_what_kubectl_says(
    cluster_model, tmp_path, monkeypatch
):
    """With the real kubectl, and a kubeconfig whose cluster is gone, or which has none."""
    (cluster_model.bin / "kubectl").unlink()
    (cluster_model.bin / "kubectl").symlink_to(tool("kubectl", "kubectl"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    (tmp_path / "config").write_text(GONE.format(port=free_port()))
    cluster_model.change()
    for options in ([], ["--rollback"]):
        done = cluster_model.release(*options)
        assert done.returncode == 1
        assert "was refused" in done.stdout
        assert 'the context "gone"' in done.stdout
        assert "memcache.go" not in done.stdout
    (tmp_path / "config").write_text("")
    assert 'the context ""' in cluster_model.release().stdout
    assert not any("build" in call for call in cluster_model.read()["calls"])


@releasing
def test_release_whose_image_cannot_be_pulled_says_why(cluster_model):
    cluster_model.change()
    cluster_model.write(bad=["all"], unpullable=True)
    done = cluster_model.release()
    assert done.returncode == 1
    for text in ("Failed to pull image: 401", "app: ImagePullBackOff", 'step 2 of "Deploy"'):
        assert text in done.stdout.partition("Release failed:")[2]


# deploy/migrate.py.


@releasing
def test_pods_migrate_one_after_the_other(project, packages, databases, tmp_path):
    """Two at once, and again: the tables are there, and nothing is done twice."""
    path = shutil.copytree(project, tmp_path / SITE)
    (path / ".venv").symlink_to(packages(project))
    database = databases.create()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(database.run, path, "python", "-m", "deploy.migrate") for _ in "ab"]
        results = [each.result() for each in both]
    assert [done.returncode for done in results] == [0, 0], results
    assert database.names() == []
    database.query("INSERT INTO greetings (name) VALUES ('Ada')")
    assert "Running upgrade" not in database.ok(path, "python", "-m", "deploy.migrate")
    database.query("UPDATE alembic_version SET version_num = '0002'")
    assert "to 0002: it stays" in database.ok(path, "python", "-m", "deploy.migrate")
    assert database.names() == ["Ada"]
    broken = path / "migrations/versions/0002_broken.py"
    broken.write_text('revision, down_revision = "0003", "0001"\ndef upgrade(): 1 / 0\n')
    database.query("UPDATE alembic_version SET version_num = '0001'")
    assert database.run(path, "python", "-m", "deploy.migrate").returncode != 0
    assert database.query("SELECT version_num FROM alembic_version") == ["0001"]


def job_script(project: Path, name: str, backups: Path) -> str:
    """Return the script of a CronJob, for dumps in a directory of the test."""
    [job] = [
        each
        for each in documents(project, "kubernetes/backup.yaml")
        if each["kind"] == "CronJob" and each["metadata"]["name"] == f"my-app-{name}"
    ]
    [container] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"][:2] == ["sh", "-euc"]
    return container["command"][2].replace("/backups", str(backups))


def run_job(project: Path, name: str, database: Database, backups: Path, **settings: str):
    """Run the script of a CronJob with the programs of PostgreSQL on this machine."""
    bin_ = Path(client("pg_dump")).parent
    settings |= {"DATABASE_URL": database.url, "PATH": f"{bin_}:{os.environ['PATH']}"}
    return run("sh", "-euc", job_script(project, name, backups), env=os.environ | settings)


@releasing
def test_dump_replaces_newer_tables_too(project, packages, databases, tmp_path):
    """All or nothing: a dump that cannot be restored changes nothing."""
    database, backups = databases.create(), tmp_path / "backups"
    backups.mkdir()
    path = shutil.copytree(project, tmp_path / SITE)
    (path / ".venv").symlink_to(packages(project))
    database.ok(path, "alembic", "upgrade", "head")
    database.query("INSERT INTO greetings (name) VALUES ('Ada')")
    done = run_job(project, "backup", database, backups)
    assert done.returncode == 0, done.stdout
    [dump] = backups.glob("*.dump")
    database.query("CREATE TABLE newer (id int)", "INSERT INTO greetings (name) VALUES ('Bo')")
    newest = backups / "99991231-000000.dump"
    newest.write_bytes(dump.read_bytes()[:-200])
    done = run_job(project, "restore", database, backups)
    assert done.returncode != 0
    assert database.names() == ["Ada", "Bo"]
    done = run_job(project, "restore", database, backups, DUMP=str(dump))
    assert done.returncode == 0, done.stdout
    assert database.names() == ["Ada"]
    assert database.query("SELECT to_regclass('newer') IS NULL") == ["t"]
    assert sorted(backups.iterdir()) == [dump, newest]


# Writes a part of a dump.
FAILING_PG_DUMP = """\
#!/bin/sh
for word in "$@"; do
    case $word in --file=*) echo part > "${word#--file=}" ;; esac
done
exit 1
"""


@releasing
def test_failed_dump_leaves_no_part(project, tmp_path):
    """Nor do those of nights on which the job was killed: the volume would get full."""
    backups, program = tmp_path / "backups", tmp_path / "pg_dump"
    backups.mkdir()
    program.write_text(FAILING_PG_DUMP)
    program.chmod(0o755)
    killed, dump = backups / "20260101-031700.part", backups / "20260101-031700.dump"
    for path in (killed, dump):
        path.write_text("")
        os.utime(path, (0, 0))
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DATABASE_URL": ""}
    done = run("sh", "-euc", job_script(project, "backup", backups), env=environment)
    assert done.returncode == 1
    assert [*backups.iterdir()] == [dump]
