"""A model of an owner: ports a small real application onto an emitted project.

It is a blog with members, in the shape of Flask's tutorial or of a FastAPI backend. The
owner's files are in tests/owner_app/, for every project and for each framework: those in
files/ are copied into the project, those in appended/ to the end of the file of that name,
and edits.yml has the lines that the owner changes within files of the template.
"""

import re
import shutil
import textwrap
from pathlib import Path

import httpx2
import yaml

from support.commands import ok
from support.project import ROOT, Pair, append, lock_command
from support.update import FROZEN

APP = ROOT / "tests/owner_app"
LOGO = (APP / "common/files/app/static/logo.png").read_bytes()
ICON = FROZEN[0]

# The examples, and what the owner does not want.
DELETED = {
    "app/examples.py",
    "app/templates/examples/hello.html",
    "app/templates/examples/links.html",
    "tests/test_examples.py",
    ".github/renovate.json5",
}
# Files of the template that the owner has written from scratch.
REPLACED = {*FROZEN}


def replace_line(path: Path, old: str, new: str) -> None:
    """Replace the one line that is `old`, with or without its indentation, keeping that."""
    found = path.read_text(encoding="utf-8").splitlines(keepends=True)
    [number] = [i for i, line in enumerate(found) if old in (line[:-1], line.strip())]
    indentation = found[number][: -len(found[number].lstrip())]
    found[number] = textwrap.indent(new, indentation)
    path.write_text("".join(found), encoding="utf-8")


def work_for_a_year(project: Path, pair: Pair) -> None:
    """Turn an emitted project into the owner's application, without committing it."""
    for name in DELETED:
        (project / name).unlink()
    for part in (APP / "common", APP / pair.framework):
        shutil.copytree(part / "files", project, dirs_exist_ok=True)
        for path in (part / "appended").rglob("*"):
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                append(project / path.relative_to(part / "appended"), text)
        edits = yaml.safe_load((part / "edits.yml").read_text(encoding="utf-8"))
        for name, changes in edits.items():
            for old, new in changes.items():
                replace_line(project / name, old, new)

    # The README: another port, and what the site is.
    readme = project / "README.md"
    text = readme.read_text(encoding="utf-8")
    for old, new in {
        ":8000": ":5000",
        "--port 8000": "--port 5000",
        "fastapi dev app/main.py": "fastapi dev app/main.py --port 5000",
    }.items():
        text = text.replace(old, new)
    before, heading, after = text.partition("\n## ")
    readme.write_text(f"{before}\nA blog that its members write.\n{heading}{after}")
    ok("bash", "-euc", lock_command(project), cwd=project)


def install_packages(project: Path) -> None:
    """Install the owner's packages and those of the template into a new environment."""
    ok("python3", "-m", "venv", "--without-pip", ".venv", cwd=project)
    for name in ("requirements.lock", "requirements-dev.txt"):
        ok("uv", "pip", "install", "--quiet", f"--requirements={name}", cwd=project)


def publish(client: httpx2.Client, pair: Pair, title: str) -> httpx2.Response:
    """Register at the owner's site, log in and write a post; return the last response."""
    member = {"name": "ada", "password": "correct horse"}
    api, kind = ("/api", "json") if pair.framework == "fastapi" else ("", "data")
    client.post(f"{api}/auth/register", **{kind: member})
    login = client.post(f"{api}/auth/login", **{kind: member})
    # In production the cookie is for HTTPS only, so that the client does not send it here.
    cookie = re.match("[^;]+", login.headers["Set-Cookie"])[0]
    return client.post(
        "/api/posts/" if api else "/write",
        headers={"Cookie": cookie},
        **{kind: {"title": title, "body": "Written on the server."}},
    )
