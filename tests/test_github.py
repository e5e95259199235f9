"""What is emitted for GitHub: valid for those who read it, and its commands work."""

import os
import shlex
import shutil

import pytest
import yaml
from conftest import ok, run
from owner import lock_command

WORKFLOW = ".github/workflows/tests.yml"
RENOVATE = ".github/renovate.json5"
# GitHub's own actions may be named by their version; anybody else's not.
ZIZMOR = 'rules: {unpinned-uses: {config: {policies: {"actions/*": ref-pin, "*": hash-pin}}}}\n'


@pytest.mark.parametrize(
    ("schema", "name"), [("vendor.github-workflows", WORKFLOW), ("vendor.renovate", RENOVATE)]
)
def test_file_is_valid_by_its_schema(project, schema, name, tmp_path):
    command = ("check-jsonschema", f"--builtin-schema={schema}")
    ok(*command, project / name)
    broken = tmp_path / os.path.basename(name)
    text = (project / name).read_text(encoding="utf-8")
    broken.write_text(text.replace("runs-on:", "runs:").replace("extends:", "extends: 7, x:"))
    assert run(*command, broken).returncode == 1


def test_workflow_has_no_weak_spot(project, tmp_path):
    (tmp_path / "zizmor.yml").write_text(ZIZMOR)
    command = ("zizmor", "--offline", f"--config={tmp_path}/zizmor.yml", "--no-progress")
    ok(*command, project / WORKFLOW)


@pytest.mark.slow
def test_commands_of_the_workflow_pass(project, tmp_path):
    """Step by step in a fresh environment, as on GitHub's machine."""
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    workflow = yaml.safe_load((project / WORKFLOW).read_text(encoding="utf-8"))
    steps = [step["run"] for step in workflow["jobs"]["tests"]["steps"] if "run" in step]
    assert len(steps) == 3
    ok("python3", "-m", "venv", tmp_path / ".venv")
    path = f"{tmp_path}/.venv/bin:{os.environ['PATH']}"
    outputs = [ok("bash", "-euc", step, cwd=tmp_path, env={**os.environ, "PATH": path})
               for step in steps]  # fmt: skip
    assert " passed in " in outputs[-1]


def test_renovate_can_renew_the_lock(project):
    """It reads the command in the lock's head, and takes options with "=" alone."""
    head = (project / "requirements.lock").read_text(encoding="utf-8").splitlines()[1]
    words = shlex.split(head.removeprefix("#"))
    assert words == [word for word in shlex.split(lock_command(project)) if word != "--quiet"]
    *options, source = words[3:]
    assert source == "requirements.txt"
    assert all(option.startswith("--") for option in options)
    assert '"/^requirements\\\\.lock$/"' in (project / RENOVATE).read_text(encoding="utf-8")
