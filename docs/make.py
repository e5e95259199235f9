"""Make the pictures of the READMEs, each from a real run of this working tree.

    .venv/bin/python docs/make.py

Each language has a folder of them. start.svg: in a real terminal, the command of README.md
emits a project, with Enter at each question after the first, and the commands that Copier
prints run it. home-*.webp and phone-*.webp: its home page in Chromium, in production mode,
as visitors see it, but with Inter as the system font. sources.json: the checksums of the
page's sources, by which the tests know when the pictures are outdated.

Port 8000 must be free. On Debian:
apt-get install chromium curl fonts-inter fonts-noto-cjk git systemd
"""

import base64
import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pexpect
import pyte
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from support.commands import free_port, isolate, ok
from support.project import LANGUAGES, ROOT, make_release
from support.prompt import DOWN, ENTER
from support.serve import serving, wait_for_port

TOOLS = {
    "chromium": "chromium",
    "curl": "curl",
    "fc-list": "fontconfig",
    "git": "git",
    "systemd-socket-activate": "systemd",
}
COLUMNS, ROWS = 88, 500  # enough rows that nothing scrolls
ASKS = "🎤"  # begins each question of Copier
CURL = "curl 'http://127.0.0.1:8000/items/42?q=tea'"
# The screens, in pixels.
SCREENS = {"home": (840, 640), "phone": (390, 760)}
SCHEMES = {"light": "#d1d9e0", "dark": "#3d444d"}  # with a color for the frame
# Fonts that are close to what most visitors have.
FAMILIES = {"Inter": "fonts-inter", "Noto Sans CJK SC": "fonts-noto-cjk"}
FONTS = """<fontconfig>
<include>/etc/fonts/fonts.conf</include>
<match>
<test name="family"><string>DejaVu Sans</string></test>
<edit name="family" mode="assign" binding="strong"><string>Inter</string></edit>
</match>
</fontconfig>
"""
# The sources of the home page.
PAGE = [
    "app/templates/base.html",
    "app/templates/home.html",
    "app/templates/examples/links.html",
    "app/static/style.css",
    "app/static/favicon.svg",
]


# The recording.


class Span(NamedTuple):
    """Characters of a line with the same style. style: classes in start.svg.jinja."""

    text: str
    style: str


Line = list[Span]
# The meaning of the terminal's colors: the shell's prompt, and answers to Copier.
STYLES = {"cyan": "prompt", "ffaf00": "answer"}
ELLIPSIS = [Span("…", "faint")]


class Terminal:
    """A shell at a terminal, and its screen."""

    def __init__(self, folder: Path) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.Stream(self.screen)
        # Typed text is bold, and the second line of a command is indented.
        prompts = r"PS1='\[\e[36m\]$\[\e[0m\] \[\e[1m\]' PS2='  ' PS0='\e[0m'"
        self.shell = pexpect.spawn(
            "env",
            ["TERM=xterm-256color", "LC_ALL=C.UTF-8", "bash", "--noprofile", "--norc"],
            cwd=str(folder),
            encoding="utf-8",
            dimensions=(ROWS, COLUMNS),
        )
        # Copier requests the position of the cursor.
        self.screen.write_process_input = self.shell.send
        self.shell.sendline(f"{prompts}; clear")
        self.read_until(lambda: self.screen.cursor.y == 0 and self.at_prompt())

    def read_until(self, done, seconds: float = 300) -> None:
        """Feed the output to the screen until `done`."""
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                sys.exit("It stopped here:\n" + "\n".join(self.text()))
            with contextlib.suppress(pexpect.TIMEOUT):
                self.stream.feed(self.shell.read_nonblocking(65536, timeout=0.2))

    def close(self) -> None:
        """Stop the running command and the shell."""
        self.shell.sendintr()
        self.shell.sendline("exit")
        self.shell.expect(pexpect.EOF)

    def text(self) -> list[str]:
        """Return the lines down to that of the cursor."""
        lines = self.screen.display[: self.screen.cursor.y + 1]
        return [line.rstrip() for line in lines]

    def at_prompt(self) -> bool:
        """Return whether the shell is waiting for a command."""
        return self.text()[-1].removeprefix("(.venv) ") == "$"

    def type(self, command: str, until: str = "", language: str = "en") -> list[Line]:
        """Type a command, and Enter at each question of Copier, and return the screen.

        until: what a command that does not end prints when it is ready.
        language: the answer to the first question of Copier.
        """
        first, answered = self.screen.cursor.y, 0

        def done() -> bool:
            nonlocal answered
            below = self.text()[first:]
            if sum(ASKS in line for line in below) > answered:
                answered += 1
                down = LANGUAGES.index(language) if answered == 1 else 0
                self.shell.send(down * DOWN + ENTER)
            if until:
                return any(until in line for line in below[1:])
            return len(below) > 1 and self.at_prompt()

        self.shell.send(command.replace("\n", "\r") + "\r")
        self.read_until(done)
        last = self.screen.cursor.y
        return [self.line(row) for row in range(first, last)]

    def line(self, row: int) -> Line:
        """Return a row of the screen, without trailing blanks."""
        spans: Line = []
        cells = [self.screen.buffer[row][column] for column in range(COLUMNS)]
        while cells and cells[-1].data == " ":
            cells.pop()
        for cell in cells:
            style = f"{'bold' if cell.bold else ''} {STYLES.get(cell.fg, '')}".strip()
            if spans and (spans[-1].style == style or cell.data == " "):
                spans[-1] = Span(spans[-1].text + cell.data, spans[-1].style)
            else:
                spans.append(Span(cell.data, style))
        return spans


def plain(line: Line) -> str:
    """Return the text of a line."""
    return "".join(span.text for span in line)


def find(lines: list[Line], text: str) -> int:
    """Return the number of the first line that contains a text."""
    return next(number for number, line in enumerate(lines) if text in plain(line))


def answer(terminal: Terminal, command: str, language: str) -> list[Line]:
    """Return Copier's questions, the answers, and its message."""
    lines = terminal.type(command, language=language)
    typed = 1 + command.count("\n")
    # Between command and question, pip may warn about settings of this machine.
    asked = find(lines, ASKS)
    # The order of the listed files depends on the file system.
    listed, enter = find(lines, "Copying from template"), find(lines[typed:], "cd ../") + typed
    questions, message = lines[asked : listed - 1], lines[enter - 3 : -1]
    return [*lines[:typed], *questions, ELLIPSIS, *message]


def commands_of(message: list[Line]) -> list[str]:
    """Return the commands of Copier's message; the last one starts the server."""
    block = [plain(line).strip() for line in message]
    first = next(number for number, line in enumerate(block) if line.startswith("cd ../"))
    return block[first : block.index("", first)]


def start_command() -> str:
    """Return the command of README.md that emits a project."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return readme.split("\n## Start a project\n")[1].split("\n```sh\n")[1].split("\n```\n")[0]


def record(template: Path, language: str) -> list[list[Line]]:
    """Return the screens of two terminals: from the first command to the site, and a visit."""
    # In two lines, because one is wider than the picture.
    command = start_command().replace(" && .venv/bin/copier", " &&\n.venv/bin/copier")
    terminal = Terminal(template)
    lines = answer(terminal, command, language)
    *commands, serve = commands_of(lines)
    for command in commands:
        typed, *printed = terminal.type(command)
        lines += [typed, ELLIPSIS] if printed else [typed]
    typed, *printed = terminal.type(serve, until="CTRL+C")
    lines += [typed, ELLIPSIS, printed[find(printed, "Running on")]]
    wait_for_port(8000)
    visitor = Terminal(template.parent)
    visit = visitor.type(CURL)
    for each in (terminal, visitor):
        each.close()
    return [lines, visit]


def draw(panes: list[list[Line]]) -> str:
    """Return the terminals as a picture, light and dark."""
    environment = Environment(
        loader=FileSystemLoader(DOCS),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
    )
    return environment.get_template("start.svg.jinja").render(panes=panes)


# The pages.


def shoot(browser: Browser, address: str, scheme: str, size: tuple[int, int]) -> bytes:
    """Return a screenshot of the page, in a frame with round corners."""
    width, height = size
    page = browser.new_page(
        color_scheme=scheme,
        device_scale_factor=2,
        viewport={"width": width, "height": height},
    )
    page.goto(address, wait_until="networkidle")
    picture = base64.b64encode(page.screenshot()).decode()
    page.set_content(
        f'<body style="margin: 0"><div style="border-radius: 12px; height: {height}px;'
        f" background: url(data:image/png;base64,{picture}) 0 0 / {width}px;"
        f' box-shadow: inset 0 0 0 1px {SCHEMES[scheme]}">'
    )
    framed = page.screenshot(omit_background=True)
    page.close()
    small = io.BytesIO()  # a third of the PNG
    Image.open(io.BytesIO(framed)).save(small, "WEBP", lossless=True, method=6)
    return small.getvalue()


def photograph(project: Path, folder: Path) -> dict[str, bytes]:
    """Return screenshots of the home page on each screen, by file name."""
    port = free_port()
    fonts = folder / "fonts.conf"
    fonts.write_text(FONTS)
    with (
        serving(project, f"127.0.0.1:{port}", folder / "log", WEB_CONCURRENCY="1"),
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox"],
            env=os.environ | {"FONTCONFIG_FILE": str(fonts)},
        ) as browser,
    ):
        return {
            f"{name}-{scheme}.webp": shoot(browser, f"http://127.0.0.1:{port}", scheme, size)
            for name, size in SCREENS.items()
            for scheme in SCHEMES
        }


def checksums(project: Path) -> dict[str, str]:
    """Return the SHA-256 checksums of the sources of the home page."""
    return {name: hashlib.sha256((project / name).read_bytes()).hexdigest() for name in PAGE}


def main() -> None:
    for command, package in TOOLS.items():
        if not shutil.which(command):
            sys.exit(f"Needs {command}: apt-get install {package}")
    for family, package in FAMILIES.items():
        if not ok("fc-list", family):
            sys.exit(f"Needs the font {family}: apt-get install {package}")
    with socket.socket() as sock:
        if sock.connect_ex(("127.0.0.1", 8000)) == 0:
            sys.exit("Port 8000 is in use: stop the program that is listening there")
    for language in LANGUAGES:
        make(language, DOCS / language)


def make(language: str, pictures: Path) -> None:
    """Make the pictures of a language, in their folder."""
    pictures.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings"
        settings.mkdir()
        isolate(settings)
        panes = record(make_release(Path(folder) / "copier-pyweb"), language)
        (pictures / "start.svg").write_text(draw(panes), encoding="utf-8")
        project = Path(folder) / "my-app"
        for name, picture in photograph(project, settings).items():
            (pictures / name).write_bytes(picture)
        sources = json.dumps(checksums(project), indent=2) + "\n"
        (pictures / "sources.json").write_text(sources)


if __name__ == "__main__":
    main()
