"""Plain words: phrases of a register of its own do not come back."""

import re

import pytest
from support.project import LANGUAGES, ROOT, read_texts

# Each with what the field says instead.
REFUSED = {
    r"mend(s|ed|ing)?\b": "fix",
    r"for want of\b": "because ... is missing",
    r"(to be|get) rid of\b": "remove",
    r"(hang|hangs|hung|hanging) up\b": "close the connection",
    r"lest\b": "so that ... not",
    r"anew\b": "again",
    r"ask(s|ed)? for\b": "require, request",
    r"whoever\b": "anyone who",
    r"beside\b": "next to",
    r"nobody listens\b": "nothing is listening",
    r"(lets?|letting) in\b": "allow",
    r"(gives?|gave|giving) back\b": "return",
    r"(stands?|stood|standing) (in|at|on|behind|above|below|there)\b": "is in",
    r"lacking\b": "missing",
    r"by itself\b": "automatically",
    r"(?<!let\s)(?<!leave\s)(?<!leaves\s)(?<!stand-)alone\b": "only",
}
SOURCES = ["template", "texts", "tests", "bench", "docs", "*.md", "copier.yml", "servers.yml",
           "databases.yml", "pyproject.toml", ".ci"]  # fmt: skip
TEXT = {".py", ".md", ".yml", ".toml", ".jinja", ".html", ".css", ".js", ".lua", ".conf", ""}


def texts() -> dict[str, str]:
    """Return the text of each file that people read, by its path."""
    found = {}
    for pattern in SOURCES:
        for top in ROOT.glob(pattern):
            for path in [top] if top.is_file() else top.rglob("*"):
                name = path.relative_to(ROOT).as_posix()
                if path.is_file() and path.suffix in TEXT and "__pycache__" not in name:
                    found[name] = path.read_text(encoding="utf-8")
    del found["tests/test_words.py"]
    return found


def findings(pattern: str, text: str) -> list[str]:
    """Return the lines of a text that a pattern matches, also across the end of a line."""
    matches = re.finditer(rf"(?i)\b(?:{pattern})".replace(" ", r"\s+(?:#\s+)?"), text)
    return [
        text[text.rfind("\n", 0, m.start()) + 1 : text.find("\n", m.end())] for m in matches
    ]


@pytest.mark.parametrize("pattern", REFUSED)
def test_words_are_plain(pattern):
    found = {
        name: lines for name, text in texts().items() if (lines := findings(pattern, text))
    }
    assert found == {}, f"write: {REFUSED[pattern]}"


def test_refused_words_are_found():
    text = "To be rid of it,\nmend what hangs\n# up. It alone asks for\nmore; let alone that."
    found = [pattern for pattern in REFUSED if findings(pattern, text)]
    assert len(found) == 5


def test_sentences_of_every_language_are_texts():
    """Keyed by the emitted file, so that none changes an answer."""
    for language in LANGUAGES:
        assert isinstance(read_texts(language)["sentences"], dict)
