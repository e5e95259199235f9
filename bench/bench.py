"""Compare each emitted site with the same app deployed as in tutorials.

    .venv/bin/python bench/bench.py

All set-ups run at the same time, each behind its own nginx on 127.0.0.1, and are loaded
in turn, so that other activity on the machine affects all of them alike. The tutorial's
set-up runs twice: the difference between the two runs is noise. Writes results.json, from
which report.py makes the tables and the plot. README.md describes the cases and the method.
"""

import argparse
import contextlib
import datetime
import http.client
import json
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH.parent / "tests"))

from support.commands import commit, free_port, isolate, ok
from support.project import PAIRS, Pair, add_routes, append, emit, make_release, tag
from support.serve import configure, environment, serving, wait_for_port

TOOLS = {"wrk": "wrk", "nginx": "nginx-light", "systemd-socket-activate": "systemd"}

# The command in the documentation of each framework's usual server.
TUTORIALS = {
    "flask": (PAIRS[0], "gunicorn -w 4 -b 127.0.0.1:{port} app.main:app"),
    "fastapi": (
        Pair("fastapi", "uvicorn"),
        "uvicorn app.main:app --workers 4 --host 127.0.0.1 --port {port}",
    ),
}
TUTORIAL_SITE = """
server {{
    listen 127.0.0.1:{port};
    server_name example.com;

    location / {{
        proxy_pass http://127.0.0.1:{upstream};
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
    }}
}}
"""
# The other settings are nginx's defaults, the same for all set-ups.
NGINX = """
{user}daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes auto;
events {{ worker_connections 1024; }}
http {{
    types {{ text/html html; text/css css; image/svg+xml svg; }}
    sendfile on; keepalive_timeout 65; keepalive_requests 1000000;
    access_log {folder}/access.log;
    {temporary}
    {include}
}}
"""

# A handler that sleeps, as if it waited for a database.
WAIT = {
    "flask": """

from time import sleep


@pages.get("/wait")
def wait():
    sleep(0.05)
    return {"waited": True}
""",
    "fastapi": """

from asyncio import sleep


@api.get("/wait")
async def wait():
    await sleep(0.05)
    return {"waited": True}
""",
}

COMPRESS = """
from pathlib import Path

from assets import compress

compress(Path("app/static"))
"""


class Case(NamedTuple):
    """The requests of a case.

    paths: requested in turn. connections: the number at a time. gzip: whether the client
    accepts it. waiting: how many other connections request /wait at the same time. again: as
    on a second visit, see second_visit().
    """

    paths: list[str]
    connections: int = 16
    gzip: bool = False
    waiting: int = 0
    again: bool = False


CASES = {
    "json": Case(["/items/42?q=tea"]),
    "page": Case(["/"]),
    "visit": Case(["/", "/static/style.css", "/static/favicon.svg"], gzip=True),
    "static": Case(["/static/bench.css"]),
    "static_gzip": Case(["/static/bench.css"], gzip=True),
    "wait": Case(["/wait"], connections=64),
    "next_to_waiting": Case(["/items/42?q=tea"], connections=4, waiting=32),
    "second_visit": Case(["/"], gzip=True, again=True),
}


class Setup(NamedTuple):
    """A way to run a project: with the emitted files, or with a tutorial's command."""

    name: str
    project: Path
    command: str = ""


class Site(NamedTuple):
    """A running set-up: the main processes of its server and nginx, and nginx's port."""

    server: psutil.Process
    nginx: psutil.Process
    port: int

    def cpu(self) -> float:
        """Return the CPU time that all its processes have used so far, in seconds."""
        total = 0.0
        for parent in (self.server, self.nginx):
            for process in [parent, *parent.children(recursive=True)]:
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def memory(self) -> float:
        """Return the proportional set size (PSS) of its server's processes, in MB."""
        processes = [self.server, *self.server.children(recursive=True)]
        return sum(process.memory_full_info().pss for process in processes) / 1e6


# Prepare the projects.


class Timed:
    """The wall-clock and CPU time of commands, in seconds, by name."""

    def __init__(self) -> None:
        self.samples = defaultdict(lambda: {"cpu_s": [], "wall_s": []})

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the commands that finish in the block."""
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        yield
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        self.samples[name]["cpu_s"].append(round(used, 3))
        self.samples[name]["wall_s"].append(round(time.monotonic() - start, 3))


def make_template(folder: Path) -> Path:
    """Copy the template in this working tree, with two releases that differ by a line."""
    template = make_release(folder / "template")
    append(template / "template/app/static/style.css.jinja", "\n/* newer */\n")
    tag(template, "v1.1.0")
    return template


def time_template(template: Path, folder: Path, rounds: int, timed: Timed) -> None:
    """Time `copier copy` and `copier update`, in turn."""
    for number in range(rounds):
        for framework in TUTORIALS:
            project = folder / f"{framework}-{number}"
            data = f"--data=framework={framework}"
            command = ("copier", "copy", "--quiet", "--defaults", data, "--vcs-ref=v1.0.0")
            with timed(f"copier copy, {framework}"):
                ok(*command, template, project)
            commit(project, "Start")
            with timed(f"copier update, {framework}"):
                ok("copier", "update", "--quiet", "--defaults", cwd=project)


def prepare(template: Path, folder: Path, timed: Timed) -> dict[Pair, Path]:
    """Emit and install a project of each pair, with the paths that the cases request."""
    projects = {}
    for pair in PAIRS:
        project = folder / str(pair) / "my-app"
        emit(template, project, **pair._asdict())
        add_routes(project, WAIT[pair.framework])
        style = (project / "app/static/style.css").read_text()
        (project / "app/static/bench.css").write_text((style * 20)[:20_000])
        # As deploy/release builds a release; it imports its modules from deploy/.
        modules = os.environ | {"PYTHONPATH": "deploy"}
        ok("python3", "-c", COMPRESS, cwd=project, env=modules)
        ok("python3", "-m", "compileall", "-q", "app", cwd=project)
        ok("python3", "-m", "venv", ".venv", cwd=project)
        install = (".venv/bin/pip", "install", "--quiet", "--require-hashes")
        with timed(f"pip install, {pair}"):
            ok(*install, "-r", "requirements.lock", cwd=project, timeout=900)
        projects[pair] = project
    return projects


# Run them.


@contextlib.contextmanager
def server(setup: Setup, folder: Path, listen: str) -> Iterator[psutil.Process]:
    """Run a set-up's server, without nginx.

    folder: for its log. listen: the path of a socket, or the port for a tutorial's command.
    """
    if not setup.command:
        with serving(setup.project, listen, folder / "log") as activated:
            yield psutil.Process(activated.process.pid)
        return
    program, *options = setup.command.format(port=listen).split()
    settings = [word.removeprefix("--setenv=") for word in environment(setup.project)]
    settings.append(f"PYTHONPATH={setup.project}")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [setup.project / ".venv/bin" / program, *options],
            cwd=folder,  # not the project: Gunicorn would read its gunicorn.conf.py
            env=os.environ | dict(setting.split("=", 1) for setting in settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def nginx(folder: Path, port: int, include: str) -> Iterator[psutil.Process]:
    """Run nginx with one site. include: the site, or the directive that includes it."""
    configuration = folder / "bench.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    configuration.write_text(
        NGINX.format(
            user="user root; " if os.getuid() == 0 else "",
            folder=folder,
            temporary=" ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds),
            include=include,
        )
    )
    command = ["nginx", "-c", configuration, "-e", folder / "error.log"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def online(setup: Setup, folder: Path) -> Iterator[Site]:
    """Run a set-up behind nginx, over HTTP."""
    folder.mkdir()
    port = free_port()
    if setup.command:
        listen = str(free_port())
        include = TUTORIAL_SITE.format(port=port, upstream=listen)
    else:
        listen = f"{folder}/app.sock"
        configure(setup.project, folder, port)
        site = folder / "my-app/site.conf"
        site.write_text(site.read_text().replace("# gzip_static on;", "gzip_static on;"))
        include = f"include {folder}/default.conf; include {folder}/my-app/http.conf;"
    with server(setup, folder, listen) as process, nginx(folder, port, include) as front:
        wait_until_healthy(("127.0.0.1", port))
        yield Site(process, front, port)


# Measure them.


def wait_until_healthy(address: str | tuple[str, int]) -> None:
    """Request /healthz until the response is a 200.

    address: a socket's path, or a host and port. Raises TimeoutError after a minute.
    """
    request = b"GET /healthz HTTP/1.0\r\nHost: example.com\r\n\r\n"
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.socket(family) as connection:
            connection.settimeout(30)
            connection.connect(address)
            connection.sendall(request)
            if b" 200 " in connection.recv(100):
                return
        time.sleep(0.002)
    raise TimeoutError(f"{address} does not become healthy")


def start_time(setup: Setup, folder: Path) -> float:
    """Return the time from a server's start to its first response, in ms, without nginx."""
    folder.mkdir()
    port = free_port()
    path = f"{folder}/app.sock"
    start = time.monotonic()
    with server(setup, folder, str(port) if setup.command else path):
        if not setup.command:  # the first connection starts it
            start = time.monotonic()
        wait_until_healthy(("127.0.0.1", port) if setup.command else path)
        return (time.monotonic() - start) * 1e3


def second_visit(site: Site, page: str) -> list[str]:
    """Return what a browser requests on its second visit to a page, as arguments of wrk.lua.

    The page; and each of its files, unless the first response has said for how long it may
    be kept: then with its ETag.
    """
    requests = [page]
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", site.port)) as connection:

        def get(path: str) -> http.client.HTTPResponse:
            connection.request("GET", path, headers={"Host": "example.com"})
            return connection.getresponse()

        text = get(page).read().decode()
        for path in re.findall(r'(?:href|src)="(?:http://example.com)?(/static/[^"]+)"', text):
            response = get(path)
            response.read()
            if "max-age" not in response.headers.get("Cache-Control", ""):
                requests.append(f"IF {response.headers['ETag']} {path}")
    return requests


def wrk(site: Site, case: Case, seconds: int) -> list[str]:
    """Return the command that loads a site with a case."""
    encoding = ["-H", "Accept-Encoding: gzip, deflate, br"] if case.gzip else []
    return [
        *("wrk", "--threads", "1", "--connections", str(case.connections)),
        *("--duration", f"{seconds}s", "--latency", "--timeout", "30s"),
        *("--script", f"{BENCH}/wrk.lua", "-H", "Host: example.com", *encoding),
        *(f"http://127.0.0.1:{site.port}/", "--", *case.paths),
    ]


def load(site: Site, case: Case, seconds: int, may_fail: bool = False) -> dict[str, float]:
    """Return one sample: CPU time per request in µs, requests per second, latencies in ms.

    If a case has several paths, all of them together count as one request. Raises
    RuntimeError if a request fails. may_fail: return the failed share of requests instead,
    in percent.
    """
    with contextlib.ExitStack() as stack:
        if case.waiting:
            command = wrk(site, Case(["/wait"], case.waiting), seconds + 1)
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            time.sleep(0.5)
        if case.again:
            case = case._replace(paths=second_visit(site, *case.paths))
        before = site.cpu()
        output = ok(*wrk(site, case, seconds))
        used = site.cpu() - before
    result = json.loads(output.splitlines()[-1])
    if not result["requests"] or (result["failed"] and not may_fail):
        raise RuntimeError(f"{case} at {site}: {result}")
    rounds = result["requests"] / len(case.paths)
    sample = {
        "cpu_us": used / rounds * 1e6,
        "rps": rounds / result["seconds"],
        "p50_ms": result["p50_ms"],
        "p99_ms": result["p99_ms"],
    }
    if may_fail:
        sample["failed"] = 100 * result["failed"] / result["requests"]
    return sample


def measure(
    setups: list[Setup], folder: Path, rounds: int, seconds: int, only: str = ""
) -> dict:
    """Return all samples, as set-up -> case -> figure -> one value for each round.

    only: the one case to measure, if not all.
    """
    cases = {name: case for name, case in CASES.items() if only in ("", name)}
    samples = {setup.name: defaultdict(lambda: defaultdict(list)) for setup in setups}

    def record(setup: Setup, case: str, **figures: float) -> None:
        for figure, value in figures.items():
            samples[setup.name][case][figure].append(round(value, 3))

    for number in range(rounds if not only else 0):
        for setup in rotate(setups, number):
            path = folder / f"start-{setup.name}-{number}"
            record(setup, "start", ms=start_time(setup, path))
    with contextlib.ExitStack() as stack:
        sites = {
            setup: stack.enter_context(online(setup, folder / f"online-{setup.name}"))
            for setup in setups
        }
        time.sleep(5)  # until all workers have started
        for setup, site in sites.items():
            record(setup, "memory", idle_mb=site.memory())
        for number in range(rounds):
            for name, case in cases.items():
                for setup in rotate(setups, number):
                    record(setup, name, **load(sites[setup], case, seconds))
                    time.sleep(0.2)
            say(f"Round {number + 1} of {rounds}")
        for setup, site in sites.items():
            record(setup, "memory", loaded_mb=site.memory())
    return samples


def rotate(setups: list[Setup], number: int) -> list[Setup]:
    """Return the set-ups in the order of a round: each round starts with another one."""
    number %= len(setups)
    return setups[number:] + setups[:number]


def machine() -> dict[str, str | int]:
    """Return the hardware and versions that the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.split(": ")[1] for line in cpuinfo.splitlines() if "model name" in line]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "nginx": ok("nginx", "-v").strip().rsplit("/")[-1],
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def say(text: str) -> None:
    print(f"-- {text}", flush=True)


def parse(description: str, output: Path, cases: Iterable[str] = ()) -> argparse.Namespace:
    """Return the options of the command line. Exit if a tool is missing.

    cases: those of which --case may choose one.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument(
        "--seconds", type=int, default=3, help="length of each load; default: 3"
    )
    parser.add_argument("--only", default="", help="run set-ups whose name contains this")
    parser.add_argument("--output", type=Path, default=output, help=f"default: {output.name}")
    if cases:
        text = "measure only this case, and replace its figures in the output"
        parser.add_argument("--case", choices=cases, default="", help=text)
    options = parser.parse_args()
    for command, package in TOOLS.items():
        if not shutil.which(command):
            sys.exit(f"{command} is missing: apt-get install {package}")
    return options


def main() -> None:
    options = parse(__doc__, BENCH / "results.json", CASES)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        isolate(folder)
        timed = Timed()
        template = make_template(folder)
        if not options.case:
            say("Time copier copy and copier update")
            time_template(template, folder / "copies", options.rounds, timed)
        say("Emit and install a project of each pair")
        projects = prepare(template, folder / "projects", timed)
        setups = [
            Setup(f"{framework}-tutorial{again}", projects[pair], command)
            for framework, (pair, command) in TUTORIALS.items()
            for again in ("", "-again")
        ]
        setups += [Setup(str(pair), project) for pair, project in projects.items()]
        setups = [setup for setup in setups if options.only in setup.name]
        samples = measure(setups, folder, options.rounds, options.seconds, options.case)
    if options.case:
        results = json.loads(options.output.read_text())
        for name, cases in samples.items():
            results["samples"][name][options.case] = cases[options.case]
        write(results, options.output)
        return
    results = {
        "machine": machine(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "samples": samples,
        "commands": timed.samples,
    }
    write(results, options.output)


def write(results: dict, output: Path) -> None:
    output.write_text(json.dumps(results, indent=1) + "\n")
    say(f"Written: {output}")


if __name__ == "__main__":
    main()
