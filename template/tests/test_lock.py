"""requirements.lock, from which the server installs, has what requirements.txt asks for."""

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parent.parent
RENEW = (
    "uv pip compile --quiet --universal --python-version=3.10 --generate-hashes"
    " --output-file=requirements.lock requirements.txt"
)


def read(name):
    return (PROJECT / name).read_text(encoding="utf-8")


def asked():
    """What requirements.txt asks for, by name: the bounds of each line."""
    lines = [line.partition(" #")[0] for line in read("requirements.txt").splitlines()]
    wanted = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    return [(canonicalize_name(each.name), each.specifier) for each in wanted]


def locked():
    """What the lock has: name, version, and the lines with checksums and askers."""
    return re.findall(r"(?m)^(\S+)==(\S+)(.*\n(?: .*\n)*)", read("requirements.lock"))


def test_lock_has_no_conflict_marker():
    """An update of the template may have left one."""
    assert "<<<<<<<" not in read("requirements.lock"), f"run {RENEW} --upgrade"


def test_lock_has_what_is_asked_for():
    for name, bounds in asked():
        versions = [version for each, version, _ in locked() if each == name]
        assert any(bounds.contains(each, prereleases=True) for each in versions), (
            f"requirements.lock has no {name}{bounds}; renew it: {RENEW}"
        )


def test_lock_has_nothing_else():
    names = {name for name, _ in asked()}
    for name, _, behind in locked():
        assert "-r requirements.txt" not in behind or name in names, (
            f"requirements.lock still has {name}; renew it: {RENEW}"
        )


def test_lock_has_checksums():
    for name, _, behind in locked():
        assert "--hash=sha256:" in behind, f"{name} has none; renew the lock: {RENEW}"
