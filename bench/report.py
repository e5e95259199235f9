"""Turn results.json into tables, a plot, and the targets that were missed.

    .venv/bin/python bench/report.py           # prints them
    .venv/bin/python bench/report.py --write   # into the READMEs and bench/

Figures are medians over the rounds. A ratio is a set-up's median to that of the tutorials'
set-up of the same framework, from the same run.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

BENCH = Path(__file__).resolve().parent
READMES = sorted(BENCH.parent.glob("README*.md"))
FRAMEWORKS = yaml.safe_load((BENCH.parent / "servers.yml").read_text(encoding="utf-8"))
TITLES = {
    f"{framework}-{server}": f"{facts['title']} on {row['title']}"
    for framework, facts in FRAMEWORKS.items()
    for server, row in facts["servers"].items()
}
CASES = {
    "json": "JSON",
    "page": "page",
    "visit": "page with its files",
    "static": "file",
    "static_gzip": "file, gzipped",
    "wait": "waits 50 ms, 64 at a time",
    "while_waiting": "JSON, 32 others waiting",
}
UNITS = {"cpu_us": "CPU µs", "rps": "requests/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms"}

# At most this part of the tutorials' CPU for a request.
CPU = {
    "flask-gunicorn": {"json": 0.90, "visit": 0.28},
    "flask-waitress": {"json": 0.75, "visit": 0.28},
    "flask-uwsgi": {"json": 0.50, "visit": 0.20},
    "fastapi-uvicorn": {"json": 0.42, "visit": 0.11},
    "fastapi-gunicorn": {"json": 0.40, "visit": 0.11},
}


class Results:
    """The results of bench.py."""

    def __init__(self, path: Path) -> None:
        read = json.loads(path.read_text())
        self.machine, self.rounds, self.seconds = (
            read["machine"],
            read["rounds"],
            read["seconds"],
        )
        self.samples, self.commands = read["samples"], read["commands"]

    def median(self, setup: str, case: str, figure: str) -> float:
        return statistics.median(self.samples[setup][case][figure])

    def ratio(self, setup: str, case: str, figure: str) -> float:
        """Return a median divided by that of the tutorials' set-up of the same framework."""
        tutorial = setup.split("-")[0] + "-tutorial"
        return self.median(setup, case, figure) / self.median(tutorial, case, figure)


def targets(pair: str) -> list[tuple[str, str, float, bool]]:
    """Return the targets of a pair: case, figure, ratio, and whether more is better."""
    limits = [(case, "cpu_us", limit, False) for case, limit in CPU[pair].items()]
    limits += [(case, "cpu_us", 0.025, False) for case in ("static", "static_gzip")]
    limits += [(case, "p99_ms", 1.0, False) for case in CASES]
    limits += [("memory", "idle_mb", 0.75, False), ("start", "ms", 1.0, False)]
    if pair.startswith("flask"):
        limits += [("wait", "rps", 7.0, True), ("while_waiting", "p50_ms", 0.05, False)]
    else:
        limits += [("wait", "rps", 1.0, True)]
    return limits


def missed(results: Results) -> list[str]:
    """Return the missed targets, in words."""
    found = []
    for pair in TITLES:
        for case, figure, limit, more in targets(pair):
            ratio = results.ratio(pair, case, figure)
            if ratio < limit if more else ratio > limit:
                word = "least" if more else "most"
                found.append(
                    f"{pair}: {case}, {figure} is {ratio:.3f}, should be at {word} {limit}"
                )
    return found


def table(rows: list[list[str]]) -> str:
    """Return a table in Markdown; the first row is its header."""
    head, *body = rows
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def short(ratio: float) -> str:
    return f"{ratio:.3f}" if ratio < 0.1 else f"{ratio:.2f}"


def language_of(readme: Path) -> Callable[[str], str]:
    """Return a function that translates words to the language of a README.

    The README names its language in the paths of its pictures: docs/xx/.
    """
    language = re.search(r"docs/(\w+)/", readme.read_text(encoding="utf-8"))[1]
    texts = (BENCH.parent / f"texts/{language}/texts.yml").read_text(encoding="utf-8")
    words = yaml.safe_load(texts)["bench"]
    return lambda word: words.get(word, word)


def short_report(results: Results, say: Callable[[str], str] = str) -> str:
    """Return the report in a README of the template: a table, and how it was measured."""
    head = ["tutorials = 1", *(f"CPU: {case}" for case in list(CASES.values())[:5])]
    head += ["requests/s that wait", "memory", "start"]
    rows = [[say(word) for word in head]]
    again = {f"{name}-tutorial-again": "the same again: noise" for name in ("flask", "fastapi")}
    for setup, title in (TITLES | again).items():
        title = say(title).replace(" on ", say(" on "))
        row = [f"{title} ({setup.split('-')[0]})" if setup in again else title]
        row += [short(results.ratio(setup, case, "cpu_us")) for case in list(CASES)[:5]]
        row += [f"{results.ratio(setup, 'wait', 'rps'):.1f} x"]
        row += [f"{results.ratio(setup, 'memory', 'idle_mb'):.2f}"]
        row += [f"{results.ratio(setup, 'start', 'ms'):.2f}"]
        rows.append(row)
    return f"{table(rows)}\n\n{measured_on(results, say)}"


def details(results: Results) -> str:
    """Return every median with its ratio, in a table for each figure."""
    parts = []
    for figure, unit in UNITS.items():
        rows = [[unit, *CASES.values()]]
        for setup in results.samples:
            row = [setup]
            for case in CASES:
                value = results.median(setup, case, figure)
                row.append(f"{value:.4g} ({short(results.ratio(setup, case, figure))})")
            rows.append(row)
        parts.append(table(rows))
    rows = [["server", "idle MB", "MB after load", "start ms"]]
    figures = [("memory", "idle_mb"), ("memory", "loaded_mb"), ("start", "ms")]
    for setup in results.samples:
        row = [setup]
        for case, figure in figures:
            value = results.median(setup, case, figure)
            row.append(f"{value:.4g} ({short(results.ratio(setup, case, figure))})")
        rows.append(row)
    parts.append(table(rows))
    rows = [["command", "CPU s", "wall s"]]
    for command, taken in results.commands.items():
        rows.append([command, *(f"{statistics.median(taken[x]):.2f}" for x in taken)])
    return "\n\n".join([*parts, table(rows)])


def measured_on(results: Results, say: Callable[[str], str] = str) -> str:
    """Return a sentence about the machine and the run."""
    sentence = (
        "Measured {date} on {cores} cores ({cpu}), Linux {kernel}, Python {python},"
        " nginx {nginx}; medians of {rounds} interleaved rounds of {seconds} s."
    )
    return say(sentence).format(
        **results.machine, rounds=results.rounds, seconds=results.seconds
    )


def plot(results: Results) -> str:
    """Return the CPU ratios as bars, in SVG, light and dark."""
    groups = []
    for case in ("json", "page", "visit"):
        bars = [(TITLES[pair], results.ratio(pair, case, "cpu_us")) for pair in TITLES]
        groups.append((CASES[case], bars))
    environment = Environment(
        loader=FileSystemLoader(BENCH),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
    )
    return environment.get_template("plot.svg.jinja").render(groups=groups)


def replace_part(path: Path, text: str) -> None:
    """Replace the text between the two marks in a file."""
    old = path.read_text(encoding="utf-8")
    marks = r"(<!-- bench: .*? -->\n).*?(<!-- end of bench -->)"
    new, count = re.subn(marks, lambda m: f"{m[1]}\n{text}\n\n{m[2]}", old, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"{path} has no marks <!-- bench: ... --> and <!-- end of bench -->")
    path.write_text(new, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="?", default=BENCH / "results.json")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    results = Results(options.results)
    long_report = f"{measured_on(results)}\n\n{details(results)}"
    print(short_report(results), long_report, sep="\n\n")
    if options.write:
        for readme in READMES:
            replace_part(readme, short_report(results, language_of(readme)))
        replace_part(BENCH / "README.md", long_report)
        (BENCH / "results.svg").write_text(plot(results))
    if misses := missed(results):
        sys.exit("\nMissed:\n" + "\n".join(misses))


if __name__ == "__main__":
    main()
