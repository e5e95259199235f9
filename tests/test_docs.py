"""The pictures in the READMEs are current, each in its language."""

import json
import re
from xml.etree import ElementTree

import pytest
from support.project import LANGUAGES, ROOT, emit

DOCS = ROOT / "docs"
AGAIN = "Run docs/make.py again"
TEXTS = [path.read_text(encoding="utf-8") for path in ROOT.glob("README*.md")]
SITE = "http://127.0.0.1:8000"


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def readme(language: str) -> str:
    """The README of the template that shows the pictures of the language."""
    [text] = [text for text in TEXTS if f"docs/{language}/" in text]
    return text


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch):
    """The module docs/make.py."""
    monkeypatch.syspath_prepend(str(DOCS))
    import make

    return make


@pytest.fixture
def recording(language: str) -> list[str]:
    """The lines of the recording, without the blank ones."""
    root = ElementTree.parse(DOCS / language / "start.svg").getroot()
    return ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture
def svg(language: str) -> str:
    """The source of the recording."""
    return (DOCS / language / "start.svg").read_text(encoding="utf-8")


def pictures(readme: str) -> list[tuple[str, str | None]]:
    """Each picture of a README, with its alternative text."""
    found = [(path, text) for text, path in re.findall(r"!\[(.*?)\]\((.+?)\)", readme)]
    for tag in re.findall(r"<(?:img|source) .+?>", readme):
        attributes = dict(re.findall(r'(\w+)="(.*?)"', tag))
        is_source = tag.startswith("<source")
        path = attributes["srcset" if is_source else "src"]
        # A <source> is a variant of the <img> next to it, which has the text.
        found.append((path, None if is_source else attributes.get("alt", "")))
    return found


@pytest.mark.slow
def test_recording_shows_what_copier_asks_and_says(make, recording, language, tmp_path):
    """Every line, as at a real terminal with the default answers."""
    terminal = make.Terminal(make.make_release(tmp_path / "copier-pyweb"))
    run = make.answer(terminal, 'copier copy "$PWD" ../my-app', language)
    terminal.close()
    today = [make.plain(line) for line in run[1:] if line]
    assert sum(make.ASKS in text for text in today) >= 4
    first = next(number for number, line in enumerate(recording) if make.ASKS in line)
    assert recording[first : first + len(today)] == today, AGAIN
    # Then come all commands of the message.
    commands = make.commands_of(run)
    typed = [line.split("$ ")[1] for line in recording[first:] if "$ " in line]
    assert typed == [*commands, make.CURL]


def test_transcript_has_the_lines_of_the_recording(make, recording, readme):
    """From the first question to the end of the message, for screen readers."""
    [transcript] = re.findall(r"<details>.*?```text\n(.*?)```.*?</details>", readme, re.DOTALL)
    first = next(number for number, line in enumerate(recording) if make.ASKS in line)
    shown = [line for line in recording[first:] if line != "…"]
    assert [line for line in transcript.splitlines() if line] == shown[
        : next(number for number, line in enumerate(shown) if "$ " in line)
    ]


def test_recording_is_of_a_whole_run(make, recording):
    """It begins with the command of the README and ends with a response of the site."""
    first = next(number for number, line in enumerate(recording) if make.ASKS in line)
    shown = " ".join(line.strip() for line in recording[:first])
    assert shown == f"$ {make.start_command()}", AGAIN
    assert any(f"Running on {SITE}" in line for line in recording)
    curl = next(number for number, line in enumerate(recording) if "$ curl" in line)
    assert json.loads("".join(recording[curl + 1 :])) == {"item_id": 42, "q": "tea"}


def test_recording_names_no_other_host_and_no_path(svg):
    assert set(re.findall(r"\w+://[\w.:]*\w", svg)) == {"http://www.w3.org", SITE}
    for way in ("href", "url(", "@import", "@font-face", "<image", "<script", "<foreignObject"):
        assert way not in svg
    assert not re.search(r"/(tmp|home|root|opt|var|usr)\b", svg)


def test_pictures_exist_and_have_alternative_texts(readme, language):
    for path, text in pictures(readme):
        assert (ROOT / path).is_file(), path
        assert text is None or len(text) > 9, f"{path} has no alternative text"
    files = (DOCS / language).iterdir()
    made = {
        f"docs/{language}/{path.name}" for path in files if path.suffix in (".svg", ".webp")
    }
    assert len(made) == 5
    assert made <= {path for path, _ in pictures(readme)}


def test_pictures_are_small(readme):
    for path, _ in pictures(readme):
        assert (ROOT / path).stat().st_size < 45_000, path


def test_screenshots_show_the_current_page(make, release, language, tmp_path):
    """By the checksums of its sources, because pixels differ from machine to machine."""
    project = emit(release, tmp_path / "my-app", language=language)
    then = json.loads((DOCS / language / "sources.json").read_text())
    now = make.checksums(project)
    changed = [name for name in now if then.get(name) != now[name]]
    assert changed == [], AGAIN
