"""The workflow that deploys from GitHub."""

from pathlib import Path

import yaml

DEPLOY = ".github/workflows/deploy.yml"
# GitHub's own actions may be pinned by their version; others must be pinned by their hash.
ZIZMOR = 'rules: {unpinned-uses: {config: {policies: {"actions/*": ref-pin, "*": hash-pin}}}}\n'


def deploy_step(project: Path) -> dict:
    """Return the step of the workflow that deploys."""
    workflow = yaml.safe_load((project / DEPLOY).read_text(encoding="utf-8"))
    assert workflow["jobs"]["deploy"]["needs"] == "tests"
    [step] = [step for step in workflow["jobs"]["deploy"]["steps"] if "run" in step]
    return step
