"""A Kubernetes of three nodes on one machine.

Each node is a network namespace with a containerd, a kubelet and a kube-proxy of its own.
The control plane and PostgreSQL have two others; all are connected by a bridge in one more.
Nothing is added to the machine's own network. All processes are in control groups below
`copier-pyweb`, by which `down` finds them.
"""

import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.commands import ok, run, skip_or_fail, tool
from support.kubernetes import BIN, FOLDER, build, kubectl

RUN = FOLDER / "run"
SOCKETS = Path("/run/copier-pyweb")
SWITCH = "kube-switch"
NODES = ["n1", "n2", "n3"]
CONTROL, DATABASE = "10.99.0.10", "10.99.0.30"
ADDRESSES = {"control": CONTROL, "database": DATABASE} | {
    name: f"10.99.0.{11 + number}" for number, name in enumerate(NODES)
}
PODS = {name: f"10.244.{1 + number}.0/24" for number, name in enumerate(NODES)}
PORT = 16443  # of the API server, on 127.0.0.1 of this machine
KUBECONFIG = RUN / "admin.conf"
# The kubelet changes these for the whole machine.
SYSCTLS = [
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
]  # fmt: skip
TOOLS = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "socat": "socat",
    "openssl": "openssl",
    "ip": "iproute2",
}

ACCOUNT = """\
apiVersion: v1
kind: Config
clusters: [{{name: cluster, cluster: {{server: "https://{server}", certificate-authority: {ca}}}}}]
users: [{{name: user, user: {{token: {token}}}}}]
contexts: [{{name: context, context: {{cluster: cluster, user: user}}}}]
current-context: context
"""
CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "{sockets}/{name}"
[grpc]
  address = "{sockets}/{name}.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
"""
KUBELET = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {address}
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {run}/ca.crt}}
cgroupRoot: /copier-pyweb/{name}
cgroupDriver: cgroupfs
clusterDomain: cluster.local
clusterDNS: [10.96.0.10]  # where nothing answers; without it, warnings displace other events
failSwapOn: false
nodeStatusUpdateFrequency: 3s
nodeStatusReportFrequency: 5s
evictionHard: {{}}
imageGCHighThresholdPercent: 100
"""


def cgroups(name: str) -> list[Path]:
    """Return the control groups of a node or the control plane, one in each hierarchy."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").is_file():  # version 2
        return [top / "copier-pyweb" / name]
    tops = [path for path in top.iterdir() if (path / "cgroup.procs").is_file()]
    return [path / "copier-pyweb" / name for path in tops if path.name != "unified"]


def make_cgroups(name: str) -> None:
    """Make the control groups of a node, for its pods and, in `system`, its own processes."""
    for path in cgroups(name):
        (path / "system").mkdir(parents=True, exist_ok=True)
        for group in (path.parent, path, path / "system"):
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (group / file).is_file():  # empty in version 1, so that nothing could start
                    (group / file).write_text((group.parent / file).read_text())


def remove_cgroups(top: Path) -> None:
    """Remove a control group without processes, with all below it, and then its parent."""
    if top.is_dir():
        for folder in sorted(top.rglob("*/"), reverse=True):
            folder.rmdir()
        top.rmdir()
        if not any(each.is_dir() for each in top.parent.iterdir()):
            top.parent.rmdir()


def processes(name: str) -> set[int]:
    """Return the ids of all processes of a node, with those of its containers."""
    files = [file for top in cgroups(name) for file in top.rglob("cgroup.procs")]
    return {int(word) for file in files for word in file.read_text().split()}


def kill(name: str, seconds: float = 20) -> None:
    """Kill all processes of a node or of the control plane."""
    end = time.monotonic() + seconds
    while found := processes(name):
        assert time.monotonic() < end, f"processes of {name} do not end: {found}"
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


def start(name: str, where: str, *command: str | Path, network: bool = True) -> int:
    """Start a program in the control groups of a node, and return its id.

    network: whether it runs in the node's network; otherwise, in that of this machine.
    """
    groups = " ".join(f"{path}/system/cgroup.procs" for path in cgroups(where))
    log = RUN / f"logs/{where}-{name}.log"
    log.parent.mkdir(exist_ok=True)
    script = f"""
        for group in {groups}; do echo $$ >$group; done
        setsid "$@" </dev/null >>{log} 2>&1 &
        echo $!
    """
    words = ["sh", "-euc", script, "sh", *command]
    return int(ok(*(inside(where) if network else []), *words))


def inside(where: str) -> list[str]:
    """Return the start of a command that runs another in the network of a node.

    Not `ip netns exec`, which mounts another /sys, without the control groups.
    """
    return ["nsenter", f"--net=/run/netns/kube-{where}"]


def connect(name: str, address: str) -> None:
    """Make a network namespace with an address, connected to the switch."""
    ok("ip", "netns", "add", f"kube-{name}")
    ok("ip", "-netns", SWITCH, "link", "add", f"port-{name}", "type", "veth", "peer", "name",
       "eth0", "netns", f"kube-{name}")  # fmt: skip
    ok("ip", "-netns", SWITCH, "link", "set", f"port-{name}", "master", "bridge", "up")
    ip = ["ip", "-netns", f"kube-{name}"]
    ok(*ip, "link", "set", "lo", "up")
    ok(*ip, "address", "add", f"{address}/24", "dev", "eth0")
    ok(*ip, "link", "set", "eth0", "up")
    ok(*inside(name), "sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1")


def make_network() -> None:
    """Make the namespaces and the routes to the pods of each node."""
    ok("ip", "netns", "add", SWITCH)
    ok("ip", "-netns", SWITCH, "link", "add", "bridge", "type", "bridge")
    ok("ip", "-netns", SWITCH, "link", "set", "bridge", "up")
    for name, address in ADDRESSES.items():
        connect(name, address)
    for name in ADDRESSES:
        ip = ["ip", "-netns", f"kube-{name}", "route", "add"]
        for node, pods in PODS.items():
            if node != name:
                ok(*ip, pods, "via", ADDRESSES[node])
        if name in NODES:
            ok(*ip, "default", "via", CONTROL)


def make_certificates() -> None:
    """Make the authority, the API server's certificate, and its own for the kubelets."""
    subject = ["-nodes", "-newkey", "rsa:2048", "-days", "30"]
    ok("openssl", "genrsa", "-out", "sa.key", "2048", cwd=RUN)
    ok("openssl", "req", "-x509", *subject, "-keyout", "ca.key", "-out", "ca.crt",
       "-subj", "/CN=authority", cwd=RUN)  # fmt: skip
    names = f"subjectAltName=IP:{CONTROL},IP:10.96.0.1,IP:127.0.0.1,DNS:kubernetes"
    (RUN / "names").write_text(names)
    for name, owner, extra in (
        ("api", "/CN=kube-apiserver", ["-extfile", "names"]),
        ("kubelet", "/O=system:masters/CN=apiserver-kubelet-client", []),
    ):
        ok("openssl", "req", *subject[:3], "-keyout", f"{name}.key", "-out", f"{name}.csr",
           "-subj", owner, cwd=RUN)  # fmt: skip
        ok("openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
           "-CAcreateserial", "-days", "30", "-out", f"{name}.crt", *extra, cwd=RUN)  # fmt: skip


def make_accounts() -> None:
    """Write a token and a kubeconfig for each component and for the administrator."""
    accounts = {
        "admin": ("admin", "system:masters", f"127.0.0.1:{PORT}"),
        "controllers": ("system:kube-controller-manager", "", f"{CONTROL}:6443"),
        "scheduler": ("system:kube-scheduler", "", f"{CONTROL}:6443"),
        "proxy": ("system:kube-proxy", "", f"{CONTROL}:6443"),
    }
    for node in NODES:
        accounts[node] = (f"system:node:{node}", "system:nodes", f"{CONTROL}:6443")
    rows = []
    for name, (user, groups, server) in accounts.items():
        token = secrets.token_hex(16)
        rows.append(f'{token},{user},{user},"{groups}"\n')
        text = ACCOUNT.format(server=server, ca=RUN / "ca.crt", token=token)
        (RUN / f"{name}.conf").write_text(text)
    (RUN / "tokens.csv").write_text("".join(rows))


def api_options() -> dict[str, str | Path]:
    """Return the options of the API server."""
    return {
        "etcd-servers": "http://127.0.0.1:2379",
        "bind-address": CONTROL,
        "advertise-address": CONTROL,
        "tls-cert-file": RUN / "api.crt",
        "tls-private-key-file": RUN / "api.key",
        "client-ca-file": RUN / "ca.crt",
        "token-auth-file": RUN / "tokens.csv",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "service-cluster-ip-range": "10.96.0.0/16",
        "service-account-issuer": "https://kubernetes",
        "service-account-key-file": RUN / "sa.key",
        "service-account-signing-key-file": RUN / "sa.key",
        "kubelet-client-certificate": RUN / "kubelet.crt",
        "kubelet-client-key": RUN / "kubelet.key",
        "kubelet-preferred-address-types": "InternalIP",
        "allow-privileged": "false",
    }


def options(values: dict[str, str | Path]) -> list[str]:
    """Return options of the command line."""
    return [f"--{name}={value}" for name, value in values.items()]


def start_control_plane() -> None:
    """Start etcd, the API server and the controllers, and the API server's port here."""
    make_cgroups("control")
    client = "http://127.0.0.1:2379"
    start("etcd", "control", "etcd", f"--data-dir={RUN}/etcd", "--unsafe-no-fsync",
          f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
          "--listen-peer-urls=http://127.0.0.1:2380")  # fmt: skip
    start("apiserver", "control", BIN / "kube-apiserver", *options(api_options()))
    common = ["--leader-elect=false", "--bind-address=127.0.0.1"]
    start("controllers", "control", BIN / "kube-controller-manager", *common,
          f"--kubeconfig={RUN}/controllers.conf", "--use-service-account-credentials",
          f"--service-account-private-key-file={RUN}/sa.key",
          f"--root-ca-file={RUN}/ca.crt")  # fmt: skip
    start("scheduler", "control", BIN / "kube-scheduler", *common,
          f"--kubeconfig={RUN}/scheduler.conf")  # fmt: skip
    open_port()


def open_port() -> None:
    """Pass connections to a port of this machine on to the API server."""
    script = RUN / "connect"  # a file, because socat does not allow a colon in EXEC
    script.write_text(shlex.join([*inside("control"), "socat", "-", f"TCP:{CONTROL}:6443"]))
    listen = f"TCP-LISTEN:{PORT},bind=127.0.0.1,fork,reuseaddr"
    start("port", "control", "socat", listen, f"EXEC:sh {script}", network=False)


def cni(name: str) -> str:
    """Return the configuration of the network of a node's pods."""
    ranges = [[{"subnet": PODS[name]}]]
    ipam = {"type": "host-local", "dataDir": f"{RUN}/{name}/ipam", "ranges": ranges}
    bridge = {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "hairpinMode": True}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    plugins = [bridge | {"ipam": ipam}, ports]
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins})


def configure(name: str) -> Path:
    """Write the configuration of a node, and return its folder."""
    folder = RUN / name
    (folder / "cni").mkdir(parents=True, exist_ok=True)
    values = {"name": name, "folder": folder, "sockets": SOCKETS, "run": RUN}
    values["address"] = ADDRESSES[name]
    (folder / "containerd.toml").write_text(CONTAINERD.format_map(values))
    (folder / "kubelet.yaml").write_text(KUBELET.format_map(values))
    (folder / "cni/10-bridge.conflist").write_text(cni(name))
    return folder


def start_containerd(name: str) -> int:
    """Start the containerd of a node with mounts of its own, and return its id.

    It has a /var/log of its own, because each kubelet deletes the logs of pods that it does
    not know.
    """
    make_cgroups(name)
    folder = configure(name)
    (folder / "log").mkdir(exist_ok=True)
    script = (
        f"mount --bind {folder}/log /var/log; exec containerd --config={folder}/containerd.toml"
    )
    pid = start(
        "containerd", name, "unshare", "--mount", "--propagation=private", "sh", "-euc", script
    )
    wait_until(lambda: run(*ctr(name), "version").returncode == 0, "containerd", 30)
    return pid


def start_kubelet(name: str, containerd: int) -> None:
    """Start the kubelet and the kube-proxy of a node, with the mounts of its containerd."""
    folder = RUN / name
    start("kubelet", name, "nsenter", f"--mount=/proc/{containerd}/ns/mnt", BIN / "kubelet",
          f"--config={folder}/kubelet.yaml", f"--kubeconfig={RUN}/{name}.conf",
          f"--hostname-override={name}", f"--node-ip={ADDRESSES[name]}",
          f"--root-dir={folder}/kubelet", f"--cert-dir={folder}/pki",
          "--container-runtime=remote", "--cni-bin-dir=/usr/lib/cni",
          f"--container-runtime-endpoint=unix://{SOCKETS}/{name}.sock",
          f"--cni-conf-dir={folder}/cni")  # fmt: skip
    start("proxy", name, BIN / "kube-proxy", f"--kubeconfig={RUN}/proxy.conf",
          f"--hostname-override={name}", "--cluster-cidr=10.244.0.0/16",
          "--proxy-mode=iptables", "--conntrack-max-per-core=0")  # fmt: skip


def start_node(name: str) -> None:
    """Start a node."""
    start_kubelet(name, start_containerd(name))


def kill_node(name: str) -> None:
    """Kill a node: it does not answer any more, as if its power had failed."""
    ok("ip", "-netns", SWITCH, "link", "set", f"port-{name}", "down")
    kill(name)


def revive_node(name: str) -> None:
    """Start a node again that was killed."""
    ok("ip", "-netns", SWITCH, "link", "set", f"port-{name}", "up")
    shutil.rmtree(SOCKETS / name, ignore_errors=True)
    start_node(name)


def signal_container(name: str, container: str, number: signal.Signals) -> None:
    """Send a signal to all processes of a container on a node."""
    files = [file for top in cgroups(name) for file in top.rglob("cgroup.procs")]
    found = {
        pid for file in files if container in str(file) for pid in file.read_text().split()
    }
    assert found, f"container {container} is not on {name}"
    for pid in found:
        with contextlib.suppress(ProcessLookupError):  # ended with the first one
            os.kill(int(pid), number)


def ctr(name: str) -> list[str]:
    """Return the start of a command for the containerd of a node."""
    return ["ctr", f"--address={SOCKETS}/{name}.sock", "--namespace=k8s.io"]


def import_images(archive: Path) -> None:
    """Copy the images of an archive to all nodes."""
    for name in NODES:
        ok(*ctr(name), "images", "import", archive)


def wait_until(condition, what: str, seconds: float) -> None:
    """Wait until a condition holds. Raises AssertionError if it does not in time.

    What the programs of the cluster say is in RUN/logs.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited for {what} for {seconds} seconds"
        time.sleep(0.2)


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run kubectl as the administrator of this cluster."""
    return run(kubectl(), f"--kubeconfig={KUBECONFIG}", *arguments)


def ready_nodes() -> int:
    """Return how many nodes are ready."""
    rows = ask("get", "nodes", "--no-headers").stdout.splitlines()
    return sum(row.split()[1] == "Ready" for row in rows if row.startswith("n"))


def is_up() -> bool:
    """Return whether the cluster of an earlier run is still there, with all its nodes."""
    return KUBECONFIG.is_file() and ready_nodes() == len(NODES)


def require_tools() -> None:
    """Skip, or fail in CI, where something is missing."""
    if os.getuid():
        skip_or_fail("root")
    for name, package in TOOLS.items():
        tool(name, package)
    if not Path("/usr/lib/cni/bridge").is_file():
        skip_or_fail("CNI plugins (apt-get install containernetworking-plugins)")


def prepare() -> None:
    """Make all that the programs of the cluster need, and note what they will change."""
    RUN.mkdir(parents=True)
    SOCKETS.mkdir(exist_ok=True)
    values = {name: Path("/proc/sys", name).read_text() for name in SYSCTLS}
    (RUN / "sysctls.json").write_text(json.dumps(values))
    make_network()
    make_certificates()
    make_accounts()


def up() -> Path:
    """Start the cluster unless it is up, and return the path of its kubeconfig."""
    require_tools()
    if is_up():
        return KUBECONFIG
    down()
    build()
    prepare()
    start_control_plane()
    wait_until(lambda: ask("get", "--raw=/readyz").returncode == 0, "the API server", 60)
    for name in NODES:
        start_node(name)
    wait_until(is_up, "the nodes", 90)
    return KUBECONFIG


def down() -> None:
    """Stop the cluster, and remove all of it but what is in the cache."""
    for name in [*NODES, "database", "control"]:
        kill(name)
        # runc makes some of version 2 as well.
        for top in [*cgroups(name), Path("/sys/fs/cgroup/unified/copier-pyweb", name)]:
            remove_cgroups(top)
    for name in [*ADDRESSES, "switch"]:
        if Path(f"/run/netns/kube-{name}").exists():
            ok("ip", "netns", "delete", f"kube-{name}")
    if (RUN / "sysctls.json").is_file():
        for name, value in json.loads((RUN / "sysctls.json").read_text()).items():
            Path("/proc/sys", name).write_text(value)
    shutil.rmtree(RUN, ignore_errors=True)
    shutil.rmtree(SOCKETS, ignore_errors=True)


if __name__ == "__main__":
    import_images(Path(sys.argv[1]))
