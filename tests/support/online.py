"""Sites of every pair on one machine, deployed with the commands of their README."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pexpect

from support.commands import commit, ok
from support.machine import Machine, root_file_system
from support.project import (
    DATABASES,
    FIRST_PAIRS,
    MACHINES,
    PAIRS,
    Pair,
    add_routes,
    emit,
    probes,
    section,
    template_lock,
)

# Of the packages that a machine has, whatever is deployed on it.
LOCKS = [template_lock(pair, database) for pair in PAIRS for database in DATABASES]
# Sites that keep data: each pair with SQLite, the first of each framework with PostgreSQL.
DATA_SITES = {f"{pair}-sqlite": (pair, "sqlite") for pair in PAIRS}
DATA_SITES |= {f"{pair}-postgresql": (pair, "postgresql") for pair in FIRST_PAIRS}
CHINESE = "chinese"  # one more site, whose README was followed in Chinese


def domain(site: Pair | str) -> str:
    return f"{site}.example.com"


def emit_site(pair: Pair, release: Path, path: Path, name: str = "", **answers: str) -> Path:
    """Emit a project of the pair with the probes, and commit it to git.

    name: of the site, by default that of the pair.
    """
    name = name or str(pair)
    answers |= pair._asdict() | {"project_name": name, "domain": domain(name)}
    emit(release, path, **answers)
    add_routes(path, probes(pair))
    commit(path, "Start")
    return path


class Step(NamedTuple):
    """A step of the README: what to type, a check, and what the check prints."""

    block: str
    check: str
    expected: str


def section_steps(project: Path, heading: str, count: int) -> list[Step]:
    """Return the steps below a heading of the README, of which there are `count`."""
    text = section(project, heading)
    # fmt: off
    found = re.findall(  # **Check:** `a command` says "something"
        r'^```sh\n(.*?)^```\n\n\*\*[^*]+\*\* ?`([^`]+)`[^"“`]*["“]([^"”]+)["”]',
        text, re.MULTILINE | re.DOTALL,
    )
    # fmt: on
    assert len(found) == count
    return [Step(*step) for step in found]


def steps(project: Path, by_hand: bool) -> list[Step]:
    """Return the steps of a deployment on the server: with deploy/release, or by hand."""
    packages, fetch, release, https, _ = section_steps(project, "Deploy on the server", 5)
    if not by_hand:
        return [packages, fetch, release, https]
    return [packages, *section_steps(project, "Deploy by hand", 5)[:4], https]


def ship(project: Path, by_hand: bool) -> str:
    """Return what to type on the server to deploy a change."""
    heading = "Deploy by hand" if by_hand else "Deploy on the server"
    return section_steps(project, heading, 5)[4].block


class Online:
    """A machine with the site of every pair, deployed with the README's own commands."""

    def __init__(self, machine: Machine, projects: dict[Pair, Path], by_hand: bool) -> None:
        self.machine = machine
        self.projects = projects
        self.by_hand = by_hand
        self.root_certificate = machine.root / "srv/pebble/root.pem"

    def curl(self, pair: Pair | str, path: str, *options: str) -> str:
        """Request a page of a site over https from inside, and return its body."""
        words = " ".join(f"'{option}'" for option in options)
        return self.machine.ok(f"curl -sS {words} https://{domain(pair)}{path}")

    def status(self, pair: Pair | str, path: str) -> str:
        return self.curl(pair, path, "-o", "/dev/null", "-w", "%{http_code}")

    def load(self, pair: Pair, *options: str) -> "Load":
        return Load(self, pair, *options)

    def under_load(
        self, pairs: list[Pair], action: Callable[[Pair], None]
    ) -> dict[Pair, "Load"]:
        """Run an action for several sites at the same time, each site under its own load."""

        def act(pair: Pair) -> Load:
            with self.load(pair, "--shared") as load:
                action(pair)
            return load

        with ThreadPoolExecutor(len(pairs)) as pool:
            return dict(zip(pairs, pool.map(act, pairs), strict=True))


def kill_release(machine: Machine, folder: str, step: str, delay: float) -> None:
    """Run a release from a folder of scripts, and kill it some time after it begins a step."""
    command = machine.command(f"exec {folder}/release")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert any(line.startswith(f"-- {step}") for line in process.stdout), f"no {step}"
        time.sleep(delay)
        assert machine.kill(f"/usr/bin/python3 -B {folder}/")


class Load:
    """A steady load while the block runs; at its end, it has the results of load.py."""

    def __init__(self, online: Online, pair: Pair, *options: str) -> None:
        script = Path(__file__).with_name("load.py")
        self.command = online.machine.near(
            sys.executable, script, domain(pair), online.root_certificate, *options
        )

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        time.sleep(1)
        return self

    def __exit__(self, *_) -> None:
        time.sleep(0.5)
        output, _ = self.process.communicate(timeout=90)
        result = json.loads(output)
        self.sent, self.failed = result["sent"], result["failed"]


class Writing:
    """Writers at work while the block runs; at its end, it has the results of writers.py."""

    def __init__(self, online: Online, site: str, *options: str) -> None:
        script = Path(__file__).with_name("writers.py")
        url, certificate = f"https://{domain(site)}", online.root_certificate
        self.command = online.machine.near(sys.executable, script, url, certificate)
        self.options = options

    def __enter__(self):
        self.process = subprocess.Popen(
            [*self.command, *self.options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(0.5)
        return self

    def __exit__(self, *_) -> None:
        time.sleep(0.5)
        output, _ = self.process.communicate(timeout=120)
        vars(self).update(json.loads(output))

    def names(self) -> list[str]:
        """Return the names of all rows that the site has, oldest first."""
        return json.loads(ok(*self.command, "--read"))


ONE_COMMAND = "deploy/release root@server.example.com --https"


def cut_off(machine: Machine, project: Path, step: str, delay: float, terminal: bool) -> None:
    """Run the one command, and end its connection some time after it has begun a step.

    terminal: whether its input is one, so that the server ends what runs there.
    """
    words = machine.from_outside(ONE_COMMAND + ("" if terminal else " < /dev/null"))
    options = {"cwd": str(project), "encoding": "utf-8", "timeout": 120}
    while True:
        child = pexpect.spawn(words[0], words[1:], **options)
        if child.expect([f"-- {step}", "Another release is in progress"]) == 0:
            break
        child.expect(pexpect.EOF)
        child.close()
        time.sleep(1)
    time.sleep(delay)
    while child.isalive() and not machine.disconnect():
        time.sleep(0.02)
    output = child.read()
    child.close()
    assert child.exitstatus == 1, output
    assert "Run the same command again" in output


def put_online_from_outside(machine: Machine, projects: dict[str, Path]) -> None:
    """Run the README's one command, word for word, in the folder of one project after the other.

    At first, the connection is lost while packages are being installed, at two moments.
    """
    machine.start_certificate_authority()
    for delay in (1, 4):
        first = next(iter(projects.values()))
        cut_off(machine, first, "(Install system packages|Wait until)", delay, terminal=True)
    for project in projects.values():
        [(block, check, expected)] = section_steps(project, "Deploy", 1)
        print(ok(*machine.from_outside(block), cwd=project, timeout=600))
        assert expected in machine.ok(check)
    # A checkout on the server, too, for the tests that release there.
    machine.ok("apt-get install -qq git >/dev/null")
    for name in projects:
        machine.ok(f"git clone --quiet file:///srv/git/{name}.git {name}")


def put_online(machine: Machine, projects: dict[str, Path], by_hand: bool) -> None:
    """Run the README's commands, word for word, for one site after the other.

    projects: by the names of their sites.
    """
    for name, project in projects.items():
        folder = "/root"
        for block, check, expected in steps(project, by_hand):
            if "certbot" in block and not (machine.root / "srv/pebble").exists():
                machine.start_certificate_authority()
            # The README has a placeholder for the reader's own repository.
            given = f"REPOSITORY=file:///srv/git/{name}.git"
            block = re.sub(r"^REPOSITORY=.+$", given, block, flags=re.MULTILINE)
            ok(*machine.command(block, folder), timeout=600)
            if f"\ncd /opt/{name}\n" in block:
                folder = f"/opt/{name}"
            # systemctl returns before the reload of nginx is complete.
            machine.wait_until(f"cd {folder} && {check} | grep -F '{expected}'", 20)


def bring_online(debian: str, release: Path, folder: Path) -> Iterator[Online]:
    """Boot a Debian, by its code name, deploy the site of every pair, and shut it down at the end.

    On the oldest one they are deployed by hand, on the others from outside, over SSH.
    """
    # Its own copy of the template, in which a test makes another release.
    template = Path(shutil.copytree(release, folder / "template"))
    projects = {pair: emit_site(pair, template, folder / str(pair)) for pair in PAIRS}
    root = folder / "root"
    ok("cp", "--archive", root_file_system(debian, LOCKS), root)
    sites = {str(pair): project for pair, project in projects.items()}
    chinese = (
        PAIRS[0] if debian == MACHINES[0] else PAIRS[-1]
    )  # a different framework on each machine
    sites[CHINESE] = emit_site(chinese, template, folder / CHINESE, CHINESE, language="zh")
    for name, project in sites.items():
        ok("git", "clone", "--quiet", "--bare", project, root / f"srv/git/{name}.git")
    # One site has both of its names in the DNS.
    machine = Machine(root, [*map(domain, sites), f"www.{domain(PAIRS[0])}"])
    machine.ok("ip address add 10.9.8.7/32 dev lo")  # an address other than 127.0.0.1
    by_hand = debian == MACHINES[0]
    try:
        if by_hand:
            put_online(machine, sites, by_hand)
        else:
            put_online_from_outside(machine, sites)
        yield Online(machine, projects, by_hand)
    finally:
        machine.stop()


def bring_data_online(debian: str, release: Path, folder: Path) -> Iterator[Online]:
    """Boot a Debian, deploy a site of every pair with SQLite and some with PostgreSQL.

    On the oldest one from outside, on the others with deploy/release there: the other way
    round than bring_online(). Their names are those of DATA_SITES.
    """
    template = Path(shutil.copytree(release, folder / "template"))
    projects = {
        name: emit_site(pair, template, folder / name, name, database=database)
        for name, (pair, database) in DATA_SITES.items()
    }
    root = folder / "root"
    ok("cp", "--archive", root_file_system(debian, LOCKS), root)
    for name, project in projects.items():
        ok("git", "clone", "--quiet", "--bare", project, root / f"srv/git/{name}.git")
    machine = Machine(root, [domain(name) for name in projects])
    try:
        if debian == MACHINES[0]:
            put_online_from_outside(machine, projects)
        else:
            put_online(machine, projects, by_hand=False)
        yield Online(machine, projects, by_hand=False)
    finally:
        machine.stop()


def kill_a_worker(online: Online, site: Pair | str) -> None:
    """Kill a process that serves, without a warning: a worker, or the only process."""
    online.machine.wait_until(f"systemctl is-active {site}", 60)
    # The newest, because an older one may be about to exit after another test's reload. If
    # it exits before it is killed, the script fails and is run again.
    online.machine.wait_until(
        f"""
        victim=$(systemctl show -P MainPID {site})
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


@contextlib.contextmanager
def edited(online: Online, path: str, text: str) -> Iterator[None]:
    """Append a text to a file on the machine while the block runs."""
    file = online.machine.path(path)
    previous = file.read_text() if file.exists() else None
    file.parent.mkdir(exist_ok=True)
    file.write_text((previous or "") + text)
    try:
        yield
    finally:
        if previous is None:
            file.unlink()
        else:
            file.write_text(previous)
