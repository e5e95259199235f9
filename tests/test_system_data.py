"""Data on a real Debian: no acknowledged row is lost, whatever is released, killed or full."""

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.commands import commit, ok
from support.online import DATA_SITES, Load, Online, domain
from support.project import edit, emit

pytestmark = pytest.mark.slow

SQLITE = [name for name, (_, database) in DATA_SITES.items() if database == "sqlite"]
POSTGRESQL = [name for name in DATA_SITES if name not in SQLITE]
# One of each framework, and on each database.
FEW = ["flask-gunicorn-sqlite", "fastapi-uvicorn-sqlite", *POSTGRESQL]

MIGRATION = '''"""{message}."""

import os

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {previous}


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    {downgrade}
'''
ADD = 'op.add_column("greetings", sa.Column("{}", sa.Integer(), server_default="7"))'
DROP = 'op.batch_alter_table("greetings").__enter__().drop_column("{}")'


class Keeper:
    """The owner of a site on a machine: a checkout to change and release.

    rows: the names of all greetings that were acknowledged.
    """

    def __init__(self, online: Online, site: str) -> None:
        self.online, self.machine, self.site = online, online.machine, site
        self.checkout = f"/root/next/{site}"
        self.machine.ok(f"rm -rf {self.checkout}; mkdir -p /root/next")
        self.machine.ok(f"cp -a /opt/{site}/. {self.checkout}; rm -rf {self.checkout}/.venv")
        self.folder = online.machine.path(self.checkout)
        self.before = set(self.names())

    def names(self) -> list[str]:
        """Return the names of all greetings, oldest first, read as a visitor does."""
        found, page = [], "/items/"
        while True:
            part = self.online.curl(self.site, page)
            found += re.findall(r'"name": ?"(.*?)"', part)
            if not (more := re.search(r'"next": ?(\d+)', part)):
                return found[::-1]
            page = f"/items/?before={more[1]}"

    def load(self) -> Load:
        return Load(self.online, self.site, "--rows", "--fresh", "--calm")

    def migrate(self, upgrade: str, downgrade: str = "pass", message: str = "Change") -> str:
        """Add a migration to the checkout, and return its revision."""
        versions = sorted((self.folder / "migrations/versions").glob("[0-9]*.py"))
        number = len(versions) + 1
        text = MIGRATION.format(
            message=message,
            revision=f"{number:04}",
            previous=f'"{number - 1:04}"',
            upgrade=upgrade,
            downgrade=downgrade,
        )
        (self.folder / f"migrations/versions/{number:04}_change.py").write_text(text)
        return f"{number:04}"

    def add_column(self, name: str) -> str:
        """Add a column to the model, with its migration."""
        line = f"    {name}: Mapped[int | None] = mapped_column(server_default='7')\n"
        edit(self.folder / "app/models.py", "\n\n# Your own models:", f"{line}\n\n# Your own models:")
        return self.migrate(ADD.format(name), DROP.format(name), f"Add {name}")

    def release(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.machine.run(" ".join([f"{self.checkout}/deploy/release", *options]))

    def released(self, *options: str) -> str:
        done = self.release(*options)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def revision(self) -> str:
        """Return the revision of the live database."""
        output = self.machine.ok(f"/opt/{self.site}/deploy/run alembic current")
        return re.findall(r"(?m)^(\d{4})\b", output)[-1]

    def status(self, path: str = "/healthz") -> str:
        return self.online.status(self.site, path)

    def greet(self, name: str) -> str:
        """Send the form, and return the status of the response."""
        form = ("-d", f"name={name}", "-o", "/dev/null", "-w", "%{http_code}")
        return self.online.curl(self.site, "/hello/", *form)

    def assert_rows(self, *loads: Load) -> None:
        """Check that every acknowledged row is there exactly once."""
        names = self.names()
        acknowledged = [name for load in loads for name in load.acknowledged]
        assert len(acknowledged) > 10
        assert sorted(set(acknowledged) - set(names)) == []
        assert len(names) == len(set(names))
        assert self.before <= set(names)
