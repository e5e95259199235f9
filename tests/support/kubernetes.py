"""Kubernetes from Debian: built from source, because Debian has only kubectl as a package.

The newest complete source of Kubernetes in Debian is 1.20, in Debian 12; it needs a Go that
Debian 11 has. Later source packages contain kubectl only. Nothing is installed: packages are
unpacked into the cache, where they stay.
"""

import os
import shutil
import subprocess
from pathlib import Path

from support.commands import ok, tool
from support.machine import CACHE

FOLDER = CACHE / "kubernetes"
VERSION = "1.20.2"
SOURCE = "kubernetes=1.20.5+really1.20.2-1.1+deb12u1"
GO = ["golang-1.15-go", "golang-1.15-src"]
PROGRAMS = [
    "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy",
]  # fmt: skip
OUTPUT = "_output/local/bin/linux/amd64"
BIN = FOLDER / "bin"  # the programs that were built
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LISTS = [
    ("deb", "bullseye"),  # Go
    ("deb-src", "bookworm"),  # Kubernetes
    ("deb", "trixie"),  # kubectl, which runs on Debian 12 as well
]
GIT_VERSION = f"""\
KUBE_GIT_COMMIT=debian
KUBE_GIT_TREE_STATE=archive
KUBE_GIT_VERSION=v{VERSION}
KUBE_GIT_MAJOR=1
KUBE_GIT_MINOR=20
"""


def apt(*command: str, folder: Path) -> str:
    """Run apt-get in a folder, with sources and lists of its own, and return its output."""
    lists = FOLDER / "apt"
    options = {
        "Dir::Etc::sourcelist": lists / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::Lists": lists / "lists",
        "Dir::State::status": lists / "status",
        "Dir::Cache": lists,
        "APT::Sandbox::User": "root",
    }
    words = [f"--option={name}={value}" for name, value in options.items()]
    return ok("apt-get", "--quiet", *words, *command, cwd=folder, timeout=600)


def update_lists() -> None:
    """Fetch the lists of packages of the releases in LISTS, whose signatures apt checks."""
    lists = FOLDER / "apt"
    for name in ("lists/partial", "archives/partial"):
        (lists / name).mkdir(parents=True, exist_ok=True)
    # The same mirror as the machine's.
    targets = ok("apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian")
    mirror = targets.split()[0]
    lines = [f"{kind} [signed-by={KEYRING}] {mirror} {name} main" for kind, name in LISTS]
    (lists / "sources.list").write_text("\n".join(lines) + "\n")
    (lists / "status").touch()
    apt("update", folder=FOLDER)


def unpack(packages: list[str], path: Path) -> Path:
    """Download Debian packages and unpack them into a folder, which is returned."""
    if path.is_dir():
        return path
    update_lists()
    scratch = FOLDER / "packages"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    apt("download", *packages, folder=scratch)
    partial = path.with_name(f"{path.name}-partial")
    for package in scratch.glob("*.deb"):
        ok("dpkg-deb", "--extract", package, partial)
    partial.rename(path)
    return path


def kubectl() -> Path:
    """Return the path of kubectl, newer than the cluster: it renders what clusters get today."""
    return unpack(["kubectl"], FOLDER / "kubectl") / "usr/bin/kubectl"


def unpack_source() -> Path:
    """Download the source of Kubernetes, with Debian's patches, and return its folder."""
    path, scratch = FOLDER / "source", FOLDER / "packages"
    for folder in (path, scratch):
        shutil.rmtree(folder, ignore_errors=True)
    update_lists()
    scratch.mkdir()
    apt("source", "--download-only", SOURCE, folder=scratch)
    [description] = scratch.glob("*.dsc")
    # apt has checked it.
    ok("dpkg-source", "--no-check", "--no-copy", "--extract", description, path)
    return path


def build() -> Path:
    """Build Kubernetes if it is not in the cache, and return the folder of its programs.

    Takes ten minutes on two cores, at a low priority. Raises CalledProcessError if it fails;
    what the build printed is in build.log in the cache.
    """
    if BIN.is_dir():
        return BIN
    for name, package in {"make": "make", "gcc": "gcc", "rsync": "rsync"}.items():
        tool(name, package)
    FOLDER.mkdir(parents=True, exist_ok=True)
    go = unpack(GO, FOLDER / "go") / "usr/lib/go-1.15"
    source = unpack_source()
    compile_programs(source, go)
    keep(source)
    for name in ("source", "go", "packages", "home", "go-build"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    return BIN


def compile_programs(source: Path, go: Path) -> None:
    """Compile Kubernetes, and the program that holds the namespaces of a pod."""
    (FOLDER / "version").write_text(GIT_VERSION)
    command = ["nice", "-n10", "make", "WHAT=" + " ".join(f"cmd/{name}" for name in PROGRAMS)]
    with (FOLDER / "build.log").open("w") as log:
        subprocess.run(
            command, cwd=source, env=settings(go), stdout=log, stderr=log, check=True
        )
    code = source / "build/pause/linux/pause.c"
    ok("gcc", "-static", "-Os", f"-DVERSION={VERSION}", code, "-o", source / OUTPUT / "pause")


def keep(source: Path) -> None:
    """Copy the programs out of the source."""
    partial = BIN.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in [*PROGRAMS, "pause"]:
        shutil.copy(source / OUTPUT / name, partial)
    partial.rename(BIN)


def settings(go: Path) -> dict[str, str]:
    """Return the environment of the build: only what the source contains, nothing fetched."""
    return {
        "HOME": str(FOLDER / "home"),
        "PATH": f"{go}/bin:{os.environ['PATH']}",
        "GOROOT": str(go),
        "GOCACHE": str(FOLDER / "go-build"),
        "GOFLAGS": "-mod=vendor",
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
        "KUBE_GIT_VERSION_FILE": str(FOLDER / "version"),
    }
