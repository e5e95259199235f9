"""Turn results.json into tables and a plot, and list the missed targets.

    .venv/bin/python bench/report.py           # print the tables
    .venv/bin/python bench/report.py --write   # and update the READMEs and results.svg

Figures are medians over the rounds. A ratio is a set-up's median divided by that of the
tutorial's set-up of the same framework in the same run.
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
    "next_to_waiting": "JSON next to 32 that wait",
    "second_visit": "second visit",
}
UNITS = {"cpu_us": "CPU µs", "rps": "requests/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms"}

# The highest ratio of CPU time per request that each pair may have.
CPU = {
    "flask-gunicorn": {"json": 0.90, "visit": 0.28},
    "flask-waitress": {"json": 0.75, "visit": 0.28},
    "flask-uwsgi": {"json": 0.50, "visit": 0.20},
    "fastapi-uvicorn": {"json": 0.42, "visit": 0.11},
    "fastapi-gunicorn": {"json": 0.40, "visit": 0.11},
}


class Results:
    """The results that bench.py has written."""

    def __init__(self, path: Path) -> None:
        results = json.loads(path.read_text())
        self.machine = results["machine"]
        self.rounds, self.seconds = results["rounds"], results["seconds"]
        self.samples, self.commands = results["samples"], results.get("commands", {})

    def median(self, setup: str, case: str, figure: str) -> float:
        """Return the median over the rounds."""
        return statistics.median(self.samples[setup][case][figure])

    def ratio(self, setup: str, case: str, figure: str) -> float:
        """Return the median divided by that of the same framework's tutorial set-up."""
        tutorial = setup.split("-")[0] + "-tutorial"
        return self.median(setup, case, figure) / self.median(tutorial, case, figure)


def targets(pair: str) -> list[tuple[str, str, float, bool]]:
    """Return a pair's targets: case, figure, limit of the ratio, and whether more is better."""
    limits = [(case, "cpu_us", limit, False) for case, limit in CPU[pair].items()]
    limits += [(case, "cpu_us", 0.025, False) for case in ("static", "static_gzip")]
    limits += [(case, "p99_ms", 1.0, False) for case in CASES]
    limits += [("memory", "idle_mb", 0.75, False), ("start", "ms", 1.0, False)]
    if pair.startswith("flask"):
        limits += [("wait", "rps", 7.0, True), ("next_to_waiting", "p50_ms", 0.05, False)]
    else:
        limits += [("wait", "rps", 1.0, True)]
    return limits


def missed(results: Results) -> list[str]:
    """Return a sentence for each missed target."""
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
    """Return a Markdown table. The first row is its header."""
    head, *body = rows
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def short(ratio: float) -> str:
    """Return a ratio with two decimals, or three below 0.1."""
    return f"{ratio:.3f}" if ratio < 0.1 else f"{ratio:.2f}"


def language_of(readme: Path) -> Callable[[str], str]:
    """Return a function that translates labels into the language of a README.

    Its pictures, in docs/en/ for example, tell the language.
    """
    language = re.search(r"docs/(\w+)/", readme.read_text(encoding="utf-8"))[1]
    texts = (BENCH.parent / f"texts/{language}/texts.yml").read_text(encoding="utf-8")
    labels = yaml.safe_load(texts)["bench"]
    return lambda label: labels.get(label, label)


def short_report(results: Results, translate: Callable[[str], str] = str) -> str:
    """Return the part of the template's READMEs: a table, and how it was measured."""
    head = ["tutorials = 1", *(f"CPU: {case}" for case in list(CASES.values())[:5])]
    head += ["slow requests/s", "memory", "start"]
    rows = [[translate(label) for label in head]]
    noise = translate("same set-up again: noise")
    titles = {pair: title.replace(" on ", translate(" on ")) for pair, title in TITLES.items()}
    titles |= {
        f"{framework}-tutorial-again": f"{noise} ({facts['title']})"
        for framework, facts in FRAMEWORKS.items()
    }
    for setup, title in titles.items():
        row = [title]
        row += [short(results.ratio(setup, case, "cpu_us")) for case in list(CASES)[:5]]
        row += [f"{results.ratio(setup, 'wait', 'rps'):.1f} x"]
        row += [f"{results.ratio(setup, 'memory', 'idle_mb'):.2f}"]
        row += [f"{results.ratio(setup, 'start', 'ms'):.2f}"]
        rows.append(row)
    return f"{table(rows)}\n\n{measured_on(results, translate)}"


def details(results: Results) -> str:
    """Return tables of all medians with their ratios, one for each figure."""
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


def measured_on(results: Results, translate: Callable[[str], str] = str) -> str:
    """Return a sentence about the machine and the run."""
    sentence = (
        "Measured {date} on {cores} cores ({cpu}), Linux {kernel}, Python {python},"
        " nginx {nginx}; medians of {rounds} interleaved rounds of {seconds} s."
    )
    return translate(sentence).format(
        **results.machine, rounds=results.rounds, seconds=results.seconds
    )


def plot(results: Results) -> str:
    """Return an SVG bar chart of the CPU ratios, for light and dark color schemes."""
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


def replace_part(path: Path, text: str, name: str = "bench") -> None:
    """Replace the text between the two marks in a file. Exit if they are missing."""
    old = path.read_text(encoding="utf-8")
    marks = rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)"
    new, count = re.subn(marks, lambda m: f"{m[1]}\n{text}\n\n{m[2]}", old, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"{path} has no marks <!-- {name}: ... --> and <!-- end of {name} -->")
    path.write_text(new, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="?", default=BENCH / "results.json")
    parser.add_argument("--write", action="store_true", help="update READMEs and results.svg")
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
