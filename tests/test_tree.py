"""What is emitted reads as if it were written by hand for this one project."""

import ast
import re
import shutil
from collections import Counter

import pytest
from support.commands import commit, ok
from support.pod import image_environment
from support.project import (
    FEW_STACKS,
    FIRST_PAIRS,
    KUBERNETES,
    OWN_FILES,
    PAIRS,
    ROOT,
    Pair,
    files,
    home_page,
    scripts_of,
    texts_of,
)

pytestmark = pytest.mark.pairs([*PAIRS, *FEW_STACKS, *KUBERNETES])

# How a server or framework is named, which projects of the others must not do.
NAMES = {name: name for pair in PAIRS for name in pair} | {
    "flask": r"flask|werkzeug|wsgi_app|blueprint",
    "fastapi": r"fastapi|starlette|pydantic",
    "uvicorn": r"uvicorn|asgi",
}
# FastAPI's development server is Uvicorn, also where another server runs in production.
ALSO_NAMED = {"fastapi": {"uvicorn"}}
OF_NGINX = "uwsgi_temp_path /tmp/uwsgi;"


def test_tree_is_the_same_for_every_pair(projects):
    trees = {pair: {*files(project)} - OWN_FILES for pair, project in projects.items()}
    first = trees[PAIRS[0]]
    assert {str(pair): tree ^ first for pair, tree in trees.items() if tree != first} == {}


def test_pages_do_not_depend_on_the_server(projects):
    """So that browsers and screen readers are tested with one server of each framework."""
    shown = ("app/templates/", "app/static/", "deploy/nginx/")
    for first in FIRST_PAIRS:
        pages = [
            {name: text for name, text in texts_of(project).items() if name.startswith(shown)}
            for pair, project in projects.items()
            if pair.framework == first.framework
        ]
        assert all(each == pages[0] for each in pages)


def test_project_has_few_files(pair, project):
    """Besides those that only some frameworks or servers need, and ten for a database."""
    assert len({*files(project)} - OWN_FILES) <= (66 if isinstance(pair, Pair) else 76)


def test_no_other_framework_or_server_is_named(pair, project):
    foreign = NAMES.keys() - {*pair} - ALSO_NAMED.get(pair.framework, set())
    pattern = re.compile("|".join(NAMES[name] for name in foreign), re.IGNORECASE)
    found = {
        (name, match[0])
        for name, text in texts_of(project).items()
        for match in pattern.finditer(f"{name}\n{text.replace(OF_NGINX, '')}")
    }
    assert found == set()


def test_no_template_tag_is_left(project):
    own_tags = ("app/templates/", "tests/")
    for name, text in texts_of(project).items():
        if name.startswith(".github/"):
            text = text.replace("${{", "")  # GitHub's own
        if not name.startswith(own_tags):
            text = re.sub(r"(?ms)^```html\n.*?^```$", "", text.replace("${#", ""))
            assert not re.search(r"\{[{%#]|[%#]\}", text), name
        assert "copier_" not in text, name


# Owners add lines at the end. The blank line there keeps updates free of conflicts.
APPENDED = {
    *(".dockerignore", ".env.example", ".gitignore", "AGENTS.md", "app/static/style.css"),
    *("deploy/kustomization.yaml", "pytest.ini"),
    *("requirements-dev.txt", "requirements.txt"),
}


def test_white_space_is_clean(project):
    for name, text in texts_of(project).items():
        assert text.endswith("\n"), f"{name} has no newline at its end"
        blank = "\n\n\n" if name in APPENDED else "\n\n"
        assert not text.endswith(blank), f"{name} ends in blank lines"
        assert not text.startswith("\n"), f"{name} begins with a blank line"
        assert not re.search(r"[ \t\r]$", text, re.MULTILINE), f"trailing blank in {name}"
        assert "\t" not in text, f"tab in {name}"
        if not name.endswith((".py", ".mako")) and not text.startswith(
            "#!/usr/bin/python3 -B\n"
        ):
            assert "\n\n\n" not in text, f"double blank line in {name}"


def test_ruff_finds_nothing(project):
    everything = ("--isolated", "--no-cache", ".", *scripts_of(project))
    ok("ruff", "check", "--extend-select=B,I,UP", *everything, cwd=project)
    ok("ruff", "format", "--check", "--diff", *everything, cwd=project)


def test_python_is_short(pair, project):
    """A page of code is read in a minute; the application factory may be longer.

    A database adds three modules, and to the examples.
    """
    has_database = getattr(pair, "database", "none") != "none"
    texts = texts_of(project)
    app = [text for name, text in texts.items() if re.fullmatch(r"app/.+[.]py", name)]
    lines = [line for text in app for line in text.splitlines()]
    limit = 280 if pair.framework == "flask" else 320
    assert sum(1 for line in lines if line) <= limit + 180 * has_database
    if pair == PAIRS[0]:  # the default pair: its blank lines too
        assert len(lines) <= 300
    for name in scripts_of(project):
        assert len(texts[name].splitlines()) <= 350 + 30 * has_database, name
    for path in project.glob("app/*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 80 + 20 * has_database, f"{path.name} is too long"
        tree = ast.parse(text)
        assert ast.get_docstring(tree), f"{path.name} has no docstring"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # The lines of the body, without its docstring.
                body = node.body[bool(ast.get_docstring(node)) :]
                lines = node.end_lineno - body[0].lineno + 1
                assert lines <= (40 if node.name == "create_app" else 15), (
                    f"{path.name}: {node.name} has {lines} lines"
                )
                assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


def test_requirements_are_pinned_and_explained(project):
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (project / name).read_text(encoding="utf-8").splitlines():
            if line and not line.startswith(("#", "-r")):
                assert re.fullmatch(r"[a-z0-9\[\]-]+~=[0-9.]+(; [^#]+)?  # .+", line), line


@pytest.fixture(scope="session")
def home(installed) -> str:
    """The home page of the installed project."""
    return home_page(installed.path)


@pytest.mark.pairs(PAIRS)
def test_home_page_is_at_most_5_kb(installed, home):
    """Uncompressed, with its style sheet and its icon."""
    static = installed.path / "app/static"
    css, icon = [(static / name).stat().st_size for name in ("style.css", "favicon.svg")]
    html = len(home.encode())
    assert css <= 2000
    assert css + icon + html <= 5000


@pytest.mark.pairs(PAIRS)
def test_home_page_loads_nothing_from_other_hosts(installed, home):
    css = (installed.path / "app/static/style.css").read_text(encoding="utf-8")
    for address in re.findall(r'(?:href|src|action)="([^"]*)"', home):
        assert re.match(r"/(?!/)", address), address
    for address in re.findall(r"url\((.*?)\)", css):
        assert re.fullmatch(r"[\w.-]+", address), address
    assert "@import" not in css
    assert "<script" not in home


@pytest.mark.pairs(PAIRS)
def test_home_page_is_semantic(installed, home):
    assert home.count("<h1>") == 1
    for part in ('<html lang="en">', "<title>", "<main>", 'name="viewport"'):
        assert part in home
    css = (installed.path / "app/static/style.css").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in css
    assert ":focus-visible" in css


@pytest.mark.parametrize("name", ["app/templates/home.html", "app/routes.py", "README.md"])
def test_home_page_names_real_files(project, name):
    assert name in (project / "app/templates/home.html").read_text(encoding="utf-8")
    assert (project / name).is_file()


def test_environment_names_agree(project):
    """The deploy files, .env.example and the app use the same environment variables."""
    read = re.findall(
        r'(?:environ\.get|one_of|positive)\("(\w+)"', (project / "app/config.py").read_text()
    )
    example = re.findall(r"^(\w+)=", (project / ".env.example").read_text(), re.MULTILINE)
    assert "STATE_DIRECTORY" in read
    known = {*read, "PYTHONUNBUFFERED", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}
    if (project / "Dockerfile").exists():
        assert {*example} == {*read} - {"STATE_DIRECTORY"}
        assert {*image_environment(project)} <= known | {"PYTHONDONTWRITEBYTECODE"}
        return
    # systemd sets one of them; deploy/notify reads the other.
    assert {*example} - {"NOTIFY_URL"} == {*read} - {"STATE_DIRECTORY"}
    assert {*example} > {"NOTIFY_URL"}
    unit = (project / "deploy/my-app.service").read_text()
    assert set(re.findall(r"^Environment=(\w+)", unit, re.MULTILINE)) <= known


# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])([.].*)?")


def illegal_on_windows(paths: list[str]) -> list[str]:
    """Return the paths that Windows does not allow."""
    folded = Counter(path.lower() for path in paths)
    return [
        path
        for path in paths
        if folded[path.lower()] > 1
        or any(
            re.search(r'[<>:"\\|?*\x00-\x1f]|[. ]$', part) or RESERVED.fullmatch(part)
            for part in path.split("/")
        )
    ]


def test_illegal_names_are_found():
    bad = ["a/b?", "Aux.txt", "x/nul", "a./b", "Readme", "README"]
    assert illegal_on_windows([*bad, "console", "a.b/c"]) == bad


def test_names_are_legal_on_windows(project):
    """In the project, and in the template that is cloned for it."""
    assert illegal_on_windows(files(project)) == []
    parts = [ROOT / "template", ROOT / "texts"]
    own = [path.relative_to(ROOT).as_posix() for part in parts for path in part.rglob("*")]
    assert illegal_on_windows(own) == []


def test_line_endings_are_lf_on_windows_too(project, tmp_path):
    """With a git that writes CRLF by default: deploy/release would not start on a server."""
    origin = shutil.copytree(project, tmp_path / "origin")
    commit(origin, "Start")
    ok("git", "clone", "--quiet", "--config=core.autocrlf=true", origin, tmp_path / "clone")
    for path in (tmp_path / "clone").rglob("*"):
        if path.is_file() and ".git/" not in path.as_posix():
            assert b"\r\n" not in path.read_bytes(), path
