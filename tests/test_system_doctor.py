"""deploy/doctor on a real server: it reports each planted fault, and its fix works."""

import re
import time

import pytest
from support.faults import DATA_FAULTS, FAULTS, HARMLESS
from support.online import domain
from support.project import PAIRS

pytestmark = pytest.mark.slow

SITE = PAIRS[0]  # where the faults are planted
DOCTOR = f"/opt/{SITE}/deploy/doctor"


def filled(text: str, site=SITE) -> str:
    return text.replace("$SITE", str(site)).replace("$DOMAIN", domain(site))


def diagnosis(online, path: str = DOCTOR) -> tuple[int, dict[str, str]]:
    """The doctor's exit status, and the text of each FAIL with its fix."""
    done = online.machine.run(path)
    found = re.findall(r"^FAIL   (.+(?:\n {7}.+)*?)\n {7}fix: (.+)$", done.stdout, re.MULTILINE)
    assert len(found) == done.stdout.count("FAIL"), done.stdout
    return done.returncode, dict(found)


def reports_exactly(lines: dict[str, str], parts: list[str]) -> bool:
    """Whether each part is in one line, and no line is left over."""
    matches = [[line for line in lines if part in line] for part in parts]
    return all(len(found) == 1 for found in matches) and len(lines) == len(parts)


def wait_until_healthy(online, site=SITE) -> None:
    """A reload of nginx takes a moment."""
    end = time.monotonic() + 20
    while (seen := diagnosis(online, f"/opt/{site}/deploy/doctor")) != (0, {}):
        assert time.monotonic() < end, seen
        time.sleep(0.5)


def test_site_that_the_readme_put_online_has_no_problems(online, service):
    done = online.machine.run(f"/opt/{service}/deploy/doctor")
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout
    assert done.stdout.count("ok     ") >= 9
    assert f"No problems found with {domain(service)}." in done.stdout


def plant_and_fix(online, fault, site=SITE) -> None:
    """Plant a fault, compare what the doctor reports, and run its fix."""
    machine = online.machine
    plant, first, undo, expected, *fails = (
        filled(text or "true", site)
        for text in (fault.plant, fault.first, fault.undo, fault.fix, *fault.fails)
    )
    # By its real path, because a fault may be that the link is broken.
    doctor = machine.ok(f"readlink -f /opt/{site}").strip() + "/deploy/doctor"
    try:
        machine.ok(plant)
        end = time.monotonic() + 20
        status, lines = diagnosis(online, doctor)
        while not reports_exactly(lines, fails) and time.monotonic() < end:
            time.sleep(0.5)
            status, lines = diagnosis(online, doctor)
        assert reports_exactly(lines, fails), lines
        assert status == 1
        [fix] = [fix for line, fix in lines.items() if fails[0] in line]
        assert expected in fix
        if fault.first is not None:
            machine.ok(first)
            machine.ok(fix)
            wait_until_healthy(online, site)
    finally:
        machine.run(undo)
    wait_until_healthy(online, site)


@pytest.mark.usefixtures("by_script")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_reported_and_its_fix_works(online, fault):
    plant_and_fix(online, fault)


@pytest.mark.parametrize(
    ("site", "fault"),
    [(site, fault) for site, faults in DATA_FAULTS.items() for fault in faults],
    ids=lambda each: getattr(each, "name", each),
)
def test_fault_of_the_database_is_reported_and_its_fix_works(keeping, site, fault):
    plant_and_fix(keeping, fault, site)


def test_database_of_a_newer_release_is_no_failure(keeping):
    """After a rollback. The app checks that it can use the database."""
    site = "fastapi-uvicorn-postgresql"
    psql = f"cd /; sudo -u postgres psql -qAtd {site} -c"
    old = keeping.machine.ok(f"{psql} 'select version_num from alembic_version'").strip()
    change = psql + " \"update alembic_version set version_num = '{}'\""
    try:
        keeping.machine.ok(change.format("ffff"))
        done = keeping.machine.run(f"/opt/{site}/deploy/doctor")
    finally:
        keeping.machine.ok(change.format(old))
    assert (done.returncode, "note   the database is newer" in done.stdout) == (0, True)


@pytest.mark.usefixtures("by_script")
@pytest.mark.parametrize("case", HARMLESS, ids=lambda case: case.name)
def test_what_may_be_as_it_should_is_no_failure(online, case):
    try:
        online.machine.ok(filled(case.plant))
        wait_until_healthy(online)
        notes = re.findall(r"^note   (.+)$", online.machine.ok(DOCTOR), re.MULTILINE)
        expected = filled(case.note or "/etc/hosts on this server has $DOMAIN")
        assert expected in "\n".join(notes)
    finally:
        online.machine.run(filled(case.undo))
    wait_until_healthy(online)


@pytest.mark.usefixtures("by_script")
def test_end_of_the_traceback_is_shown_and_no_more_of_the_log(online):
    fault = next(fault for fault in FAULTS if fault.name == "first-page-broken")
    try:
        online.machine.ok(filled(fault.plant))
        _, lines = diagnosis(online)
    finally:
        online.machine.ok(filled(fault.undo))
    text = next(line for line in lines if ".sock" in line)
    assert text.endswith("ZeroDivisionError: integer division or modulo by zero")
    assert 2 <= len(text.splitlines()) <= 6


@pytest.mark.usefixtures("by_script")
def test_program_on_the_port_of_nginx_is_named(online):
    fault = next(fault for fault in FAULTS if fault.name == "port-taken")
    try:
        online.machine.ok(filled(fault.plant))
        assert "port 80 is in use by python3" in online.machine.run(DOCTOR).stdout
    finally:
        online.machine.ok(filled(fault.undo))


@pytest.mark.usefixtures("by_script")
def test_doctor_changes_nothing(online):
    """Compares each file's checksum and times."""
    listing = (
        "find /etc /opt /run/systemd/system -printf '%p %T@ %C@ %m %u %l\\n' | sort;"
        " find /etc /opt -xdev -type f -exec sha256sum {} + | sort;"
        f" systemctl show -P InvocationID -P NRestarts {SITE} {SITE}.socket nginx"
    )
    before = online.machine.ok(listing)
    online.machine.ok(DOCTOR)
    assert online.machine.ok(listing) == before


@pytest.mark.usefixtures("by_script")
def test_doctor_has_to_be_run_as_root(online):
    done = online.machine.run(f"setpriv --reuid=nobody {DOCTOR}")
    assert done.returncode == 1
    assert done.stdout.strip().endswith("sudo deploy/doctor")


@pytest.mark.usefixtures("by_script")
def test_doctor_runs_from_any_copy_and_names_that_one_to_release_from(online):
    """A copy elsewhere can be released from; one in /opt cannot."""
    machine = online.machine
    machine.ok(f"cp -r /opt/{SITE}/ /srv/copy; touch /opt/{SITE}.versions/switching")
    try:
        _, lines = diagnosis(online, "/srv/copy/deploy/doctor")
    finally:
        machine.ok(f"rm -r /srv/copy /opt/{SITE}.versions/switching")
    assert list(lines.values()) == ["sudo /srv/copy/deploy/release"]
