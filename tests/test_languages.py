"""In every language, a project says the same and has the same code."""

import ast
import html
import io
import itertools
import re
import shutil
import tokenize
from pathlib import Path

import markupsafe
import pexpect
import pytest
import yaml
from support.commands import commit, ok, run
from support.project import (
    ANSWERS_FILE,
    ASKED,
    DATABASES,
    FEW_STACKS,
    FIRST_PAIRS,
    FRAMEWORKS,
    KUBERNETES,
    LANGUAGES,
    OTHER_LANGUAGES,
    PAIRS,
    ROOT,
    SCRIPTS,
    Installed,
    Pair,
    answers_of,
    edit,
    emit,
    read,
    read_texts,
    scripts_of,
    tag,
    texts_of,
)
from support.prompt import DOWN, ENTER, prompt, question
from support.render import renderer

pytestmark = pytest.mark.pairs([*PAIRS, *FEW_STACKS, *KUBERNETES])

# How comments begin in files that are neither Python nor HTML.
COMMENT = re.compile(r"^\s*(#|//|/\*|;)")
PROSE = re.compile(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}")
# Lines that look like a sentence, but are code, commands or messages of other programs.
NO_PROSE = re.compile(
    r"systemctl|systemd-analyze|apt |certbot |git |pip |uv |sudo |python3 |curl |nft |"
    r"alembic (current|upgrade head)|not on all head|server running locally|"
    r"flock |[.]lock |No space left|default server\"|conflicting server name|most recent call|/etc/nginx"
)


@pytest.fixture(params=OTHER_LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def translated(release: Path, tmp_path_factory: pytest.TempPathFactory):
    """Returns the project of a pair in a language. Tests must not change it."""
    made = {}

    def make(pair: Pair, language: str) -> Path:
        if (pair, language) not in made:
            path = tmp_path_factory.mktemp(f"{pair}-{language}") / "my-app"
            made[pair, language] = emit(release, path, **pair._asdict(), language=language)
        return made[pair, language]

    return make


def spoken_files(project: Path) -> dict[str, str]:
    """Return the texts of a project, by path, except those that only programs read."""
    texts = texts_of(project)
    silent = (".lock", ".svg", "AGENTS.md")
    return {name: text for name, text in texts.items() if not name.endswith(silent)}


@pytest.fixture
def both(pair: Pair, project: Path, translated, language: str) -> list[tuple[str, str, str]]:
    """The path of each file, and its text in English and in the language."""
    english, other = spoken_files(project), spoken_files(translated(pair, language))
    assert english.keys() == other.keys()
    return [(name, text, other[name]) for name, text in english.items()]


def test_every_language_has_the_same_texts(language):
    english, own = read_texts("en"), read_texts(language)
    assert own.keys() == english.keys()
    for part in ("questions", "refusals"):
        assert own[part].keys() == english[part].keys()
    rows = [*FRAMEWORKS.values(), *DATABASES.values()]
    rows += [row for each in FRAMEWORKS.values() for row in each["servers"].values()]
    assert {row["label"] for row in rows} <= own["labels"].keys()
    assert own["labels"].keys() <= {
        value for row in rows for value in row.values() if isinstance(value, str)
    }


def test_each_sentence_is_used(projects, release, tmp_path, language):
    """A sentence that is not in its file was changed in English."""
    messages = re.sub(r"(?m)^ +", "", read("copier.yml"))
    unused = {
        (file, sentence["en"])
        for file, sentences in read_texts(language)["sentences"].items()
        for sentence in sentences
        if file != "copier.yml" or sentence["en"] not in messages
    }
    found = projects | {
        stack: emit(release, tmp_path / str(stack), **stack._asdict())
        for stack in [*FEW_STACKS, *KUBERNETES]
    }
    for pair, project in found.items():
        texts = texts_of(project)
        values = VALUES | {
            "@framework@": FRAMEWORKS[pair.framework]["title"],
            "@server@": pair.facts["title"],
        }
        for file, sentence in [*unused]:
            text = texts.get(put_in(file, values), "")
            if put_in(sentence, values) in text:
                unused.remove((file, sentence))
    assert unused == set()


def put_in(text: str, values: dict[str, str]) -> str:
    """Replace placeholders."""
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text


# The placeholders of texts/translate.jinja, with the default answers.
VALUES = {
    "@slug@": "my-app",
    "@domain@": "example.com",
    "@host@": "example.com",
    "@other@": "www.example.com",
    "@other_pattern@": r"www\.example\.com",
    "@project_name@": "My App",
    "@project_name_literal@": '"My App"',
    "@project_name_html@": "My App",
    "@nginx_prefix@": "site_my_app",
    "@framework@": "Flask",
    "@server@": "Gunicorn",
    "@database@": "sqlite",
    "@name@": "my-app",
    "@settings@": "/etc/my-app.env",
    "@scheme@": "$scheme",
    "@port@": "$server_port",
    "@path@": "my-app",
}


def test_placeholders_are_known():
    assert set(re.findall(r"@[a-z_]+@", read("texts/translate.jinja"))) <= VALUES.keys()


def site_name(project: Path) -> str:
    """Return SITE_NAME of app/config.py."""
    tree = ast.parse((project / "app/config.py").read_text(encoding="utf-8"))
    [value] = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "SITE_NAME"
    ]
    return value


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "name",
    [
        "Back in a moment",
        "@slug@ @domain@ @host@ @nginx_prefix@ @path@ @server@",
        "@project_name@ @framework@ @project_name_html@",
        "@project_name_literal@ & 'Settings' \"Not found\"",
        "A form",
    ],
)
def test_no_text_changes_an_answer(release, tmp_path, language, name):
    """Neither a sentence nor a placeholder in the name is replaced."""
    project = emit(release, tmp_path / "project", project_name=name, language=language)
    assert answers_of(project)["project_name"] == name
    assert site_name(project) == name
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {name}\n")
    [down] = project.glob("deploy/nginx/*/down.html")
    assert f">{name}<" in html.unescape(down.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("first", FIRST_PAIRS, ids=str)
def test_no_sentence_changes_a_name(first, language):
    """A name that is any sentence of the translations comes out unchanged, in every file."""
    sentences = {
        sentence["en"].strip()
        for other in OTHER_LANGUAGES
        for sentences in read_texts(other)["sentences"].values()
        for sentence in sentences
    }
    names = {name for name in sentences if len(name) <= 60 and "\n" not in name}
    names |= {part.strip() for name in sentences for part in re.findall(".{1,60}", name)}
    assert len(names) > 200
    render = renderer(first, language)
    sample = "Sample"
    samples = {file: text for file, text in render(sample).items() if sample in text}
    assert samples.keys() >= {"README.md", "app/config.py", "deploy/nginx/my-app/down.html"}
    for name in names:
        for file, text in render(name, samples.keys()).items():
            if file == "app/config.py":
                literal = re.search("SITE_NAME = (.+)", text)[1]
                assert ast.literal_eval(literal) == name
                text = text.replace(f"= {literal}\n", f'= "{sample}"\n', 1)
            expected = {
                samples[file] if file == "app/config.py" else None,
                samples[file].replace(sample, str(markupsafe.escape(name))),
                samples[file].replace(sample, name.replace("<", "&lt;")),
                samples[file].replace(sample, name),
            }
            assert text in expected, (file, name)


def is_python(name: str) -> bool:
    return name.endswith(".py") or name in SCRIPTS


def prose(name: str, text: str) -> set[str]:
    """Return the lines of a file that contain a sentence for people."""
    if is_python(name):
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        spoken = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1))
        text = "\n".join(token.string for token in tokens if token.type in spoken)
    elif name.endswith(".css"):
        text = "\n".join(re.findall(r"(?s)/\*.*?\*/", text))
    elif name.endswith(".md"):
        text = re.sub(r"(?ms)^```\w+\n.*?^```$|`[^`\n]+`", "", text)
    elif name.endswith(".html"):
        text = re.sub(r"(?s){[{%].*?[%}]}|<(?!nav|html)[^>]*>", "", text)
    else:
        text = "\n".join(re.findall(r"(?m)(?:^|\s)(?:#|//).*|^Description=.*", text))
    return {
        line for line in text.splitlines() if PROSE.search(line) and not NO_PROSE.search(line)
    }


def test_no_english_sentence_is_left(both):
    left = {name: prose(name, own) & prose(name, text) for name, text, own in both}
    assert {name: lines for name, lines in left.items() if lines} == {}


# Words that are the same in every language, and names of headers and methods.
NAMES = {
    ".env",
    "API",
    "API ·",
    "Cache-Control",
    "Content-Length",
    "Content-Security-Policy",
    "Content-Type",
    "FastAPI",
    "Flask",
    "GET",
    "HEAD",
    "Lax",
    "My App",
    "OPTIONS",
    "Origin",
    "Sec-Fetch-Site",
    ", Python",
    "Uvicorn",
    "fastapi",
    "flask",
    "uvicorn",
}


def phrases(name: str, text: str) -> set[str]:
    """Return what pages and Python code say, down to single words, except for names."""
    if name.endswith(".html"):
        tags = re.findall(r"(?s){[{%].*?[%}]}", text)
        text = re.sub(r"(?s){[{%].*?[%}]}", "\n", text)
        found = [string for tag in tags for string in re.findall('"([^"]+)"', tag)]
        found += re.findall('(?:aria-label|alt|placeholder|title)="([^"]+)"', text)
        found += re.sub(r"(?s)<[^>]*>", "\n", text).split("\n")
    else:
        nodes = [*ast.walk(ast.parse(text))]
        classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
        found = [node.value for node in nodes if isinstance(node, ast.Constant)]
        # An annotation may name a class in quotes.
        found = [each for each in found if isinstance(each, str) and each not in classes]
        found = [string for string in found if " " in string or string[:1].isupper()]
    found = {string.strip() for string in found if re.search("[A-Za-z]{2}", string)}
    return {
        string
        for string in found - NAMES
        if not re.fullmatch(r"[\w.-]+[._/][\w./]+|[A-Z]{3,}|(SELECT|alembic) .+", string)
        and "-src '" not in string
    }


def test_no_english_phrase_is_left_on_a_page(both):
    """Not even a word, which `prose` skips."""
    pages = [
        each for each in both if re.match(r"(app/.+\.(py|html)|deploy/.+\.html)$", each[0])
    ]
    seen = set()
    for name, text, own in pages:
        seen |= phrases(name, text)
        assert phrases(name, text) & phrases(name, own) == set(), name
    assert seen >= {
        "Runs on",
        "Settings",
        "A form",
        "Your name",
        "Not found",
        "Back in a moment",
    }


def test_prose_is_found(both):
    """What the tests above look for is in the English files."""
    seen = {name for name, english, _ in both if prose(name, english)}
    assert seen >= {"README.md", "deploy/release", "app/routes.py", "app/config.py"}
    assert seen & {"deploy/doctor", "deploy/kubernetes/deployment.yaml"}


def code(name: str, text: str) -> str:
    """Return a file without what is for people."""
    if is_python(name):
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                node.value = ""
            if isinstance(node, ast.JoinedStr):  # a sentence may begin or end with a value
                node.values = [
                    each for each in node.values if not isinstance(each, ast.Constant)
                ]
        return ast.dump(tree)
    if name.endswith(".html"):
        text = re.sub(r"{%.*?%}|{{.*?}}", "", text)
        return " ".join(re.findall(r"<[/!\w]+|\b(?:href|class|id|name|method)=", text))
    if text.startswith("#!/bin/sh"):
        text = re.sub(r'\becho "[^"]*"', "echo", text)
    if name.endswith(".css"):
        return re.sub(r"/\*.*?\*/", "", text)
    lines = (line for line in text.splitlines() if not COMMENT.match(line))
    return "\n".join(re.sub(r"\s+#.*|^Description=.*", "", line) for line in lines)


def test_code_is_the_same(both):
    for name, english, own in both:
        if not name.endswith((".md", ".yml")):
            assert code(name, own) == code(name, english), name


def skeleton(markdown: str) -> list:
    """Return what is the same in every language: levels, commands, tables, links."""
    # A transcript, in the language; tests/test_docs.py checks it.
    markdown = re.sub(r"(?s)<details>.*?</details>", "", markdown)
    fences = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", markdown)
    commands = [block for kind, block in fences if kind not in ("", "text")]
    columns = [
        re.findall(r"(?m)^ *\S+", block) for kind, block in fences if kind in ("", "text")
    ]
    prose = re.sub(r"(?ms)^```.*?^```$", "", markdown)
    tables = re.findall(r"(?m)^\|.*\|$", prose)
    rows = [(row.count(" | "), re.findall(r"`[^`]+`", row)) for row in tables]
    levels = re.findall(r"(?m)^#+(?= )", prose)
    bullets = len(re.findall(r"(?m)^- ", prose))
    words = sorted(re.sub(r"\s+", " ", span) for span in re.findall(r"`[^`]+`", prose))
    links = len(re.findall(r"\]\(|<http", prose))
    return [levels, commands, columns, rows, bullets, words, links]


def test_readmes_say_the_same(both):
    """Except for quotes: what only the readers of the language need."""
    readmes = [(name, english, own) for name, english, own in both if name.endswith(".md")]
    assert len(readmes) == 2
    for name, english, own in readmes:
        own = re.sub(r"(?m)^>.*\n", "", own)
        assert skeleton(own) == skeleton(english), name


def test_readmes_of_the_template_say_the_same():
    """README.zh-CN.md and README.md."""
    readmes = [path.read_text(encoding="utf-8") for path in ROOT.glob("README*.md")]
    assert len(readmes) == len(LANGUAGES)
    for readme in readmes:
        assert skeleton(readme) == skeleton(readmes[0])


@pytest.mark.slow_pairs
@pytest.mark.pairs([*PAIRS, *(stack for stack in FEW_STACKS if stack.database == "sqlite")])
def test_tests_pass_in_every_language(pair, installed: Installed, translated, language):
    project = translated(pair, language)
    python = installed.path / ".venv/bin/python"
    done = run(python, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project)
    assert re.search(r"\d+ passed", done.stdout), done.stdout
    assert done.returncode == 0, done.stdout


def test_ruff_finds_nothing_in_any_language(pair, translated, language):
    project = translated(pair, language)
    everything = ("--isolated", "--no-cache", ".", *scripts_of(project))
    ok("ruff", "check", "--extend-select=B,I,UP", *everything, cwd=project)
    ok("ruff", "format", "--check", "--diff", *everything, cwd=project)


def test_style_sheet_is_at_most_2_kb_in_any_language(pair, translated, language):
    assert (translated(pair, language) / "app/static/style.css").stat().st_size <= 2000


@pytest.mark.slow_pairs
@pytest.mark.pairs(PAIRS)
def test_another_language_is_a_choice_and_a_folder(pair, release, translated, tmp_path):
    """Under another name it is emitted in the same way: no code depends on the language."""
    template = Path(shutil.copytree(release, tmp_path / "template"))
    language = OTHER_LANGUAGES[0]
    edit(template / "copier.yml", f": {language}\n", f": {language}\n    Another: xx\n")
    folder = Path(shutil.copytree(template / "texts" / language, template / "texts/xx"))
    texts = read_texts(language)
    for sentence in itertools.chain(*texts["sentences"].values()):
        sentence["xx"] = sentence.pop(language)
    (folder / "texts.yml").write_text(yaml.safe_dump(texts), encoding="utf-8")
    tag(template, "v1.1.0")
    path = emit(template, tmp_path / "my-app", **pair._asdict(), language="xx")
    exclude = f"--exclude={ANSWERS_FILE}"
    ok("diff", "-r", exclude, path, translated(pair, language))


def test_page_names_its_language(pair, project, translated, language):
    for path in ("app/templates/base.html", "deploy/nginx/my-app/down.html"):
        assert '<html lang="en">' in (project / path).read_text()
        own = (translated(pair, language) / path).read_text(encoding="utf-8")
        assert re.search(rf'<html lang="{language}\b', own)


def test_prompt_continues_in_the_chosen_language(release, tmp_path):
    """One down from English, then Enter at each question."""
    language = OTHER_LANGUAGES[0]
    child = prompt(release, tmp_path / "project")
    for name in ASKED:
        child.expect_exact(question(name, language))
        child.send(DOWN + ENTER if name == "language" else ENTER)
    child.expect("copier|git init")
    child.expect(pexpect.EOF)
    assert child.wait() == 0
    assert answers_of(tmp_path / "project")["language"] == language
    assert not PROSE.search(re.sub(r"(?m)^.*(git|pip|flask) .*$", "", child.before))


def test_bad_answer_is_refused_in_the_language(release, tmp_path, language):
    done = run(
        *("copier", "copy", "--defaults", f"--data=language={language}", "--data=domain=a:1"),
        *(release, tmp_path / "project"),
    )
    assert done.returncode != 0
    assert read_texts(language)["refusals"]["domain"] in done.stdout


@pytest.mark.slow
@pytest.mark.first_pairs
def test_switch_of_language_and_back_is_a_new_project(
    release, tmp_path, project, pair, language
):
    """Updates of an untouched project, without a conflict."""
    path = tmp_path / "my-app"
    emit(release, path, **pair._asdict())
    for chosen in (language, "en"):
        commit(path)
        ok("copier", "update", "--defaults", f"--data=language={chosen}", cwd=path)
    ok("diff", "-r", "--exclude=.git", path, project)
