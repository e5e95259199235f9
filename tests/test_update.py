"""`copier update`: fixes of the template reach projects, and no line of an owner is lost.

The updates start from each release that CHANGELOG.md records, and from OLDER, which is
made from the working tree and differs from it in every file. They lead to the working tree.
"""

import filecmp
import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pexpect
import pytest
import yaml
from conftest import (
    PAIRS,
    QUESTIONS,
    ROOT,
    Pair,
    copy_template,
    data,
    emit,
    ok,
    run,
    shell_blocks,
)
from owner import FAVICON, LOGO, append, edit, lock_command, work_for_a_year
from releases import commits
from test_serve import client, free_port, serving

OLDER = "v0.0.1"
LATEST = "v999.0.0"
RELEASES = [*(release.tag for release in commits(ROOT)), OLDER]
# Whoever replaces the icon would meet a conflict in it: so it never changes.
FROZEN = "app/static/favicon.svg"

COMMENTS = {
    ".css": "/* {} */",
    ".html": "<!-- {} -->",
    ".md": "<!-- {} -->",
    ".json5": "// {}",
}
OLD_TEXT = "An older release said this."
OWN_TEXT = "The owner says this."
WRAPPING = ("{# ", "{% set ", "{% from ", "{% call ", "{% raw ")
MARKERS = ("<<<<<<< ", "=======", ">>>>>>> ")


def make_older(repository: Path) -> None:
    """Give each file that is emitted what an older release may have had in its place.

    That is a comment behind the first line, another in the middle, older versions of
    packages, and other values.
    """
    for path in [*repository.glob("template/**/*"), *repository.glob("texts/*.md")]:
        name = path.name.replace("{% endif %}", "").removesuffix(".jinja")
        includes_one = name == "README.md"  # of texts/
        if path.is_dir() or includes_one or name == Path(FROZEN).name:
            continue
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        comment = COMMENTS.get(Path(name).suffix, "# {}").format(OLD_TEXT) + "\n"
        middle = len(lines) // 2
        blank = [i for i, line in enumerate(lines) if line == "\n" and abs(i - middle) < 9]
        if blank:
            lines.insert(min(blank, key=lambda i: abs(i - middle)), comment)
        tags = itertools.takewhile(lambda line: line.startswith(WRAPPING), lines)
        lines.insert(len(list(tags)) + 1, comment)
        text = "".join(lines)
        for new, old in {
            "python-dotenv~=1.2 ": "python-dotenv~=1.1 ",
            "pytest~=9.2 ": "pytest~=9.1 ",
            "markupsafe==3.0.4": "markupsafe==3.0.2",
            "TimeoutStopSec=35": "TimeoutStopSec=30",
            "X-Frame-Options DENY": "X-Frame-Options SAMEORIGIN",
            "--paper: #fbfaf7": "--paper: #fff",
            'SAMESITE="Lax"': 'SAMESITE="Strict"',
        }.items():
            text = text.replace(new, old)
        path.write_text(text, encoding="utf-8")


def put_template(repository: Path, tag: str, change=lambda repository: None) -> None:
    """Tag a release that is the template of the working tree after a change."""
    change(copy_template(repository))
    ok("git", "add", "--all", cwd=repository)
    ok("git", "commit", "--quiet", "--allow-empty", f"--message={tag}", cwd=repository)
    ok("git", "tag", "--force", tag, cwd=repository)


@pytest.fixture(scope="session")
def history(isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this repository in which each release has its tag, LATEST above all."""
    path = tmp_path_factory.mktemp("history") / "template"
    if run("git", "clone", "--quiet", ROOT, path).returncode:
        ok("git", "init", "--quiet", path)  # not in git: then there is only OLDER
    for release, commit in commits(ROOT).items():
        ok("git", "tag", "--force", release.tag, commit, cwd=path)
    put_template(path, OLDER, make_older)
    put_template(path, LATEST)
    return path


ANSWERS = {"project_name": "My App", "domain": "www.example.org"}


def start(history: Path, path: Path, pair: Pair, tag: str) -> Path:
    """A project of the pair by a release, in git, as an owner starts it."""
    emit(history, path, f"--vcs-ref={tag}", **ANSWERS | pair._asdict())
    ok("git", "init", "--quiet", cwd=path)
    return commit(path)


def skip_where_new(pair: Pair, tag: str, history: Path) -> None:
    """Skip the test of a pair that a release did not offer yet."""
    questions = yaml.safe_load(ok("git", "show", f"{tag}:copier.yml", cwd=history))
    if pair.server not in questions["frameworks"]["default"][pair.framework]["servers"]:
        pytest.skip(f"{pair} is newer than {tag}")


def commit(project: Path) -> Path:
    ok("git", "add", "--all", cwd=project)
    ok("git", "commit", "--quiet", "--message=Work", cwd=project)
    return project


def update(project: Path, **answers: str) -> str:
    """Update a project with the answers it has, and others; gives what is printed."""
    return ok("copier", "update", "--defaults", *data(answers), cwd=project)


@pytest.fixture(scope="session")
def fresh(history: Path, tmp_path_factory: pytest.TempPathFactory):
    """Gives a project of a pair by the latest release. Not to be changed by a test."""
    made = {}

    def make(pair: Pair) -> Path:
        if pair not in made:
            made[pair] = start(history, tmp_path_factory.mktemp(str(pair)), pair, LATEST)
        return made[pair]

    return make


@pytest.fixture(scope="session")
def owned(history: Path, tmp_path_factory: pytest.TempPathFactory):
    """Gives a project of a pair by a release, untouched and after a year of work."""
    made = {}

    def make(pair: Pair, tag: str) -> tuple[Path, Path]:
        if (pair, tag) not in made:
            folder = tmp_path_factory.mktemp(f"{pair}-{tag}")
            untouched = start(history, folder / "untouched", pair, tag)
            year = shutil.copytree(untouched, folder / "year")
            work_for_a_year(year, pair)
            made[pair, tag] = untouched, commit(year)
        return made[pair, tag]

    return make


def files(project: Path) -> set[str]:
    """The paths of a project's files, as git sees them."""
    listed = ok("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard",
                cwd=project)  # fmt: skip
    return {name for name in listed.split("\0") if name and (project / name).is_file()}


def assert_same(project: Path, other: Path) -> None:
    """Two projects have the same files, byte by byte, and the same may be run."""
    names = files(project) | files(other)
    _, different, missing = filecmp.cmpfiles(project, other, names, shallow=False)
    assert (different, missing) == ([], [])
    for name in names:
        assert os.access(project / name, os.X_OK) == os.access(other / name, os.X_OK), name


def conflicts(project: Path) -> set[str]:
    """The files that git shows as conflicted, or that have a marker."""
    unmerged = ok("git", "diff", "--name-only", "--diff-filter=U", cwd=project).split()
    marked = run("git", "grep", "-lE", "^(<<<<<<< before|>>>>>>> after)", cwd=project)
    return {*unmerged, *marked.stdout.split()}


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def added(old: Path, new: Path) -> dict[str, list[str]]:
    """The lines that each text file of `new` has, and that of the same name in `old` not."""
    found = {}
    for name in files(new):
        if name.endswith((".png", ".copier-answers.yml")):
            continue
        before = set(lines(old / name)) if (old / name).is_file() else set()
        found[name] = [line for line in lines(new / name) if line not in before]
    return found


def test_older_release_differs_in_every_file(pair, history, fresh, tmp_path):
    """The model of a year of fixes leaves no file out."""
    older = start(history, tmp_path, pair, OLDER)
    names = files(older)
    assert names == files(fresh(pair))
    same, _, _ = filecmp.cmpfiles(older, fresh(pair), names, shallow=False)
    assert same == [FROZEN]


@pytest.mark.parametrize("tag", RELEASES)
def test_untouched_project_becomes_a_fresh_one(pair, tag, history, fresh, tmp_path):
    skip_where_new(pair, tag, history)
    project = start(history, tmp_path, pair, tag)
    update(project)
    assert_same(project, fresh(pair))


@pytest.mark.slow
@pytest.mark.parametrize("tag", RELEASES)
def test_edited_project_keeps_every_line(pair, tag, history, owned, fresh, installed, tmp_path):
    """After a year of work on both sides: no conflict, all lines there, and it works."""
    skip_where_new(pair, tag, history)
    untouched, year = owned(pair, tag)
    project = shutil.copytree(year, tmp_path / "my-app")
    update(project)
    assert conflicts(project) == set()

    for name, own in added(untouched, year).items():
        assert [line for line in own if line not in lines(project / name)] == [], name
    for name, fixes in added(untouched, fresh(pair)).items():
        if name not in (FROZEN, ".github/renovate.json5"):
            now = lines(project / name)
            assert [line for line in fixes if line not in now] == [], name
    assert OLD_TEXT not in "".join(
        (project / name).read_text() for name in files(project) if not name.endswith(".png")
    )
    assert (project / "app/static/logo.png").read_bytes() == LOGO
    assert (project / FROZEN).read_text() == FAVICON
    assert (project / ".env").read_text() == (year / ".env").read_text()
    assert not (project / ".github/renovate.json5").exists()

    (project / ".venv").symlink_to(installed.path / ".venv")
    assert re.search(r"\d+ passed in", ok(".venv/bin/pytest", cwd=project))
    port = free_port()
    with (
        serving(project, f"127.0.0.1:{port}", tmp_path / "log"),
        client(port, headers={"Host": ANSWERS["domain"]}) as site,
    ):
        assert "Our shop" in site.get("/shop").text
        assert "Come in!" in site.get("/").text


@pytest.mark.slow
def test_update_is_typed_as_the_readme_says(history, fresh, tmp_path):
    """With uvx, and Enter at each question."""
    project = start(history, tmp_path, PAIRS[0], OLDER)
    [block] = shell_blocks(project, "Take in fixes of the template")
    *_, command = block.splitlines()
    child = pexpect.spawn("bash", ["-c", command], cwd=str(project), timeout=120)
    for question in ("语言？", "called?", "write it with?", "is online?", "find it?"):
        child.expect_exact(question.encode())
        child.send("\r")
    child.expect_exact(b"The update is in your files")
    child.expect(pexpect.EOF)
    assert_same(project, fresh(PAIRS[0]))


def test_line_that_both_changed_is_a_visible_conflict(pair, history, tmp_path):
    """In whichever file: both texts stay, git names the file, and the message the way out."""
    project = start(history, tmp_path, pair, OLDER)
    names = files(project) - {".copier-answers.yml", FROZEN}
    for name in names:
        text = (project / name).read_text(encoding="utf-8")
        (project / name).write_text(text.replace(OLD_TEXT, OWN_TEXT), encoding="utf-8")
    commit(project)
    message = update(project)
    assert conflicts(project) == names
    status = ok("git", "status", cwd=project)
    markers = run("git", "diff", "--check", cwd=project).stdout
    for name in names:
        assert OWN_TEXT in (project / name).read_text(encoding="utf-8")
        assert re.search(
            rf"both (modified|added): +{re.escape(name)}$", status, re.MULTILINE
        ), name
        assert re.search(
            rf"^{re.escape(name)}:\d+: leftover conflict", markers, re.MULTILINE
        ), name
    for hint in ("git status", "both modified", "<<<<<<<", "git diff --check"):
        assert hint in message

    # The owner keeps both, as the message says.
    for name in names:
        kept = [line for line in lines(project / name) if not line.startswith(MARKERS)]
        (project / name).write_text("\n".join(kept) + "\n", encoding="utf-8")
    assert run("git", "diff", "--check", cwd=project).returncode == 0
    commit(project)
    assert conflicts(project) == set()


@pytest.mark.slow
def test_own_file_meets_a_new_one_of_that_name(tmp_path):
    """A release brings a file that the owner has already: a conflict shows both."""
    template = tmp_path / "template"
    ok("git", "init", "--quiet", template)
    put_template(template, "v1.0.0", lambda at: (at / "template/pytest.ini.jinja").unlink())
    put_template(template, "v2.0.0")
    project = start(template, tmp_path / "my-app", PAIRS[0], "v1.0.0")
    (project / "pytest.ini").write_text("[pytest]\naddopts = --quiet\n")
    commit(project)
    update(project)
    assert conflicts(project) == {"pytest.ini"}
    assert {"addopts = --quiet", "filterwarnings = error"} <= {*lines(project / "pytest.ini")}


@pytest.mark.slow
def test_conflict_in_the_lock_ends_with_one_command(pair, history, installed, tmp_path):
    """The owner's package stands beside one that the template has renewed."""
    project = start(history, tmp_path / "my-app", pair, OLDER)
    append(project / "requirements.txt", "markdown~=3.10\n")
    ok("bash", "-euc", lock_command(project), cwd=project)
    commit(project)
    message = update(project)
    assert conflicts(project) == {"requirements.lock"}
    assert "Renew requirements.lock instead" in message

    (project / ".venv").symlink_to(installed.path / ".venv")
    failed = run(".venv/bin/pytest", "tests/test_lock.py", cwd=project).stdout
    command = f"{lock_command(project)} --upgrade"
    assert f"run {command}" in failed
    ok("bash", "-euc", command, cwd=project)
    commit(project)
    assert conflicts(project) == set()
    ok(".venv/bin/pytest", "tests/test_lock.py", cwd=project)
    locked = (project / "requirements.lock").read_text()
    assert re.search("^markdown==3", locked, re.MULTILINE)
    assert "markupsafe==3.0.2" not in locked


EVERY_SWITCH = pytest.mark.parametrize(
    ("one", "other"), list(itertools.permutations(PAIRS, 2)), ids=str
)


@pytest.mark.slow
@EVERY_SWITCH
def test_switch_and_back_is_a_fresh_project(one, other, history, fresh, tmp_path):
    project = start(history, tmp_path, one, LATEST)
    update(project, **other._asdict())
    assert_same(project, fresh(other))
    commit(project)
    update(project, **one._asdict())
    assert_same(project, fresh(one))
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert {name: answers[name] for name in ANSWERS} == ANSWERS


@pytest.mark.slow
@EVERY_SWITCH
def test_switch_of_an_edited_project_loses_no_line(one, other, owned, tmp_path):
    """Where the frameworks' lines differ, there are conflicts, and they show both."""
    untouched, year = owned(one, LATEST)
    project = shutil.copytree(year, tmp_path / "my-app")
    update(project, **other._asdict())
    edits = {name: own for name, own in added(untouched, year).items() if own}
    for name, own in edits.items():
        assert [line for line in own if line not in lines(project / name)] == [], name
    for name in ("app/static/logo.png", FROZEN, ".env", "app/shop.py", "tests/test_shop.py"):
        assert (project / name).read_bytes() == (year / name).read_bytes(), name
    met = edits.keys() if one.framework != other.framework else {"requirements.lock"}
    assert conflicts(project) <= met


# What Copier refuses, or leaves to the owner. Each row: what the owner has done before, a
# part of what Copier says then, and the commands of the README that mend it.
ANSWERS_FILE = ".copier-answers.yml"
RESTORE = (
    f"commit=$(git log --oneline -- {ANSWERS_FILE} | tail -n 1 | cut -d ' ' -f 1)\n"
    f"git restore --source $commit {ANSWERS_FILE}\ngit add . && git commit -qm 'Restore the answers'"
)
REFUSED = {
    "no git": (
        "rm -rf .git",
        "only supported in git-tracked subprojects",
        'git init && git add . && git commit -m "Start the project"',
    ),
    "dirty": (
        "echo own >> README.md",
        "Destination repository is dirty",
        'git add . && git commit -m "Save my work"',
    ),
    "answers deleted": (
        f"git rm -q {ANSWERS_FILE} && git commit -qm x",
        "Template not found",
        RESTORE,
    ),
    "answers not YAML": (
        f"sed -i 's/flask/\"flask/' {ANSWERS_FILE} && git commit -qam x",
        "ScannerError",
        RESTORE,
    ),
    "answers out of range": (
        f"sed -i 's/server: .*/server: apache/' {ANSWERS_FILE} && git commit -qam x",
        "Invalid choice",
        RESTORE,
    ),
    "answers without release": (
        f"sed -i /_commit/d {ANSWERS_FILE} && git commit -qam x",
        "cannot obtain old template references",
        RESTORE,
    ),
    "template moved": (
        f"sed -i 's#_src_path: #_src_path: /moved#' {ANSWERS_FILE} && git commit -qam x",
        "Local template must be a directory",
        f"sed -i 's#_src_path: /moved#_src_path: #' {ANSWERS_FILE} && git commit -qam y",
    ),
}

# Where an owner has to fill something in, what the README says of it.
HINTS = {
    name: "`git restore --source` with a commit from before"
    for name, (_, _, remedy) in REFUSED.items()
    if remedy == RESTORE
} | {"template moved": "write its new place behind `_src_path` in `.copier-answers.yml`"}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_refusal_changes_nothing_and_the_readme_mends_it(case, history, tmp_path):
    project = start(history, tmp_path, PAIRS[0], OLDER)
    done, says, remedy = REFUSED[case]
    ok("bash", "-euc", done, cwd=project)
    before = contents(project)
    refused = run("copier", "update", "--defaults", cwd=project)
    assert refused.returncode == 1
    assert says in refused.stdout
    assert contents(project) == before
    readme = (project / "README.md").read_text()
    assert says in readme
    assert HINTS.get(case, remedy) in readme
    ok("bash", "-euc", remedy, cwd=project)
    update(project)
    assert LATEST in (project / ANSWERS_FILE).read_text()


def contents(project: Path) -> dict[str, bytes]:
    """All files but git's own, by their paths."""
    paths = {path.relative_to(project): path for path in project.rglob("*") if path.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in paths.items()
        if ".git" not in name.parts
    }


@pytest.mark.slow
def test_downgrade_is_refused_and_revert_does_it(history, tmp_path):
    project = start(history, tmp_path, PAIRS[0], OLDER)
    before = ok("git", "rev-parse", "HEAD^{tree}", cwd=project)
    update(project)
    commit(project)
    refused = run("copier", "update", "--defaults", f"--vcs-ref={OLDER}", cwd=project)
    assert refused.returncode == 1
    assert "Downgrades are not supported" in refused.stdout
    assert not ok("git", "status", "--porcelain", cwd=project)
    assert "`git revert`" in (project / "README.md").read_text()
    ok("git", "revert", "--no-edit", "HEAD", cwd=project)
    assert ok("git", "rev-parse", "HEAD^{tree}", cwd=project) == before
    update(project)


@pytest.mark.slow
def test_answer_edited_by_hand_changes_no_file(history, tmp_path):
    """Copier takes the edited answer for the old one. The README says what to do instead."""
    project = start(history, tmp_path, PAIRS[0], LATEST)
    edit(project / ANSWERS_FILE, "domain: www.example.org", "domain: new.example.org")
    commit(project)
    update(project)
    assert not ok("git", "status", "--porcelain", cwd=project)
    assert "Website www.example.org" in (project / "deploy/my-app.service").read_text()
    assert "not here" in (project / ANSWERS_FILE).read_text()

    edit(project / ANSWERS_FILE, "domain: new.example.org", "domain: www.example.org")
    commit(project)
    update(project, domain="new.example.org")
    assert "Website new.example.org" in (project / "deploy/my-app.service").read_text()


def test_update_can_be_taken_back_whole(history, tmp_path):
    """By the command of the message: with conflicts, new and deleted files, and a .env."""
    project = start(history, tmp_path, Pair("flask", "waitress"), OLDER)
    edit(project / "pytest.ini", OLD_TEXT, OWN_TEXT)
    (project / "app/static/logo.png").write_bytes(LOGO)
    commit(project)
    (project / ".env").write_text("SECRET_KEY=own\n")
    before = contents(project)
    message = update(project, framework="fastapi", server="uvicorn")
    assert conflicts(project)
    commands = re.findall(r"  (git (?:reset|clean) .+)", message)
    assert commands == ["git reset --hard", "git clean -df"]
    assert " && ".join(commands) in (project / "README.md").read_text()
    ok("bash", "-euc", "\n".join(commands), cwd=project)
    assert contents(project) == before
    assert not ok("git", "status", "--porcelain", cwd=project)


@pytest.mark.slow
def test_release_that_cannot_be_rendered_can_be_taken_back(tmp_path):
    """Copier stops halfway, and the same command leads back."""
    template = tmp_path / "template"
    ok("git", "init", "--quiet", template)
    put_template(template, "v1.0.0", make_older)
    put_template(
        template,
        "v2.0.0",
        lambda at: append(at / "template/.env.example.jinja", "{{ nonsense }}\n"),
    )
    project = start(template, tmp_path / "my-app", PAIRS[0], "v1.0.0")
    before = contents(project)
    failed = run("copier", "update", "--defaults", cwd=project)
    assert failed.returncode != 0
    assert "'nonsense' is undefined" in failed.stdout
    ok("bash", "-euc", "git reset --hard && git clean -df", cwd=project)
    assert contents(project) == before


def test_edited_file_that_a_switch_drops_is_a_restore_away(history, tmp_path):
    """Copier deletes it, edited or not. The message and the README say how to keep it."""
    project = start(history, tmp_path, Pair("flask", "waitress"), LATEST)
    append(project / "app/serve.py", f"# {OWN_TEXT}\n")
    commit(project)
    message = update(project, server="gunicorn")
    assert not (project / "app/serve.py").exists()
    assert "deleted:    app/serve.py" in ok("git", "status", cwd=project)
    for text in (message, (project / "README.md").read_text()):
        assert re.search(r'"deleted".*`git restore`', text, re.DOTALL)
    ok("git", "restore", "app/serve.py", cwd=project)
    assert OWN_TEXT in (project / "app/serve.py").read_text()


@pytest.mark.slow
def test_relative_source_is_written_down_as_a_whole_path(history, tmp_path):
    """Or the next update, from another folder, would look for the template in vain."""
    ok("copier", "copy", "--defaults", f"--vcs-ref={OLDER}", os.path.relpath(history, tmp_path),
       "my-app", cwd=tmp_path)  # fmt: skip
    project = tmp_path / "my-app"
    ok("git", "init", "--quiet", project)
    commit(project)
    update(project)
    assert f"_src_path: {history}\n" in (project / ANSWERS_FILE).read_text()


def test_source_on_the_web_is_left_as_it_is(history, tmp_path):
    source = f"git+file://{history}"
    emit(source, tmp_path / "my-app")
    assert f"_src_path: {source}\n" in (tmp_path / "my-app" / ANSWERS_FILE).read_text()


@pytest.mark.slow
def test_copy_of_an_uncommitted_template_cannot_be_updated(history, tmp_path):
    """Such a copy names a commit that exists nowhere; the template's README warns of it."""
    template = shutil.copytree(history, tmp_path / "template")
    append(template / "template/README.md.jinja", "Not committed.\n")
    project = tmp_path / "my-app"
    ok("copier", "copy", "--defaults", "--vcs-ref=HEAD", template, project)
    ok("git", "init", "--quiet", project)
    commit(project)
    assert run("copier", "update", "--defaults", cwd=project).returncode != 0
    assert not ok("git", "status", "--porcelain", cwd=project)
    assert "Commit before you try it" in (ROOT / "README.md").read_text()


def test_nothing_emitted_is_binary_or_ignored(pair, fresh):
    """Copier would put back a picture that the owner replaced, and overwrite a .env."""
    project = fresh(pair)
    emitted = contents(project)
    for content in emitted.values():
        content.decode("utf-8")
    names = "\n".join(emitted)
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=project, input=names, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ignored.returncode, ignored.stdout) == (1, "")


def test_every_question_has_a_default_and_none_hides():
    """A new one without a default would stop `copier update --defaults`; `when` forgets."""
    for name, question in QUESTIONS.items():
        if not name.startswith("_"):
            assert "default" in question, name
            assert question.get("when", True) is (name in (*ASKED, "language")), name


ASKED = ("project_name", "framework", "server", "domain")  # since 1.0.0

# Answers that a release takes, and that each later one has to take.
TAKEN = [
    {"project_name": "x" * 60, "domain": "localhost"},
    {"project_name": "名字 Ü & 'q' \"d\" \\", "domain": "xn--bcher-kva.example"},
    {"project_name": "9", "domain": ".".join(["a" * 63] * 3 + ["b" * 61])},
]


@pytest.mark.slow
@pytest.mark.parametrize("tag", RELEASES)
@pytest.mark.parametrize("answers", TAKEN, ids=["longest", "scripts", "digits"])
def test_answers_of_an_earlier_release_stay_valid(tag, answers, history, tmp_path):
    """A validator that grows stricter would put the default in their place, unasked."""
    project = emit(history, tmp_path, f"--vcs-ref={tag}", **answers)
    ok("git", "init", "--quiet", project)
    commit(project)
    before = yaml.safe_load((project / ANSWERS_FILE).read_text())
    update(project)
    after = yaml.safe_load((project / ANSWERS_FILE).read_text())
    assert {name: after[name] for name in ASKED} == {name: before[name] for name in ASKED}
    assert before | answers == before


@pytest.mark.parametrize("tag", RELEASES)
def test_choices_and_paths_of_an_earlier_release_stay(tag, history):
    """A choice that goes resets the answer; a path that goes deletes the owner's file."""
    questions = yaml.safe_load(ok("git", "show", f"{tag}:copier.yml", cwd=history))
    for framework, facts in questions["frameworks"]["default"].items():
        kept = QUESTIONS["frameworks"]["default"][framework]["servers"]
        assert facts["servers"].keys() <= kept.keys()
    listed = ("git", "ls-tree", "-r", "--name-only", "-z")
    before, now = (
        {
            name.removesuffix(".jinja")
            for name in ok(*listed, end, "template", cwd=history).split("\0")
        }
        for end in (tag, LATEST)
    )
    assert before <= now
    icon = [ok("git", "show", f"{end}:template/{FROZEN}", cwd=history) for end in (tag, LATEST)]
    assert icon[0] == icon[1], "the icon never changes: it would conflict with the owner's"
