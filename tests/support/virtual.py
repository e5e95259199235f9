"""A Debian with SELinux in QEMU, whose nginx is set up as on Fedora and RHEL.

It has Debian's kernel and policy, because containers cannot have a policy of their own. It
is emulated, so that it boots on any host, slowly.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from support.commands import free_port, ok, run, tool
from support.machine import CACHE, SERVER

PACKAGES = [
    "auditd", "ca-certificates", "curl", "dbus", "iproute2", "linux-image-cloud-amd64",
    "nginx-light", "openssh-server", "openssl", "policycoreutils", "python3-venv",
    "selinux-policy-default", "selinux-utils", "sudo", "systemd-sysv", "udev",
]  # fmt: skip
# Where wheels for Python 3.13, that of Debian 13, come from.
WHEELS = [
    *("--only-binary=:all:", "--python-version=3.13"),
    *("--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64"),
]
# The lines of the file of Fedora and RHEL that differ from Debian's: the user, and a server
# on port 80, next to conf.d. There is no directory sites-enabled.
NGINX_CONF = """
user nginx;
worker_processes auto;
worker_rlimit_nofile 16384;
error_log /var/log/nginx/error.log;
pid /run/nginx.pid;
events {
    worker_connections 8192;
}
http {
    access_log /var/log/nginx/access.log;
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    include /etc/nginx/conf.d/*.conf;
    server {
        listen 80;
        listen [::]:80;
        server_name _;
        root /usr/share/nginx/html;
    }
}
"""
NETWORK = "[Match]\nType=ether\n[Network]\nDHCP=yes\n"
KERNEL = "root=/dev/vda rw console=ttyS0 security=selinux enforcing=1 net.ifnames=0"


def root_with_selinux() -> Path:
    """Return the path of a root file system, made if it is not in the cache."""
    root, stamp = CACHE / "selinux-trixie", CACHE / "selinux-trixie.txt"
    wanted = ",".join(PACKAGES)
    if not (stamp.is_file() and stamp.read_text() == wanted):
        stamp.unlink(missing_ok=True)
        shutil.rmtree(root, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        options = ("--variant=minbase", f"--include={wanted}")
        debootstrap = tool("debootstrap", "debootstrap")
        ok(debootstrap, *options, "trixie", root, timeout=1800)
        stamp.write_text(wanted)
    return root


class VirtualMachine:
    """A booted Debian, to which `ssh` in `folder` leads, as root.

    lock: the packages of Python that it can install, without a network. names: host names
    that resolve to itself.
    """

    def __init__(self, folder: Path, lock: Path, names: list[str]) -> None:
        self.folder, self.port = folder, free_port()
        root = folder / "root"
        ok("cp", "--archive", root_with_selinux(), root)
        self._configure(root, names)
        self._accept(root)
        options = ("--quiet", "--require-hashes", f"--dest={root}/srv/pip")
        ok(sys.executable, "-m", "pip", "download", *options, *WHEELS, "-r", lock)
        # After the last change: what has no label is refused.
        contexts = "/etc/selinux/default/contexts/files/file_contexts"
        ok("chroot", root, "setfiles", "-F", "-m", "-q", contexts, "/")
        image = ("-t", "ext4", "-q", "-d", root, "-E", "root_owner=0:0", folder / "disk", "3G")
        ok(tool("mke2fs", "e2fsprogs"), *image)
        self.process = self._boot(root / "boot")
        shutil.rmtree(root)
        self._wait()

    def _configure(self, root: Path, names: list[str]) -> None:
        """Set up nginx, SELinux, pip and the network."""
        etc = root / "etc"
        (etc / "nginx/nginx.conf").write_text(NGINX_CONF)
        for name in ("sites-enabled", "sites-available"):
            shutil.rmtree(etc / "nginx" / name, ignore_errors=True)
        (etc / "selinux/config").write_text("SELINUX=enforcing\nSELINUXTYPE=default\n")
        (etc / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /srv/pip\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost machine {' '.join(names)}\n")
        (etc / "hostname").write_text("machine\n")
        (etc / "systemd/network/80-ether.network").write_text(NETWORK)
        ok("chroot", root, "useradd", "--system", "--no-create-home", "nginx")
        ok("chroot", root, "systemctl", "enable", "systemd-networkd", "ssh", "nginx")

    def _accept(self, root: Path) -> None:
        """Let a new key log in as root, and make an `ssh` in `folder` that uses it."""
        key = self.folder / "key"
        ok("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        accepted = root / "root/.ssh/authorized_keys"
        accepted.parent.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(key.with_suffix(".pub"), accepted)
        own = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        known = self.folder / "known_hosts"
        known.write_text(f"{SERVER} {own}")
        words = [tool("ssh", "openssh-client"), "-F/dev/null", f"-i{key}", f"-p{self.port}"]
        words += ["-oHostName=127.0.0.1", f"-oHostKeyAlias={SERVER}"]
        words += [f"-oUserKnownHostsFile={known}", "-oConnectTimeout=10"]
        (self.folder / "ssh").write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (self.folder / "ssh").chmod(0o755)

    def _boot(self, boot: Path) -> subprocess.Popen:
        """Start QEMU, whose network leads only here."""
        [kernel], [initial] = boot.glob("vmlinuz-*"), boot.glob("initrd.img-*")
        for path, name in ((kernel, "kernel"), (initial, "initrd")):
            shutil.copy(path, self.folder / name)
        forward = f"hostfwd=tcp:127.0.0.1:{self.port}-:22"
        # fmt: off
        words = [
            tool("qemu-system-x86_64", "qemu-system-x86"), "-accel", "tcg", "-cpu", "max",
            "-m", "1536", "-smp", "2", "-nographic", "-no-reboot", "-append", KERNEL,
            "-kernel", self.folder / "kernel", "-initrd", self.folder / "initrd",
            "-drive", f"file={self.folder}/disk,format=raw,if=virtio",
            "-netdev", f"user,id=net,restrict=on,{forward}",
            "-device", "virtio-net-pci,netdev=net",
        ]
        # fmt: on
        with (self.folder / "console").open("w") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            return subprocess.Popen(words, **options)

    def _wait(self) -> None:
        """Wait until root can log in."""
        end = time.monotonic() + 600
        while run(self.folder / "ssh", f"root@{SERVER}", "true").returncode:
            lines = (self.folder / "console").read_text(errors="replace").splitlines()[-5:]
            assert self.process.poll() is None, lines
            assert time.monotonic() < end, lines
            time.sleep(2)

    def ok(self, script: str) -> str:
        """Run a script inside that must succeed, and return its output."""
        return ok(self.folder / "ssh", f"root@{SERVER}", script)

    def from_outside(self, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a script here, in a folder, in which `ssh` leads to the machine."""
        path = {"PATH": f"{self.folder}:{os.environ['PATH']}"}
        return run("bash", "-euc", script, cwd=folder, env=os.environ | path, timeout=1200)

    def stop(self) -> None:
        """End it, as if it lost power: nothing of it is kept."""
        self.process.kill()
        self.process.wait()
