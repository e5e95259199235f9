"""The questions: which answers are accepted, how others are refused, what is computed."""

import ast
import re
from types import SimpleNamespace

import pexpect
import pytest
from copier.errors import CopierError
from support.commands import commit, ok, run
from support.project import (
    ASKED,
    COMPUTED,
    PAIRS,
    QUESTIONS,
    answers_of,
    emit,
    emit_on_command_line,
)
from support.prompt import prompt, question
from support.render import compute, environment

# https://copier.readthedocs.io/en/stable/configuring/#advanced-prompt-formatting
QUESTION_KEYS = {
    "type", "help", "default", "choices", "validator", "when", "ask", "secret",
    "placeholder", "multiselect", "multiline", "qmark",
}  # fmt: skip
# https://copier.readthedocs.io/en/stable/configuring/#available-settings
SETTINGS = {
    "_min_copier_version", "_subdirectory", "_templates_suffix", "_envops", "_exclude",
    "_skip_if_exists", "_answers_file", "_external_data",
    "_message_before_copy", "_message_after_copy", "_message_before_update",
    "_message_after_update", "_preserve_symlinks",
}  # fmt: skip

NAME_RULES = {
    "characters": "at most 60 characters",
    "printable": "printable characters",
    "letter": "at least one letter or digit",
    "ends": "Remove leading and trailing spaces",
    "tags": "template tags",
}
BAD_NAMES = {
    "x" * 61: "characters",
    "x" * 300: "characters",
    "My\nApp": "printable",
    "My App\n": "printable",
    "My\tApp": "printable",
    "My\x07App": "printable",
    "My\x1b[31mApp": "printable",
    "My\u202eApp": "printable",
    "My\u2028App": "printable",
    "\ufeffMy App": "printable",
    "   ": "letter",
    "...": "letter",
    "😀🎉": "letter",
    "__": "letter",
    " My App": "ends",
    "My App ": "ends",
    "{{ 7 * 7 }}": "tags",
    "{% raw %}": "tags",
    "My {# App": "tags",
}
BAD_DOMAINS = [
    "https://example.com",
    "example.com:8080",
    "example.com/path",
    "example.com\n",
    "example.com.",
    ".example.com",
    "-example.com",
    "example-.com",
    "exa mple.com",
    "exa_mple.com",
    "*.example.com",
    "example.com;",
    "example.com$host",
    "{example}.com",
    "例子.com",
    "user@example.com",
    "a" * 64 + ".com",
    ".".join(["a" * 60] * 5),
]


def refused(template, tmp_path, **answers: str) -> str:
    """Copy with answers that must be refused, and return the reason."""
    path = tmp_path / "project"
    with pytest.raises((ValueError, CopierError)) as reason:
        emit(template, path, **answers)
    assert not path.exists()
    return str(reason.value)


@pytest.mark.parametrize(("name", "rule"), BAD_NAMES.items())
def test_bad_project_name_is_refused(template, tmp_path, name, rule):
    assert NAME_RULES[rule] in refused(template, tmp_path, project_name=name)


@pytest.mark.parametrize("domain", BAD_DOMAINS)
def test_bad_domain_is_refused(template, tmp_path, domain):
    reason = refused(template, tmp_path, domain=domain)
    assert "Write the domain as in www.example.com" in reason


@pytest.mark.parametrize("framework", ["django", "", "Flask", "flask\n"])
def test_unknown_framework_is_refused(template, tmp_path, framework):
    reason = refused(template, tmp_path, framework=framework)
    assert "is not in ['flask', 'fastapi']" in reason


@pytest.mark.parametrize(
    ("framework", "server"),
    [("flask", "uvicorn"), ("fastapi", "waitress"), ("flask", "apache"), ("fastapi", "")],
)
def test_unknown_server_is_refused(template, tmp_path, framework, server):
    reason = refused(template, tmp_path, framework=framework, server=server)
    offered = [pair.server for pair in PAIRS if pair.framework == framework]
    assert f"{server!r} is not in {offered}" in reason


@pytest.mark.parametrize("platform", ["docker", "", "Kubernetes"])
def test_unknown_platform_is_refused(template, tmp_path, platform):
    reason = refused(template, tmp_path, platform=platform)
    assert "is not in ['server', 'kubernetes']" in reason


def test_sqlite_on_kubernetes_is_refused_with_the_way_to_postgresql(template, tmp_path):
    reason = refused(template, tmp_path, database="sqlite", platform="kubernetes")
    for text in ("--data database=postgresql", "migrations.copy_rows", "one machine"):
        assert text in reason


@pytest.mark.parametrize(
    ("before", "after"), [("sqlite", "kubernetes"), ("kubernetes", "sqlite")]
)
def test_move_to_sqlite_on_kubernetes_is_refused(release, tmp_path, before, after):
    """Neither answer is changed silently, whichever was there before."""
    names = {"sqlite": "database", "kubernetes": "platform"}
    project = emit(release, tmp_path / "project", **{names[before]: before})
    commit(project)
    data = f"--data={names[after]}={after}"
    done = run("copier", "update", "--defaults", data, cwd=project)
    assert done.returncode != 0
    assert "SQLite is a file on one machine" in done.stdout
    assert answers_of(project)[names[before]] == before
    assert ok("git", "status", "--short", cwd=project) == ""


@pytest.mark.parametrize("value", ["", "../../evil"])
@pytest.mark.parametrize("name", COMPUTED)
def test_computed_answer_cannot_be_set(template, tmp_path, name, value):
    reason = refused(template, tmp_path, **{name: value})
    assert f"'{name}'" in reason
    assert "The template computes this answer" in reason


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("project_name=My\nApp", NAME_RULES["printable"]),
        ("project_name={{ 7 * 7 }}", NAME_RULES["tags"]),
        ("domain=example.com:80", "Write the domain as in www.example.com"),
        ("framework=django", "is not in ['flask', 'fastapi']"),
        ("server=uvicorn", "is not in ['gunicorn', 'waitress', 'uwsgi']"),
        ("slug=evil", "The template computes this answer"),
    ],
)
def test_refusal_on_the_command_line(release, tmp_path, answer, reason):
    """A status that is not 0, the reason as the last line, nothing written."""
    path = tmp_path / "project"
    done = run("copier", "copy", "--defaults", f"--data={answer}", release, path)
    assert done.returncode != 0
    assert reason in done.stdout.strip().splitlines()[-1]
    assert not path.exists()


def test_bad_answer_changes_nothing_in_an_existing_folder(release, tmp_path):
    path = tmp_path / "project"
    path.mkdir()
    (path / "mine.txt").write_text("mine")
    assert run("copier", "copy", "--defaults", "--data=domain=x:1", release, path).returncode
    assert [file.name for file in path.iterdir()] == ["mine.txt"]


GOOD_NAMES = {
    "My App": "my-app",
    "x": "x",
    "x" * 60: "x" * 32,
    "a" * 31 + " b": "a" * 31,
    "Crème Brûlée": "creme-brulee",
    "Creme\u0300 Bru\u0302le\u0301e": "creme-brulee",
    "2048 Game": "game",
    "100% $HOME `id` ; rm -rf": "home-id-rm-rf",
    'Tom\'s "best" app': "tom-s-best-app",
    'The "best" app': "the-best-app",
    "back\\slash\\": "back-slash",
    "a {b} [c] <i>d</i> & e": "a-b-c-i-d-i-e",
    "yes": "yes",
    "#1 - home: *page*": "home-page",
    "nginx": "nginx-site",
    "Default": "default-site",
    "Con": "con-site",
    "COM1": "com1-site",
    "Sites 日本": "sites",
    "我的应用": "site-0906bfdb",
    "تطبيقي": "site-",
    "42": "site-",
    "می‌خواهم": "site-",
    "App 👩‍💻": "app",
}


# Names that YAML, a shell or an argument could mistake for something else.
QUOTED = ("100% $HOME `id` ; rm -rf", 'The "best" app', "back\\slash\\", "yes", "42")


QUICK_NAMES = (*QUOTED, "nginx", "Con", "我的应用")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        pytest.param(*item, marks=[] if item[0] in QUICK_NAMES else pytest.mark.slow)
        for item in GOOD_NAMES.items()
    ],
)
def test_good_project_name_is_accepted(template, tmp_path, name, slug):
    copy = emit_on_command_line if name in QUOTED else emit
    path = copy(template, tmp_path / "project", project_name=name)
    [unit] = path.glob("deploy/*.socket")
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,31}", unit.stem)
    assert not unit.stem.endswith("-")
    assert unit.stem.startswith(slug) if slug == "site-" else unit.stem == slug
    tree = ast.parse((path / "app/config.py").read_text(encoding="utf-8"))
    [site_name] = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "SITE_NAME"
    ]
    assert site_name == name
    ok("ruff", "check", "--isolated", cwd=path)
    ok("ruff", "format", "--isolated", "--check", cwd=path)
    answers = answers_of(path)
    assert answers["project_name"] == name


@pytest.mark.parametrize(
    "domain", ["example.com", "localhost", "a.b.c.example", "xn--fsqu00a.com", "EXAMPLE.com"]
)
def test_good_domain_is_accepted(copie, release, domain):
    result = copie.copy(extra_answers={"domain": domain}, template_dir=release)
    assert result.exception is None
    site = result.project_dir / "deploy/nginx/my-app/site.conf"
    assert f"\nserver_name {domain};\n" in site.read_text()
    # $host is in lower case.
    assert f"($host != {domain.lower()})" in site.with_name("https.conf").read_text()


def test_names_without_ascii_letters_do_not_clash(release, tmp_path):
    units = set()
    for number, name in enumerate(["我的应用", "我的网站", "1", "2"]):
        path = emit(release, tmp_path / str(number), project_name=name)
        units |= {unit.name for unit in path.glob("deploy/*.socket")}
    assert len(units) == 4


def test_enter_at_every_question_gives_a_project(release, tmp_path):
    path = tmp_path / "project"
    child = prompt(release, path)
    for name in ASKED:
        child.expect_exact(question(name))
        child.send("\r")
    child.expect("is ready")
    child.expect(pexpect.EOF)
    assert child.wait() == 0
    answers = answers_of(path)
    assert {name: answers[name] for name in ASKED} == {
        "language": "en",
        "project_name": "My App",
        "framework": "flask",
        "server": "gunicorn",
        "domain": "example.com",
        "database": "none",
        "platform": "server",
    }


def test_typed_answer_replaces_the_default(release, tmp_path):
    """The default is shown, but not as text that is typed to."""
    path = tmp_path / "project"
    child = prompt(release, path)
    for name in ASKED:
        child.expect_exact(question(name))
        child.send(
            {"project_name": "Anna's Shop", "domain": "annas-shop.de"}.get(name, "") + "\r"
        )
    child.expect(pexpect.EOF)
    assert child.wait() == 0
    answers = answers_of(path)
    assert (answers["project_name"], answers["domain"]) == ("Anna's Shop", "annas-shop.de")


def test_prompt_offers_the_servers_of_the_framework(release, tmp_path):
    child = prompt(release, tmp_path / "project", "--data=framework=fastapi")
    for name in ("language", "project_name"):
        child.expect_exact(question(name))
        child.send("\r")
    child.expect_exact(question("server"))
    for pair in PAIRS:
        if pair.framework == "fastapi":
            child.expect_exact(pair.facts["label"])
    child.send("\r")
    child.expect_exact(question("domain"))
    assert "Waitress" not in child.before
    child.sendintr()
    child.expect(pexpect.EOF)
    assert child.wait() != 0
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize(
    ("name", "answer", "reason"),
    [
        ("project_name", "   ", NAME_RULES["letter"]),
        ("project_name", "{{ 7 * 7 }}", NAME_RULES["tags"]),
        ("domain", "https://example.com", "Write the domain as in www.example.com"),
    ],
)
def test_prompt_says_why_an_answer_is_bad(release, tmp_path, name, answer, reason):
    child = prompt(release, tmp_path / "project")
    for asked in ASKED[: ASKED.index(name)]:
        child.expect_exact(question(asked))
        child.send("\r")
    child.expect_exact(question(name))
    child.send(answer + "\r")
    child.expect_exact(reason)
    child.sendintr()
    child.expect(pexpect.EOF)
    assert child.wait() != 0
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize("name", [name for name in QUESTIONS if name[0] != "_"])
def test_question_is_well_formed(name):
    details = QUESTIONS[name]
    assert details.keys() <= QUESTION_KEYS
    assert details["type"] in {"str", "bool", "yaml"}
    assert re.match(r"[A-Z].+[?？]", question(name))
    if name in ASKED:
        assert "later" in question(name)
    assert "default" in details
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)


def test_questions_are_in_order():
    assert [name for name in QUESTIONS if name in ASKED] == ASKED


def test_settings_are_known_and_need_no_trust():
    settings = {name for name in QUESTIONS if name.startswith("_")}
    assert settings <= SETTINGS
    assert QUESTIONS["_envops"]["undefined"] == "jinja2.StrictUndefined"


def test_computed_answers_are_not_remembered(copie, release):
    result = copie.copy(template_dir=release)
    assert answers_of(result.project_dir).keys() == {"_commit", "_src_path", *ASKED}


@pytest.mark.parametrize("name", ["_message_after_copy", "_message_after_update"])
@pytest.mark.parametrize("system", ["linux", "windows"])
def test_message_has_the_commands_of_the_system(name, system):
    """PowerShell 5 has no `&&`, and a virtual environment of Windows has other folders."""
    jinja = environment()
    message = jinja.from_string(QUESTIONS[name]).render(
        compute(jinja, {"language": "en"}),
        _copier_conf=SimpleNamespace(os=system, dst_path="../my-app"),
        _copier_answers={"_commit": ""},
    )
    activate = {"linux": ". .venv/bin/activate", "windows": r".venv\Scripts\Activate.ps1"}
    assert [line for line in activate.values() if f"  {line}\n" in message] == [
        activate[system]
    ]
    assert "&&" not in message


@pytest.mark.parametrize("name", ["_message_after_copy", "_message_after_update"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_message_says_when_databases_are_needed(name, database):
    jinja = environment()
    message = jinja.from_string(QUESTIONS[name]).render(
        compute(jinja, {"language": "en", "database": database}),
        _copier_conf=SimpleNamespace(os="linux", dst_path="../my-app"),
        _copier_answers={"_commit": ""},
    )
    assert "alembic upgrade head" in message
    assert ('databases as in "Run it locally"' in message) == (database == "postgresql")


def test_message_after_copy_names_the_readme_commands(release, tmp_path):
    path = tmp_path / "a folder"
    message = ok("copier", "copy", "--defaults", release, path)
    readme = (path / "README.md").read_text()
    assert f"cd '{path}'" in message
    for line in ("python3 -m venv .venv", "flask --app app.main run --debug --port 8000"):
        assert f"  {line}\n" in message
        assert f"\n{line}\n" in readme
