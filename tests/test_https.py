"""When deploy/release --https gets a certificate, for which names, and when a site is online."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from support.project import FEW_STACKS
from support.serve import make_certificate

pytestmark = pytest.mark.pairs(FEW_STACKS[:1])  # the same code for all
HERE, THERE = "192.0.2.7", "198.51.100.9"


@pytest.fixture
def module(deploy_module, tmp_path: Path, monkeypatch):
    """Returns a module of deploy/, whose files of nginx and certbot are in tmp_path."""

    def load(name: str):
        found = deploy_module(name)
        monkeypatch.setattr(found, "NGINX", tmp_path)
        return found

    return load


@pytest.fixture
def https(module, tmp_path, monkeypatch):
    https = module("https")
    monkeypatch.setattr(https, "CERTIFICATE", tmp_path / "fullchain.pem")
    monkeypatch.setattr(https, "RENEWAL", tmp_path / "renewal.conf")
    return https


def resolve(https, monkeypatch, redirected: bool = True, **names: str) -> None:
    """Let the names resolve to these addresses, and nginx redirect the other name or not."""
    known = {name.replace("_", "."): {address} for name, address in names.items()}
    monkeypatch.setattr(https, "addresses", lambda name: known.get(name, set()))
    monkeypatch.setattr(https, "run", lambda *_: f"{HERE} 2001:db8::7 \n")
    monkeypatch.setattr(https, "is_redirected", lambda: redirected)


@pytest.mark.parametrize(
    ("names", "redirected", "found"),
    [
        ({"example_com": HERE, "www_example_com": HERE}, True, 2),
        # The server does not know its public address, but both names have the same.
        ({"example_com": THERE, "www_example_com": THERE}, True, 2),
        # /etc/hosts of the server has the domain.
        ({"example_com": "127.0.1.1", "www_example_com": HERE}, True, 2),
        ({"example_com": HERE, "www_example_com": THERE}, True, 1),
        ({"example_com": HERE}, True, 1),
        # Another site of nginx has that name.
        ({"example_com": HERE, "www_example_com": HERE}, False, 1),
    ],
)
def test_certificate_is_for_the_names_that_lead_here(
    https, monkeypatch, names, redirected, found
):
    resolve(https, monkeypatch, redirected, **names)
    assert https.names_here() == ["example.com", "www.example.com"][:found]


def test_domain_that_does_not_resolve_is_reported(https, monkeypatch):
    resolve(https, monkeypatch, www_example_com=HERE)
    with pytest.raises(https.Failure, match=r"example[.]com does not resolve[.] At your DNS"):
        https.names_here()


@pytest.mark.parametrize(
    ("certified", "names", "by_certbot", "needed"),
    [
        ([], ["example.com"], False, True),
        (["example.com"], ["example.com"], True, False),
        (["example.com"], ["example.com", "www.example.com"], True, True),
        (["other.example"], ["example.com"], True, True),
        (["example.com", "www.example.com"], ["example.com", "www.example.com"], True, False),
        # The DNS does not have the other name any more: its renewal would fail.
        (["example.com", "www.example.com"], ["example.com"], True, True),
        # From elsewhere, so nothing renews it here; or for all names below the domain.
        (["example.com", "www.example.com"], ["example.com"], False, False),
        (["example.com", "*.example.com"], ["example.com"], True, False),
    ],
)
def test_certificate_is_got_if_it_is_needed(https, certified, names, by_certbot, needed):
    if certified:
        make_certificate(https.CERTIFICATE.parent, *certified)
    if by_certbot:
        https.RENEWAL.touch()
    assert https.needs_certificate(names) == needed


def test_site_with_a_certificate_for_another_domain_is_reported(https, capsys):
    make_certificate(https.CERTIFICATE.parent, "old.example")
    https.check_certificate()
    assert capsys.readouterr().out == ""  # not over HTTPS yet
    link(https.NGINX, "https.conf")
    https.SITE, https.HTTPS = (
        https.NGINX / "conf.d/my-app.conf",
        https.NGINX / "my-app/https.conf",
    )
    https.check_certificate()
    assert "not valid for example.com. Add --https to the command" in capsys.readouterr().out


def test_release_is_not_a_failure_for_lack_of_openssl(https, monkeypatch, capsys):
    link(https.NGINX, "https.conf")
    https.SITE, https.HTTPS = (
        https.NGINX / "conf.d/my-app.conf",
        https.NGINX / "my-app/https.conf",
    )
    monkeypatch.setenv("PATH", "/nowhere")
    https.check_certificate()
    assert capsys.readouterr().out == ""


def link(nginx: Path, target: str) -> None:
    """Let nginx have the site over HTTP or HTTPS."""
    for folder in ("conf.d", "my-app"):
        (nginx / folder).mkdir()
    (nginx / "my-app" / target).touch()
    (nginx / "conf.d/my-app.conf").symlink_to(nginx / "my-app" / target)


@pytest.mark.parametrize(
    ("site", "answer", "online"),
    [
        ("http.conf", "200, http://example.com/healthz", True),
        ("http.conf", "502, http://example.com/healthz", False),
        ("http.conf", "000, http://example.com/healthz", False),
        ("https.conf", "200, https://example.com/healthz", True),
        # The owner's settings of nginx require a login, or an address.
        ("https.conf", "401, https://example.com/healthz", True),
        ("https.conf", "403, https://example.com/healthz", True),
        # Another program has port 443, so nginx still serves the site as before.
        ("https.conf", "200, http://example.com/healthz", False),
        ("https.conf", "000, https://example.com/healthz", False),
    ],
)
def test_release_is_online_when_nginx_gives_the_site(module, monkeypatch, site, answer, online):
    server = module("server")
    link(server.NGINX, site)
    monkeypatch.setattr(server, "run", lambda *_: "")
    monkeypatch.setattr(server, "capture", lambda *_: SimpleNamespace(stdout=answer))
    monkeypatch.setattr(server.time, "sleep", lambda _: None)
    if online:
        server.reload_nginx()
    else:
        with pytest.raises(server.Failure, match="sudo ss -ltnp") as failure:
            server.reload_nginx()
        assert answer in str(failure.value)
