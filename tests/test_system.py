"""The emitted README's way online, on a real Debian: real systemd, nginx and certbot.

All pairs live side by side on one machine. It is booted once for each Debian release.
"""

import contextlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PAIRS, Pair, ok, run, shell_blocks
from online import CHINESE, Online, domain, edited, ship
from test_serve import FORGED

pytestmark = pytest.mark.slow

OWN_UNIT = "[Service]\nTasksMax=321\n"


def test_every_site_answers_for_itself(online):
    """Five sites on one nginx: no clash of names, ports or sockets."""
    for pair in PAIRS:
        assert f"<title>{pair}</title>" in online.curl(pair, "/")
        assert json.loads(online.curl(pair, "/healthz")) == {"status": "ok"}
    assert "[warn]" not in online.machine.ok("nginx -t 2>&1")
    failed = online.machine.ok("systemctl list-units --failed --plain --no-legend")
    assert [line for line in failed.splitlines() if "-" in line and "example" in line] == []


def test_chinese_readme_has_led_online(online):
    """To a site that speaks Chinese; its own doctor finds nothing wrong, and says so."""
    page = online.curl(CHINESE, "/")
    assert '<html lang="zh-CN">' in page
    assert f"<title>{CHINESE}</title>" in page
    home = f"/opt/{CHINESE}" if online.by_hand else f"/root/{CHINESE}"
    done = online.machine.run(f"{home}/deploy/doctor")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("\n正常 ") > 15
    assert "有问题" not in done.stdout


@pytest.mark.usefixtures("by_script")
def test_release_speaks_chinese_under_any_locale(online):
    """Also where its own language cannot be printed."""
    home = f"/root/{CHINESE}"
    done = online.machine.run(f"{home}/deploy/release")
    assert done.returncode == 0, done.stdout
    assert "已上线" in done.stdout.splitlines()[-1]
    online.machine.ok(f"LC_ALL=POSIX PYTHONIOENCODING=ascii {home}/deploy/release")
    assert online.status(CHINESE, "/healthz") == "200"


def test_http_leads_to_https_and_acme_stays_open(online, site):
    location = online.machine.ok(
        f"curl -s -o /dev/null -w '%{{http_code}} %{{redirect_url}}' http://{domain(site)}/hello/?x=1"
    )
    assert location == f"308 https://{domain(site)}/hello/?x=1"
    online.machine.ok("mkdir -p /var/www/acme/.well-known/acme-challenge")
    online.machine.ok("echo token > /var/www/acme/.well-known/acme-challenge/test")
    answer = online.machine.ok(f"curl -s http://{domain(site)}/.well-known/acme-challenge/test")
    assert answer == "token\n"


def test_app_sees_the_true_client_over_https(online, site):
    forged = [word for name, value in FORGED.items() for word in ("-H", f"{name}: {value}")]
    for options in ([], forged):
        seen = json.loads(online.curl(site, "/whoami", "--interface", "10.9.8.7", *options))
        assert seen == {
            "address": "10.9.8.7",
            "scheme": "https",
            "url": f"https://{domain(site)}/",
        }


def test_tls_is_what_mozilla_advises(online, site):
    """sslyze compares with Mozilla's intermediate configuration."""
    # fmt: off
    command = online.machine.near(
        Path(sys.executable).parent / "sslyze", "--mozilla_config=intermediate",
        f"--certinfo_ca_file={online.root_certificate}", f"{domain(site)}:443",
    )
    # fmt: on
    report = run(*command).stdout
    assert re.search(r"443: OK - Compliant", report), report


def test_http2_is_a_line_away_where_nginx_has_it(online, site):
    """The README says which file turns it on; an older nginx does not know the line."""
    machine = online.machine
    version = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", machine.ok("nginx -v 2>&1"))
    with edited(online, f"/etc/nginx/{site}.d/http2.conf", "http2 on;\n"):
        if tuple(map(int, version.groups())) < (1, 25, 1):
            assert 'unknown directive "http2"' in machine.run("nginx -t").stdout
            return
        assert "[warn]" not in machine.ok("nginx -t 2>&1 && systemctl reload nginx")
        machine.wait_until(
            f"curl -s -o /dev/null -w '%{{http_version}}' https://{domain(site)}/ | grep 2", 20
        )
    machine.ok("systemctl reload nginx")


def test_strange_host_gets_no_page(online, site):
    for host in ("evil.example", "127.0.0.1", f"{domain(site)}.evil.example"):
        done = online.machine.run(f"curl -sS -H 'Host: {host}' http://{domain(site)}/")
        assert done.returncode == 52, done.stdout  # empty reply
        code = online.curl(
            site, "/", "-H", f"Host: {host}", "-o", "/dev/null", "-w", "%{http_code}"
        )
        assert code == "421"


def test_service_runs_as_a_user_of_its_own(online, site):
    state = json.loads(online.curl(site, "/state"))
    assert state["user"] >= 61184  # DynamicUser=, systemd.exec(5)
    assert state["planted"] in ("OSError", "PermissionError")
    assert state["network"] is True
    assert online.machine.ok(f"cat /var/lib/{site}/visits").startswith("x")
    others = online.machine.run(f"setpriv --reuid=nobody cat /etc/{site}.env")
    assert others.returncode != 0


def test_unit_is_exposed_at_most_1_5(online, site):
    machine = online.machine
    machine.ok(f"systemd-analyze security --threshold=15 --no-pager {site}")
    for unit in (f"{site}.service", f"{site}.socket"):
        assert machine.ok(f"systemd-analyze verify /etc/systemd/system/{unit} 2>&1") == ""


def test_crash_is_in_the_journal(online, site):
    assert online.status(site, "/crash") == "500"
    time.sleep(0.5)
    assert "a detail for the log alone" in online.machine.ok(f"journalctl -u {site}")


def test_no_request_is_lost_over_ten_restarts(online, site):
    with online.load(site) as load:
        for _ in range(10):
            online.machine.ok(f"systemctl restart {site}")
            time.sleep(0.2)
    print(f"{site}: {load.sent} sent, {len(load.failed)} lost over 10 restarts")
    assert load.sent > 300
    assert load.failed == []


def test_no_request_is_lost_over_ten_reloads(online, site):
    if not site.facts["reload"]:
        assert "ExecReload" not in online.machine.ok(f"systemctl cat {site}")
        pytest.skip("this server has no reload: a restart does it, tested above")
    with online.load(site) as load:
        for _ in range(10):
            online.machine.ok(f"systemctl reload {site}")
            time.sleep(0.5)
    print(f"{site}: {load.sent} sent, {len(load.failed)} lost over 10 reloads")
    assert load.sent > 300
    assert load.failed == []


def kill_a_worker(online: Online, pair: Pair) -> None:
    """End a process that serves, without a warning: a worker, or the only process."""
    online.machine.wait_until(f"systemctl is-active {pair}", 60)
    # The newest: an older one may be about to go, after the reload of another test. One that
    # goes before it is killed makes the script fail, and it is run again.
    online.machine.wait_until(
        f"""
        victim=$(systemctl show -P MainPID {pair})
        children=$(cat /proc/$victim/task/$victim/children)
        for child in $children; do
            case $(tr '\\0' ' ' < /proc/$child/cmdline) in
                "" | *resource_tracker*) ;;
                *) victim=$child ;;
            esac
        done
        kill -KILL $victim
        """,
        30,
    )


def test_killed_workers_take_only_their_own_requests(online, site):
    with online.load(site) as load:
        for _ in range(10):
            kill_a_worker(online, site)
            # Where there is but one process, systemd waits a second before it starts the next.
            time.sleep(0.7 if site.facts["workers"] else 1.5)
    print(f"{site}: {load.sent} sent, {len(load.failed)} lost over 10 kills")
    assert load.sent > 300
    # At most what the four connections had in the killed worker's hands.
    assert len(load.failed) <= 40
    for _, _, result, _ in load.failed:
        assert result == 502 or result.startswith("IncompleteRead"), load.failed
    online.machine.wait_until(f"systemctl is-active {site}", 30)
    online.machine.ok(f"systemctl reset-failed {site}.service {site}.socket")


@pytest.mark.parametrize("verb", ["stop", "restart", "reload"])
def test_request_in_flight_is_finished(online, site, verb):
    if verb == "reload" and not site.facts["reload"]:
        pytest.skip("this server has no reload")
    command = online.machine.command(f"curl -sS https://{domain(site)}/slow")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as slow:
        time.sleep(1)
        units = f"{site}.service {site}.socket" if verb == "stop" else str(site)
        online.machine.ok(f"systemctl {verb} {units}")
        answer = slow.communicate(timeout=30)[0]
    if verb == "stop":
        assert online.status(site, "/") == "502"
        assert online.status(site, "/static/style.css") == "200"
        online.machine.ok(f"systemctl start {units}")
    assert json.loads(answer) == {"slow": True}
    assert online.status(site, "/healthz") == "200"


def test_broken_code_is_refused_at_reload_and_reported_at_start(online):
    """And when it is mended, two commands of the README bring the sites back."""
    machine = online.machine
    broken = "\nimport no_such_module\n"
    with contextlib.ExitStack() as stack:
        for pair in PAIRS:
            stack.enter_context(edited(online, f"/opt/{pair}/app/routes.py", broken))
            if pair.facts["reload"]:
                assert machine.run(f"systemctl reload {pair}").returncode != 0
                assert online.status(pair, "/healthz") == "200"
            assert machine.run(f"systemctl restart {pair}").returncode != 0
            assert "No module named 'no_such_module'" in machine.ok(f"journalctl -u {pair}")
        for pair in PAIRS:
            machine.wait_until(f"systemctl is-failed {pair}.socket", 90)
            assert online.status(pair, "/") == "502"
            assert "Back in a moment" in online.curl(pair, "/")
    for pair in PAIRS:
        machine.ok(f"systemctl reset-failed {pair}.service {pair}.socket")
        machine.ok(f"systemctl enable --now {pair}.socket {pair}.service")
        assert online.status(pair, "/healthz") == "200"


def test_network_can_be_closed_as_the_readme_says(online, site):
    [block] = shell_blocks(online.projects[site], "Adjust the server")
    online.machine.ok(block)
    assert json.loads(online.curl(site, "/state"))["network"] is False
    online.machine.ok(
        f"rm -r /etc/systemd/system/{site}.service.d && systemctl daemon-reload"
        f" && systemctl restart {site}"
    )
    assert json.loads(online.curl(site, "/state"))["network"] is True


def serial(online: Online, pair: Pair) -> str:
    """The serial number of the certificate that nginx shows."""
    return online.machine.ok(
        f"openssl s_client -connect {domain(pair)}:443 -servername {domain(pair)}"
        " </dev/null 2>/dev/null | openssl x509 -noout -serial"
    )


def test_renewal_reloads_nginx_by_itself(online, site):
    before = serial(online, site)
    output = online.machine.ok(
        f"certbot renew --cert-name {site} --force-renewal --no-random-sleep-on-renew 2>&1"
    )
    assert "success" in output
    deadline = time.monotonic() + 30
    while serial(online, site) == before:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    online.machine.ok(f"certbot renew --cert-name {site} --dry-run --no-random-sleep-on-renew")
    online.machine.ok("systemctl is-enabled certbot.timer")


def next_release(template: Path) -> None:
    """Tag a release of the template that sends one header more, if there is none yet."""
    if "v1.1.0" in ok("git", "tag", cwd=template):
        return
    site = template / "template/deploy/nginx/{{ slug }}/site.conf.jinja"
    line = "add_header X-Frame-Options DENY always;\n"
    text = site.read_text()
    assert line in text
    site.write_text(text.replace(line, line + "add_header X-Release 1.1.0 always;\n"))
    ok("git", "commit", "--quiet", "--all", "--message=Release", cwd=template)
    ok("git", "tag", "v1.1.0", cwd=template)


def test_change_and_update_are_shipped_as_the_readme_says(online, site, tmp_path):
    """The owner's change and a `copier update` go online, and the site stays on https.

    What the owner has changed in the unit and in nginx, where the README says, stays.
    """
    block = ship(online.projects[site], online.by_hand)
    next_release(online.projects[site].parent / "template")
    clone = tmp_path / "clone"
    ok("git", "clone", "--quiet", online.machine.root / f"srv/git/{site}.git", clone)
    home = clone / "app/templates/home.html"
    home.write_text(home.read_text().replace("It works!", "It ships!"))
    ok("git", "commit", "--quiet", "--all", "--message=Ship", cwd=clone)
    ok("copier", "update", "--defaults", cwd=clone)
    ok("git", "commit", "--quiet", "--all", "--message=Update", cwd=clone)
    ok("git", "push", "--quiet", cwd=clone)
    with (
        edited(
            online, f"/etc/nginx/{site}.d/own.conf", 'location = /own { return 200 "own"; }\n'
        ),
        edited(online, f"/etc/systemd/system/{site}.service.d/own.conf", OWN_UNIT),
        online.load(site, "--fresh") as load,
    ):
        online.machine.ok(block)
        # A reload of nginx is not over when systemctl is.
        own = f"curl -s https://{domain(site)}/own | grep -x own"
        online.machine.wait_until(own, 20)
        assert online.machine.ok(f"systemctl show -P TasksMax {site}") == "321\n"
    assert load.failed == []
    answer = online.curl(site, "/", "-i")
    assert "It ships!" in answer
    assert "x-release: 1.1.0" in answer.lower()
    assert "strict-transport-security: max-age=63072000" in answer.lower()


def test_sites_start_at_boot(online):
    """Last, because it switches the machine off and on."""
    online.machine.stop()
    online.machine.start()
    for pair in PAIRS:
        online.machine.wait_until(f"systemctl is-active {pair}.service", 60)
        assert online.status(pair, "/healthz") == "200"
