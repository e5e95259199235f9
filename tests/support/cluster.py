"""Sites on a Kubernetes cluster, and visitors who load them from inside it."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

from support import nodes
from support.commands import commit, ok, run, skip_or_fail
from support.containers import (
    Base,
    build_base,
    exists,
    make_bases,
    make_pause,
    save,
    write_docker,
)
from support.kubernetes import kubectl
from support.project import ROOT, Pair, add_routes, edit, emit, probes

# One of those whose pods may connect to the site, according to network.yaml.
VISITORS = "traefik"
PODS = [f"visitor-{number}" for number in range(4)]
SECRET = "0123456789abcdef" * 4

# Kubernetes 1.20 has only the beta versions of some APIs.
OLD_KUBECTL = """\
#!/bin/sh
case "$*" in
"apply --kustomize="*)
    {kubectl} kustomize "${{2#--kustomize=}}" | sed '
        s|^apiVersion: policy/v1$|&beta1|
        s|^apiVersion: autoscaling/v2$|&beta2|
        s|^apiVersion: batch/v1$|&beta1|' |
    exec {kubectl} apply --filename=- ;;
"--namespace "*" create job --from=cronjob/"*)
    namespace=$2 cronjob=${{5#--from=}} name=$6
    shift 6
    {kubectl} --namespace="$namespace" get "$cronjob" --output=json |
    {python} -c '{job}' "$name" |
    exec {kubectl} --namespace="$namespace" create --filename=- "$@" ;;
*)
    exec {kubectl} "$@" ;;
esac
"""
# What `kubectl create job --from` does, which takes no beta version either.
JOB = """\
import json, sys
template = json.load(sys.stdin)["spec"]["jobTemplate"]
metadata = template.get("metadata", {}) | {"name": sys.argv[1]}
job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}
print(json.dumps(job))
"""
# The image of the backups. A newer PostgreSQL than the one on this machine, as may happen.
POSTGRES = "docker.io/library/postgres:18"
POSTGRES_BASE = Base(
    "testing",
    ["postgresql-client"],
    """\
    RUN ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/
    CMD ["psql"]
    """,
)
VOLUME = """\
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 10Gi}}
  accessModes: [ReadWriteOnce]
  claimRef: {{namespace: {namespace}, name: {name}}}
  local: {{path: {path}}}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions:
            - {{key: kubernetes.io/hostname, operator: In, values: [{node}]}}
"""
VISITOR = """\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{app.kubernetes.io/name: visitors}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  securityContext: {{runAsNonRoot: true, runAsUser: 10001}}
  containers:
    - name: visitor
      image: docker.io/library/python:3.13-slim
      command: [sleep, infinity]
      volumeMounts: [{{name: scripts, mountPath: /scripts}}]
  volumes: [{{name: scripts, configMap: {{name: scripts}}}}]
"""
# Prints the status, the headers and the body of each response.
ASK = """
import http.client, json, sys
address, requests = json.loads(sys.argv[1])
answers = []
for method, path, headers, body in requests:
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read().decode(errors="replace")
    answers.append([response.status, dict(response.getheaders()), text])
print(json.dumps(answers))
"""


class Cluster:
    """A cluster, and programs that `deploy/release` uses with it."""

    def __init__(self, folder: Path) -> None:
        """Take the cluster that KUBECONFIG names, or else start that of support/nodes.py.

        folder: for programs and manifests.
        """
        config = os.environ.get("KUBECONFIG", str(nodes.KUBECONFIG))
        self.own = config == str(nodes.KUBECONFIG)
        if self.own:
            nodes.up()
        self.environment = os.environ | {
            "KUBECONFIG": config,
            "PATH": f"{folder}:{os.environ['PATH']}",
        }
        load = shlex.join(
            ["env", f"PYTHONPATH={ROOT}/tests", sys.executable, "-m", "support.nodes"]
        )
        self.load = load if self.own else os.environ.get("LOAD_IMAGES", "")
        if not self.load:
            skip_or_fail("LOAD_IMAGES, a command that copies an archive of images to the nodes")
        self.folder = folder
        self._install()

    def _install(self) -> None:
        """Write kubectl and docker, and copy the images that pods need to the nodes."""
        program = self.folder / "kubectl"
        program.symlink_to(kubectl())
        version = json.loads(self.kubectl("get", "--raw=/version"))
        if int(version["minor"].rstrip("+")) < 25:
            program.unlink()
            values = {"kubectl": kubectl(), "python": sys.executable, "job": JOB}
            program.write_text(OLD_KUBECTL.format_map(values))
            program.chmod(0o755)
        names = make_bases()
        if self.own:
            self.load_images(*names, make_pause())
        write_docker(self.folder / "docker", self.load)
        (self.folder / "elsewhere").mkdir()
        write_docker(self.folder / "elsewhere/docker", ":")  # what it pushes gets nowhere

    def load_images(self, *names: str) -> None:
        """Copy images to the nodes."""
        archive = save([*names], self.folder / "images.tar")
        ok("sh", "-c", f"{self.load} {archive}", timeout=600)
        archive.unlink()

    def kubectl(self, *arguments: str, **options) -> str:
        """Run a command that must succeed, and return its output."""
        command = [str(self.folder / "kubectl"), *arguments]
        options = {"timeout": 300} | options
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout  # without warnings

    def get(self, *arguments: str) -> dict:
        """Return an object, or a list of objects."""
        return json.loads(self.kubectl("get", "--output=json", *arguments))

    def apply(self, text: str) -> None:
        """Apply a manifest."""
        path = self.folder / "manifest.yaml"
        path.write_text(text)
        self.kubectl("apply", f"--filename={path}")

    def nodes(self) -> list[str]:
        """Return the names of the nodes that run pods, in order."""
        items = self.get("nodes")["items"]
        return sorted(
            each["metadata"]["name"]
            for each in items
            if not any(
                taint["effect"] == "NoSchedule" for taint in each["spec"].get("taints", [])
            )
        )

    def start_visitors(self) -> None:
        """Start the pods from which sites are loaded, on the first node."""
        scripts = [
            f"--from-file={ROOT}/tests/support/{name}.py" for name in ("load", "writers")
        ]
        run(self.folder / "kubectl", "create", "namespace", VISITORS, env=self.environment)
        in_namespace = f"--namespace={VISITORS}"
        options = ("--dry-run=client", "--output=yaml")
        text = self.kubectl("create", "configmap", "scripts", in_namespace, *scripts, *options)
        node = self.nodes()[0]
        pods = [VISITOR.format(name=name, namespace=VISITORS, node=node) for name in PODS]
        self.apply("---\n".join([text, *pods]))
        wait = ("--for=condition=Ready", "--timeout=90s")
        self.kubectl("wait", in_namespace, *wait, *(f"pod/{name}" for name in PODS))

    def stop_visitors(self) -> None:
        """Remove the pods from which sites are loaded."""
        self.kubectl("delete", "--namespace", VISITORS, *(f"pod/{name}" for name in PODS))

    def inside(self, pod: str, *command: str) -> list[str]:
        """Return a command that runs another one in the pod of a visitor."""
        exec_ = ("exec", "--stdin", f"--namespace={VISITORS}", pod, "--", *command)
        return [str(self.folder / "kubectl"), *exec_]


class Result(NamedTuple):
    """What visitors have seen: how many requests were sent, and those that failed."""

    sent: int
    failed: list[list]

    def __str__(self) -> str:
        return f"{len(self.failed)} of {self.sent} requests lost"


class Load:
    """Visitors in several pods: half with new connections, and half with kept ones."""

    def __init__(self, site: "Site") -> None:
        address = site.address()
        self.result: Result | None = None
        self.processes = []
        for number, pod in enumerate(PODS):
            script = ("python", "/scripts/load.py", site.domain, address, "--proxy", "--shared")
            command = site.cluster.inside(pod, *script, *(["--fresh"] if number % 2 else []))
            self.processes.append(
                subprocess.Popen(
                    command,
                    env=site.cluster.environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )

    def stop(self) -> Result:
        """Let visitors finish their requests, and return what they have seen."""
        outputs = []
        for process in self.processes:
            process.stdin.close()
            process.stdin = None
        for process in self.processes:
            outputs.append(json.loads(process.communicate(timeout=120)[0]))
        for each in outputs:
            assert each["sent"] > 100, outputs
        failed = [failure for each in outputs for failure in each["failed"]]
        return Result(sum(each["sent"] for each in outputs), failed)


class Site:
    """A site on a cluster, in a namespace of its own."""

    def __init__(self, cluster: Cluster, project: Path, name: str) -> None:
        self.cluster, self.project, self.name = cluster, project, name
        self.domain = f"{name}.example.com"
        self.deployment = f"deployment/{name}"

    def kubectl(self, *arguments: str, **options) -> str:
        """Run a command in the namespace of the site, and return its output."""
        return self.cluster.kubectl(f"--namespace={self.name}", *arguments, **options)

    def set_secret(self, **values: str) -> None:
        """Create the secret of the site, or replace it."""
        literals = [f"--from-literal={name}={value}" for name, value in values.items()]
        options = ("--dry-run=client", "--output=yaml")
        self.cluster.apply(
            self.kubectl("create", "secret", "generic", self.name, *literals, *options)
        )

    def release(self, *arguments: str, pushed: bool = True) -> CompletedProcess[str]:
        """Run deploy/release, and return its status and output.

        pushed: whether the cluster gets the image.
        """
        environment = self.cluster.environment
        if not pushed:
            path = f"{self.cluster.folder}/elsewhere:{environment['PATH']}"
            environment = environment | {"PATH": path}
        program = self.project / "deploy/release"
        return run(program, *arguments, env=environment, timeout=900)

    def change(self, text: str) -> None:
        """Commit a change that visitors can see."""
        (self.project / "app/static/version.txt").write_text(text)
        commit(self.project)

    def release_version(self, text: str) -> None:
        """Commit a change that visitors can see, and release it."""
        self.change(text)
        done = self.release()
        assert done.returncode == 0, done.stdout

    def version(self) -> str:
        """Return the version of the site that a visitor sees."""
        [[status, _, text]] = self.ask(("GET", "/static/version.txt"))
        assert status == 200, text
        return text

    def shell(self, script: str) -> str:
        """Run commands of the README, all of which must succeed, and return their output."""
        script = script.replace("--timeout=1h", "--timeout=60s")
        done = run("sh", "-euc", script, env=self.cluster.environment, timeout=300)
        label = f"--selector=app.kubernetes.io/name={self.name}-backup"
        assert done.returncode == 0, done.stdout + self.kubectl("logs", label)
        return done.stdout

    def container(self, pod: dict, name: str) -> str:
        """Return the id of a container of a pod."""
        statuses = pod["status"]["containerStatuses"]
        [found] = [each["containerID"] for each in statuses if each["name"] == name]
        return found.split("//")[1]

    def restarts(self) -> int:
        """Return how often containers of the site were restarted."""
        statuses = [
            each for pod in self.all_pods() for each in pod["status"]["containerStatuses"]
        ]
        return sum(each["restartCount"] for each in statuses)

    def rollout(self) -> None:
        """Wait until all pods are new."""
        self.kubectl("rollout", "status", self.deployment, "--timeout=240s", timeout=250)

    def restart(self) -> None:
        """Replace all pods, and wait until they are new."""
        self.kubectl("rollout", "restart", self.deployment)
        self.rollout()

    def scale(self, count: int) -> None:
        """Set the number of pods, and wait until they are ready and others have ended."""
        self.kubectl("scale", self.deployment, f"--replicas={count}")
        self.wait_for(count)

    def wait_for(self, count: int, seconds: float = 150) -> None:
        """Wait until the site has this number of pods, all of them ready."""
        nodes.wait_until(
            lambda: len(self.all_pods()) == len(self.pods()) == count,
            f"{count} pods of {self.name}", seconds,
        )  # fmt: skip

    def all_pods(self) -> list[dict]:
        """Return the pods of the site, with those that are starting or stopping."""
        label = f"--selector=app.kubernetes.io/name={self.name}"
        return self.cluster.get("pods", f"--namespace={self.name}", label)["items"]

    def pods(self) -> list[dict]:
        """Return the pods of the site that are ready and not being stopped."""
        return [
            pod
            for pod in self.all_pods()
            if "deletionTimestamp" not in pod["metadata"]
            and {"type": "Ready", "status": "True"}.items()
            <= next(
                (c for c in pod["status"].get("conditions", []) if c["type"] == "Ready"), {}
            ).items()
        ]

    def in_container(self, pod: dict, container: str, *command: str) -> str:
        """Run a command in a container of a pod, and return its output."""
        name = pod["metadata"]["name"]
        return self.kubectl("exec", name, f"--container={container}", "--", *command)

    def address(self) -> str:
        """Return the address of the site inside the cluster."""
        service = self.cluster.get("service", self.name, f"--namespace={self.name}")
        return service["spec"]["clusterIP"]

    def ask(self, *requests: tuple, **headers: str) -> list[list]:
        """Send requests as a proxy does for a visitor; return status, headers and body of each.

        requests: method, path, and maybe the body of a form.
        """
        common = {
            "Host": self.domain,
            "X-Forwarded-For": "20.1.2.3",
            "X-Forwarded-Proto": "https",
        }
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        words = [
            [method, path, common | headers | (form if body else {}), *(body or [None])]
            for method, path, *body in requests
        ]
        question = json.dumps([self.address(), words])
        command = self.cluster.inside(PODS[0], "python", "-c", ASK, question)
        return json.loads(ok(*command, env=self.cluster.environment))

    @contextlib.contextmanager
    def written(self) -> Iterator[dict]:
        """Let visitors write rows meanwhile; what they have seen is added to the dict."""
        url = f"http://{self.address()}"
        script = ("python", "/scripts/writers.py", url, "-", f"--proxy={self.domain}")
        found = {}
        with subprocess.Popen(
            self.cluster.inside(PODS[0], *script),
            env=self.cluster.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            time.sleep(3)
            yield found
            time.sleep(2)
            found |= json.loads(process.communicate(timeout=120)[0])

    def names(self) -> list[str]:
        """Return the names of all rows, oldest first."""
        url = f"http://{self.address()}"
        script = ("python", "/scripts/writers.py", url, "-", f"--proxy={self.domain}", "--read")
        return json.loads(
            ok(*self.cluster.inside(PODS[0], *script), env=self.cluster.environment)
        )

    @contextlib.contextmanager
    def loaded(self, what: str) -> Iterator[Load]:
        """Load the site meanwhile, and for two seconds before and afterwards."""
        load = Load(self)
        try:
            time.sleep(3)
            assert all(process.poll() is None for process in load.processes)
            yield load
            time.sleep(2)
        finally:
            load.result = load.stop()
        print(f"{self.name}, {what}: {load.result}")

    def delete(self) -> None:
        """Remove the namespace of the site and all that is in it."""
        self.kubectl("delete", self.deployment, "--wait=false")
        self.kubectl("delete", "pods", "--all", "--grace-period=1", "--wait=false")
        self.cluster.kubectl("delete", "namespace", self.name, "--wait=false")


def emit_for_cluster(template: Path, path: Path, pair: Pair, database: str = "none") -> Path:
    """Emit a project for Kubernetes, with routes that show what the app sees, and commit it.

    Its rollouts fail after a minute instead of five.
    """
    answers = {"framework": pair.framework, "server": pair.server, "database": database}
    name = path.name
    emit(template, path, project_name=name, domain=f"{name}.example.com",
         platform="kubernetes", **answers)  # fmt: skip
    image = f"registry.example.com/{name}"
    edit(path / "deploy/kustomization.yaml", image, f"registry.example.net/{name}")
    old = "progressDeadlineSeconds: 300"
    edit(path / "deploy/kubernetes/deployment.yaml", old, "progressDeadlineSeconds: 60")
    add_routes(path, probes(pair))
    return commit(path)


def bring_online(cluster: Cluster, project: Path, **settings: str) -> Site:
    """Release a project on the cluster for the first time, with the settings as its secret."""
    site = prepare(cluster, project, **settings)
    site.release_version("1")
    site.wait_for(2)
    return site


def prepare(cluster: Cluster, project: Path, **settings: str) -> Site:
    """Make the namespace of a project, with the settings as its secret."""
    site = Site(cluster, project, project.name)
    cluster.kubectl("delete", "namespace", site.name, "--ignore-not-found")  # of another run
    cluster.kubectl("create", "namespace", site.name)
    site.set_secret(SECRET_KEY=SECRET, **settings)
    return site


def make_volume(site: Site, path: Path) -> None:
    """Make a volume for the backups of a site in a directory of one node."""
    name = f"{site.name}-backups"
    node = site.cluster.nodes()[-1]
    values = {"name": name, "namespace": site.name, "path": path, "node": node}
    site.cluster.kubectl("delete", "persistentvolume", name, "--ignore-not-found")
    site.cluster.apply(VOLUME.format_map(values))


def load_postgres(cluster: Cluster) -> None:
    """Copy the image of the backups to the nodes."""
    if not exists(POSTGRES):
        build_base(POSTGRES, POSTGRES_BASE)
    cluster.load_images(POSTGRES)
