"""The benchmark measures every pair, and the READMEs show its results."""

import json
import sys

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


@pytest.mark.slow
def test_bench_measures_every_pair(report, tmp_path):
    """A short run: its figures mean nothing, but none may be missing."""
    for command, package in {"wrk": "wrk", "nginx": "nginx-light"}.items():
        tool(command, package)
    tool("systemd-socket-activate", "systemd")
    output = tmp_path / "results.json"
    options = ("--rounds=1", "--seconds=1", f"--output={output}")
    ok(sys.executable, BENCH / "bench.py", *options, timeout=1200)
    samples = json.loads(output.read_text())["samples"]
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
