"""A Debian with a real systemd, booted in systemd-nspawn on a network of its own.

Its root file system contains all it needs from outside: Debian packages, Python packages,
and pebble (https://github.com/letsencrypt/pebble) as the certificate authority.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from support.commands import ok, run, tool

# What the emitted README installs, and what the tests need besides.
README_PACKAGES = [
    "python3-venv", "nginx", "git", "curl", "certbot", "postgresql", "libnss-systemd",
    "restic",
]  # fmt: skip
BASE_PACKAGES = [
    "ca-certificates", "dbus", "iproute2", "openssh-server", "openssl", "pebble", "sudo",
    "systemd", "systemd-sysv",
]  # fmt: skip
SERVER = "server.example.com"  # the name of a machine in the READMEs
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "copier-pyweb"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
# Where control groups are: version 2, with or without version 1.
CGROUPS = [Path("/sys/fs/cgroup", name) for name in ("", "unified", "systemd")]

DIRECTORY = "https://127.0.0.1:14000/dir"
FETCH_ROOT = """
import ssl, urllib.request
context = ssl._create_unverified_context()
url = "https://127.0.0.1:15000/roots/0"
print(urllib.request.urlopen(url, context=context).read().decode(), end="")
"""


def memory_cgroup() -> Path:
    """Return the control group of this process that can limit memory."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if "memory" in controllers.split(","):  # version 1
            return Path("/sys/fs/cgroup/memory", path.lstrip("/"))
    return Path("/sys/fs/cgroup")


def certificate_options() -> list[str]:
    """Return options of systemd-nspawn with which pip trusts what the host trusts."""
    passed = [f"--setenv={name}={BUNDLE}" for name in ("PIP_CERT", "SSL_CERT_FILE")]
    return [f"--bind-ro={BUNDLE}", *passed] if Path(BUNDLE).is_file() else []


def nspawn(root: Path, script: str, *options: str) -> str:
    """Run a script in a root file system without booting it, with the host's network."""
    folders = [f"--bind-ro={path}" for path in pip_folders()]
    # fmt: off
    return ok(
        "systemd-nspawn", "--quiet", f"--directory={root}", "--register=no",
        "--keep-unit", "--console=pipe", *certificate_options(), *folders, *options,
        "bash", "-euc", script, timeout=900,
    )
    # fmt: on


def pip_folders() -> list[str]:
    """Return the local folders in which the host's pip is configured to look for packages."""
    listed = run("python3", "-m", "pip", "config", "list").stdout
    words = shlex.split(listed.replace("=", " ").replace("\\n", " "))
    paths = {word.removeprefix("file://").removesuffix("/simple") for word in words}
    return sorted(path for path in paths if path.startswith("/") and Path(path).is_dir())


def root_file_system(release: str, locks: list[Path]) -> Path:
    """Return the path of a root file system, made if it is not in the cache.

    release: a code name of Debian. locks: the requirements.lock of each pair.
    """
    texts = "".join(sorted(path.read_text() for path in locks))
    wanted = json.dumps([texts, README_PACKAGES, BASE_PACKAGES])
    root = CACHE / release
    stamp = CACHE / f"{release}.json"
    if stamp.is_file() and stamp.read_text() == wanted:
        return root
    stamp.unlink(missing_ok=True)
    shutil.rmtree(root, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    packages = ",".join(BASE_PACKAGES)
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", release, root]
    ok(*command, timeout=900)
    for name in ("etc/pip.conf", "etc/ssl/certs/ca-certificates.crt"):
        if Path("/", name).is_file():
            shutil.copy(Path("/", name), root / name)
    stock(root, locks)
    stamp.write_text(wanted)
    return root


def stock(root: Path, locks: list[Path]) -> None:
    """Download the packages that the README installs into /srv of the machine."""
    (root / "srv/apt").mkdir()
    (root / "srv/pip").mkdir()
    fetch = "apt-get update -q; apt-get install --yes --download-only "
    nspawn(root, fetch + " ".join(README_PACKAGES) + " dpkg-dev")
    nspawn(root, "cp /var/cache/apt/archives/*.deb /srv/apt/")
    for number, path in enumerate(locks):
        shutil.copy(path, root / f"srv/pip/{number}.txt")
    scratch = root.with_name(f"{root.name}-scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    ok("cp", "--archive", root, scratch)
    user_pip = Path.home() / ".config/pip/pip.conf"
    if user_pip.is_file():
        shutil.copy(user_pip, scratch / "etc/pip.conf")
    nspawn(
        scratch,
        "apt-get install --yes -qq python3-venv dpkg-dev >/dev/null\n"
        "cd /srv/apt && dpkg-scanpackages --multiversion . > Packages\n"
        "python3 -m venv /venv\n"
        'for file in /srv/pip/*.txt; do /venv/bin/pip download -qd /srv/pip -r "$file"; done',
    )
    for name in ("apt", "pip"):
        shutil.rmtree(root / "srv" / name)
        shutil.copytree(scratch / "srv" / name, root / "srv" / name)
    shutil.rmtree(scratch)
    # From here on, packages come only from /srv.
    for path in (root / "etc/apt/sources.list.d").iterdir():
        path.unlink()
    (root / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/srv/apt ./\n")
    (root / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /srv/pip\n")
    (root / "etc/pip.conf").chmod(0o644)


def processes() -> Iterator[tuple[int, str]]:
    """Yield the id and the command of each process of this host."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ")
            yield int(path.name), command.decode(errors="replace")


class Machine:
    """A booted copy of a root file system.

    root: its files, seen from outside. names: host names that resolve to itself.
    """

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root = root
        hosts = "".join(
            f"127.0.0.1 {name}\n" for name in ["localhost", "machine", SERVER, *names]
        )
        (root / "etc/hosts").write_text(hosts)
        (root / "etc/hostname").write_text("machine\n")
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        self.start()

    def start(self) -> None:
        """Boot it, and wait until systemd has started everything."""
        root, name = self.root, f"copier-pyweb-{self.root.parent.name}-{os.getpid()}"
        # Machines in the same cgroup would stop each other's services.
        tops = dict.fromkeys([*CGROUPS, memory_cgroup()])
        self.cgroups = [top / name for top in tops if (top / "cgroup.procs").exists()]
        enter = 'for i in $1; do mkdir -p $i; echo $$ > $i/cgroup.procs; done; shift; exec "$@"'
        # fmt: off
        self.process = subprocess.Popen(
            [
                "sh", "-euc", enter, "sh", " ".join(map(str, self.cgroups)),
                "systemd-nspawn", "--quiet", f"--directory={root}", "--boot",
                f"--machine={name}",
                "--private-network", "--register=no", "--keep-unit", "--console=pipe",
                "--resolv-conf=off",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        # fmt: on
        self.leader = self._leader()
        self.wait_until("systemctl is-system-running | grep -E 'running|degraded'", 60)

    def _leader(self) -> str:
        """Return the process id of the machine's pid 1, seen from outside."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        end = time.monotonic() + 30
        while time.monotonic() < end:
            assert self.process.poll() is None, "systemd-nspawn has exited"
            for child in children.read_text().split():
                if Path(f"/proc/{child}/comm").read_text() in ("systemd\n", "init\n"):
                    return child
            time.sleep(0.1)
        raise AssertionError("no systemd in the machine")

    def command(self, script: str, folder: str = "/root") -> list[str]:
        """Return the command that runs a script inside, as root in a new shell."""
        environment = [
            "HOME=/root",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND=noninteractive",
            "LANG=C.UTF-8",
        ]
        enter = ["nsenter", f"--target={self.leader}", "--all", "env", "-i", *environment]
        return [*enter, "bash", "-euo", "pipefail", "-c", f"cd {folder}\n{script}"]

    def run(self, script: str, **options) -> subprocess.CompletedProcess[str]:
        """Run a script inside; the caller checks its status."""
        return run(*self.command(script), **options)

    def ok(self, script: str, **options) -> str:
        """Run a script inside that must succeed, and return its output."""
        return ok(*self.command(script), **options)

    def path(self, path: str) -> Path:
        """Return the path of a file of the machine from outside, with links resolved."""
        return self.root / self.ok(f"readlink -m {path}").strip().lstrip("/")

    def wait_until(self, script: str, seconds: float) -> None:
        """Run a script inside until it succeeds."""
        end = time.monotonic() + seconds
        while (done := self.run(script)).returncode:
            assert time.monotonic() < end, f"{script}: {done.stdout}"
            time.sleep(0.2)

    def near(self, *command: str | Path) -> list[str]:
        """Return a command of the host in the machine's network, with its host names."""
        hosts = f'mount --bind {self.root}/etc/hosts /etc/hosts && exec "$@"'
        enter = ["nsenter", f"--target={self.leader}", "--net", "unshare", "--mount"]
        return [*enter, "sh", "-c", hosts, "sh", *map(str, command)]

    def from_outside(self, script: str) -> list[str]:
        """Return a command of the host that runs a script, in which `ssh` leads to root here."""
        folder = self.root.parent / "ssh"
        if not folder.exists():
            self._accept(folder)
        return self.near("env", f"PATH={folder}:{os.environ['PATH']}", "bash", "-euc", script)

    def disconnect(self) -> int:
        """End the ssh processes of `from_outside`, and return how many there were."""
        key, count = f"-i{self.root.parent}/ssh/key ", 0
        for process, command in processes():
            if f" {key}" in command:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                    count += 1
        return count

    def _accept(self, folder: Path) -> None:
        """Let a new key log in as root, and make an `ssh` in a folder that uses it."""
        folder.mkdir()
        ok("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")
        accepted = self.root / "root/.ssh/authorized_keys"
        accepted.parent.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(folder / "key.pub", accepted)
        own = (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        (folder / "known_hosts").write_text(f"{SERVER} {own}")
        words = [tool("ssh", "openssh-client"), "-F/dev/null", f"-i{folder}/key"]
        words += [f"-oUserKnownHostsFile={folder}/known_hosts"]
        (folder / "ssh").write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (folder / "ssh").chmod(0o755)

    @contextlib.contextmanager
    def limit_memory(self, size: int) -> Iterator[None]:
        """Give the machine only `size` bytes of memory while the block runs.

        Raises AssertionError if the kernel ended a process for lack of memory.
        """
        files = {"memory.limit_in_bytes": "memory.oom_control", "memory.max": "memory.events"}
        found = [
            (cgroup / limit, cgroup / events)
            for cgroup in self.cgroups
            for limit, events in files.items()
            if (cgroup / limit).exists()
        ]
        assert found, "this host has no memory controller for control groups"
        limit, events = found[0]
        killed = re.compile(r"^oom_kill \d+", re.MULTILINE)
        before, unlimited = killed.findall(events.read_text()), limit.read_text()
        limit.write_text(str(size))
        try:
            yield
        finally:
            limit.write_text(unlimited)
        assert killed.findall(events.read_text()) == before != []

    def start_certificate_authority(self) -> str:
        """Start pebble, make certbot and curl trust it, and return its root certificate."""
        folder = self.root / "srv/pebble"
        folder.mkdir()
        self.ok(
            "cd /srv/pebble\n"
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=pebble"
            " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem 2>/dev/null"
        )
        configuration = {
            "pebble": {
                "listenAddress": "127.0.0.1:14000",
                "managementListenAddress": "127.0.0.1:15000",
                "certificate": "/srv/pebble/cert.pem",
                "privateKey": "/srv/pebble/key.pem",
                "certificateValidityPeriod": 90 * 24 * 60 * 60,
                "httpPort": 80,
                "tlsPort": 443,
            }
        }
        (folder / "config.json").write_text(json.dumps(configuration))
        self.ok(
            "systemd-run --quiet --unit=pebble --setenv=PEBBLE_VA_NOSLEEP=1"
            " --setenv=PEBBLE_WFE_NONCEREJECT=0 pebble -config /srv/pebble/config.json"
        )
        # From outside, because there may be no curl yet.
        end = time.monotonic() + 20
        while (done := run(*self.near("python3", "-c", FETCH_ROOT))).returncode:
            assert time.monotonic() < end, done.stdout
            time.sleep(0.2)
        root = done.stdout
        (folder / "root.pem").write_text(root)
        etc = self.root / "etc"
        with (etc / "ssl/certs/ca-certificates.crt").open("a") as bundle:
            bundle.write(root + (folder / "cert.pem").read_text())
        settings = self.root / "root/.config/letsencrypt/cli.ini"
        settings.parent.mkdir(parents=True)
        settings.write_text(f"server = {DIRECTORY}\n")
        return root

    def cut_off(self) -> None:
        """End all its processes at once, as a power failure does.

        What they have written is there afterwards: only the host's kernel could lose it.
        """
        # None may notice that another has ended: so they all stop first.
        self._signal(signal.SIGSTOP)
        self._signal(signal.SIGKILL)
        os.kill(int(self.leader), signal.SIGKILL)
        # nsenter, outside, stops when its child does, and then would not reap it.
        end = time.monotonic() + 30
        while self.process.poll() is None:
            assert time.monotonic() < end, "the machine does not end"
            for process, command in processes():
                if command.startswith(f"nsenter --target={self.leader} "):
                    os.kill(process, signal.SIGCONT)
            time.sleep(0.1)

    def kill(self, command: str) -> int:
        """End the processes inside whose command begins so, without a warning.

        Return how many there were. The machine need not have a program for this.
        """
        return self._signal(signal.SIGKILL, command)

    def _signal(self, number: int, start: str = "") -> int:
        """Send a signal to processes inside, but not to pid 1. Return to how many."""
        namespace, count = Path(f"/proc/{self.leader}/ns/pid").readlink(), 0
        for process, command in processes():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                inside = Path(f"/proc/{process}/ns/pid").readlink() == namespace
                if inside and command.startswith(start) and str(process) != self.leader:
                    os.kill(process, number)
                    count += 1
        return count

    def stop(self) -> None:
        """Shut it down."""
        self.run("systemctl poweroff")
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for top in self.cgroups:
            for path in [*sorted(top.rglob("*/"), reverse=True), top]:
                if path.is_dir():
                    path.rmdir()
