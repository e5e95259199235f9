"""After an update, Copier says what the owner has to do before the next release."""

import functools
import re
from pathlib import Path

import pytest
from jinja2 import DictLoader
from releases import NOTES, check_notes
from support.commands import commit
from support.project import OTHER_LANGUAGES, PAIRS, ROOT, read
from support.render import environment
from support.update import release_as, start, update

SECTIONS = {
    "Unreleased": "- Rename the new thing.",
    "1.10.0 - 2026-04-05": "- Call the tenth thing.\n  It has two lines.",
    "1.9.0 - 2026-03-04": "",
    "1.1.0 - 2026-02-03": "- Copy the first thing.",
    "1.0.0 - 2026-01-02": "- Install the site.",
}
# What each previous version still has to do, up to the unreleased changes.
EXPECTED = {
    "v1.0.0": ["Unreleased", "1.10.0", "1.1.0"],
    "v1.0.0-3-g1234567": ["Unreleased", "1.10.0", "1.1.0"],
    "v1.1.0": ["Unreleased", "1.10.0"],
    "1.1.0": ["Unreleased", "1.10.0"],
    "v1.9.0": ["Unreleased", "1.10.0"],
    "v1.10.0": ["Unreleased"],
    "v1.10.0-2-gabcdef0": ["Unreleased"],
    "v1.10.0rc1": ["Unreleased", "1.10.0"],
    "v1.10.0-rc.1-4-g1234567": ["Unreleased", "1.10.0"],
    "v1.10.0.dev3": ["Unreleased", "1.10.0"],
    "v0.0.1": ["Unreleased", "1.10.0", "1.1.0", "1.0.0"],
    "v999.0.0": ["Unreleased"],
    # Not known: the newest.
    "": ["Unreleased"],
    "3ba1bbe": ["Unreleased"],
    "some-branch": ["Unreleased"],
}


def changelog(sections: dict[str, str]) -> str:
    """Return a changelog with a section for each heading, and its notes between others."""
    text = "# Changes\n"
    for heading, notes in sections.items():
        listed = f"{NOTES}\n\n{notes}\n\n" if notes else ""
        text += f"\n## {heading}\n\n{listed}### Data\n\nMore than before.\n"
    check_notes(text)
    return text


def notes(sections: dict[str, str], previous: str, current: str) -> str:
    jinja = environment()
    files = {name: read(f"texts/{name}") for name in ("notes.jinja",)}
    jinja.loader = DictLoader(files | {"CHANGELOG.md": changelog(sections)})
    return jinja.get_template("notes.jinja").module.notes(previous, current)


@pytest.mark.parametrize("previous", EXPECTED)
def test_notes_are_those_of_the_newer_versions(previous):
    expected = [
        f"{heading.split(' - ')[0]}:\n\n{text}"
        for heading, text in SECTIONS.items()
        if heading.split(" - ")[0] in EXPECTED[previous]
    ]
    assert len(expected) == len(EXPECTED[previous])
    assert notes(SECTIONS, previous, "v1.10.0-9-gabcdef0") == "\n\n".join(expected)


def test_an_update_to_the_same_version_has_no_notes():
    assert notes(SECTIONS, "v1.0.0", "v1.0.0") == ""


def test_newest_version_may_have_no_notes():
    older = dict([*SECTIONS.items()][2:])
    assert notes(older, "v1.1.0", "v1.9.0") == ""
    assert notes(older, "unknown", "v1.9.0") == ""


def test_own_changelog_has_its_notes():
    """Each as it is in the file, and nothing else."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert NOTES in text
    found = environment().get_template("texts/notes.jinja").module.notes("v0.0.1", "v999.0.0")
    lists = re.findall(rf"(?ms)^{NOTES}\n\n(.*?)\n\n(?=^##)", text)
    assert re.sub(r"(?m)^\S+:\n\n", "", found) == "\n\n".join(lists)


@pytest.fixture(scope="module")
def template(isolated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Releases of the template: 1.0.0, 1.1.0, 1.10.0, and a commit after them."""
    path = tmp_path_factory.mktemp("template")

    def write(sections: list[tuple[str, str]], template: Path) -> None:
        (template / "CHANGELOG.md").write_text(changelog(dict(sections)), encoding="utf-8")

    headings = [*SECTIONS.items()]
    for name, first in (("v1.0.0", 4), ("v1.1.0", 3), ("v1.10.0", 1)):
        release_as(path, name, functools.partial(write, headings[first:]))
    write(headings, path)
    commit(path)
    return path


def said(message: str) -> list[str]:
    """Return the notes in a message of Copier, line by line."""
    known = {line.strip() for text in SECTIONS.values() for line in text.splitlines()}
    lines = [line.strip() for line in message.splitlines()]
    return [
        line for line in lines if line in known or re.fullmatch(r"(\d.*|Unreleased):", line)
    ]


INTRODUCTION = {"en": "Before you release the site again", "zh": "再次发布网站之前"}


@pytest.mark.parametrize(
    "language",
    ["en", *(pytest.param(each, marks=pytest.mark.slow) for each in OTHER_LANGUAGES)],
)
def test_message_has_the_notes(template, language, tmp_path):
    """From 1.0.0 to the latest release; then nothing is new; then the latest commit."""
    project = start(template, tmp_path / "my-app", PAIRS[0], "v1.0.0")
    message = update(project, language=language)
    tenth = ["1.10.0:", "- Call the tenth thing.", "It has two lines."]
    assert said(message) == [*tenth, "1.1.0:", "- Copy the first thing."]
    assert INTRODUCTION[language] in message
    assert "\n  1.10.0:\n\n  - Call the tenth thing.\n    It has two lines.\n\n" in message
    assert "Warning" not in message
    commit(project)

    message = update(project, domain="www.example.com")
    assert said(message) == []
    assert INTRODUCTION[language] not in message
    commit(project)


def test_message_has_the_notes_of_unreleased_changes(template, tmp_path):
    """For those who update to the latest commit."""
    project = start(template, tmp_path / "my-app", PAIRS[0], "v1.10.0")
    message = update(project, "HEAD")
    assert said(message) == ["Unreleased:", "- Rename the new thing."]
