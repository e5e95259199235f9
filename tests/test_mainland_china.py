"""What the guides say about mainland China: mirrors, the link of the filing, certificates."""

import re
import stat
from pathlib import Path

import pytest
from support.commands import ok, tool
from support.project import OTHER_LANGUAGES, edit, emit, home_page, section, shell_blocks

HEADING = "Mainland China"
SUDO = 'sudo() { "$@"; }\n'  # runs a command as it is


@pytest.fixture
def blocks(project: Path) -> list[str]:
    """The commands: pip and uv, pip on the server, the files of a certificate."""
    found = shell_blocks(project, HEADING)
    assert len(found) == 3
    return found


def in_environment(installed, commands: str, home: Path) -> str:
    """Run commands in the activated environment of a project, with another home directory."""
    script = f"unset XDG_CONFIG_HOME PIP_CONFIG_FILE; . .venv/bin/activate\n{commands}"
    return ok("env", f"HOME={home}", "bash", "-euc", script, cwd=installed.path)


@pytest.mark.first_pairs
def test_pip_and_uv_use_the_mirror_on_a_computer(installed, blocks, tmp_path):
    shown = 'pip config get global.index-url; echo "$UV_DEFAULT_INDEX"'
    output = in_environment(installed, f"{blocks[0]}{shown}", tmp_path)
    [url] = set(re.findall("https://.+", blocks[0]))
    assert output.splitlines()[-2:] == [url, url]


@pytest.mark.first_pairs
def test_pip_uses_the_mirror_on_a_server(installed, blocks, tmp_path):
    """The file is one that pip reads for all users; the machines of the tests have it as well."""
    files = in_environment(installed, "pip config debug", tmp_path)
    assert "  /etc/pip.conf, exists: " in files.partition("\nsite:")[0]
    config = tmp_path / "pip/pip.conf"  # another one of them
    config.parent.mkdir()
    ok("bash", "-euc", SUDO + blocks[1].replace("/etc/pip.conf", str(config)))
    shown = f"export XDG_CONFIG_DIRS={tmp_path}\npip config --global get global.index-url"
    [url] = set(re.findall("https://.+", blocks[0]))
    assert in_environment(installed, shown, tmp_path).strip() == url


@pytest.mark.first_pairs
def test_pages_link_the_filing(own):
    """Where the guide says; the project's own tests still pass."""
    text = section(own, HEADING)
    [footer] = re.findall(r"(?ms)^```html\n(<footer>.+?)\n```$", text)
    assert "between `</main>` and `</body>`" in text
    edit(own / "app/templates/base.html", "</main>\n", f"</main>\n  {footer}\n")
    assert footer in home_page(own)
    ok(own / ".venv/bin/python", "-m", "pytest", "-q", cwd=own)


@pytest.mark.first_pairs
def test_files_of_a_provider_are_where_nginx_reads_them(project, blocks, tmp_path):
    """Both files of a certificate, and the site over HTTPS; the key is for root only."""
    tool("openssl", "openssl")
    for old in ("etc/letsencrypt/live/my-app", "etc/nginx/conf.d"):
        (tmp_path / old).mkdir(parents=True)
    make = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=example.com"
    ok("bash", "-euc", f"{make} -keyout example.com.key -out example.com.pem", cwd=tmp_path)
    # What certbot leaves must not be overwritten through its links.
    archived = tmp_path / "fullchain1.pem"
    archived.write_text("of certbot")
    (tmp_path / "etc/letsencrypt/live/my-app/fullchain.pem").symlink_to(archived)
    *commands, reload = blocks[2].replace("/etc/", f"{tmp_path}/etc/").splitlines()
    assert reload == "sudo nginx -t && sudo systemctl reload nginx"
    ok("bash", "-euc", SUDO + "\n".join(commands), cwd=tmp_path)
    site = (project / "deploy/nginx/my-app/https.conf").read_text()
    certificate, key = re.findall(r"ssl_certificate(?:_key)? (/.+);", site)
    for installed, given in ((certificate, "example.com.pem"), (key, "example.com.key")):
        path = Path(f"{tmp_path}{installed}")
        assert path.read_bytes() == (tmp_path / given).read_bytes()
    assert stat.S_IMODE(Path(f"{tmp_path}{key}").stat().st_mode) == 0o600
    assert archived.read_text() == "of certbot"
    link = tmp_path / "etc/nginx/conf.d/my-app.conf"
    assert str(link.readlink()) == f"{tmp_path}/etc/nginx/my-app/https.conf"


def test_chinese_readme_shows_the_same_mirror_first(release, tmp_path):
    """Before the first packages are installed."""
    assert OTHER_LANGUAGES == ["zh"]
    project = emit(release, tmp_path / "project", language="zh")
    quoted = re.findall(r"(?m)^> - .+：`([^`]+)`", section(project, "Run it locally"))
    assert quoted == shell_blocks(project, HEADING)[0].splitlines()
