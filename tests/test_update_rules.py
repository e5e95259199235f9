"""What every release has to keep so that projects of earlier ones can be updated."""

import subprocess

import pytest
import yaml
from support.commands import commit
from support.project import (
    ANSWERS_FILE,
    ASKED,
    FRAMEWORKS,
    QUESTIONS,
    emit,
    files,
    read_frameworks,
)
from support.update import (
    FROZEN,
    RELEASES,
    contents,
    read_at,
    skip_if_newer,
    start,
    update,
)


def test_nothing_emitted_is_binary_or_ignored(pair, fresh):
    """Copier would restore a picture that the owner replaced, and overwrite a .env."""
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


def test_every_question_has_a_default_and_is_always_asked():
    """A new one without a default would stop `copier update --defaults`.

    An answer whose `when` is false is forgotten.
    """
    for name, question in QUESTIONS.items():
        if not name.startswith("_"):
            assert "default" in question, name
            assert question.get("when", True) is (name in ASKED), name


# Answers that a release accepts, so that each later one has to.
TAKEN = [
    {"project_name": "x" * 60, "domain": "localhost"},
    {"project_name": "名字 Ü & 'q' \"d\" \\", "domain": "xn--bcher-kva.example"},
    {"project_name": "9", "domain": ".".join(["a" * 63] * 3 + ["b" * 61])},
]


@pytest.mark.slow
@pytest.mark.parametrize("tag", RELEASES)
@pytest.mark.parametrize("answers", TAKEN, ids=["longest", "scripts", "digits"])
def test_answers_of_an_earlier_release_stay_valid(tag, answers, history, tmp_path):
    """A stricter validator would silently replace them with the defaults."""
    project = emit(history, tmp_path, tag, **answers)
    commit(project)
    before = yaml.safe_load((project / ANSWERS_FILE).read_text())
    update(project)
    after = yaml.safe_load((project / ANSWERS_FILE).read_text())
    asked = [name for name in ASKED if name in before]  # some questions may be newer
    assert {*ASKED} - {*asked} <= {"database", "platform"}
    assert {name: after[name] for name in asked} == {name: before[name] for name in asked}
    assert before | answers == before


@pytest.mark.parametrize("tag", RELEASES)
def test_choices_of_an_earlier_release_stay(tag, history):
    """If a choice is removed, the next update resets the answer."""
    for framework, facts in read_frameworks(read_at(history, tag)).items():
        assert facts["servers"].keys() <= FRAMEWORKS[framework]["servers"].keys()


@pytest.mark.slow_pairs
@pytest.mark.parametrize("tag", RELEASES)
def test_paths_of_an_earlier_release_stay(pair, tag, history, fresh, tmp_path):
    """If a path is removed, the next update deletes the owner's file."""
    skip_if_newer(pair, tag, history)
    project = start(history, tmp_path, pair, tag)
    assert {*files(project)} <= {*files(fresh(pair))}
    for name in FROZEN:
        same = (project / name).read_bytes() == (fresh(pair) / name).read_bytes()
        assert same, f"a new {name} would conflict with the owner's"
