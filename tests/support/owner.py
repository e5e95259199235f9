"""A model of what an owner does with an emitted project in a year.

Each edit is where the project suggests it: a line in a list, a function after the last
one, a new file, a replaced picture.
"""

from pathlib import Path

from support.commands import ok
from support.project import Pair, append, edit, lock_command

SHOP = '''"""What we sell."""

PRICES = {"Tea": 3, "Cake": 4}
'''

SHOP_PAGE = """{% extends "base.html" %}
{% block content %}
<h1>Our shop</h1>
<img src="/static/logo.png" alt="Our logo" width="64" height="64">
<dl>
  {% for name, price in prices.items() %}<dt>{{ name }}</dt><dd>{{ price }}</dd>{% endfor %}
</dl>
{% endblock %}
"""

ROUTES = {
    "flask": '''

@pages.get("/shop")
def shop():
    """What we sell."""
    return render_template("shop.html", prices=PRICES)
''',
    "fastapi": '''

@pages.get("/shop")
async def shop(request: Request):
    """What we sell."""
    return templates.TemplateResponse(request, "shop.html", {"prices": PRICES})
''',
}

SHOP_TEST = """from tests.test_app import client  # noqa: F401


def test_shop_sells_tea(client):  # noqa: F811
    page = client.get("/shop")
    assert page.status_code == 200
    assert "Tea" in page.text


def test_logo_is_a_picture(client):  # noqa: F811
    picture = client.get("/static/logo.png")
    picture.close()
    assert picture.headers["Content-Type"] == "image/png"
"""

APP_TEST = """

def test_home_leads_to_the_shop(client):
    assert 'href="/shop"' in client.get("/").text


def test_shop_has_a_name(monkeypatch):
    monkeypatch.setenv("SHOP_NAME", "Corner shop")
    assert read_settings().shop_name == "Corner shop"
"""

LOGO = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\xff\xfe a picture, as far as git can tell\n"
FAVICON = '<svg xmlns="http://www.w3.org/2000/svg"><circle r="9" fill="#c33"/></svg>\n'


def work_for_a_year(project: Path, pair: Pair) -> None:
    """Edit an emitted project as its owner would, without committing it."""
    app, tests = project / "app", project / "tests"

    # Routes, templates, styles, pictures.
    (app / "shop.py").write_text(SHOP)
    (app / "templates/shop.html").write_text(SHOP_PAGE)
    imports = {
        "flask": "from flask import Blueprint, redirect, render_template, request, session, "
        "url_for\n\n",
        "fastapi": "from app.config import PROJECT, SITE_NAME\n",
    }[pair.framework]
    edit(app / "routes.py", imports, imports + "from app.shop import PRICES\n")
    edit(app / "routes.py", '"""A page made from a template."""', '"""Welcome."""')
    append(app / "routes.py", ROUTES[pair.framework])
    edit(app / "templates/home.html", "<h1>It works!</h1>", "<h1>Come in!</h1>")
    edit(
        app / "templates/base.html",
        "</a></header>",
        '</a> <a href="/shop">Shop</a></header>',
    )
    edit(app / "templates/base.html", "</main>\n", "</main>\n  <footer>Open at 9</footer>\n")
    edit(app / "static/style.css", "  --accent: #1f6f5c;", "  --accent: #aa3366;")
    append(app / "static/style.css", "\nfooter { margin-top: 3rem; }\n")
    (app / "static/favicon.svg").write_text(FAVICON)
    (app / "static/logo.png").write_bytes(LOGO)

    # Settings.
    edit(
        app / "config.py",
        "    production: bool = False\n",
        '    production: bool = False\n    shop_name: str = "Shop"\n',
    )
    edit(
        app / "config.py",
        "        return Settings(secret_key=secret_key or secrets.token_hex())\n",
        '        name = os.environ.get("SHOP_NAME", "Shop")\n'
        "        return Settings(\n"
        "            secret_key=secret_key or secrets.token_hex(), shop_name=name\n"
        "        )\n",
    )
    append(project / ".env.example", "\n# What the shop is called.\nSHOP_NAME=\n")
    (project / ".env").write_text("SHOP_NAME=Corner shop\nSECRET_KEY=\n")

    # Packages and tests.
    append(project / "requirements.txt", "packaging~=26.0  # compares versions\n")
    append(project / "requirements-dev.txt", "ruff~=0.17.0  # formats the code\n")
    (tests / "test_shop.py").write_text(SHOP_TEST)
    append(tests / "test_app.py", APP_TEST)
    append(project / "pytest.ini", "markers =\n    shop: asks the shop\n")
    append(project / ".gitignore", "\n# Pictures that visitors send.\n/uploads/\n")

    # The README, with another port, and what is not wanted.
    readme = project / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text.replace(":8000", ":5000").replace("--port 8000", "--port 5000"))
    edit(readme, "\n## What is where\n", "\nAsk at the counter first.\n\n## What is where\n")
    append(readme, "\n## Opening hours\n\nFrom 9 to 5.\n")
    (project / ".github/renovate.json5").unlink()
    ok("bash", "-euc", lock_command(project), cwd=project)
