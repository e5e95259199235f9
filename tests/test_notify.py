"""deploy/notify sends what failed to where NOTIFY_URL says, and keeps that secret."""

import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import run
from support.project import PAIRS

pytestmark = pytest.mark.first_pairs
SITE = PAIRS[0]  # on the machines
TITLE = "my-app: my-app-backup.service failed on "
SECRET = "tk_geheim"


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps what it is sent. At /moved, it answers with a redirect."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str, dict[str, str], str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.received.append((self.path, dict(self.headers), body))
        self.send_response(301 if self.path.startswith("/moved") else 200)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def notify(project: Path, tmp_path: Path):
    """Runs the script with stand-ins for what only a booted machine has.

    states: what the unit goes through, one at each look.
    """
    programs = {
        "journalctl": "echo 'The disk is full, Grüße'; echo one",
        "systemctl": 'test "$3" = --property=ActiveState || exit 0\n'
        f"head -n 1 {tmp_path}/states; sed -i '1{{$!d}}' {tmp_path}/states",
        "sendmail": f'echo "$@" > {tmp_path}/arguments; cat > {tmp_path}/mail; '
        f"exit $(cat {tmp_path}/status 2>/dev/null || echo 0)",
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    def send(url: str | None, states: str = "failed"):
        (tmp_path / "states").write_text(states.replace(" ", "\n") + "\n")
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        environment |= {"PYTHONIOENCODING": "utf-8", "no_proxy": "127.0.0.1"}
        environment |= {} if url is None else {"NOTIFY_URL": url}
        script = project / "deploy/notify"
        return run(script, "my-app-backup.service", env=environment, timeout=60)

    return send


def test_ntfy_receives_plain_text_with_a_title(notify, receiver):
    assert notify(f"{receiver.url}/{SECRET}").returncode == 0
    [(path, headers, body)] = receiver.received
    assert path == f"/{SECRET}"
    assert headers["Title"].startswith(TITLE)
    assert body == "one\nThe disk is full, Grüße"


def test_webhook_receives_json(notify, receiver):
    assert notify(f"{receiver.url}/api/webhooks/1/{SECRET}/slack").returncode == 0
    [(_, headers, body)] = receiver.received
    assert headers["Content-Type"] == "application/json"
    message = json.loads(body)
    assert list(message) == ["text"]
    title, *lines = message["text"].splitlines()
    assert title.startswith(TITLE)
    assert lines == ["one", "The disk is full, Grüße"]


def test_discord_does_not_see_the_user_agent_that_it_rejects(notify, receiver):
    notify(receiver.url)
    assert receiver.received[0][1]["User-Agent"] == "my-app"


def test_email_is_sent_by_sendmail(notify, tmp_path):
    assert notify("mailto:you@example.com").returncode == 0
    assert (tmp_path / "arguments").read_text() == "-t -i\n"
    head, _, body = (tmp_path / "mail").read_text().partition("\n\n")
    assert "To: you@example.com\n" in head
    assert f"Subject: {TITLE}" in head
    assert "charset" in head
    assert body.strip()


def test_without_an_address_it_is_an_error_in_the_journal(notify):
    for url in (None, ""):
        done = notify(url)
        assert done.returncode == 0
        assert done.stdout.startswith(f"<3>{TITLE}")
        assert done.stdout.endswith("see: journalctl -u my-app-backup.service\n")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("$URL/moved/$SECRET", "HTTP Error 301"),
        ("http://127.0.0.1:1/$SECRET", "Connection refused"),
        ("https://user:$SECRET@127.0.0.1/", "InvalidURL"),
        ("$URL/with a blank/$SECRET", "InvalidURL"),
        ("$URL/名/$SECRET", "UnicodeEncodeError"),
        ("http://[$SECRET/", "ValueError"),
        ("ntfy.sh/$SECRET", "neither https:// nor mailto:"),
        ("file:///$SECRET", "neither https:// nor mailto:"),
    ],
)
def test_failure_to_send_is_reported_without_the_secret(notify, receiver, url, reason):
    done = notify(url.replace("$URL", receiver.url).replace("$SECRET", SECRET))
    assert done.returncode == 1
    assert done.stdout.startswith(f"<3>{TITLE}")
    assert "check NOTIFY_URL in /etc/my-app.env: " in done.stdout
    assert reason in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert SECRET not in done.stdout


def test_sendmail_that_fails_or_is_missing_is_reported(notify, tmp_path):
    (tmp_path / "status").write_text("75")
    assert "exit status 75" in notify("mailto:you@example.com").stdout
    (tmp_path / "sendmail").chmod(0o644)
    assert "sendmail" in notify("mailto:you@example.com").stdout


@pytest.mark.parametrize("states", ["active", "activating active", "reloading"])
def test_unit_that_runs_again_is_not_reported(notify, receiver, states):
    """Newer versions of systemd call it after each crash."""
    done = notify(receiver.url, states)
    assert (done.returncode, done.stdout, receiver.received) == (0, "", [])


def test_unit_that_gives_up_after_restarts_is_reported_once(notify, receiver):
    notify(receiver.url, "activating activating failed")
    assert len(receiver.received) == 1


INBOX = """
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open("/root/notices", "ab") as file:
            file.write(b"TITLE " + self.headers["Title"].encode() + b"\\n" + body + b"\\n")
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", 8099), Handler).serve_forever()
"""


@pytest.fixture
def inbox(online):
    """Returns the notices that the machine has sent since the last call."""
    machine = online.machine
    (machine.root / "root/inbox.py").write_text(INBOX)
    machine.ok(
        "systemd-run --quiet --unit=inbox python3 /root/inbox.py;"
        f" cp -a /etc/{SITE}.env /root/settings;"
        f" echo NOTIFY_URL=http://127.0.0.1:8099/topic >> /etc/{SITE}.env"
    )
    machine.wait_until("curl -s http://127.0.0.1:8099 -o /dev/null", 10)

    def notices(some: bool = True) -> list[str]:
        if some:
            machine.wait_until("test -s /root/notices", 60)
        machine.ok("sleep 2")  # for one more than expected
        sending = f"systemctl list-units --no-legend --state=activating '{SITE}-notify@*'"
        machine.wait_until(f'test -z "$({sending})"', 60)
        text = machine.ok("touch /root/notices; cat /root/notices; rm /root/notices")
        return text.split("TITLE ")[1:]

    yield notices
    machine.run(
        f"systemctl stop inbox; cp -a /root/settings /etc/{SITE}.env;"
        f" systemctl reset-failed {SITE}.socket {SITE}; systemctl restart {SITE}.socket {SITE}"
    )


@pytest.mark.slow
def test_crash_after_which_the_app_restarts_is_not_reported(online, inbox):
    for _ in range(3):
        before = online.machine.ok(f"systemctl show -P MainPID {SITE}")
        online.machine.ok(f"systemctl kill --signal=KILL --kill-who=main {SITE}")
        online.machine.wait_until(
            f"systemctl is-active {SITE} && test $(systemctl show -P MainPID {SITE}) != {before}",
            30,
        )
    assert inbox(some=False) == []


@pytest.mark.slow
def test_app_that_gives_up_is_reported_once(online, inbox):
    routes = f"/opt/{SITE}/app/routes.py"
    try:
        online.machine.ok(f"echo 'import no_such_module' >> {routes}")
        online.machine.ok(f"systemctl kill --signal=KILL {SITE}")
        online.machine.wait_until(f"systemctl is-failed {SITE}.socket", 120)
        [notice] = inbox()
    finally:
        online.machine.ok(f"sed -i /no_such_module/d {routes}")
    assert notice.startswith(f"{SITE}: {SITE}.service failed on machine\n")
    assert "Start request repeated too quickly" in notice


@pytest.mark.slow
def test_backup_that_fails_is_reported_with_the_reason(online, inbox):
    machine = online.machine
    try:
        # A directory where a file has to be: not even root can write it.
        machine.ok(f"rm -rf /var/backups/{SITE}/.lock; mkdir -p /var/backups/{SITE}/.lock")
        assert machine.run(f"systemctl start {SITE}-backup").returncode
        [notice] = inbox()
    finally:
        machine.ok(f"rm -rf /var/backups/{SITE}/.lock; systemctl start {SITE}-backup")
    assert notice.startswith(f"{SITE}: {SITE}-backup.service failed on machine\n")
    assert "Is a directory" in notice


@pytest.mark.slow
def test_renewal_of_the_certificate_that_fails_is_reported(online, inbox):
    machine, drop_in = online.machine, "/run/systemd/system/certbot.service.d"
    if online.by_hand:
        pytest.skip("deploy/release adds this to certbot's unit")
    try:
        machine.ok(
            f"mkdir -p {drop_in}; printf '[Service]\nExecStart=\nExecStart=/bin/false\n'"
            f" > {drop_in}/test.conf; systemctl daemon-reload"
        )
        assert machine.run("systemctl start certbot").returncode
        [notice] = inbox()  # of this site; each site sends its own
        assert notice.startswith(f"{SITE}: certbot.service failed on machine\n")
    finally:
        machine.ok(f"rm -r {drop_in}; systemctl daemon-reload; systemctl reset-failed certbot")
