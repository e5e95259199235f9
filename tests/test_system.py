"""Sites deployed as the README says on a real Debian: real systemd, nginx and certbot.

The sites of all pairs share one machine, booted once for each Debian release.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import ok, run
from support.online import CHINESE, Online, domain, edited, kill_a_worker, ship
from support.project import FIRST_PAIRS, MACHINES, PAIRS, Pair, shell_blocks, tag
from support.serve import FORGED

pytestmark = pytest.mark.slow

OWN_UNIT = "[Service]\nTasksMax=321\n"


@pytest.fixture(params=FIRST_PAIRS, ids=str)
def one_service(request: pytest.FixtureRequest) -> Pair:
    """One service of each framework, for what does not depend on the server."""
    return request.param


def test_every_site_has_its_own_responses(online):
    """Many sites on one nginx: no clash of names, ports or sockets."""
    for pair in PAIRS:
        assert f"<title>{pair}</title>" in online.curl(pair, "/")
        assert json.loads(online.curl(pair, "/healthz")) == {"status": "ok"}
    assert "[warn]" not in online.machine.ok("nginx -t 2>&1")
    failed = online.machine.ok("systemctl list-units --failed --plain --no-legend")
    assert [line for line in failed.splitlines() if "-" in line and "example" in line] == []


def test_chinese_readme_deployed_a_site(online):
    """In Chinese; its own doctor finds no problem, and says so."""
    page = online.curl(CHINESE, "/")
    assert '<html lang="zh-CN">' in page
    assert f"<title>{CHINESE}</title>" in page
    home = f"/opt/{CHINESE}" if online.by_hand else f"/root/{CHINESE}"
    done = online.machine.run(f"{home}/deploy/doctor")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("正常 ") >= 9
    assert "有问题" not in done.stdout


@pytest.mark.usefixtures("by_script")
def test_release_prints_chinese_under_any_locale(online):
    """Also where the locale cannot print it."""
    home = f"/root/{CHINESE}"
    done = online.machine.run(f"{home}/deploy/release")
    assert done.returncode == 0, done.stdout
    assert "已上线" in done.stdout.splitlines()[-1]
    online.machine.ok(f"LC_ALL=POSIX PYTHONIOENCODING=ascii {home}/deploy/release")
    assert online.status(CHINESE, "/healthz") == "200"


def test_http_redirects_to_https_except_for_acme(online, service):
    location = online.machine.ok(
        f"curl -s -o /dev/null -w '%{{http_code}} %{{redirect_url}}' http://{domain(service)}/hello/?x=1"
    )
    assert location == f"308 https://{domain(service)}/hello/?x=1"
    online.machine.ok("mkdir -p /var/www/acme/.well-known/acme-challenge")
    online.machine.ok("echo token > /var/www/acme/.well-known/acme-challenge/test")
    response = online.machine.ok(
        f"curl -s http://{domain(service)}/.well-known/acme-challenge/test"
    )
    assert response == "token\n"


def test_app_sees_the_true_client_over_https(online, service):
    forged = [word for name, value in FORGED.items() for word in ("-H", f"{name}: {value}")]
    for options in ([], forged):
        seen = json.loads(online.curl(service, "/whoami", "--interface", "10.9.8.7", *options))
        assert seen == {
            "address": "10.9.8.7",
            "scheme": "https",
            "url": f"https://{domain(service)}/",
        }


def test_tls_is_as_mozilla_recommends(online, one_service):
    """sslyze compares with Mozilla's intermediate configuration."""
    # fmt: off
    command = online.machine.near(
        Path(sys.executable).parent / "sslyze", "--mozilla_config=intermediate",
        f"--certinfo_ca_file={online.root_certificate}", f"{domain(one_service)}:443",
    )
    # fmt: on
    report = run(*command).stdout
    assert re.search(r"443: OK - Compliant", report), report


def test_http2_is_on(online, service):
    protocol = online.curl(service, "/", "-o", "/dev/null", "-w", "%{http_version}")
    assert protocol == "2"
    host = domain(service)
    connect = f"openssl s_client -connect {host}:443 -servername {host} -alpn h2,http/1.1"
    # What follows the handshake is not text.
    online.machine.ok(f"{connect} < /dev/null 2>&1 | grep -a 'ALPN protocol: h2'")


def test_key_exchange_is_hybrid_if_openssl_has_it(online, one_service):
    """With OpenSSL 3.5 or later, which this openssl shows by knowing the name."""
    host = domain(one_service)
    connect = f"openssl s_client -connect {host}:443 -servername {host}"
    shown = online.machine.ok(f"{connect} < /dev/null 2>&1")
    hybrid = online.machine.run("openssl list -kem-algorithms | grep X25519MLKEM768")
    assert ("X25519MLKEM768" in shown) == (hybrid.returncode == 0)


def test_other_name_redirects_to_the_domain(online, service):
    """Its certificate is for both names if the DNS has the other one."""
    host = domain(service)
    status = "curl -s -o /dev/null -w '%{http_code} %{redirect_url}'"
    local = f"--resolve www.{host}:80:127.0.0.1 --resolve www.{host}:443:127.0.0.1"
    for url in (f"http://www.{host}", f"https://www.{host}"):
        found = online.machine.ok(f"{status} --insecure {local} {url}/hello/?x=1")
        assert found == f"308 https://{host}/hello/?x=1"
    verified = online.machine.run(f"{status} {local} https://www.{host}/").returncode == 0
    assert verified == (service == PAIRS[0])


def answers_to_both_names(service: Pair) -> dict[tuple[str, str, str, str], str]:
    """Return what curl shows of a site's answers.

    By URL, the option for the version of HTTP, the address, and the version that answers.
    """
    host, page = domain(service), "/?x=1"
    answers = {}
    for address in ("127.0.0.1", "[::1]"):
        for name in (host, f"www.{host}"):
            url = f"http://{name}{page}"
            answers[url, "--http1.1", address, "1.1"] = f"308 https://{host}{page}"
        for option, version in (("--http1.1", "1.1"), ("--http2", "2")):
            answers[f"https://{host}{page}", option, address, version] = "200 "
            url = f"https://www.{host}{page}"
            answers[url, option, address, version] = f"308 https://{host}{page}"
    return answers


def test_both_names_answer_over_each_protocol(online, service):
    """HTTP and HTTPS, HTTP/1.1 and HTTP/2, IPv4 and IPv6, as in a table."""
    expected = answers_to_both_names(service)
    shown = "%{http_version} %{http_code} %{redirect_url}\\n"
    lines = []
    for url, option, address, _version in expected:
        at = f"--connect-to '::{address}:'"
        lines.append(f"curl -sko /dev/null {option} {at} -w '{shown}' '{url}'")
    found = online.machine.ok("\n".join(lines)).splitlines()
    wanted = [f"{key[3]} {answer}" for key, answer in expected.items()]
    assert dict(zip(expected, found, strict=True)) == dict(zip(expected, wanted, strict=True))


def test_unknown_host_gets_no_page(online, service):
    for host in ("evil.example", "127.0.0.1", f"{domain(service)}.evil.example"):
        done = online.machine.run(f"curl -sS -H 'Host: {host}' http://{domain(service)}/")
        assert done.returncode == 52, done.stdout  # empty reply
        code = online.curl(
            service, "/", "-H", f"Host: {host}", "-o", "/dev/null", "-w", "%{http_code}"
        )
        assert code == "421"


def test_unknown_name_gets_no_certificate(online):
    """Neither does an address: the TLS handshake is rejected."""
    for name in ("evil.example", "127.0.0.1"):
        done = online.machine.run(f"curl -sSk --resolve {name}:443:127.0.0.1 https://{name}/")
        assert "unrecognized name" in done.stdout
        done = online.machine.run(f"openssl s_client -connect 127.0.0.1:443 -servername {name}")
        assert "BEGIN CERTIFICATE" not in done.stdout


@pytest.mark.parametrize("version", ["1_2", "1_3"])
def test_tls_sessions_are_resumed(online, one_service, version):
    """The default server keeps the sessions of all sites."""
    host = domain(one_service)
    get = f"(printf 'GET /healthz HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n'; sleep 1)"
    connect = f"openssl s_client -connect {host}:443 -servername {host} -tls{version}"
    online.machine.ok(f"{get} | {connect} -sess_out /root/session 2>&1")
    assert "\nReused, " in online.machine.ok(f"{get} | {connect} -sess_in /root/session 2>&1")


def test_one_client_cannot_take_all_connections(online):
    """The README's command gives nginx more of them, also if it is repeated."""
    configuration = online.machine.ok("nginx -T 2>&1")
    assert "[warn]" not in configuration
    assert re.findall(r"\n\s*worker_connections (\d+);", configuration) == ["8192"]
    assert re.findall(r"\nworker_rlimit_nofile (\d+);", configuration) == ["16384"]


def test_service_runs_as_its_own_user(online, service):
    state = json.loads(online.curl(service, "/state"))
    assert state["user"] >= 61184  # DynamicUser=, systemd.exec(5)
    assert state["planted"] in ("OSError", "PermissionError")
    assert state["network"] is True
    assert online.machine.ok(f"cat /var/lib/{service}/visits").startswith("x")
    others = online.machine.run(f"setpriv --reuid=nobody cat /etc/{service}.env")
    assert others.returncode != 0


CLOSED = {
    "directories in /opt": "[]",
    "code of another site": "FileNotFoundError",
    "settings of another site": "PermissionError",
    "own file of settings": "PermissionError",
    "data of another site": "FileNotFoundError",
    "socket of another site": "PermissionError",
    "/srv": "PermissionError",
    "/var/log": "PermissionError",
    "/var/www": "PermissionError",
    "/var/backups": "PermissionError",
    "/etc/nginx": "PermissionError",
    "/etc/systemd": "PermissionError",
    "/root": "PermissionError",
    "other users' processes": "0",
    "write its own code": "OSError",
    "write /etc": "OSError",
    "write /usr": "OSError",
    "execute from the state directory": "PermissionError",
    "execute from /tmp": "PermissionError",
    "execute from /var/tmp": "PermissionError",
    "execute from /dev/shm": "PermissionError",
    "mount": "denied",
    "namespaces": "denied",
}
OPEN = [
    "write the state directory",
    "write /tmp",
    "shared memory",
    "commands of the system",
    "names of hosts",
    "queries to name servers",
    "certificates",
    "databases on TCP",
    "databases on a local socket",
]
# Denied where systemd can load BPF programs into the kernel, which it cannot in a container.
KERNEL = {"listen on TCP": "PermissionError", "multicast": "PermissionError"}


@pytest.fixture
def database(online) -> Iterator[None]:
    """A server on a local socket in /run, as a database has one."""
    online.machine.ok(
        "systemd-run --quiet --unit=database --property=RuntimeDirectory=db"
        " systemd-socket-activate --listen=/run/db/db.sock true"
    )
    online.machine.wait_until("test -S /run/db/db.sock && chmod 666 /run/db/db.sock", 10)
    yield
    online.machine.run("systemctl stop database; systemctl reset-failed database")


@pytest.mark.usefixtures("database")
def test_sandbox_closes_what_an_app_does_not_need(online, service):
    other = next(pair for pair in PAIRS if pair != service)
    # What did not exist at its start is closed at the next one: certbot was installed later.
    online.machine.ok(f"systemctl restart {service}")
    found = json.loads(online.curl(service, f"/sandbox/{other}"))
    print(f"{service}: {found}")
    own = f"{service}.versions"  # its releases, if there are any
    found["directories in /opt"] = found["directories in /opt"].replace(f"'{own}'", "")
    for name, denied in KERNEL.items():
        assert found.pop(name) in (denied, "open")
    assert found == CLOSED | dict.fromkeys(OPEN, "open")


def test_limits_are_shares_of_the_machine(online, service):
    names = ("MemoryMax", "MemorySwapMax", "TasksMax", "OOMPolicy")
    maximum, swap, tasks, policy = (
        online.machine.ok(f"systemctl show -P {name} {service}").strip() for name in names
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert int(maximum) == pytest.approx(memory / 2, rel=0.05)
    assert swap == "0"
    assert 1000 < int(tasks) < 10**6
    assert policy == "continue"


def test_unit_is_exposed_at_most_1_0(online, service):
    machine = online.machine
    machine.ok(f"systemd-analyze security --threshold=10 --no-pager {service}")
    for unit in (f"{service}.service", f"{service}.socket"):
        assert machine.ok(f"systemd-analyze verify /etc/systemd/system/{unit} 2>&1") == ""


def test_journal_has_tracebacks_and_prints(online, service):
    assert online.status(service, "/crash") == "500"
    time.sleep(0.5)
    journal = online.machine.ok(f"journalctl -u {service}")
    assert "a detail for the log only" in journal


def test_no_request_is_lost_over_ten_restarts(online):
    def restart(service: Pair) -> None:
        for _ in range(10):
            online.machine.ok(f"systemctl restart {service}")
            time.sleep(0.2)

    for service, load in online.under_load(PAIRS, restart).items():
        print(f"{service}: {load.sent} sent, {len(load.failed)} lost over 10 restarts")
        assert load.sent > 300
        assert load.failed == [], service


def test_no_request_is_lost_over_ten_reloads(online):
    reloadable = [pair for pair in PAIRS if pair.facts["reload"]]
    for pair in {*PAIRS} - {*reloadable}:
        assert "ExecReload" not in online.machine.ok(f"systemctl cat {pair}")

    def reload(service: Pair) -> None:
        for _ in range(10):
            online.machine.ok(f"systemctl reload {service}")
            # uWSGI executes itself again: a second signal before it is ready would end it.
            time.sleep(2)

    for service, load in online.under_load(reloadable, reload).items():
        print(f"{service}: {load.sent} sent, {len(load.failed)} lost over 10 reloads")
        assert load.sent > 300
        assert load.failed == [], service


def test_killed_workers_lose_only_their_own_requests(online):
    def kill(service: Pair) -> None:
        for _ in range(10):
            kill_a_worker(online, service)
            # systemd waits a second before it restarts a server that is one process.
            time.sleep(0.7 if service.facts["workers"] else 1.5)

    for service, load in online.under_load(PAIRS, kill).items():
        print(f"{service}: {load.sent} sent, {len(load.failed)} lost over 10 kills")
        assert load.sent > 300
        # At most what the four connections had sent to the killed worker.
        assert len(load.failed) <= 40, service
        for _, _, result, _ in load.failed:
            assert result == 502 or result.startswith("IncompleteRead"), load.failed
        online.machine.wait_until(f"systemctl is-active {service}", 30)
        online.machine.ok(f"systemctl reset-failed {service}.service {service}.socket")


@pytest.mark.parametrize("verb", ["stop", "restart", "reload"])
def test_request_in_flight_is_finished(online, verb):
    pairs = [pair for pair in PAIRS if verb != "reload" or pair.facts["reload"]]
    with contextlib.ExitStack() as stack:
        slow = {}
        for pair in pairs:
            command = f"curl -sS 'https://{domain(pair)}/slow?seconds=5'"
            process = subprocess.Popen(
                online.machine.command(command), stdout=subprocess.PIPE, text=True
            )
            slow[pair] = stack.enter_context(process)
        time.sleep(1.5)
        units = {pair: f"{pair}.service" for pair in pairs}
        if verb == "stop":
            units = {pair: f"{pair}.service {pair}.socket" for pair in pairs}
        online.machine.ok(f"systemctl {verb} {' '.join(units.values())}")
        bodies = {pair: process.communicate(timeout=30)[0] for pair, process in slow.items()}
    for pair, body in bodies.items():
        if verb == "stop":
            assert online.status(pair, "/") == "502"
            assert online.status(pair, "/static/style.css") == "200"
            online.machine.ok(f"systemctl start {units[pair]}")
        assert json.loads(body) == {"slow": True}, pair
        assert online.status(pair, "/healthz") == "200"


def test_request_in_flight_is_finished_at_the_reload_of_one_worker(online):
    """As on a machine with one CPU."""
    pairs = [pair for pair in PAIRS if pair.facts["reload"]]
    files = " ".join(f"/etc/{pair}.env" for pair in pairs)
    services = " ".join(f"{pair}.service" for pair in pairs)
    online.machine.ok(f"sed -i '$ a WEB_CONCURRENCY=1' {files}; systemctl restart {services}")
    try:
        test_request_in_flight_is_finished(online, "reload")
    finally:
        online.machine.ok(
            f"sed -i /^WEB_CONCURRENCY=1$/d {files}; systemctl restart {services}"
        )


@pytest.mark.usefixtures("by_script")
def test_broken_code_is_refused_at_reload_and_reported_at_start(online):
    """Once it is fixed, two commands of the README bring the sites back."""
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


def test_network_can_be_closed_as_the_readme_says(online, one_service):
    [block] = shell_blocks(online.projects[one_service], "Adjust the server")
    online.machine.ok(block)
    assert json.loads(online.curl(one_service, "/state"))["network"] is False
    online.machine.ok(
        f"rm -r /etc/systemd/system/{one_service}.service.d && systemctl daemon-reload"
        f" && systemctl restart {one_service}"
    )
    assert json.loads(online.curl(one_service, "/state"))["network"] is True


def serial(online: Online, pair: Pair) -> str:
    """Return the serial number of the certificate that nginx serves."""
    return online.machine.ok(
        f"openssl s_client -connect {domain(pair)}:443 -servername {domain(pair)}"
        " </dev/null 2>/dev/null | openssl x509 -noout -serial"
    )


def test_renewal_of_certificates_reloads_nginx(online):
    previous = {pair: serial(online, pair) for pair in PAIRS}
    output = online.machine.ok("certbot renew --force-renewal --no-random-sleep-on-renew 2>&1")
    assert "success" in output
    deadline = time.monotonic() + 30
    while any(serial(online, pair) == previous[pair] for pair in PAIRS):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    online.machine.ok("certbot renew --dry-run --no-random-sleep-on-renew")
    online.machine.ok("systemctl is-enabled certbot.timer")


def next_release(template: Path) -> None:
    """Tag a release of the template that adds a header, unless it exists."""
    if "v1.1.0" in ok("git", "tag", cwd=template):
        return
    site = template / "template/deploy/nginx/{{ slug }}/site.conf.jinja"
    line = "add_header X-Frame-Options DENY always;\n"
    text = site.read_text()
    assert line in text
    site.write_text(text.replace(line, line + "add_header X-Release 1.1.0 always;\n"))
    tag(template, "v1.1.0")


def test_change_and_update_are_deployed_as_the_readme_says(online, service, tmp_path):
    """The owner's change and a `copier update` are deployed, and the site stays on https.

    What the owner has changed in the unit and in nginx, where the README says, stays.
    Each pair does this on one of the machines.
    """
    if PAIRS.index(service) % len(MACHINES) != online.by_hand:
        pytest.skip("runs on another machine")
    block = ship(online.projects[service], online.by_hand)
    next_release(online.projects[service].parent / "template")
    clone = tmp_path / "clone"
    ok("git", "clone", "--quiet", online.machine.root / f"srv/git/{service}.git", clone)
    home = clone / "app/templates/home.html"
    home.write_text(home.read_text().replace("It works!", "It ships!"))
    ok("git", "commit", "--quiet", "--all", "--message=Ship", cwd=clone)
    ok("copier", "update", "--defaults", cwd=clone)
    ok("git", "commit", "--quiet", "--all", "--message=Update", cwd=clone)
    ok("git", "push", "--quiet", cwd=clone)
    with (
        edited(
            online,
            f"/etc/nginx/{service}.d/own.conf",
            'location = /own { return 200 "own"; }\n',
        ),
        edited(online, f"/etc/systemd/system/{service}.service.d/own.conf", OWN_UNIT),
        online.load(service, "--fresh") as load,
    ):
        online.machine.ok(block)
        # systemctl returns before the reload of nginx is complete.
        own = f"curl -s https://{domain(service)}/own | grep -x own"
        online.machine.wait_until(own, 20)
        assert online.machine.ok(f"systemctl show -P TasksMax {service}") == "321\n"
    assert load.failed == []
    response = online.curl(service, "/", "-i")
    assert "It ships!" in response
    assert "x-release: 1.1.0" in response.lower()
    assert "strict-transport-security: max-age=63072000" in response.lower()


def test_sites_start_at_boot(online):
    """Last, because it reboots the machine."""
    online.machine.stop()
    online.machine.start()
    for pair in PAIRS:
        online.machine.wait_until(f"systemctl is-active {pair}.service", 60)
        assert online.status(pair, "/healthz") == "200"
