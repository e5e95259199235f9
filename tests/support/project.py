"""The template, the projects it emits, and the places of both that several tests know."""

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import copier
import yaml

from support.commands import commit, ok

ROOT = Path(__file__).resolve().parent.parent.parent
# What Copier needs of this repository.
PARTS = ("copier.yml", "servers.yml", "databases.yml", "CHANGELOG.md", "template", "texts")


def read(name: str) -> str:
    """Return the text of a file of this repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def read_frameworks(read: Callable[[str], str]) -> dict:
    """Return the table of frameworks and servers of a version of the template.

    read: returns the text of one of its files.
    """
    return yaml.safe_load(read("servers.yml"))


def read_databases(read: Callable[[str], str]) -> dict:
    """Return the table of databases of a version of the template, as read_frameworks does."""
    return yaml.safe_load(read("databases.yml"))


def read_texts(language: str) -> dict:
    """Return the prompts, refusals, labels and sentences of a language."""
    return yaml.safe_load(read(f"texts/{language}/texts.yml"))


def template_lock(pair: "Pair", database: str = "none") -> Path:
    """Return the path of the lock of a pair with a database in the template."""
    overlays = [
        f"{{% if {name} == '{value}' %}}.{{% endif %}}"
        for name, value in (("pair", pair), ("database", database))
    ]
    return ROOT.joinpath("template", *overlays, "requirements.lock")


QUESTIONS = yaml.safe_load(read("copier.yml"))
DATABASES = read_databases(read)
FRAMEWORKS = read_frameworks(read)
LANGUAGES = list(QUESTIONS["language"]["choices"].values())
OTHER_LANGUAGES = [language for language in LANGUAGES if language != "en"]
# The questions, in their order, and the computed answers.
ASKED = ["language", "project_name", "framework", "server", "domain", "database", "platform"]
COMPUTED = sorted(name for name in QUESTIONS if not name.startswith("_") and name not in ASKED)
ANSWERS_FILE = ".copier-answers.yml"

# Emitted files that only some frameworks or servers need.
OWN_FILES = {
    "gunicorn.conf.py",
    "app/serve.py",
    "app/docs.py",
    "app/templating.py",
    "app/static/docs.css",
    "app/static/docs.js",
    "app/templates/docs.html",
}


class Pair(NamedTuple):
    """A framework and a server that runs it, named as in the answers."""

    framework: str
    server: str

    @property
    def facts(self) -> dict:
        """The server's row of the table."""
        return FRAMEWORKS[self.framework]["servers"][self.server]

    def __str__(self) -> str:
        return f"{self.framework}-{self.server}"


PAIRS = [
    Pair(framework, server)
    for framework, facts in FRAMEWORKS.items()
    for server in facts["servers"]
]
# The first pair of each framework.
FIRST_PAIRS = list({pair.framework: pair for pair in reversed(PAIRS)}.values())[::-1]


class Stack(NamedTuple):
    """A pair with a database or a platform, for the tests of which a pair is too little."""

    framework: str
    server: str
    database: str
    platform: str = "server"

    @property
    def pair(self) -> Pair:
        return Pair(self.framework, self.server)

    @property
    def facts(self) -> dict:
        """The server's row of the table."""
        return self.pair.facts

    def __str__(self) -> str:
        platform = "" if self.platform == "server" else f"-{self.platform}"
        return f"{self.pair}-{self.database}{platform}"


# Every pair with SQLite: for what can break data.
SQLITE_STACKS = [Stack(*pair, "sqlite") for pair in PAIRS]
# Each framework with each database, and most servers: the same code runs on all servers.
FEW_STACKS = [
    *(Stack(*pair, "sqlite") for pair in FIRST_PAIRS),
    Stack("flask", "waitress", "postgresql"),
    Stack("fastapi", "gunicorn", "postgresql"),
]
# Of these, one of each framework and of each database: for the quick tests.
QUICK_STACKS = [FEW_STACKS[0], FEW_STACKS[-1]]
# Projects for Kubernetes: every pair, and each framework with a database.
KUBERNETES = [
    *(Stack(*pair, "none", "kubernetes") for pair in PAIRS),
    *(stack._replace(platform="kubernetes") for stack in FEW_STACKS[2:]),
]
# Of these, the first without a database, and one with it: for the quick tests.
QUICK_KUBERNETES = [KUBERNETES[0], KUBERNETES[-1]]
# Emitted programs in Python whose names do not say so.
SCRIPTS = [f"deploy/{name}" for name in ("backup", "doctor", "notify", "release", "run")]


def scripts_of(project: Path) -> list[str]:
    """Return those of SCRIPTS that a project has. On Kubernetes, it is one."""
    return [name for name in SCRIPTS if (project / name).exists()]


# The Debian releases that sites are deployed on, by their code names: 12 and 13.
MACHINES = ["bookworm", "trixie"]


def in_turn(cases: Iterable[str]) -> list[tuple[Pair, str]]:
    """Combine each case with one pair of each framework, in turn, so that each pair has some."""
    return [
        (pairs[number % len(pairs)], case)
        for number, case in enumerate(cases)
        for pairs in ([pair for pair in PAIRS if pair.framework == each] for each in FRAMEWORKS)
    ]


def copy_template(path: Path) -> Path:
    """Copy the template in this working tree into a folder, replacing what is there."""
    path.mkdir(exist_ok=True)
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.rmtree(path / name, ignore_errors=True)
            shutil.copytree(source, path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, path)
    return path


def tag(template: Path, name: str) -> None:
    """Commit everything in a template and tag it as a release."""
    commit(template, name)
    ok("git", "tag", "--force", name, cwd=template)


def make_release(path: Path) -> Path:
    """Turn the template in this working tree into a git repository with a tagged release."""
    tag(copy_template(path), "v1.0.0")
    return path


def data(answers: dict[str, str]) -> list[str]:
    """Return answers as options of copier."""
    return [f"--data={name}={value}" for name, value in answers.items()]


def emit(release: Path | str, path: Path, vcs_ref: str | None = None, **answers: str) -> Path:
    """Emit a project into `path`, without --trust. Raises ValueError for a bad answer.

    vcs_ref: the release, by default the latest. answers: those that differ from the
    defaults. Does in this process what `copier copy --defaults` does, in half the time.
    """
    copier.run_copy(
        str(release), path, data=answers, vcs_ref=vcs_ref, defaults=True, quiet=True
    )
    return path


def emit_on_command_line(release: Path, path: Path, **answers: str) -> Path:
    """Emit a project into `path` on the command line, as a user does."""
    ok("copier", "copy", "--quiet", "--defaults", *data(answers), release, path)
    return path


def files(project: Path) -> list[str]:
    """Return the paths of a project's files that git tracks or would add."""
    if (project / ".git").exists():
        listed = ok("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard",
                    cwd=project).split("\0")  # fmt: skip
        return sorted({name for name in listed if name and (project / name).is_file()})
    paths = (path for path in project.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sorted(path.relative_to(project).as_posix() for path in paths)


def texts_of(project: Path) -> dict[str, str]:
    """Return the text of each file of a project, by its path."""
    return {name: (project / name).read_text(encoding="utf-8") for name in files(project)}


def answers_of(project: Path) -> dict[str, str]:
    """Return what the answers file of a project records."""
    return yaml.safe_load((project / ANSWERS_FILE).read_text(encoding="utf-8"))


def edit(path: Path, old: str, new: str) -> None:
    """Replace `old`, which the file contains once, with `new`."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name} has {text.count(old)} times {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def append(path: Path, text: str) -> None:
    """Append a text to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def probes(pair: Pair) -> str:
    """Return routes an owner might add, which show what the app sees."""
    names = (pair.framework, "sandbox")
    return "\n\n".join(read(f"tests/probes/{name}.py") for name in names)


def remove_examples(project: Path) -> None:
    """Remove the examples as "Change it" in the README says, but for what a database adds."""
    for name in ("app/examples.py", "tests/test_examples.py"):
        (project / name).unlink()
    shutil.rmtree(project / "app/templates/examples")
    routes = project / "app/routes.py"
    lines = routes.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if "examples" not in line.partition("#")[0]]
    assert len(kept) == len(lines) - 2
    routes.write_text("\n".join(kept) + "\n", encoding="utf-8")


def add_routes(project: Path, text: str) -> None:
    """Append routes to a project's routes.py."""
    append(project / "app/routes.py", text)


# The README.

# The sections of the emitted READMEs. Other languages have them in the same order.
SECTIONS = {
    "README.md": [
        "Run it locally",
        "Change it",
        "Add a package",
        "Keep data",
        "What is where",
        "Keep it in git",
        "Deploy",
        "Ship a change",
        "Troubleshooting",
        "Update from the template",
        "Learn more",
    ],
    "deploy/README.md": [
        "Where things are",
        "Adjust the server",
        "Limits",
        "Data and backups",
        "Run a one-off command",
        "Store uploads",
        "Send email",
        "Deploy on the server",
        "Deploy from GitHub",
        "Deploy by hand",
        "Other distributions",
        "Mainland China",
        "Messages of `copier update`",
    ],
}


def section(project: Path, heading: str) -> str:
    """Return the text below a heading of SECTIONS, in the README's own language."""
    [(name, headings)] = [each for each in SECTIONS.items() if heading in each[1]]
    text = (project / name).read_text(encoding="utf-8")
    sections = re.split(r"^## .+\n", text, flags=re.MULTILINE)[1:]
    return sections[headings.index(heading)]


def shell_blocks(project: Path, heading: str) -> list[str]:
    """Return the ```sh blocks below a heading of the README, without their fences."""
    return re.findall(
        r"^```sh\n(.*?)^```$", section(project, heading), re.MULTILINE | re.DOTALL
    )


def lock_command(project: Path) -> str:
    """Return the README's command that updates requirements.lock."""
    [block] = shell_blocks(project, "Add a package")
    [command] = re.findall(r"^uv pip compile .+$", block, re.MULTILINE)
    return command


def recorded(command: str) -> str:
    """Return the command that updates the lock as the lock records it."""
    return command.replace(" --quiet", "")


class Installed(NamedTuple):
    """A project in which the README's first commands were run."""

    path: Path
    commands: list[str]
    output: str


def install(project: Path, path: Path) -> Installed:
    """Copy a project and run the first commands of its README there.

    Each line of the block runs as it is written, in one shell, except the last, which
    starts the development server: `test_readme` does that.
    """
    shutil.copytree(project, path)
    [block] = shell_blocks(path, "Run it locally")
    commands = block.splitlines()
    output = ok("bash", "-euc", "\n".join(commands[:-1]), cwd=path)
    return Installed(path, commands, output)


def install_together(project: Path, path: Path) -> Path:
    """Make an environment with the packages of all projects of a framework.

    project: one of them. It takes seconds, so that projects with a database share one.
    """
    framework = answers_of(project)["framework"]
    locks = [template_lock(pair, "postgresql") for pair in PAIRS if pair.framework == framework]
    ok("uv", "venv", "--quiet", "--python=python3", path)
    options = ("--quiet", f"--python={path}/bin/python")
    lists = [*locks, project / "requirements-dev.txt"]
    ok("uv", "pip", "install", *options, *(f"--requirements={each}" for each in lists))
    return path


def copy_installed(installed: Installed, path: Path) -> Path:
    """Copy an installed project, sharing its virtual environment."""
    shutil.copytree(installed.path, path, ignore=shutil.ignore_patterns(".venv"))
    (path / ".venv").symlink_to(installed.path / ".venv")
    return path


HOME_PAGE = """
from app.config import Settings
from app.main import create_app

app = create_app(Settings.from_env())
try:
    client = app.test_client()
except AttributeError:
    from fastapi.testclient import TestClient

    client = TestClient(app)
print(client.get("/").text)
"""


def home_page(path: Path) -> str:
    """Return the home page of an installed project, requested with its own test client."""
    return ok(path / ".venv/bin/python", "-c", HOME_PAGE, cwd=path)
