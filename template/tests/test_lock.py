"""requirements.lock, which the server installs, holds what requirements.txt asks for."""

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parent.parent
RENEW = """requirements.lock {problem}. Renew it in the project's folder:

    uv pip compile --quiet --universal --python-version=3.10 --generate-hashes \
--output-file=requirements.lock requirements.txt{option}
"""


def read(name):
    return (PROJECT / name).read_text(encoding="utf-8")


def asked():
    """The requirements in requirements.txt, without their comments."""
    lines = [line.partition(" #")[0] for line in read("requirements.txt").splitlines()]
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def locked():
    """For each package in the lock: its name, its version, its checksums and askers."""
    return re.findall(r"^([\w.-]+)==(\S+)(.*\n(?:[ ].*\n)*)", read("requirements.lock"), re.M)


def test_lock_has_no_conflict_marker():
    assert "<<<<<<<" not in read("requirements.lock"), RENEW.format(
        problem="has conflict markers of an update", option=" --upgrade"
    )


def test_lock_has_what_is_asked_for():
    for wanted in asked():
        versions = [v for name, v, _ in locked() if name == canonicalize_name(wanted.name)]
        assert any(wanted.specifier.contains(v, prereleases=True) for v in versions), (
            RENEW.format(problem=f"does not have {wanted}", option="")
        )


def test_lock_has_nothing_that_is_no_longer_asked_for():
    names = {canonicalize_name(wanted.name) for wanted in asked()}
    for name, _, behind in locked():
        assert name in names or "-r requirements.txt" not in behind, RENEW.format(
            problem=f"still has {name}", option=""
        )


def test_lock_has_checksums():
    for name, _, behind in locked():
        assert "--hash=sha256:" in behind, RENEW.format(
            problem=f"has no checksum for {name}", option=""
        )
