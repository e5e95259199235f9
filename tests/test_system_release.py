"""deploy/release on a real Debian: a release loses no request, and a broken one never goes live."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from support.commands import ok, run
from support.github import deploy_step
from support.online import ONE_COMMAND, Online, cut_off, domain, kill_release
from support.project import FIRST_PAIRS, PAIRS, Pair, in_turn, shell_blocks

pytestmark = pytest.mark.slow

NEXT = "/root/next"  # the owner's checkout on the server


def title(text: str) -> str:
    """Return a command that changes the heading of the project's home page."""
    return f"sed -i 's/<h1>.*<.h1>/<h1>{text}<\\/h1>/' app/templates/home.html"


def prepare(online: Online, service: Pair, change: str = "true") -> None:
    """Clone a project into NEXT and run `change` in its folder."""
    copy = f"rm -rf {NEXT}; git clone -q file:///srv/git/{service}.git {NEXT}; cd {NEXT}"
    online.machine.ok(f"{copy}; SITE={service}; {change}")


def release(online: Online, *options: str) -> subprocess.CompletedProcess[str]:
    return online.machine.run(" ".join([f"{NEXT}/deploy/release", *options]))


def released(online: Online, service: Pair, *options: str) -> str:
    """Release what is in NEXT, successfully, and return the output."""
    done = release(online, *options)
    assert done.returncode == 0, done.stdout
    return done.stdout


def releases_of(online: Online, service: Pair) -> list[str]:
    return online.machine.ok(
        f"ls --ignore=by-hash --ignore=packages-* /opt/{service}.versions"
    ).split()


def current(online: Online, service: Pair) -> str:
    """Return the name of the current release."""
    return Path(online.machine.ok(f"readlink /opt/{service}").strip()).name


def style_sheet(online: Online, service: Pair) -> str:
    """Return the URL of the style sheet in the home page, which has a hash."""
    [url] = re.findall(r'"(/static/style[.]css[?]v=[0-9a-f]{8})"', online.curl(service, "/"))
    return url


def forget_packages(online: Online, service: Pair) -> None:
    """Let the next release install its packages as if no other had the same ones."""
    online.machine.ok(f"rm -f /opt/{service}.versions/packages-*/installed")


def assert_nothing_is_left(online: Online, service: Pair) -> None:
    """Check that no trial and no incomplete release is left, and /etc is of the current one."""
    machine = online.machine
    assert machine.run(f"ls -d /run/systemd/system/{service}-trial*").returncode == 2
    assert machine.run(f"systemctl is-active {service}-trial.service").stdout != "active\n"
    versions = f"/opt/{service}.versions"
    for version in releases_of(online, service):
        machine.ok(f"test -f {versions}/{version}/.released")
    for packages in machine.ok(f"find {versions} -maxdepth 1 -name 'packages-*'").split():
        machine.ok(f"readlink {versions}/*/.venv | grep -x {packages}")
    installed = f"/etc/nginx/{service} /opt/{service}/deploy/nginx/{service}"
    machine.ok(f"diff -r --exclude=tls.conf {installed}")
    machine.ok(f"test -s /etc/nginx/{service}/tls.conf")
    for kind in ("service", "socket"):
        unit = f"{service}.{kind}"
        machine.ok(f"diff /etc/systemd/system/{unit} /opt/{service}/deploy/{unit}")


@pytest.mark.usefixtures("by_hand")
def test_release_takes_over_a_deployment_by_hand(online, service):
    """And --rollback goes back to it."""
    prepare(online, service, title("It is released!"))
    with online.load(service, "--fresh", "--calm") as load:
        released(online, service)
    assert load.failed == []
    assert "It is released!" in online.curl(service, "/")
    assert len(releases_of(online, service)) == 2
    released(online, service, "--rollback")
    assert current(online, service) == "by-hand"
    assert "It is released!" not in online.curl(service, "/")
    assert_nothing_is_left(online, service)
    refused = release(online, "--rollback")
    assert refused.returncode == 1
    assert "There is no previous release" in refused.stdout


@pytest.mark.usefixtures("by_script")
def test_releases_in_a_row_lose_no_request(online, service):
    """Ten for one pair of each framework, three for the others. One takes eight seconds.

    A page that is open since before a release gets the style sheet of then.
    """
    count = 10 if service in FIRST_PAIRS else 3
    with online.load(service, "--fresh", "--calm") as load:
        for number in range(1, count + 1):
            url = style_sheet(online, service)
            before = online.curl(service, url)
            style = f"echo '/* Version {number} */' >> app/static/style.css"
            prepare(online, service, f"{title(f'Version {number}')}; {style}")
            released(online, service)
            assert f"Version {number}<" in online.curl(service, "/")
            assert online.curl(service, url) == before
            now = style_sheet(online, service)
            assert f"Version {number} " in online.curl(service, now)
            for each in (url, now):
                assert "immutable" in online.curl(service, each, "-o", "/dev/null", "-D", "-")
    print(f"{service}: {load.sent} sent, {len(load.failed)} lost over {count} releases")
    assert load.sent > 30 * count
    assert load.failed == []
    assert len(releases_of(online, service)) == 3
    assert_nothing_is_left(online, service)


@pytest.mark.usefixtures("by_script")
def test_rollbacks_go_back_release_by_release(online, service):
    prepare(online, service)
    three = releases_of(online, service)
    assert current(online, service) == three[2]
    with online.load(service, "--fresh", "--calm") as load:
        released(online, service, "--rollback")
        assert current(online, service) == three[1]
        released(online, service, "--rollback")
        assert current(online, service) == three[0]
    assert load.failed == []
    assert releases_of(online, service) == three[:1]
    assert_nothing_is_left(online, service)


OTHER_TLS = (
    "printf 'server { listen 443 ssl default_server; server_name other.example;"
    " ssl_certificate /etc/letsencrypt/live/%s/fullchain.pem;"
    " ssl_certificate_key /etc/letsencrypt/live/%s/privkey.pem; }\\n'"
    " $SITE $SITE > /etc/nginx/conf.d/other.conf; rm -f /etc/nginx/conf.d/default-tls.conf;"
    " systemctl reload nginx"
)


@pytest.mark.usefixtures("by_script")
def test_default_server_of_another_site_is_respected(online):
    """With another default server for HTTPS, ours is left out; without one, it is back."""
    service = PAIRS[0]
    default = "test -e /etc/nginx/conf.d/default-tls.conf"
    prepare(online, service, OTHER_TLS)
    try:
        released(online, service)
        assert online.machine.run(default).returncode == 1
        online.machine.ok("nginx -t")
        assert online.status(service, "/healthz") == "200"
    finally:
        online.machine.ok("rm /etc/nginx/conf.d/other.conf")
    released(online, service)
    online.machine.ok(default)


@pytest.mark.usefixtures("by_script")
def test_rollback_to_a_release_without_a_default_server_for_https(online):
    """As those of 1.0.0 are."""
    service = PAIRS[0]
    prepare(online, service, "rm deploy/nginx/default-tls.conf")
    released(online, service)
    prepare(online, service)
    released(online, service)
    released(online, service, "--rollback")
    online.machine.ok("nginx -t")
    assert online.status(service, "/healthz") == "200"
    prepare(online, service)
    released(online, service)
    online.machine.ok("test -e /etc/nginx/conf.d/default-tls.conf")


@pytest.mark.usefixtures("by_script")
def test_static_files_are_sent_as_compressed_at_the_release(online, service):
    options = ("-H", "Accept-Encoding: gzip", "-o", "/dev/null", "-w", "%{size_download}")
    size = int(online.curl(service, "/static/style.css", *options))
    compressed = f"/opt/{service}/app/static/style.css.gz"
    assert size == int(online.machine.ok(f"stat -c %s {compressed}"))


# What is broken, how, and the cause in the message.
BROKEN = {
    "syntax error": ("echo 'def (' >> app/routes.py", "SyntaxError: invalid syntax"),
    "missing package": (
        "sed -i '1a import no_such_package' app/routes.py",
        "No module named 'no_such_package'",
    ),
    "package not in the index": (
        "sed -i 's/^markupsafe==.*/markupsafe==0.0.1 \\\\/' requirements.lock",
        "markupsafe==0.0.1",
    ),
    "wrong checksum": (
        "sed -i 's/sha256:..../sha256:0000/' requirements.lock",
        "DO NOT MATCH THE HASHES",
    ),
    "import that raises": ("echo '1 / 0' >> app/routes.py", "ZeroDivisionError"),
    "missing setting": (
        "printf 'import os\\nos.environ[\"API_KEY\"]\\n' >> app/config.py",
        "KeyError: 'API_KEY'",
    ),
    "health check fails": (
        'sed -i \'s/return {"status": "ok"}/1 \\/ 0/\' app/routes.py',
        "returned error: 500",
    ),
    "blocks at start": (
        (
            "printf 'import time\\ntime.sleep(600)\\n' >> app/routes.py;"
            " sed -i 's/^TimeoutStopSec=/TimeoutStartSec=3\\n&/' deploy/$SITE.service"
        ),
        "timed out",
    ),
    "bad nginx site": (
        "echo 'nonsense on;' >> deploy/nginx/$SITE/site.conf",
        'unknown directive "nonsense" in /etc/nginx/',
    ),
    "bad unit": (
        "sed -i 's/^ExecStart=.*/ExecStart=/' deploy/$SITE.service",
        "bad unit file setting",
    ),
}


# Faults that show only as the server starts, so that every server has to report them.
AT_START = ("import that raises", "blocks at start")


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize(
    ("service", "what"),
    [
        *((pair, what) for what in AT_START for pair in PAIRS),
        *in_turn([what for what in BROKEN if what not in AT_START]),
    ],
    ids=str,
)
def test_broken_release_never_goes_live(online, service, what):
    """The previous one stays live, nothing is left behind, and the message names the cause."""
    change, cause = BROKEN[what]
    before = current(online, service), releases_of(online, service)
    prepare(online, service, change)
    with online.load(service, "--fresh", "--calm") as load:
        done = release(online)
    assert done.returncode == 1, done.stdout
    assert "Release failed" in done.stdout
    assert cause in done.stdout, done.stdout
    assert "README.md" in done.stdout
    assert load.failed == []
    assert (current(online, service), releases_of(online, service)) == before
    assert_nothing_is_left(online, service)


@pytest.mark.usefixtures("by_hand")
def test_release_on_a_full_disk_never_goes_live(online):
    """The releases are on a disk with 8 MB left."""
    service = PAIRS[0]
    folder = f"/opt/{service}.versions"
    prepare(online, service)
    before = releases_of(online, service)
    forget_packages(online, service)
    try:
        online.machine.ok(
            f"mkdir /srv/disk; size=$(( $(du -sm {folder} | cut -f 1) + 8 ));"
            f" mount -t tmpfs -o size=${{size}}m tmpfs /srv/disk; cp -a {folder}/. /srv/disk/;"
            f" mount --bind /srv/disk {folder}"
        )
        with online.load(service, "--fresh", "--calm") as load:
            done = release(online)
        assert done.returncode == 1, done.stdout
        assert "No space left on device" in done.stdout
        assert load.failed == []
        assert releases_of(online, service) == before
    finally:
        online.machine.run(
            f"umount -l {folder}; umount -l /srv/disk; rmdir /srv/disk; systemctl restart {service}"
        )
    assert_nothing_is_left(online, service)


# When a release is killed: the step it has printed, and the seconds after that.
KILLED = {
    "while it builds": ("Build", 0),
    "while it installs packages": ("Install", 1),
    "in the preflight": ("Preflight", 0.5),
    "as it switches": ("Switch", 0),
    "just after it has started to switch": ("Switch", 0.3),
    "a second after it has started to switch": ("Switch", 1),
}


@pytest.mark.usefixtures("by_script")
@pytest.mark.parametrize(("service", "moment"), in_turn(KILLED), ids=str)
def test_killed_release_is_cleaned_up_by_the_next(online, service, moment):
    """The site stays up, and the next run cleans up."""
    step, delay = KILLED[moment]
    prepare(online, service)
    if step == "Install":
        forget_packages(online, service)
    with online.load(service, "--fresh", "--calm") as load:
        kill_release(online.machine, f"{NEXT}/deploy", step, delay)
        time.sleep(1)
        released(online, service)
    assert load.failed == []
    assert_nothing_is_left(online, service)
    assert current(online, service) == releases_of(online, service)[-1]
    assert not online.machine.path(f"/opt/{service}.versions/switching").exists()


@pytest.mark.usefixtures("by_script")
def test_release_from_github_as_the_guide_says(online, tmp_path):
    """The commands of the guide, but for GitHub's own, and then the step of the workflow."""
    service = PAIRS[0]
    checkout = tmp_path / "checkout"
    ok("git", "clone", "--quiet", online.machine.root / f"srv/git/{service}.git", checkout)
    home = checkout / "app/templates/home.html"
    home.write_text(re.sub("<h1>.*</h1>", "<h1>From GitHub</h1>", home.read_text()))
    ok("git", "commit", "--quiet", "--all", "--message=Change", cwd=checkout)
    [block] = shell_blocks(online.projects[service], "Deploy from GitHub")
    key, accept, _ = block.splitlines()
    ok(*online.machine.from_outside(f"{key}\n{accept}"), cwd=tmp_path)
    shutil.move(tmp_path / "deploy-key", tmp_path / "key")

    known = online.machine.root.parent / "ssh/known_hosts"
    settings = {
        "KEY": (tmp_path / "key").read_text().strip(),
        "KNOWN_HOSTS": known.read_text(),
        "SERVER": "root@server.example.com",
        "RUNNER_TEMP": str(tmp_path),
    }
    script = deploy_step(checkout)["run"]
    step = online.machine.near("env", *(f"{name}={text}" for name, text in settings.items()),
                               "bash", "-eo", "pipefail", "-c", script)  # fmt: skip
    with online.load(service, "--fresh", "--calm") as load:
        output = ok(*step, cwd=checkout)
    assert load.failed == []
    assert "-- Online" in output
    assert "From GitHub" in online.curl(service, "/")

    # The key cannot run another command, and sends nothing to an unknown server.
    ssh = script[script.index("ssh -F") :].replace('"$SERVER" deploy', "$SERVER id")
    other = [*step[:-1], ssh]
    done = run(*other, cwd=checkout)
    assert done.returncode != 0
    assert "uid=" not in done.stdout
    (tmp_path / "other").mkdir()
    ok("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other/key")
    public = (tmp_path / "other/key.pub").read_text()
    at = step.index(f"KNOWN_HOSTS={settings['KNOWN_HOSTS']}")
    step[at] = f"KNOWN_HOSTS=server.example.com {public}"
    done = run(*step, cwd=checkout)
    assert done.returncode != 0
    assert "Host key verification failed" in done.stdout


# A step of the one command, and after how many seconds the connection is lost in it.
CUTS = [
    *[("Send", delay) for delay in (0, 0.2, 0.5)],
    *[("Build", delay) for delay in (0, 0.7)],
    *[("Install packages", delay) for delay in (0, 3)],
    *[("Preflight", delay) for delay in (0, 0.8)],
    *[("Switch", delay) for delay in (0, 0.4, 1)],
]


@pytest.mark.usefixtures("by_script")
def test_command_that_is_cut_off_goes_on_when_it_is_repeated(online):
    """The connection is lost at twelve moments, one run after the other; then it ends online.

    A release goes on without its connection, so that the next run may have to wait.
    """
    service = PAIRS[2]
    project = online.projects[service]
    with online.load(service, "--fresh", "--calm") as load:
        for number, (step, delay) in enumerate(CUTS):
            if step == "Install packages":
                forget_packages(online, service)
            cut_off(online.machine, project, step, delay, terminal=number % 2 == 0)
        command = online.machine.from_outside(ONE_COMMAND)
        while "Another release is in progress" in (done := run(*command, cwd=project)).stdout:
            time.sleep(1)
    assert load.failed == []
    assert done.returncode == 0, done.stdout
    assert "-- Online: https://" in done.stdout.splitlines()[-1]
    assert_nothing_is_left(online, service)
    assert online.status(service, "/healthz") == "200"


@pytest.mark.usefixtures("by_script")
def test_second_release_at_a_time_is_refused(online):
    service = PAIRS[0]
    prepare(online, service)
    command = online.machine.command(f"{NEXT}/deploy/release")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline().startswith("-- Build")
        second = release(online)
        first.stdout.read()
    assert first.returncode == 0
    assert second.returncode == 1
    assert "Another release is in progress" in second.stdout


@pytest.mark.usefixtures("by_script")
def test_release_needs_root_and_another_checkout(online):
    service = PAIRS[0]
    for command, says in {
        f"setpriv --reuid=nobody /opt/{service}/deploy/release": "sudo deploy/release",
        f"/opt/{service}/deploy/release": "Run it from a copy outside",
        f"/opt/{service}/deploy/release --help": "--rollback    back to the previous release",
    }.items():
        done = online.machine.run(command)
        assert done.returncode == 1
        assert says in done.stdout
    assert_nothing_is_left(online, service)


@pytest.mark.usefixtures("by_script")
@pytest.mark.parametrize("service", FIRST_PAIRS, ids=str)
def test_release_from_a_laptop_as_the_readme_says(online, service, tmp_path):
    """The README's command; what is not committed is named, and not sent."""
    laptop = tmp_path / "laptop"
    ok("git", "clone", "--quiet", online.machine.root / f"srv/git/{service}.git", laptop)
    home = laptop / "app/templates/home.html"
    home.write_text(re.sub("<h1>.*</h1>", "<h1>From afar</h1>", home.read_text()))
    ok("git", "commit", "--quiet", "--all", "--message=Change", cwd=laptop)
    (laptop / "app/templates/new.html").write_text("new")
    [block] = shell_blocks(online.projects[service], "Ship a change")
    with online.load(service, "--fresh", "--calm") as load:
        output = ok(*online.machine.from_outside(block), cwd=laptop)
    assert load.failed == []
    assert "?? app/templates/new.html" in output
    assert not online.machine.path(f"/opt/{service}/app/templates/new.html").exists()
    assert "From afar" in online.curl(service, "/")
    assert domain(service) in online.machine.ok(f"cat /etc/nginx/{service}/site.conf")
