"""Releases: CHANGELOG.md lists them, and git knows the commit of each.

A clone may have no tags, so the changelog is the record: a release is the commit that
added its heading. As a command, this refuses or makes a release:

    .venv/bin/python tests/releases.py 1.1.0
"""

import datetime
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parent.parent
# Copier prints what is below it after an update: see texts/notes.jinja.
NOTES = "### Before you release"


class Release(NamedTuple):
    """A heading of the changelog, such as `## 1.0.0 - 2026-11-23`."""

    version: Version
    date: datetime.date

    @property
    def tag(self) -> str:
        return f"v{self.version}"

    @property
    def heading(self) -> str:
        return f"## {self.version} - {self.date}"


def parse(changelog: str) -> list[Release]:
    """Return the releases that a changelog lists, newest first.

    The first heading may be `## Unreleased`. Raises ValueError for any other invalid
    heading, for a wrong order, for a release without a text, and for what would spoil the
    message after an update.
    """
    check_notes(changelog)
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    releases = []
    for number, section in enumerate(sections):
        heading, _, text = section.partition("\n")
        if heading == "Unreleased" and number == 0:
            continue
        try:
            version, date = heading.split(" - ")
            release = Release(Version(version), datetime.date.fromisoformat(date))
        except (InvalidVersion, ValueError):
            release = None
        if not release or release.heading != f"## {heading}":
            raise ValueError(f'"## {heading}" is not of the form "## 1.0.0 - 2026-11-23"')
        if not text.strip():
            raise ValueError(f'nothing below "## {heading}" says what changes')
        newer = releases[-1] if releases else None
        if newer and not (newer.version > release.version and newer.date >= release.date):
            raise ValueError(f'"## {heading}" is below the older "{newer.heading}"')
        releases.append(release)
    return releases


def check_notes(changelog: str) -> None:
    """Raise ValueError if Copier could not print the notes of a changelog as they are."""
    if found := re.search(r"\{[{%#]", changelog):
        raise ValueError(f'Copier would take "{found[0]}" for a template tag')
    for heading in re.findall(r"(?im)^#+ *before .*$", changelog):
        if heading != NOTES:
            raise ValueError(f'"{heading}" is not "{NOTES}"')
    for text in re.findall(rf"(?ms)^{NOTES}\n(.*?)(?=^##|\Z)", changelog):
        if not text.strip():
            raise ValueError(f'nothing below "{NOTES}" says what to do')


def git(repository: Path, *arguments: str) -> str:
    """Return what a git command prints. Raises CalledProcessError if it fails."""
    return subprocess.run(
        ["git", *arguments], cwd=repository, check=True, capture_output=True, text=True
    ).stdout.strip()


def commits(repository: Path) -> dict[Release, str]:
    """Return the commit of each release: the one that added its heading to the changelog.

    Empty for a folder that is not in git, and for a shallow clone.
    """
    try:
        if git(repository, "rev-parse", "--is-shallow-repository") == "true":
            return {}
        changelog = git(repository, "show", "HEAD:CHANGELOG.md")
    except subprocess.CalledProcessError:
        return {}
    newest = ("log", "-1", "--format=%H")
    return {
        release: git(repository, *newest, f"-S{release.heading}\n", "--", "CHANGELOG.md")
        for release in parse(changelog)
    }


def problems(repository: Path, wanted: str) -> list[str]:
    """Return why HEAD cannot be released as the version `wanted`, each reason with its fix."""
    if git(repository, "rev-parse", "--is-shallow-repository") == "true":
        return ["This clone has no history: git fetch --unshallow --tags"]
    found = []
    if git(repository, "status", "--porcelain"):
        found.append("There are uncommitted changes: git status")
    try:
        known = commits(repository)
    except ValueError as error:
        return [*found, f"CHANGELOG.md: {error}"]
    newest = next(iter(known), None)
    changelog = git(repository, "show", "HEAD:CHANGELOG.md")
    if "\n## Unreleased\n" in changelog or not newest or str(newest.version) != wanted:
        heading = f"## {wanted} - {datetime.date.today()}"
        found.append(f'CHANGELOG.md: put "{heading}" above what is new, and commit')
    elif known[newest] != git(repository, "rev-parse", "HEAD"):
        found.append(
            f"There are commits after {known[newest][:7]}, which added the heading of {wanted}"
            " to CHANGELOG.md: remove it, commit, add it again, and commit"
        )
    tags = {tag: git(repository, "rev-list", "-1", tag) for tag in git_tags(repository)}
    for release, commit in known.items():
        tagged = tags.pop(release.tag, None)
        if str(release.version) == wanted:
            if tagged:
                found.append(f"{release.tag} is already released: choose a higher version")
        elif not tagged:
            found.append(f"{release.tag} has no tag: git tag {release.tag} {commit[:7]}")
        elif tagged != commit:
            found.append(f"{release.tag} tags {tagged[:7]}, but its heading is {commit[:7]}'s")
    for tag in tags:
        found.append(f"{tag} is a tag without a heading in CHANGELOG.md: add its heading")
    return found


def git_tags(repository: Path) -> list[str]:
    """Return the tags that Copier treats as releases."""
    return [tag for tag in git(repository, "tag").splitlines() if re.match(r"v\d", tag)]


def main(wanted: str, repository: Path = ROOT) -> None:
    """Tag HEAD as a release, if `problems` finds none and the tests pass."""
    if found := problems(repository, wanted):
        sys.exit("\n".join([f"{wanted} is not released:", *found]))
    environment = os.environ | {"BEFORE_RELEASE": "true"}
    if subprocess.run([repository / ".ci/run"], check=False, env=environment).returncode:
        sys.exit(f"{wanted} is not released: the tests fail; run .ci/run")
    git(repository, "tag", "--annotate", f"v{wanted}", f"--message=Release {wanted}")
    print(f"{wanted} is tagged. Publish it: git push --follow-tags")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: .venv/bin/python tests/releases.py VERSION")
    main(sys.argv[1])
