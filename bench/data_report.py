"""Turn data.json into tables, and list the missed targets.

    .venv/bin/python bench/data_report.py           # print the tables
    .venv/bin/python bench/data_report.py --write   # and update README.md

A ratio is a set-up's median divided by that of the tutorial's set-up of the same framework
in the same run; for the page, by that of the set-up without a database.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

from report import BENCH, UNITS, Results, measured_on, replace_part, short, table

CASES = {
    "read": "read one row",
    "list": "list ten",
    "write": "write one row",
    "page": "page",
}
FIGURES = ("cpu_us", "rps", "p99_ms")


class Target(NamedTuple):
    """The limits of a case's ratios: CPU time and p99 at most, requests per second at least.

    They are what the emitted sites reach, with room for noise. Flask's tutorial has no ORM, and
    so uses less CPU time to read.
    """

    cpu_us: float
    p99_ms: float
    rps: float


# On the page, a database must cost no more than noise.
FREE = Target(cpu_us=1.1, p99_ms=2.0, rps=0.9)
TARGETS = {
    "flask-sqlite": {
        "read": Target(cpu_us=1.4, p99_ms=6.0, rps=0.6),
        "list": Target(cpu_us=1.6, p99_ms=4.0, rps=0.5),
        "write": Target(cpu_us=1.6, p99_ms=3.0, rps=0.7),
        "page": FREE,
    },
    "flask-wal": {
        "read": Target(cpu_us=1.4, p99_ms=6.0, rps=0.6),
        "list": Target(cpu_us=1.6, p99_ms=4.0, rps=0.5),
        "write": Target(cpu_us=1.0, p99_ms=2.0, rps=2.0),
        "page": FREE,
    },
    "fastapi-sqlite": {
        "read": Target(cpu_us=0.75, p99_ms=2.0, rps=1.0),
        "list": Target(cpu_us=0.9, p99_ms=4.0, rps=1.0),
        "write": Target(cpu_us=1.0, p99_ms=1.5, rps=0.7),
        "page": FREE,
    },
    "fastapi-wal": {
        "read": Target(cpu_us=0.75, p99_ms=2.0, rps=1.0),
        "list": Target(cpu_us=0.9, p99_ms=4.0, rps=1.0),
        "write": Target(cpu_us=0.65, p99_ms=1.0, rps=2.0),
        "page": FREE,
    },
}


class DataResults(Results):
    """The results that data.py has written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.journals = json.loads(path.read_text())["journals"]

    def ratio(self, setup: str, case: str, figure: str) -> float:
        base = "none" if case == "page" else "tutorial"
        framework = setup.split("-")[0]
        return self.median(setup, case, figure) / self.median(
            f"{framework}-{base}", case, figure
        )

    def failed(self, setup: str) -> float:
        """Return the highest share of failed requests of a case, in percent."""
        cases = self.samples[setup].values()
        return max(max(figures.get("failed", [0])) for figures in cases)


def missed(results: DataResults) -> list[str]:
    """Return a sentence for each missed target."""
    found = []
    for setup, cases in TARGETS.items():
        if setup not in results.samples:  # after a run of some set-ups only
            continue
        for case, target in cases.items():
            for figure, limit in target._asdict().items():
                ratio = results.ratio(setup, case, figure)
                more = figure == "rps"
                if ratio < limit if more else ratio > limit:
                    word = "least" if more else "most"
                    found.append(
                        f"{setup}: {case}, {figure} is {ratio:.3f}, should be at {word} {limit}"
                    )
    return found


def details(results: DataResults) -> str:
    """Return tables of all medians with their ratios, one for each figure."""
    parts = []
    for figure in FIGURES:
        rows = [[UNITS[figure], *CASES.values()]]
        for setup, cases in results.samples.items():
            row = [setup]
            for case in CASES:
                if case not in cases:
                    row.append("")
                    continue
                value = results.median(setup, case, figure)
                row.append(f"{value:.4g} ({short(results.ratio(setup, case, figure))})")
            rows.append(row)
        parts.append(table(rows))
    rows = [["set-up", "journal", "failed requests, at most"]]
    for setup, journal in results.journals.items():
        if journal:
            rows.append([setup, journal, f"{results.failed(setup):.2g} %"])
    versions = "SQLite {sqlite}, and {newer_sqlite} for WAL.".format(**results.machine)
    return "\n\n".join([f"{measured_on(results)} {versions}", *parts, table(rows)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="?", default=BENCH / "data.json")
    parser.add_argument("--write", action="store_true", help="update README.md")
    options = parser.parse_args()
    results = DataResults(options.results)
    print(details(results))
    if options.write:
        replace_part(BENCH / "README.md", details(results), "data")
    if misses := missed(results):
        sys.exit("\nMissed:\n" + "\n".join(misses))


if __name__ == "__main__":
    main()
