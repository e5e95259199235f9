"""The pictures in README.md show what a run shows today."""

import json
import re
from xml.etree import ElementTree

import pytest
from conftest import ROOT, emit

DOCS = ROOT / "docs"
AGAIN = "Run docs/make.py again"
README = (ROOT / "README.md").read_text(encoding="utf-8")
SITE = "http://127.0.0.1:8000"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch):
    """The module docs/make.py."""
    monkeypatch.syspath_prepend(str(DOCS))
    import make

    return make


def recording() -> list[str]:
    """The lines of the recording, without the blank ones."""
    root = ElementTree.parse(DOCS / "start.svg").getroot()
    return ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]


def pictures() -> list[tuple[str, str | None]]:
    """Each picture of README.md, with its alternative text."""
    found = [(path, text) for text, path in re.findall(r"!\[(.*?)\]\((.+?)\)", README)]
    for tag in re.findall(r"<(?:img|source) .+?>", README):
        attributes = dict(re.findall(r'(\w+)="(.*?)"', tag))
        is_source = tag.startswith("<source")
        path = attributes["srcset" if is_source else "src"]
        # A <source> is another look of the <img> beside it, which has the text.
        found.append((path, None if is_source else attributes.get("alt", "")))
    return found


def test_recording_shows_what_copier_asks_and_says(make, tmp_path):
    """Every line, as it comes at a real terminal when Enter is pressed at each question."""
    terminal = make.Terminal(make.make_release(tmp_path / "copier-pyweb"))
    run = make.answer(terminal, 'copier copy "$PWD" ../my-app')
    terminal.close()
    today = [make.plain(line) for line in run[1:] if line]
    assert sum(make.ASKS in text for text in today) >= 4
    lines = recording()
    first = next(number for number, line in enumerate(lines) if make.ASKS in line)
    assert lines[first : first + len(today)] == today, AGAIN
    # And it goes on with the commands of the message, to the last.
    commands = make.commands_of(run)
    typed = [line.split("$ ")[1] for line in lines[first:] if "$ " in line]
    assert typed == [*commands, make.CURL]


def test_recording_begins_with_the_command_of_the_readme(make):
    lines = recording()
    first = next(number for number, line in enumerate(lines) if make.ASKS in line)
    shown = " ".join(line.strip() for line in lines[:first])
    assert shown == f"$ {make.start_command()}", AGAIN


def test_recording_ends_with_an_answer_of_the_site():
    lines = recording()
    assert any(f"Running on {SITE}" in line for line in lines)
    answer = lines[next(n for n, line in enumerate(lines) if "$ curl" in line) + 1 :]
    assert json.loads("".join(answer)) == {"item_id": 42, "q": "tea"}


def test_recording_asks_no_host_and_names_no_folder_of_a_machine():
    svg = (DOCS / "start.svg").read_text(encoding="utf-8")
    assert set(re.findall(r"\w+://[\w.:]*\w", svg)) == {"http://www.w3.org", SITE}
    for way in ("href", "url(", "@import", "@font-face", "<image", "<script", "<foreignObject"):
        assert way not in svg
    assert not re.search(r"/(tmp|home|root|opt|var|usr)\b", svg)


def test_recording_has_a_look_for_each_style_in_it():
    """Light and dark."""
    svg = (DOCS / "start.svg").read_text(encoding="utf-8")
    light, dark = svg.split("</style>")[0].split("@media (prefers-color-scheme: dark)")
    used = set(" ".join(re.findall(r'class="(.+?)"', svg)).split())
    assert used == set(re.findall(r"\.(\w+) {", light))
    assert used - {"bold"} == set(re.findall(r"\.(\w+) {", dark))


def test_pictures_are_there_and_say_what_they_show():
    paths = [path for path, _ in pictures()]
    for path, text in pictures():
        assert (ROOT / path).is_file(), path
        assert text is None or len(text) > 10, (
            f"{path} lacks a text for those who cannot see it"
        )
    made = {f"docs/{path.name}" for path in DOCS.iterdir() if path.suffix in (".png", ".svg")}
    assert made <= set(paths)


def test_pictures_are_small():
    for path, _ in pictures():
        limit = 40_000 if path.endswith(".svg") else 120_000
        assert (ROOT / path).stat().st_size < limit, path


def test_screenshots_show_the_page_of_today(make, release, tmp_path):
    """By the checksums of what it is made from, as pixels differ from machine to machine."""
    project = emit(release, tmp_path / "my-app")
    then = json.loads((DOCS / "sources.json").read_text())
    now = make.checksums(project)
    changed = [name for name in now if then.get(name) != now[name]]
    assert changed == [], AGAIN
