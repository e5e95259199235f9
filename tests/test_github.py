"""The files for GitHub: valid for their readers, and their commands work."""

import os
import shlex
import shutil

import pytest
import yaml
from support.commands import ok, run
from support.github import DEPLOY, ZIZMOR, deploy_step
from support.project import lock_command

WORKFLOW = ".github/workflows/tests.yml"
RENOVATE = ".github/renovate.json5"


@pytest.mark.slow_pairs
@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ("vendor.github-workflows", WORKFLOW),
        ("vendor.github-workflows", DEPLOY),
        ("vendor.renovate", RENOVATE),
    ],
)
def test_file_matches_its_schema(project, schema, name, tmp_path):
    command = ("check-jsonschema", f"--builtin-schema={schema}")
    ok(*command, project / name)
    broken = tmp_path / os.path.basename(name)
    text = (project / name).read_text(encoding="utf-8")
    broken.write_text(text.replace("runs-on:", "runs:").replace("extends:", "extends: 7, x:"))
    assert run(*command, broken).returncode == 1


@pytest.mark.slow_pairs
def test_workflow_has_no_weakness(project, tmp_path):
    (tmp_path / "zizmor.yml").write_text(ZIZMOR)
    command = ("zizmor", "--offline", f"--config={tmp_path}/zizmor.yml", "--no-progress")
    ok(*command, project / WORKFLOW, project / DEPLOY)


@pytest.mark.slow_pairs
def test_nothing_is_deployed_without_the_secret(project, tmp_path):
    """The job ends well and says why; GitHub replaces a secret that is not set by nothing."""
    step = deploy_step(project)
    assert step["env"]["KEY"] == "${{ secrets.DEPLOY_KEY }}"
    environment = {"KEY": "", "RUNNER_TEMP": str(tmp_path), "PATH": os.environ["PATH"]}
    output = ok("bash", "-ec", step["run"], cwd=tmp_path, env=environment)
    assert "The secret DEPLOY_KEY is not set: nothing is deployed." in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.first_pairs
def test_commands_of_the_workflow_pass(project, tmp_path):
    """Step by step in a new environment, as on GitHub's runner."""
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    workflow = yaml.safe_load((project / WORKFLOW).read_text(encoding="utf-8"))
    steps = [step["run"] for step in workflow["jobs"]["tests"]["steps"] if "run" in step]
    assert len(steps) == 3
    ok("python3", "-m", "venv", tmp_path / ".venv")
    path = f"{tmp_path}/.venv/bin:{os.environ['PATH']}"
    outputs = [ok("bash", "-euc", step, cwd=tmp_path, env={**os.environ, "PATH": path})
               for step in steps]  # fmt: skip
    assert " passed in " in outputs[-1]


def test_renovate_can_update_the_lock(project):
    """It reads the command in the header of the lock, and accepts options only with "="."""
    head = (project / "requirements.lock").read_text(encoding="utf-8").splitlines()[1]
    words = shlex.split(head.removeprefix("#"))
    assert words == [word for word in shlex.split(lock_command(project)) if word != "--quiet"]
    *options, source = words[3:]
    assert source == "requirements.txt"
    assert all(option.startswith("--") for option in options)
    assert '"/^requirements\\\\.lock$/"' in (project / RENOVATE).read_text(encoding="utf-8")
