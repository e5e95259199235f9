"""Floods on a booted Debian: what one visitor does must not keep others from any site."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.commands import ok
from support.online import Online, domain
from support.project import MACHINES, PAIRS, Pair

pytestmark = pytest.mark.slow

ALL_SITES = ",".join(domain(pair) for pair in PAIRS)
GIGABYTE = 2**30


def flood(online: Online, kind: str, pair: Pair, *options: object) -> dict:
    """Flood a site, and return what flood.py reports."""
    script = Path(__file__).with_name("support") / "flood.py"
    command = (sys.executable, script, kind, domain(pair), online.root_certificate, *options)
    report = json.loads(ok(*online.machine.near(*command), timeout=180))
    shown = report | {"failed": len(report["failed"])}
    print(f"{kind} on {pair}: {shown}")
    return report


class Usage(NamedTuple):
    """What the processes of a service use: memory in bytes (PSS), CPU time in seconds."""

    memory: int
    cpu: float


def usage(online: Online, pair: Pair) -> Usage:
    output = online.machine.ok(
        f"""
        main=$(systemctl show -P MainPID {pair})
        for pid in $main $(cat /proc/$main/task/*/children); do
            awk '/^Pss:/ {{ print $2 * 1024 }}' /proc/$pid/smaps_rollup
            cut -d ')' -f 2 /proc/$pid/stat | awk '{{ print ($12 + $13) / 100 }}'
        done
        """
    )
    numbers = [float(line) for line in output.split()]
    return Usage(int(sum(numbers[::2])), sum(numbers[1::2]))


def processes(online: Online) -> dict[str, str]:
    """Return the main process of each site and of nginx; another one means a restart."""
    units = [*map(str, PAIRS), "nginx"]
    return {unit: online.machine.ok(f"systemctl show -P MainPID {unit}") for unit in units}


@pytest.fixture
def nothing_restarts(online) -> Iterator[None]:
    """Fail if any site or nginx is ended during the test."""
    before = processes(online)
    yield
    assert processes(online) == before


@pytest.mark.usefixtures("nothing_restarts")
@pytest.mark.parametrize("kind", ["slow-posts", "slow-headers", "slow-readers"])
def test_one_address_cannot_use_up_the_connections(online, kind):
    """1,700 connections from one address: more than nginx has by default."""
    report = flood(online, kind, PAIRS[0], "--count=1700", "--sites", ALL_SITES)
    assert report["probes"] > 100
    assert report["failed"] == []


@pytest.mark.usefixtures("nothing_restarts")
def test_fifty_addresses_cannot_use_up_the_connections(online):
    options = ("--count=1700", "--addresses=50", "--sites", ALL_SITES)
    report = flood(online, "slow-posts", PAIRS[-1], *options)
    assert report["probes"] > 100
    assert report["failed"] == []


@pytest.mark.usefixtures("nothing_restarts")
def test_flood_of_forms_is_refused_and_leaves_no_memory_behind(online, service):
    """50 forms of 10 MB at once, and 8 of five million fields, on a machine of 1 GB.

    Each pair does this on one of the machines.
    """
    if PAIRS.index(service) % len(MACHINES) != online.by_hand:
        pytest.skip("runs on another machine")
    for _ in range(20):  # an app in use, as after its first minutes
        online.curl(service, "/")
        online.curl(service, "/hello/")
    before = usage(online, service)
    with online.machine.limit_memory(GIGABYTE):
        reports = [
            flood(online, "forms", service, "--count=50", "--sites", ALL_SITES),
            flood(online, "fields", service, "--count=8", "--sites", ALL_SITES),
        ]
    after = usage(online, service)
    cpu = (after.cpu - before.cpu) / 58
    print(f"{service}: {before.memory >> 20} to {after.memory >> 20} MB, {cpu:.4f} s a body")
    assert [report["answers"] for report in reports] == [{"413": 50}, {"413": 8}]
    assert [report["failed"] for report in reports] == [[], []]
    assert after.memory <= 1.5 * before.memory
