"""Images for the tests, built by podman from what Debian and PyPI have.

No registry of images is needed: stand-ins with the names of the official images are made of
Debian's packages. Everything is kept in the cache, apart from the machine's own images.
"""

import fcntl
import json
import os
import shlex
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from support.commands import ok, tool
from support.kubernetes import FOLDER
from support.kubernetes import build as build_kubernetes
from support.machine import BUNDLE, pip_folders

IMAGES = FOLDER / "images"
PAUSE = "localhost/pause:1"

CONTAINERS = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{0}/storage"
runroot = "{0}/run"
"""
# As in the official image of nginx without root.
NGINX = """\
worker_processes auto;
error_log /dev/stderr notice;
pid /tmp/nginx.pid;
events { worker_connections 1024; }
http {
    proxy_temp_path /tmp/proxy_temp;
    client_body_temp_path /tmp/client_temp;
    fastcgi_temp_path /tmp/fastcgi_temp;
    uwsgi_temp_path /tmp/uwsgi_temp;
    scgi_temp_path /tmp/scgi_temp;
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /dev/stdout;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
"""


class Base(NamedTuple):
    """A stand-in for an official image.

    release: a code name of Debian. packages: installed besides the smallest system.
    recipe: the lines of a Dockerfile below COPY, which make it similar to the original.
    """

    release: str
    packages: list[str]
    recipe: str


PYTHON = "docker.io/library/python:3.13-slim"
BASES = {
    PYTHON: Base(
        "trixie",
        ["ca-certificates", "python3-venv"],
        """\
        RUN ln -s /usr/bin/python3 /usr/local/bin/python
        CMD ["python3"]
        """,
    ),
    # Debian 13 has 1.26, whose connections a stopping pod cuts off more often.
    "docker.io/nginxinc/nginx-unprivileged:1.30-alpine-slim": Base(
        "testing",
        ["nginx"],
        """\
        RUN rm -r /etc/nginx/conf.d /etc/nginx/sites-enabled && mkdir /etc/nginx/conf.d
        COPY nginx.conf /etc/nginx/nginx.conf
        STOPSIGNAL SIGQUIT
        USER 101
        CMD ["nginx", "-g", "daemon off;"]
        """,
    ),
}


class Built(NamedTuple):
    """An image of a project: its name, its size in bytes, and how many seconds it took."""

    name: str
    size: int
    seconds: float


def configure() -> dict[str, str]:
    """Write podman's configuration, and return the environment that selects it."""
    (IMAGES / "tmp").mkdir(parents=True, exist_ok=True)
    for name, text in {"containers": CONTAINERS, "storage": STORAGE.format(IMAGES)}.items():
        (IMAGES / f"{name}.conf").write_text(text)
    return {
        "CONTAINERS_CONF": str(IMAGES / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(IMAGES / "storage.conf"),
        "TMPDIR": str(IMAGES / "tmp"),
    }


def podman(*arguments: str | Path, **options) -> str:
    """Run podman with images and containers of its own, and return its output."""
    tool("runc", "runc")
    options = {"env": os.environ | configure(), "timeout": 900} | options
    return ok(tool("podman", "podman"), *arguments, **options)


def exists(name: str) -> bool:
    """Return whether an image was built before."""
    return bool(podman("images", "--quiet", name).strip())


def root_file_system(base: Base) -> Path:
    """Return a root file system with the base's packages, made if it is not in the cache.

    debootstrap checks the signatures of Debian; without its keys, this fails.
    """
    root = IMAGES / "roots" / "-".join([base.release, *base.packages])
    if root.is_dir():
        return root
    partial = root.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    packages = f"--include={','.join(base.packages)}"
    options = ["--variant=minbase", "--force-check-gpg", packages]
    ok(tool("debootstrap", "debootstrap"), *options, base.release, partial, timeout=900)
    shutil.rmtree(partial / "var/cache/apt")
    return partial.rename(root)


def make_base(name: str) -> None:
    """Build a stand-in with the name of an official image, if there is none."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (IMAGES / "base.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process builds it, the others wait
        if not exists(name):
            build_base(name, BASES[name])


def build_base(name: str, base: Base) -> None:
    root = root_file_system(base)
    (root.parent / "nginx.conf").write_text(NGINX)
    recipe = "\n".join(line.strip() for line in base.recipe.splitlines())
    dockerfile = root.parent / f"{root.name}.Dockerfile"
    dockerfile.write_text(f"FROM scratch\nCOPY {root.name} /\n{recipe}\n")
    options = ["--network=none", f"--tag={name}", f"--file={dockerfile}"]
    podman("build", "--quiet", *options, root.parent)


def make_bases() -> list[str]:
    """Build all images that a project needs from elsewhere, and return their names."""
    for name in BASES:
        make_base(name)
    return list(BASES)


def make_pause() -> str:
    """Build the image that each pod needs, and return its name."""
    if not exists(PAUSE):
        folder = build_kubernetes()
        dockerfile = IMAGES / "pause.Dockerfile"
        dockerfile.write_text('FROM scratch\nCOPY pause /\nENTRYPOINT ["/pause"]\n')
        podman("build", "--quiet", f"--tag={PAUSE}", f"--file={dockerfile}", folder)
    return PAUSE


def build_options() -> list[str]:
    """Return options of `podman build` with which pip works as on this machine."""
    files = [path for path in (BUNDLE, "/etc/pip.conf") if Path(path).is_file()]
    user = Path.home() / ".config/pip/pip.conf"
    folders = [f"--volume={path}:{path}:ro" for path in [*pip_folders(), *files]]
    if user.is_file():
        folders.append(f"--volume={user}:/root/.config/pip/pip.conf:ro")
    return ["--network=host", "--pull=never", f"--env=PIP_CERT={BUNDLE}", *folders]


def build(project: Path, name: str) -> Built:
    """Build the image of a project by its Dockerfile, without anything cached."""
    start = time.monotonic()
    options = ["--no-cache", "--format=docker", *build_options()]
    podman("build", *options, f"--tag={name}", project)
    seconds = time.monotonic() - start
    [facts] = json.loads(podman("image", "inspect", name))
    return Built(name, facts["Size"], seconds)


def save(names: list[str], archive: Path) -> Path:
    """Write images into one archive, as `docker save` does."""
    archive.unlink(missing_ok=True)
    podman("save", "--quiet", "--multi-image-archive", f"--output={archive}", *names)
    return archive


DOCKER = """\
#!/bin/sh
# In place of docker, for deploy/release: images for the tests, and a cluster for a registry.
export {environment}
set -eu
case $1 in
build)
    shift
    exec podman build {options} "$@" ;;
push)
    podman save --quiet --output={archive} "$2"
    {load} {archive}
    rm {archive} ;;
*)
    echo "The tests do not have: docker $*" >&2
    exit 1 ;;
esac
"""


def write_docker(path: Path, load: str) -> None:
    """Write a program that does what `deploy/release` needs of docker.

    load: a command that copies the images of an archive to the nodes of a cluster.
    """
    environment = shlex.join(f"{name}={value}" for name, value in configure().items())
    archive = IMAGES / "pushed.tar"
    options = shlex.join(["--format=docker", *build_options()])
    path.write_text(
        DOCKER.format(environment=environment, options=options, archive=archive, load=load)
    )
    path.chmod(0o755)
