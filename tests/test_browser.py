"""The pages in a real browser, as visitors see them: over https, through nginx."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright
from support.browser import SITE, Visit, chromium, lighthouse_scores, open_browser
from support.commands import free_port
from support.project import OTHER_LANGUAGES, Pair, add_routes, emit, probes
from support.serve import Site, deployed, get_when_up, keep_static_files, nginx, started

# Pages do not depend on the server: see test_tree.py.
pytestmark = [pytest.mark.slow, pytest.mark.first_pairs]

# Pages, and their status.
PAGES = {"/": 200, "/hello/": 200, "/hello/Ada": 200, "/nowhere": 404, "/crash": 500}
SCHEMES = ["light", "dark"]
PAPER = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """One for all browsers of the module: a process cannot have two at a time.

    Playwright's own Node.js does not start on every machine, so Chromium comes first.
    """
    chromium()
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def https_site(edited: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The edited project behind nginx, over https."""
    with deployed(edited, tmp_path_factory.mktemp("browser"), "https.conf") as site:
        yield site


@pytest.fixture(scope="module")
def browser(playwright: Playwright, https_site: Site) -> Iterator[Browser]:
    """A browser that can see the site."""
    with open_browser(playwright, https_site.port) as browser:
        yield browser


@pytest.fixture(params=SCHEMES)
def visit(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Visit]:
    """A visit to the site, in each color scheme."""
    visit = Visit(browser, request.param)
    yield visit
    visit.close()


@pytest.fixture
def light(browser: Browser) -> Iterator[Visit]:
    """A visit for what does not depend on colors."""
    visit = Visit(browser)
    yield visit
    visit.close()


@pytest.mark.parametrize(("path", "status"), PAGES.items())
def test_page_has_no_faults(visit, path, status):
    """No error in the console, no other host, nothing that axe finds, no script."""
    visit.open(SITE + path, status)
    assert visit.faults() == []
    assert visit.page.locator("h1").count() == 1
    assert visit.page.locator("script").count() == 0


def test_color_schemes_differ(browser):
    papers = set()
    for scheme in SCHEMES:
        visit = Visit(browser, scheme)
        visit.open(SITE)
        papers.add(visit.page.evaluate(PAPER))
        visit.close()
    assert len(papers) == 2


def check_width(visit: Visit, width: int) -> None:
    """Check that a page fits that many pixels."""
    visit.page.set_viewport_size({"width": width, "height": 800})
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [320, 1280])
def test_pages_fit_the_screen(light, width):
    """Down to 320 pixels: WCAG 2.2, success criterion 1.4.10."""
    for path, status in PAGES.items():
        light.open(SITE + path, status)
        check_width(light, width)


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_page_has_no_faults_in_another_language(
    playwright, pair, release, installed, language, tmp_path
):
    project = emit(release, tmp_path / "my-app", **pair._asdict(), language=language)
    (project / ".venv").symlink_to(installed.path / ".venv")
    add_routes(project, probes(pair))
    with (
        deployed(project, tmp_path, "https.conf") as site,
        open_browser(playwright, site.port) as browser,
    ):
        for scheme in SCHEMES:
            visit = Visit(browser, scheme)
            for path, status in PAGES.items():
                visit.open(SITE + path, status)
                assert visit.page.locator("html").get_attribute("lang") != "en"
                assert visit.faults() == []
                check_width(visit, 320)
            visit.close()


def test_keyboard_is_enough(light):
    """From the home page through the form to the greeting and back, and from an error page."""
    page = light.page
    light.open(SITE)
    light.tab_to("A form")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{SITE}/hello/")
    light.tab_to("Your name")
    page.keyboard.type("Ada & <b>")
    light.tab_to("Say hello")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{SITE}/hello/Ada*")
    assert page.locator("h1").text_content() == "Hello, Ada & <b>!"
    light.tab_to("Change the name")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{SITE}/hello/")
    assert page.locator("input").input_value() == "Ada & <b>"  # in the session
    light.open(f"{SITE}/nowhere", 404)
    light.tab_to("My App")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{SITE}/")
    assert light.errors == []


def test_form_says_what_is_wrong(visit):
    visit.open(f"{SITE}/hello/")
    visit.failing = f"{SITE}/hello/"
    visit.page.fill("input", "AC/DC")
    visit.page.click("button")
    alert = visit.page.get_by_role("alert")
    assert alert.text_content() == "Please enter 1 to 40 printable characters, without a slash."
    assert visit.page.locator("input").input_value() == "AC/DC"
    assert visit.faults() == []
    check_width(visit, 320)


# A page of another host that sends the form as soon as it is open.
FOREIGN_PAGE = {
    "content_type": "text/html",
    "body": f"""<form method="post" action="{SITE}/hello/"><input name="name" value="Mallory">
        </form><script>document.forms[0].submit()</script>""",
}


def test_form_of_a_foreign_page_logs_nobody_in(light):
    page = light.page
    page.route("https://evil.example/", lambda route: route.fulfill(**FOREIGN_PAGE))
    with page.expect_response(f"{SITE}/hello/") as sent:
        page.goto("https://evil.example/")
    assert sent.value.status == 403
    assert "set-cookie" not in sent.value.all_headers()
    assert page.context.cookies() == []
    light.open(f"{SITE}/hello/")
    assert page.locator("input").input_value() == ""


def test_session_cannot_be_planted_for_the_domain(light):
    """Chromium refuses what a subdomain, or a script, sets in the cookie's name."""
    page = light.page
    light.open(f"{SITE}/hello/")
    page.fill("input", "Ada")
    page.click("button")
    page.wait_for_url(f"{SITE}/hello/Ada")
    [cookie] = page.context.cookies()
    assert cookie["name"] == "__Host-session"
    value = cookie["value"]
    page.context.clear_cookies()
    planted = [f"{name}={value}; path=/; secure; domain=example.com" for name in
               ("session", "__Host-session")]  # fmt: skip
    page.evaluate("cookies => cookies.forEach(each => document.cookie = each)", planted)
    assert [each["name"] for each in page.context.cookies()] == ["session"]
    light.open(f"{SITE}/hello/")
    assert page.locator("input").input_value() == ""


def test_page_for_a_wrong_method_has_no_faults(visit):
    """A form, sent to a page that accepts none."""
    visit.open(f"{SITE}/hello/")
    visit.failing = f"{SITE}/"
    visit.page.evaluate("document.forms[0].action = '/'")
    visit.page.fill("input", "Ada")
    visit.page.click("button")
    assert visit.page.locator("h1").text_content() == "That did not work"
    assert visit.faults() == []


def test_api_docs_work_with_the_keyboard_only(pair, visit):
    """Expand a route, execute its example and see the response; no other host is used."""
    if pair.framework == "flask":
        pytest.skip("has no API docs")
    visit.open(f"{SITE}/docs")
    visit.page.get_by_text("One item").wait_for()
    assert visit.faults() == []
    visit.tab_to("GET/items/{item_id}One item")
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_placeholder("item_id")).to_have_value("42")
    visit.tab_to("Execute")
    visit.page.keyboard.press("Enter")
    visit.page.locator(".request-url").get_by_text("/items/42?q=tea").wait_for()
    visit.page.locator(".live-responses-table").get_by_text('"item_id": 42').wait_for()
    assert visit.faults() == []


def test_api_docs_have_no_faults_with_everything_expanded(pair, visit):
    """A route of each method, executed where it needs no more input, and each schema."""
    if pair.framework == "flask":
        pytest.skip("has no API docs")
    page = visit.page
    visit.open(f"{SITE}/docs")
    for method, path, runs in (
        ("get", "/items/{item_id}", True),
        ("post", "/count", True),
        ("put", "/things/{number}", False),
        ("patch", "/things/{number}", False),
        ("delete", "/things/{number}", False),
        ("post", "/forms", False),
    ):
        route = page.locator(f"[id$={method}]").filter(has_text=path)
        route.locator(".opblock-summary-control").click()
        route.get_by_text("Execute").wait_for()
        if runs:
            route.get_by_text("Execute").click()
            route.locator(".live-responses-table").wait_for()
    while page.get_by_text("Expand all").count():
        page.get_by_text("Expand all").first.click()
    assert page.get_by_text("Collapse all").count() >= 3
    assert visit.faults() == []
    check_width(visit, 320)
    assert visit.faults() == []


# What the page has loaded from the server: nothing is transferred from the cache.
LOADED = """performance.getEntriesByType("resource").filter(each => each.transferSize)
    .map(each => each.name)"""


def test_second_visit_requests_only_the_page(playwright, own, tmp_path_factory):
    """Over HTTP: Chromium does not cache what comes with a certificate that it does not trust."""
    folder = tmp_path_factory.mktemp("visits")
    keep_static_files(own, folder, own, "prepare_assets")
    loaded = []
    with (
        deployed(own, folder) as site,
        open_browser(playwright, site.port) as browser,
        browser.new_context() as context,
    ):
        for _ in range(2):
            page = context.new_page()
            page.goto("http://example.com/", wait_until="networkidle")
            assert page.locator("h1").count() == 1
            loaded.append(page.evaluate(LOADED))
    urls = [
        f"http://example.com/static/{name}?v={sha256(content).hexdigest()[:8]}"
        for name in ("style.css", "favicon.svg")
        for content in [(own / "app/static" / name).read_bytes()]
    ]
    assert [sorted({*each}) for each in loaded] == [sorted(urls), []]


def test_production_shows_no_facts_about_the_app(light):
    light.open(SITE)
    assert "Visitors do not see this box" not in light.page.content()


def test_page_while_the_app_is_down(playwright, project, tmp_path):
    """nginx without a running app."""
    with (
        nginx(project, tmp_path, "https.conf") as site,
        open_browser(playwright, site.port) as browser,
    ):
        for scheme in SCHEMES:
            visit = Visit(browser, scheme)
            visit.open(f"{SITE}/", 502)
            assert visit.page.locator("h1").text_content() == "Back in a moment"
            assert visit.faults() == []
            check_width(visit, 320)
            visit.tab_to("My App")
            visit.close()


@pytest.fixture(scope="module")
def development_server(pair: Pair, edited: Path) -> Iterator[str]:
    """The URL of the project's development server."""
    port = free_port()
    develop = {
        "flask": f".venv/bin/flask --app app.main run --debug --port {port}",
        "fastapi": f".venv/bin/fastapi dev app/main.py --port {port}",
    }[pair.framework]
    address = f"http://127.0.0.1:{port}"
    with started(develop, edited) as server:
        get_when_up(address, server)
        yield address


def test_home_page_in_development(pair, development_server, visit):
    """It shows what is running, and how the app sees the visitor."""
    visit.open(development_server)
    facts = visit.page.locator("dl").inner_text().split("\n")
    shown = dict(zip(facts[::2], facts[1::2], strict=True))
    title = {"flask": "Flask", "fastapi": "FastAPI"}[pair.framework]
    assert shown["Runs on"].startswith(f"{title} ")
    assert shown["Server"].split()[0] in ("Werkzeug", "Uvicorn")
    assert shown["Your request"] == "from 127.0.0.1 over http"
    assert shown["Settings"] == "environment variables, no .env yet"
    assert visit.faults() == []
    check_width(visit, 320)


@pytest.mark.parametrize("path", ["/", "/hello/", "/docs"])
def test_lighthouse_scores_at_least_95(pair, https_site, path, tmp_path):
    if path == "/docs" and pair.framework == "flask":
        pytest.skip("has no API docs")
    scores = lighthouse_scores(SITE + path, https_site.port, tmp_path)
    print(scores)
    assert len(scores) == 5
    if path == "/docs":
        del scores["performance"], scores["cache"]  # half a megabyte of Swagger UI
    assert min(scores.values()) >= 95
