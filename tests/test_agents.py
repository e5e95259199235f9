"""AGENTS.md of the emitted project: whatever it tells a coding agent is true for this project."""

import re
from pathlib import Path

import pytest
from support.commands import commit
from support.project import DATABASES, KUBERNETES, LANGUAGES, PAIRS, Stack, append, emit
from support.update import OLD_TEXT, OLDER, OWN_TEXT, conflicts, start, update

STACKS = [Stack(*pair, name) for pair in PAIRS for name in DATABASES if name != "none"]
STACKS += KUBERNETES
NAMES = {"data"}  # of settings


@pytest.fixture(scope="session", params=LANGUAGES)
def project(
    request: pytest.FixtureRequest,
    release: Path,
    pair: Stack,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A project of the stack in each language. Tests must not change it."""
    path = tmp_path_factory.mktemp(f"{pair}-agents") / "my-app"
    return emit(release, path, **pair._asdict(), language=request.param)


def text_of(project: Path, name: str = "AGENTS.md") -> str:
    return (project / name).read_text(encoding="utf-8")


def commands_of(markdown: str) -> list[str]:
    """Return the lines of the ```sh blocks."""
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```$", markdown)
    return [line for block in blocks for line in block.splitlines()]


def spans_of(markdown: str) -> list[str]:
    """Return what is in backticks outside the blocks."""
    return re.findall("`([^`]+)`", re.sub(r"(?ms)^```.*?^```$", "", markdown))


@pytest.mark.slow_pairs
@pytest.mark.pairs([*PAIRS, *STACKS])
def test_all_that_it_names_exists(project):
    """Each command is one of the README, each path a file or folder of the project."""
    known = commands_of(text_of(project, "README.md"))
    own = commands_of(text_of(project))
    assert len(own) >= 6
    assert [command for command in own if command not in known] == []
    spans = spans_of(text_of(project))
    assert len(spans) >= 15
    for span in spans:
        assert span in known or span in NAMES or (project / span).exists(), span
    for name in NAMES:
        assert re.search(rf"^    {name}: ", text_of(project, "app/config.py"), re.MULTILINE)


@pytest.mark.slow_pairs
@pytest.mark.pairs([*PAIRS, *STACKS])
def test_its_commands_are_those_of_the_stack(project, pair):
    """Of the first block of the README all, and migrations only with a database."""
    text, readme = text_of(project), text_of(project, "README.md")
    first = re.search(r"(?ms)^```sh\n(.*?)^```$", readme)[1]
    assert commands_of(text) == first.splitlines()
    assert ("alembic revision" in text) == (getattr(pair, "database", "none") != "none")
    for command in ("uv pip compile", "uvx copier update", "deploy/release"):
        assert command in text
    assert ("root@" in text) == (getattr(pair, "platform", "server") == "server")


def test_it_is_a_page_of_plain_markdown_in_english(release, tmp_path):
    """The same in each language, and without the project's name, which may say anything."""
    texts = {
        text_of(
            emit(release, tmp_path / language, language=language, project_name="<!-- `# Ü")
        ).replace("/u/", "/my-app/")
        for language in LANGUAGES
    }
    [text] = texts
    assert text.startswith("# ")
    assert len(text.splitlines()) <= 32
    assert text.isascii()
    assert text.count("<!--") == 1


def test_updates_leave_the_owners_instructions_alone(history, tmp_path):
    project = start(history, tmp_path / "my-app", PAIRS[0], OLDER)
    assert OLD_TEXT in text_of(project)
    append(project / "AGENTS.md", f"- {OWN_TEXT}\n")
    commit(project)
    update(project)
    assert conflicts(project) == set()
    assert text_of(project).endswith(f"\n- {OWN_TEXT}\n")
    assert OLD_TEXT not in text_of(project)
