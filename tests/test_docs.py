"""The pictures in the READMEs show what a run shows today, each in its language."""

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
        # A <source> is another look of the <img> beside it, which has the text.
        found.append((path, None if is_source else attributes.get("alt", "")))
    return found


@pytest.mark.slow
def test_recording_shows_what_copier_asks_and_says(make, recording, language, tmp_path):
    """Every line, as it comes at a real terminal when the defaults are taken."""
    terminal = make.Terminal(make.make_release(tmp_path / "copier-pyweb"))
    run = make.answer(terminal, 'copier copy "$PWD" ../my-app', language)
    terminal.close()
    today = [make.plain(line) for line in run[1:] if line]
    assert sum(make.ASKS in text for text in today) >= 4
    first = next(number for number, line in enumerate(recording) if make.ASKS in line)
    assert recording[first : first + len(today)] == today, AGAIN
    # And it goes on with the commands of the message, to the last.
    commands = make.commands_of(run)
    typed = [line.split("$ ")[1] for line in recording[first:] if "$ " in line]
    assert typed == [*commands, make.CURL]


def test_transcript_has_the_lines_of_the_recording(make, recording, readme):
    """From the first question to the end of the message, for those who read with their ears."""
    [transcript] = re.findall(r"<details>.*?```text\n(.*?)```.*?</details>", readme, re.DOTALL)
    first = next(number for number, line in enumerate(recording) if make.ASKS in line)
    shown = [line for line in recording[first:] if line != "…"]
    assert [line for line in transcript.splitlines() if line] == shown[
        : next(number for number, line in enumerate(shown) if "$ " in line)
    ]


def test_recording_begins_with_the_command_of_the_readme(make, recording):
    first = next(number for number, line in enumerate(recording) if make.ASKS in line)
    shown = " ".join(line.strip() for line in recording[:first])
    assert shown == f"$ {make.start_command()}", AGAIN


def test_recording_ends_with_an_answer_of_the_site(recording):
    assert any(f"Running on {SITE}" in line for line in recording)
    answer = recording[next(n for n, line in enumerate(recording) if "$ curl" in line) + 1 :]
    assert json.loads("".join(answer)) == {"item_id": 42, "q": "tea"}


def test_recording_asks_no_host_and_names_no_folder_of_a_machine(svg):
    assert set(re.findall(r"\w+://[\w.:]*\w", svg)) == {"http://www.w3.org", SITE}
    for way in ("href", "url(", "@import", "@font-face", "<image", "<script", "<foreignObject"):
        assert way not in svg
    assert not re.search(r"/(tmp|home|root|opt|var|usr)\b", svg)


def test_recording_has_a_look_for_each_style_in_it(svg):
    """Light and dark."""
    light, dark = svg.split("</style>")[0].split("@media (prefers-color-scheme: dark)")
    used = set(" ".join(re.findall(r'class="(.+?)"', svg)).split())
    assert used == set(re.findall(r"\.(\w+) {", light))
    assert used - {"bold"} == set(re.findall(r"\.(\w+) {", dark))


def test_pictures_are_there_and_say_what_they_show(readme, language):
    for path, text in pictures(readme):
        assert (ROOT / path).is_file(), path
        assert text is None or len(text) > 9, f"{path} lacks a text for those who cannot see it"
    files = (DOCS / language).iterdir()
    made = {
        f"docs/{language}/{path.name}" for path in files if path.suffix in (".svg", ".webp")
    }
    assert len(made) == 5
    assert made <= {path for path, _ in pictures(readme)}


def test_pictures_are_small(readme):
    for path, _ in pictures(readme):
        assert (ROOT / path).stat().st_size < 45_000, path


def test_screenshots_show_the_page_of_today(make, release, language, tmp_path):
    """By the checksums of what it is made from, as pixels differ from machine to machine."""
    project = emit(release, tmp_path / "my-app", language=language)
    then = json.loads((DOCS / language / "sources.json").read_text())
    now = make.checksums(project)
    changed = [name for name in now if then.get(name) != now[name]]
    assert changed == [], AGAIN
