"""Copier's questions at a real terminal."""

import os
from pathlib import Path

import pexpect

from support.project import QUESTIONS, read_texts

ENTER, DOWN = "\r", "\x1b[B"  # what the keys send


def at_terminal(command: str, *arguments: str, folder: Path | None = None) -> pexpect.spawn:
    """Start a command at a terminal that is wide enough for each line."""
    # Otherwise prompt_toolkit waits for what a real terminal says about its cursor.
    environment = os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1"}
    return pexpect.spawn(
        command,
        list(arguments),
        cwd=folder and str(folder),
        encoding="utf-8",
        env=environment,
        timeout=120,
        dimensions=(50, 400),
    )


def prompt(release: Path, path: Path, *options: str) -> pexpect.spawn:
    """Start `copier copy` at a terminal."""
    return at_terminal("copier", "copy", *options, str(release), str(path))


def question(name: str, language: str = "en") -> str:
    """Return the prompt of a question."""
    return read_texts(language)["questions"].get(name, QUESTIONS[name]["help"])
