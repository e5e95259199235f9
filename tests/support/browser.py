"""Debian's Chromium, driven by Playwright, and checks of a page with axe-core and Lighthouse."""

import fcntl
import json
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright

from support.commands import ok, run, tool
from support.machine import CACHE

SITE = "https://example.com"
# An exact version, because a newer one may weight its scores differently.
LIGHTHOUSE = "13.5.0"
# The name of the focused element, more or less as a screen reader says it.
FOCUSED = """(() => {
    const it = document.activeElement;
    const label = it.ariaLabel || it.labels?.[0]?.textContent || it.placeholder;
    return (label || it.textContent).trim();
})()"""


def chromium() -> str:
    """Return the path of Chromium."""
    return tool("chromium", "chromium")


def options(port: int) -> list[str]:
    """Return Chromium's options to resolve example.com to a port of this machine, and no other host."""
    rules = f"MAP example.com 127.0.0.1:{port}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    # A container has little /dev/shm, and no sandbox for root.
    return ["--no-sandbox", "--disable-dev-shm-usage", f"--host-resolver-rules={rules}"]


def open_browser(playwright: Playwright, port: int) -> Browser:
    return playwright.chromium.launch(executable_path=chromium(), args=options(port))


class Visit:
    """A page in a browser that records errors and the hosts of its requests."""

    def __init__(self, browser: Browser, scheme: str = "light") -> None:
        context = browser.new_context(color_scheme=scheme, ignore_https_errors=True)
        self.page: Page = context.new_page()
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        self.failing = ""
        self.page.on("console", self.note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname))

    def note(self, message: ConsoleMessage) -> None:
        # The console also reports the expected error status of the page itself.
        known = message.location["url"] == self.failing
        if message.type in ("error", "warning") and not known:
            self.errors.append(f"{message.text} ({message.location['url']})")

    def open(self, address: str, status: int = 200) -> None:
        self.failing = address if status >= 400 else ""
        response = self.page.goto(address)
        assert response.status == status

    def tab_to(self, name: str) -> None:
        """Press Tab until the element of that name has the focus, and shows it."""
        seen = []
        while name not in seen:
            assert len(seen) < 30, seen
            self.page.keyboard.press("Tab")
            seen.append(self.page.evaluate(FOCUSED))
        outline = self.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", name

    def faults(self) -> list[str]:
        """Return the errors of the console, requests to other hosts, and what axe-core finds."""
        foreign = self.hosts - {urlsplit(self.page.url).hostname, None}  # None: of data:
        response = Axe().run(self.page).response
        assert response["passes"]
        broken = [
            f"{rule['id']}: {node['failureSummary']} {node['html']}"
            for rule in response["violations"]
            for node in rule["nodes"]
        ]
        return self.errors + sorted(foreign) + broken

    def close(self) -> None:
        self.page.context.close()


def lighthouse() -> Path:
    """Return the path of Lighthouse's script, installed if it is not in the cache."""
    folder = CACHE / f"lighthouse-{LIGHTHOUSE}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lighthouse.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process installs it, the others wait
        # fmt: off
        if not (folder / "complete").exists():
            ok(
                "npm", "install", f"--prefix={folder}", "--ignore-scripts",
                "--no-audit", "--no-fund", f"lighthouse@{LIGHTHOUSE}",
            )
            (folder / "complete").touch()
        # fmt: on
    return folder / "node_modules/lighthouse/cli/index.js"


def lighthouse_scores(address: str, port: int, folder: Path) -> dict[str, float]:
    """Return Lighthouse's scores of a page, 100 at most, on a slow phone.

    One for each category, and one for the cache lifetimes of its files: "cache".
    """
    quoted = [re.sub("=(.+)", r"='\1'", option) for option in options(port)]
    flags = " ".join(["--headless", "--ignore-certificate-errors", *quoted])
    report = folder / "lighthouse.json"
    # fmt: off
    command = [
        "node", lighthouse(), address, "--quiet", "--output=json",
        f"--output-path={report}", "--only-categories=performance,accessibility,best-practices,seo",
        f"--chrome-flags={flags}", "--no-enable-error-reporting",
    ]
    # fmt: on
    environment = os.environ | {"CHROME_PATH": chromium()}
    # Sometimes it sees nothing of the page and says to run it again.
    for _ in range(3):
        done = run(*command, env=environment)
        if "Please run Lighthouse again" not in done.stdout:
            break
    assert done.returncode == 0, done.stdout
    found = json.loads(report.read_text())
    parts = found["categories"] | {"cache": found["audits"]["cache-insight"]}
    return {name: part["score"] * 100 for name, part in parts.items()}
