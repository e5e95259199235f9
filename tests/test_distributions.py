"""How a release adapts to the system: its Python, the user of nginx, SELinux, names."""

import ast
import bz2
import importlib
import os
import re
import sys
from pathlib import Path

import pytest
from support.commands import ok, run
from support.project import FEW_STACKS, SCRIPTS

pytestmark = pytest.mark.pairs(FEW_STACKS[:1])  # the same code for all
NOTE = '#!/bin/sh\necho "${0##*/} $*" >> "$CALLS"\n'
# The oldest python3 of a supported system, RHEL 9, which runs the scripts.
OLDEST = "3.9"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch) -> Path:
    """A directory whose programs are found first; they note their calls in `calls`."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return folder


def write(folder: Path, name: str, text: str) -> Path:
    """Write a program into a directory."""
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return folder / name


def calls(programs: Path) -> list[str]:
    path = programs.with_name("calls")
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def system(deploy_module, tmp_path: Path, programs: Path, monkeypatch):
    """deploy/system.py, whose files of nginx and systemd are in tmp_path."""
    module = deploy_module("system")
    monkeypatch.setattr(module, "NGINX", tmp_path)
    monkeypatch.setattr(module, "SOCKET_USER", tmp_path / "my-app.socket.d/10-nginx-user.conf")
    monkeypatch.setattr(module, "SOCKET_PATH", tmp_path / "my-app.sock")
    monkeypatch.setattr(module, "STORES", tmp_path / "selinux")
    write(programs, "systemctl", NOTE)
    write(programs, "semodule", NOTE)
    return module


def pythons(folder: Path, **suitable: bool) -> Path:
    """Make a directory with programs named as Python, of which some are suitable."""
    folder.mkdir()
    for name, fits in suitable.items():
        name = name.replace("_", ".")
        write(folder, name, f"#!/bin/sh\nexit {0 if fits else 1}\n")
    write(folder, "python3.14-config", "#!/bin/sh\nexit 0\n")
    return folder


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ({"python3": True}, "python3"),
        # The distribution's own, even if there is a newer one.
        ({"python3": True, "python3_14": True}, "python3"),
        # RHEL 9.
        ({"python3": False, "python3_9": False, "python3_12": True}, "python3.12"),
        ({"python3": False, "python3_11": True, "python3_12": True}, "python3.12"),
        # Without its package for venv.
        ({"python3": False, "python3_11": True, "python3_12": False}, "python3.11"),
    ],
)
def test_newest_suitable_python_is_chosen(system, tmp_path, found, chosen):
    assert system.site_python(pythons(tmp_path / "bin", **found)).name == chosen


@pytest.mark.pairs(FEW_STACKS)
def test_python_of_the_site_is_chosen_in_one_place(pair, project):
    """The others only have it as what runs themselves, or run system.py with it."""
    named = [
        line
        for path in (project / "deploy").iterdir()
        if path.is_file() and path.suffix != ".md"
        for line in path.read_text(encoding="utf-8").splitlines()
        if "/usr/bin/python" in line and not line.startswith("#!")
    ]
    assert named == [
        "need python3 test -x /usr/bin/python3",
        'need python3-venv /usr/bin/python3 -B "$deploy/system.py" --python',
    ]


def test_missing_python_is_reported_with_the_command_that_installs_it(system, tmp_path):
    folder = pythons(tmp_path / "bin", python3=False, python3_9=False)
    with pytest.raises(system.Failure, match=r"no Python 3[.]10 .*Run: sudo sh .*/setup$"):
        system.site_python(folder)


def test_python_is_suitable_from_3_10_on(system, tmp_path):
    """By asking interpreters themselves, as on a server."""
    for minor in (9, 10):
        path = interpreter(f"3.{minor}")
        if path:
            done = run(path, "-c", system.SUITABLE)
            assert (done.returncode == 0) == (minor >= 10), done.stdout
    assert run(sys.executable, "-c", system.SUITABLE).returncode == 0


def interpreter(version: str) -> Path | None:
    """Return a Python of pyenv, or of the system, if there is one."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    paths = [*pyenv.glob(f"{version}.*/bin/python3"), Path(f"/usr/bin/python{version}")]
    return next((path for path in paths if path.exists()), None)


@pytest.mark.pairs(FEW_STACKS)
def test_scripts_have_only_syntax_of_the_oldest_python(pair, project):
    """The scripts run on the system's python3, the site on the one that was chosen."""
    paths = [*(project / "deploy").glob("*.py"), *(project / name for name in SCRIPTS)]
    version = f"py{OLDEST.replace('.', '')}"
    ok("ruff", "check", "--isolated", "--no-cache", f"--target-version={version}",
       "--select=F,FA102", *paths, cwd=project)  # fmt: skip
    for path in paths:
        assert not re.search(r"\bmatch .*:$|zip\(.*strict=", path.read_text(), re.MULTILINE)
        ast.parse(path.read_text(), feature_version=tuple(map(int, OLDEST.split("."))))


@pytest.mark.pairs(FEW_STACKS)
def test_scripts_start_with_the_oldest_python(pair, project):
    python = interpreter(OLDEST)
    if not python:
        pytest.skip(f"needs Python {OLDEST}")
    names = [path.stem for path in (project / "deploy").glob("*.py")]
    ok(python, "-B", "-c", f"import {', '.join(names)}", cwd=project / "deploy")
    for name in SCRIPTS:
        done = run(python, "-B", project / name, "--unknown-option", "x")
        assert done.returncode in (0, 1)
        assert "Traceback" not in done.stdout


def test_syntax_that_the_oldest_python_lacks_is_found(project, tmp_path):
    """So that the test above can fail."""
    path = tmp_path / "new.py"
    path.write_text("match 1:\n    case _:\n        pass\n")
    with pytest.raises(SyntaxError):
        ast.parse(path.read_text(), feature_version=(3, 9))


def nginx(
    programs: Path, tmp_path: Path, dump: str, built_in: str = "", file: str = ""
) -> None:
    """Let nginx have a configuration: `dump` is what -T says, `file` what is in nginx.conf."""
    text = f"configure arguments: {built_in}"
    (tmp_path / "nginx.conf").write_text(file)
    case = f"case $1 in -T) printf '{dump}' ;; -V) echo '{text}' >&2 ;; esac"
    write(programs, "nginx", f"#!/bin/sh\n{case}\n")


@pytest.mark.parametrize(
    ("dump", "built_in", "file", "user"),
    [
        ("# user nobody;\\nuser www-data;\\n", "--user=nginx", "", "www-data"),
        ("user  nginx nginx;\\n", "--user=nobody", "", "nginx"),
        ("events {}\\n", "--prefix=/etc --user=nginx --group=nginx", "", "nginx"),
        # A mistake in a file: -T shows only that.
        ("nginx: [emerg] unknown directive\\n", "--user=nobody", "user web;\n", "web"),
    ],
)
def test_user_of_nginx_is_found(system, programs, tmp_path, dump, built_in, file, user):
    nginx(programs, tmp_path, dump, built_in, file)
    assert system.nginx_user() == user


def test_missing_nginx_is_reported_with_the_command_that_installs_it(system, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(system.Failure, match=r"nginx is not installed. Run: sudo sh .*/setup$"):
        system.nginx_user()


def test_socket_belongs_to_the_user_of_nginx(system, programs, tmp_path):
    """A drop-in says so if it is not the unit's, and goes when it is again."""
    drop_in = system.SOCKET_USER
    for user, expected in [
        ("www-data", None),
        ("nginx", "[Socket]\nSocketUser=nginx\n"),
        ("nginx", "[Socket]\nSocketUser=nginx\n"),
        ("web", "[Socket]\nSocketUser=web\n"),
        ("www-data", None),
    ]:
        nginx(programs, tmp_path, f"user {user};\\n")
        system.give_socket_to_nginx()
        assert (drop_in.read_text() if drop_in.exists() else None) == expected
    assert calls(programs).count("systemctl daemon-reload") == 5


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to change an owner")
@pytest.mark.parametrize(("effective", "owner"), [("nobody", 65534), ("", 0)])
def test_socket_that_is_open_changes_its_owner(system, programs, tmp_path, effective, owner):
    """To the user that systemd knows, after the owner's drop-ins; not if they have none."""
    import socket

    nginx(programs, tmp_path, "user nginx;\\n")
    write(programs, "systemctl", f"#!/bin/sh\n[ $1 != show ] || echo {effective}\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(system.SOCKET_PATH))
        system.give_socket_to_nginx()
    assert system.SOCKET_PATH.stat().st_uid == owner


def store(system, text: bytes) -> None:
    """Let rules be installed, as semodule stores them."""
    path = system.STORES / "targeted/active/modules/400/my-app-nginx/cil"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)


@pytest.mark.parametrize(
    ("mode", "stored", "installs"),
    [
        ("Enforcing", None, True),
        ("Permissive", None, True),  # so that it can be switched
        ("Disabled", None, False),
        ("Enforcing", "same", False),
        ("Enforcing", "same, not compressed", False),
        ("Enforcing", "older", True),
    ],
)
def test_rules_are_installed_where_they_are_missing(system, programs, mode, stored, installs):
    write(programs, "getenforce", f"#!/bin/sh\necho {mode}\n")
    rules = system.RULES.read_bytes()
    if stored:
        text = {"same": bz2.compress(rules), "older": bz2.compress(rules[:-9])}
        store(system, text.get(stored, rules))
    system.install_rules()
    call = f"semodule --install={system.RULES}"
    assert [each for each in calls(programs) if "semodule" in each] == [call] * installs


def test_rules_that_selinux_rejects_are_reported(system, programs):
    write(programs, "getenforce", "#!/bin/sh\necho Enforcing\n")
    write(programs, "semodule", "#!/bin/sh\necho Failed to resolve allow statement; exit 1\n")
    with pytest.raises(system.Failure, match=r"(?s)semodule --install.*Failed to resolve"):
        system.install_rules()


def test_project_without_the_rules_is_released_too(system, programs, tmp_path, monkeypatch):
    write(programs, "getenforce", "#!/bin/sh\necho Enforcing\n")
    monkeypatch.setattr(system, "RULES", tmp_path / "none.cil")
    system.install_rules()
    assert calls(programs) == []


def test_name_of_the_rules_is_no_name_of_the_policy(system):
    """A module of the distribution's policy, such as "apache" or "games", would be replaced."""
    assert system.RULES.name == "my-app-nginx.cil"
    assert system.RULES.is_file()


@pytest.mark.parametrize(("mode", "restored"), [("Enforcing", True), ("Disabled", False)])
def test_labels_are_restored_where_there_are_some(system, programs, tmp_path, mode, restored):
    write(programs, "getenforce", f"#!/bin/sh\necho {mode}\n")
    write(programs, "restorecon", NOTE)
    system.restore_labels(tmp_path, tmp_path / "missing")
    assert calls(programs) == [f"restorecon -R {tmp_path}"] * restored


@pytest.mark.parametrize(
    ("manager", "program", "command"),
    [
        ("apt", "ss", "sudo apt install --yes iproute2"),
        ("apt", "chrony", "sudo apt install --yes chrony"),
        ("dnf", "ss", "sudo dnf install --assumeyes iproute"),
        ("dnf", "curl", "sudo dnf install --assumeyes curl"),
    ],
)
def test_package_manager_of_the_system_is_named(
    system, tmp_path, monkeypatch, manager, program, command
):
    folder = tmp_path / "only"
    folder.mkdir()
    write(folder, manager, NOTE)
    monkeypatch.setenv("PATH", str(folder))
    assert sys.modules["server"].install_command(program) == command


@pytest.mark.parametrize("timer", ["certbot-renew.timer", "certbot.timer"])
def test_timer_of_the_system_is_named(system, programs, timer):
    write(programs, "systemctl", f'#!/bin/sh\n[ $3 != {timer} ] || echo "{timer} disabled"\n')
    assert importlib.import_module("https").certbot_timer() == timer


@pytest.mark.parametrize(
    ("line", "mode", "named"),
    [
        ("connect() failed (13: Permission denied)", "Enforcing", True),
        ("connect() failed (13: Permission denied)", "Permissive", False),
        ("connect() failed (111: Connection refused)", "Enforcing", False),
    ],
)
def test_failed_release_says_if_selinux_may_be_the_reason(system, programs, line, mode, named):
    write(programs, "getenforce", f"#!/bin/sh\necho {mode}\n")
    write(programs, "tail", f"#!/bin/sh\necho '{line}'\n")
    text = sys.modules["server"].reasons()
    assert line in text
    assert ("ausearch -m avc" in text) == named
