"""The emitted README: every command it tells the reader to type is run here, word for word."""

import re
import shutil
from pathlib import Path

import pytest
from support.commands import free_port, ok
from support.project import (
    DATABASES,
    FRAMEWORKS,
    LANGUAGES,
    PAIRS,
    ROOT,
    SECTIONS,
    add_routes,
    append,
    emit,
    home_page,
    remove_examples,
    section,
    shell_blocks,
)
from support.serve import get_when_up, started


def readme(path) -> str:
    return (path / "README.md").read_text(encoding="utf-8")


def test_sections_are_in_order(project):
    for name, headings in SECTIONS.items():
        text = (project / name).read_text(encoding="utf-8")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == headings


def test_readme_has_at_most_205_lines(project):
    assert len(readme(project).splitlines()) <= 205


@pytest.mark.slow_pairs
@pytest.mark.parametrize("database", [name for name in DATABASES if name != "none"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_readme_with_a_database_has_at_most_245_lines(
    release, pair, database, language, tmp_path
):
    project = emit(
        release, tmp_path / "project", **pair._asdict(), database=database, language=language
    )
    assert len(readme(project).splitlines()) <= 245


@pytest.mark.slow_pairs
def test_first_commands_run_the_tests(installed):
    assert "pytest" in installed.commands
    assert re.search(r"\d+ passed in", installed.output)


@pytest.mark.parametrize("kind", ["develop", "share"])
def test_server_of_the_readme_serves_the_home_page(pair, installed, kind):
    """The development server, and the one for the local network, as written.

    Only the port differs, because 8000 may be in use, and the server for the local
    network listens on this machine only.
    """
    written = FRAMEWORKS[pair.framework][kind]
    if kind == "develop":
        [block] = shell_blocks(installed.path, "Run it locally")
        assert block.splitlines()[-1] == written
    else:
        assert f"`{written}`" in section(installed.path, "Change it")
    port = free_port()
    command = written.replace(" --port 8000", "").replace("0.0.0.0", "127.0.0.1")
    command += f" --port {port}"
    if written.startswith("fastapi run"):
        command += " --host 127.0.0.1"
    with started(f". .venv/bin/activate && exec {command}", installed.path) as server:
        page = get_when_up(f"http://127.0.0.1:{port}/", server)
    assert page.status_code == 200
    assert "app/templates/home.html" in page.text


def test_readme_has_the_commands_of_powershell(project):
    """Only the first two lines differ."""
    text = section(project, "Run it locally")
    for command in ("py -m venv .venv", r".venv\Scripts\Activate.ps1"):
        assert f"`{command}`" in text


def test_debug_mode_is_not_for_the_network(pair, project):
    share = FRAMEWORKS[pair.framework]["share"]
    assert "debug" not in share
    assert " dev " not in share
    assert "**Do not use the development server in production:**" in readme(project)


# What an owner may write first: their own home page, and JSON.
OWN_PAGE = '{% extends "base.html" %}{% block content %}<h1>Mine</h1>{% endblock %}\n'
OWN_JSON = {
    "flask": '\n\n@pages.get("/sums")\ndef sums():\n    return {"sum": 7}\n',
    "fastapi": '\n\n@api.get("/sums")\nasync def sums() -> dict[str, int]:\n    return {"sum": 7}\n',
}


def check(project: Path) -> None:
    """Run its own tests, and ruff, which finds unused imports."""
    ok(project / ".venv/bin/python", "-m", "pytest", "-q", cwd=project)
    ok("ruff", "check", "--isolated", "--no-cache", "--ignore=I", ".", cwd=project)


@pytest.mark.slow_pairs
def test_first_changes_keep_the_tests_green(own, pair):
    (own / "app/templates/home.html").write_text(OWN_PAGE)
    add_routes(own, OWN_JSON[pair.framework])
    check(own)


@pytest.mark.slow_pairs
def test_home_page_says_where_settings_come_from(own):
    """In development; tests/test_browser.py checks it in a browser."""
    assert "environment variables, no .env yet" in home_page(own)
    (own / ".env").write_text("SECRET_KEY=\n")
    assert "environment variables, .env" in home_page(own)


@pytest.mark.slow_pairs
def test_examples_are_removed_as_the_readme_says(own):
    """Their files and the two lines; the project's own tests pass without them."""
    for name in ("app/examples.py", "tests/test_examples.py", "app/templates/examples/"):
        assert f"`{name}`" in section(own, "Change it")
    remove_examples(own)
    check(own)
    left = [path for kind in ("py", "html") for path in own.glob(f"app/**/*.{kind}")]
    for example in ("/hello/", "/items/<", "/items/{"):
        assert example not in "".join(path.read_text() for path in left)


@pytest.mark.slow_pairs
def test_a_page_is_added_as_the_readme_says(own):
    """The function and the template to copy."""
    text = section(own, "Change it")
    [function] = re.findall(r"(?ms)^```python\n(.*?)^```$", text)
    [template] = re.findall(r"(?ms)^```html\n(.*?)^```$", text)
    append(own / "app/routes.py", f"\n\n{function}")
    (own / "app/templates/faq.html").write_text(template)
    append(
        own / "tests/test_app.py",
        '\n\ndef test_faq(client):\n    assert "<h1>FAQ</h1>" in client.get("/faq").text\n',
    )
    check(own)


def test_keep_it_in_git(project, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{name}_NAME")
        monkeypatch.delenv(f"GIT_{name}_EMAIL")
    path = shutil.copytree(project, tmp_path / "my-app")
    for block in shell_blocks(path, "Keep it in git"):
        ok("bash", "-euc", block, cwd=path)
    assert "nothing to commit" in ok("git", "status", cwd=path)
    assert ok("git", "log", "--format=%an %ae", cwd=path) == "Your Name you@example.com\n"


def test_files_of_the_readme_exist(project):
    where = section(project, "What is where")
    named = re.findall(r"^([\w./-]+)  +\S", where, re.MULTILINE)
    assert len(named) >= 10
    for name in named:
        assert (project / name).exists(), name


@pytest.mark.parametrize("heading", ["Deploy on the server", "Deploy by hand"])
def test_each_deployment_step_has_a_check(project, heading):
    steps = re.split(r"^\*\*[0-9A-Z]\. ", section(project, heading), flags=re.MULTILINE)[1:]
    assert len(steps) == 5
    for step in steps:
        assert step.count("```sh\n") == 1, step
        assert "**Check:**" in step, step


def test_files_of_the_deployment_commands_exist(project):
    """Whatever the README and the comments of the deploy files copy or link."""
    texts = [readme(project)] + [
        path.read_text() for path in project.glob("deploy/**/*") if path.is_file()
    ]
    names = {name for text in texts for name in re.findall(r"deploy/[\w./*@-]+[\w*]", text)}
    assert len(names) >= 4
    for name in names:
        assert list(project.glob(name)), name


def test_at_most_five_links_to_learn_more(project):
    assert 1 <= section(project, "Learn more").count("](https://") <= 5


def test_name_cannot_break_the_readme(release, tmp_path):
    project = emit(release, tmp_path / "project", project_name="<!-- A & B")
    assert readme(project).startswith("# &lt;!-- A & B\n")


def test_template_readme_shows_the_real_tree(release, tmp_path):
    """The tree in the template's own README is that of an emitted project."""
    project = emit(release, tmp_path / "my-app")
    tree = readme(ROOT).split("```text\nmy-app/\n")[1].split("```")[0]
    shown = [line.split()[0] for line in tree.splitlines()]
    emitted = [
        path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()
    ]
    assert sorted(shown) == sorted(emitted)


def test_template_readme_lists_the_pairs():
    frameworks = FRAMEWORKS
    rows = re.findall(r"^\| (\w+) \| (\w+) \| .+ \|$", readme(ROOT), re.MULTILINE)
    titles = [(frameworks[pair.framework]["title"], pair.facts["title"]) for pair in PAIRS]
    assert rows == [("framework", "server"), *titles]
