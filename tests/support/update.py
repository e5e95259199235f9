"""Releases of the template, projects that start from them, and what an update does to them.

Updates start from each release in CHANGELOG.md, and from OLDER, which is made from the
working tree and differs from it in every file. They lead to LATEST, the working tree.
"""

import filecmp
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from releases import commits

from support.commands import commit, ok, run
from support.project import (
    ANSWERS_FILE,
    ROOT,
    Pair,
    copy_template,
    data,
    emit,
    files,
    read_frameworks,
    tag,
)

OLDER = "v0.0.1"
LATEST = "v999.0.0"
RELEASES = [*(release.tag for release in commits(ROOT)), OLDER]
# Owners replace these as a whole. Any change would be a conflict then, so they never change.
FROZEN = ["app/static/favicon.svg", "app/templates/base.html", "app/templates/home.html"]
ANSWERS = {"project_name": "My App", "domain": "www.example.org"}

COMMENTS = {
    ".css": "/* {} */",
    ".html": "<!-- {} -->",
    ".md": "<!-- {} -->",
    ".json5": "// {}",
}
OLD_TEXT = "An older release said this."
OWN_TEXT = "The owner says this."
WRAPPING = ("{# ", "{% set ", "{% from ", "{% call ", "{% raw ", "{% include ")
MARKERS = ("<<<<<<< ", "=======", ">>>>>>> ")
# Values of the working tree, and what they might have been in an older release.
OLD_VALUES = {
    "python-dotenv~=1.2 ": "python-dotenv~=1.1 ",
    "pytest~=9.2 ": "pytest~=9.1 ",
    "markupsafe==3.0.4": "markupsafe==3.0.2",
    "TimeoutStopSec=35": "TimeoutStopSec=30",
    "X-Frame-Options DENY": "X-Frame-Options SAMEORIGIN",
    "--paper: #fbfaf7": "--paper: #fff",
    'SAMESITE="Lax"': 'SAMESITE="Strict"',
    # The last lines before those of the owner.
    "secret_key=secret_key(required=production)": "secret_key=secret_key(production)",
    "app.register_blueprint(pages)": "app.register_blueprint(pages, url_prefix=None)",
    "app.include_router(pages)": 'app.include_router(pages, prefix="")',
    "margin: 0; }\n": "margin: 0 }\n",
    ".ruff_cache/\n": "",
    "uv~=0.13.0 ": "uv~=0.12.0 ",
    "return app.test_client()": "return app.test_client(use_cookies=True)",
    "raise_server_exceptions=False)": "raise_server_exceptions=False, cookies=None)",
}


# The template's history.


def template_files(template: Path) -> list[Path]:
    """Return the files of a template whose text is emitted."""
    found = [*template.glob("template/**/*"), *template.glob("texts/**/*.md")]
    return [path for path in found if path.is_file()]


def gaps(lines: list[str], name: str) -> Iterator[int]:
    """Yield the lines of a file before which a comment may be: a blank line, a tag of HTML."""
    own = False
    for number, line in enumerate(lines):
        own = own or "Your own" in line
        is_gap = line.lstrip().startswith("<") if name.endswith(".html") else line == "\n"
        if is_gap and not own:
            yield number
        own = own and line != "\n"


def make_older(template: Path) -> None:
    """Change each file that is emitted as an older release may have had it.

    Adds a comment after the first line and one in the middle, and replaces some values. Only
    the owner's places stay the same: FROZEN, and the lines below a comment "Your own".
    """
    for path in template_files(template):
        name = path.name.replace("{% endif %}", "").removesuffix(".jinja")
        text = path.read_text(encoding="utf-8")
        only_includes = text.startswith("{% include")  # a file of texts/, changed itself
        if only_includes or any(each.endswith(f"/{name}") for each in FROZEN):
            continue
        lines = text.splitlines(keepends=True)
        comment = COMMENTS.get(Path(name).suffix, "# {}").format(OLD_TEXT) + "\n"
        middle = len(lines) // 2
        near = [i for i in gaps(lines, name) if abs(i - middle) < 9]
        if near:
            lines.insert(min(near, key=lambda i: abs(i - middle)), comment)
        tags = itertools.takewhile(lambda line: line.startswith(WRAPPING), lines)
        lines.insert(len(list(tags)) + 1, comment)
        text = "".join(lines)
        for new, old in OLD_VALUES.items():
            text = text.replace(new, old)
        path.write_text(text, encoding="utf-8")


def release_as(
    template: Path, name: str, change: Callable[[Path], object] = lambda template: None
) -> None:
    """Tag a release: the template in the working tree, changed by `change`."""
    change(copy_template(template))
    tag(template, name)


def make_history(path: Path) -> Path:
    """Clone this repository, with a tag for each release, OLDER and LATEST."""
    if run("git", "clone", "--quiet", ROOT, path).returncode:
        ok("git", "init", "--quiet", path)  # not in git: then there is only OLDER
    for release, commit_id in commits(ROOT).items():
        ok("git", "tag", "--force", release.tag, commit_id, cwd=path)
    release_as(path, OLDER, make_older)
    release_as(path, LATEST)
    return path


def read_at(history: Path, name: str) -> Callable[[str], str]:
    """Return a function that returns the text of a file of the release `name`."""
    return lambda path: ok("git", "show", f"{name}:{path}", cwd=history)


def skip_if_newer(pair: Pair, release: str, history: Path) -> None:
    """Skip the test if the release did not have the pair yet."""
    frameworks = read_frameworks(read_at(history, release))
    if pair.server not in frameworks[pair.framework]["servers"]:
        pytest.skip(f"{pair} is newer than {release}")


# Projects.


def start(history: Path, path: Path, pair: Pair, release: str) -> Path:
    """Start a project of a pair from a release, in git, as an owner does."""
    emit(history, path, release, **ANSWERS | pair._asdict())
    return commit(path)


def update(project: Path, vcs_ref: str | None = None, **answers: str) -> str:
    """Update a project, with some answers changed, and return what Copier prints.

    vcs_ref: the version of the template, by default the latest release.
    """
    options = [f"--vcs-ref={vcs_ref}"] if vcs_ref else []
    return ok("copier", "update", "--defaults", *options, *data(answers), cwd=project)


def contents(project: Path) -> dict[str, bytes]:
    """Return all files except git's own, by their paths."""
    paths = {path.relative_to(project): path for path in project.rglob("*") if path.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in paths.items()
        if ".git" not in name.parts
    }


def assert_same(project: Path, other: Path) -> None:
    """Check that two projects have the same files, bytes and executable bits."""
    names = {*files(project), *files(other)}
    _, different, missing = filecmp.cmpfiles(project, other, names, shallow=False)
    assert (different, missing) == ([], [])
    for name in names:
        assert os.access(project / name, os.X_OK) == os.access(other / name, os.X_OK), name


def conflicts(project: Path) -> set[str]:
    """Return the files that git lists as conflicted, or that have a marker."""
    unmerged = ok("git", "diff", "--name-only", "--diff-filter=U", cwd=project).split()
    marked = run("git", "grep", "-lE", "^(<<<<<<< before|>>>>>>> after)", cwd=project)
    return {*unmerged, *marked.stdout.split()}


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def added(old: Path, new: Path) -> dict[str, list[str]]:
    """Return the lines that each text file of `new` has in addition to that of `old`."""
    found = {}
    for name in files(new):
        if name.endswith((".png", ANSWERS_FILE)):
            continue
        previous = set(lines(old / name)) if (old / name).is_file() else set()
        found[name] = [line for line in lines(new / name) if line not in previous]
    return found


def merged(untouched: Path, own: Path, latest: Path) -> Counter[str]:
    """Return the lines of a file after an update, each with the number of its occurrences.

    They are the owner's, with those that the template has added, without those it has removed.
    """
    found = Counter(lines(own))
    found.update(lines(latest))
    found.subtract(lines(untouched))
    return +found
