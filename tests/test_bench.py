"""The benchmarks measure every pair and every database, and the READMEs show their results."""

import json
import sys
from pathlib import Path

import pytest
from support.commands import ok, run, tool
from support.project import LANGUAGES, PAIRS, ROOT

BENCH = ROOT / "bench"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch):
    """The module bench/report.py."""
    monkeypatch.syspath_prepend(str(BENCH))
    import report

    return report


@pytest.fixture
def data_report(monkeypatch: pytest.MonkeyPatch):
    """The module bench/data_report.py."""
    monkeypatch.syspath_prepend(str(BENCH))
    import data_report

    return data_report


def measure(script: str, output: Path, *options: str) -> dict:
    """Run a benchmark shortly, and return its samples."""
    for command, package in {"wrk": "wrk", "nginx": "nginx-light"}.items():
        tool(command, package)
    tool("systemd-socket-activate", "systemd")
    short = ("--rounds=1", "--seconds=1", f"--output={output}")
    ok(sys.executable, BENCH / script, *short, *options, timeout=1200)
    return json.loads(output.read_text())["samples"]


@pytest.mark.slow
def test_bench_measures_every_pair(report, tmp_path):
    """A short run: its figures mean nothing, but none may be missing."""
    output = tmp_path / "results.json"
    samples = measure("bench.py", output)
    assert samples.keys() - {str(pair) for pair in PAIRS} == {
        f"{framework}-tutorial{again}"
        for framework in ("flask", "fastapi")
        for again in ("", "-again")
    }
    for name, cases in samples.items():
        for case in report.CASES:
            assert all(value > 0 for figure in cases[case].values() for value in figure), name
    shown = run(sys.executable, BENCH / "report.py", output).stdout
    for title in report.TITLES.values():
        assert f"| {title} |" in shown


def test_every_pair_has_targets(report):
    assert list(report.CPU) == [str(pair) for pair in PAIRS]


def test_readme_and_plot_show_the_results(report):
    results = report.Results(BENCH / "results.json")
    assert len(report.READMES) == len(LANGUAGES)
    for readme in report.READMES:
        shown = report.short_report(results, report.language_of(readme))
        assert shown in readme.read_text(encoding="utf-8")
    assert report.details(results) in (BENCH / "README.md").read_text(encoding="utf-8")
    assert (BENCH / "results.svg").read_text(encoding="utf-8") == report.plot(results)


def test_a_missed_target_is_reported(report, tmp_path):
    results = report.Results(BENCH / "results.json")
    results.samples["flask-uwsgi"]["json"]["cpu_us"] = [1e9]
    [miss] = [
        miss for miss in report.missed(results) if miss.startswith("flask-uwsgi: json, c")
    ]
    assert "should be at most 0.5" in miss


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["fastapi"])  # a minute for each
def test_bench_measures_every_database(data_report, tmp_path, framework):
    """A short run: its figures mean nothing, but none may be missing."""
    output = tmp_path / "data.json"
    samples = measure("data.py", output, f"--only={framework}")
    committed = data_report.DataResults(BENCH / "data.json")
    expected = {name for name in committed.samples if name.startswith(framework)}
    assert samples.keys() == expected
    for name, cases in samples.items():
        assert cases.keys() == committed.samples[name].keys()
        for figures in cases.values():
            assert all(figures[figure][0] > 0 for figure in data_report.FIGURES), name
    results = data_report.DataResults(output)
    assert results.journals[f"{framework}-wal"] == "WAL"
    assert results.machine["newer_sqlite"]
    assert f"| {framework}-sqlite |" in data_report.details(results)


def test_readme_shows_the_results_with_a_database(data_report):
    shown = data_report.details(data_report.DataResults(BENCH / "data.json"))
    assert shown in (BENCH / "README.md").read_text(encoding="utf-8")


def test_each_journal_has_targets_for_every_case(data_report):
    results = data_report.DataResults(BENCH / "data.json")
    emitted = [
        name
        for name, journal in results.journals.items()
        if journal and "page" in results.samples[name]
    ]
    assert list(data_report.TARGETS) == emitted
    for cases in data_report.TARGETS.values():
        assert list(cases) == list(data_report.CASES)


def test_a_missed_target_with_a_database_is_reported(data_report):
    results = data_report.DataResults(BENCH / "data.json")
    results.samples["flask-wal"]["write"]["rps"] = [0.001]
    [miss] = [
        miss for miss in data_report.missed(results) if miss.startswith("flask-wal: write, r")
    ]
    assert "should be at least 2.0" in miss
