"""A model of kubectl and docker for the tests of deploy/release: programs that keep a state.

State, in the JSON file that FAKE_CLUSTER names:
    calls       the commands so far, and what the build got
    secret      whether the secret exists
    unreachable whether the cluster does not answer
    unpullable  whether new pods cannot get their image
    restarted   whether their app runs once more, instead of waiting for that
    revision    that of the deployment, 0 before the first one
    images      the image of each revision; one whose tag is in `bad` never becomes ready
"""

import json
import os
import re
import sys
from pathlib import Path

FILE = Path(os.environ.get("FAKE_CLUSTER", "/nonexistent"))
KEY = "deployment.kubernetes.io/revision"
UNREACHABLE = """\
E1130 07:38:51 memcache.go:265] "Unhandled Error" err="couldn't get current server API"
Unable to connect to the server: net/http: request canceled"""


def deployment(state: dict) -> dict:
    return {"metadata": {"annotations": {KEY: str(state["revision"])}}}


def replica_sets(state: dict) -> dict:
    return {
        "items": [
            {"metadata": {"name": f"my-app-{number}", "annotations": {KEY: number}}}
            for number in state["images"]
        ]
    }


def pods(state: dict) -> dict:
    """An old pod that is ready, and a new one whose app cannot start."""
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting"}}
    if state["restarted"]:
        waiting = {"running": {"startedAt": "2026-11-30T00:00:09Z"}}
    if state["unpullable"]:
        waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling"}}
    app = {"name": "app", "ready": False, "restartCount": 3, "state": waiting}
    nginx = {"name": "nginx", "ready": True, "restartCount": 0, "state": {"running": {}}}
    found = []
    for name, ready, statuses in (("old", "True", []), ("new", "False", [nginx, app])):
        conditions = [{"type": "Ready", "status": ready}]
        status = {"conditions": conditions, "containerStatuses": statuses}
        metadata = {"name": f"my-app-{name}", "creationTimestamp": "2026-11-30T00:00:00Z"}
        found.append({"metadata": metadata, "status": status})
    return {"items": found}


def events(state: dict) -> dict:
    """The reason why an image cannot be pulled, which the state of a container may not have."""
    texts = ["Failed to pull image: 401 Unauthorized"] if state["unpullable"] else []
    times = ["2026-11-30T00:00:00Z", None]  # of core/v1, and of events.k8s.io/v1
    return {"items": [{"message": m, "lastTimestamp": t} for m in texts for t in times]}


def apply(state: dict, folder: str) -> None:
    """Read the image from the kustomization, as kubectl does."""
    text = Path(folder, "kustomization.yaml").read_text()
    image = ":".join(re.search(r"newName: (\S+)\n +newTag: \"(\S+)\"", text).groups())
    if state["images"].get(str(state["revision"])) != image:
        new_revision(state, image)


def new_revision(state: dict, image: str) -> None:
    state["revision"] = 1 + max(map(int, state["images"]), default=0)
    state["images"][str(state["revision"])] = image


def undo(state: dict, to: str | None) -> None:
    """Give the revision a new number, as Kubernetes does."""
    earlier = sorted(int(each) for each in state["images"] if int(each) != state["revision"])
    if not (to or earlier):
        sys.exit("error: no rollout history found")
    number = to or str(earlier[-1])
    if number != str(state["revision"]):
        new_revision(state, state["images"].pop(number))


def rollout_status(state: dict) -> None:
    tag = state["images"][str(state["revision"])].rpartition(":")[2]
    if tag in state["bad"] or "all" in state["bad"]:
        sys.exit("error: deployment exceeded its progress deadline")


def kubectl(state: dict, arguments: list[str]) -> None:
    words = [word for word in arguments if not word.startswith("--namespace")]
    match words:
        case ["get", "secret/my-app", "--request-timeout=10s"]:
            if state["unreachable"]:
                sys.exit(UNREACHABLE)
            if not state["secret"]:
                sys.exit('Error from server (NotFound): secrets "my-app" not found')
        case ["get", "deployment/my-app", *_]:
            print(json.dumps(deployment(state)) if state["revision"] else "", end="")
        case ["get", "replicasets", *_]:
            print(json.dumps(replica_sets(state)))
        case ["get", "pods", *_]:
            print(json.dumps(pods(state)))
        case ["get", "events", selector, "--output=json"]:
            assert selector.endswith("involvedObject.name=my-app-new"), selector
            print(json.dumps(events(state)))
        case ["config", "current-context"]:
            print("old-cluster")
        case ["apply", option]:
            apply(state, option.removeprefix("--kustomize="))
        case ["rollout", "status", "deployment/my-app"]:
            rollout_status(state)
        case ["rollout", "undo", "deployment/my-app", *to]:
            undo(state, to[0].removeprefix("--to-revision=") if to else None)
        case ["delete", "deployment/my-app", "--ignore-not-found"]:
            state["revision"], state["images"] = 0, {}
        case ["delete", "replicaset", name]:
            del state["images"][name.removeprefix("my-app-")]
        case ["logs", "my-app-new", "--container=app", "--tail=200", *previous]:
            # Of the last run, kubectl has no log before the app runs again.
            if bool(previous) == state["restarted"]:
                print("RuntimeError: SECRET_KEY in the secret my-app is missing")
                print("  a line of a traceback\n" * 30)
        case _:
            sys.exit(f"fake kubectl: {words}")


def docker(state: dict, arguments: list[str]) -> None:
    match arguments:
        case ["build", _, folder]:
            paths = (path for path in Path(folder).rglob("*") if path.is_file())
            state["context"] = sorted(str(path.relative_to(folder)) for path in paths)
        case ["push", _]:
            pass
        case _:
            sys.exit(f"fake docker: {arguments}")


def main() -> None:
    program, *arguments = Path(sys.argv[1]).name, *sys.argv[2:]
    state = json.loads(FILE.read_text())
    state["calls"].append(" ".join([program, *arguments]))
    try:
        {"kubectl": kubectl, "docker": docker}[program](state, arguments)
    finally:
        FILE.write_text(json.dumps(state))


if __name__ == "__main__":
    main()
