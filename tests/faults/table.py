"""Runs all faults with their full counts and prints the scorecard; the exit code is pytest's."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults.scorecard import FILE, ROWS

HERE = Path(__file__).parent
TESTS = HERE.parent
BESIDE = [  # tests that have a full scale too
    *(TESTS / "distributed", TESTS / "sweep" / "test_ray.py", TESTS / "sweep" / "test_submitit.py"),
    *(TESTS / "tracking" / "test_team_server.py", TESTS / "readme" / "test_guide.py"),
]
Lines = Sequence[Mapping[str, Any]]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/faults",
        description="Kill, fill, cut and flip whatever the program relies on, and print what was lost: one table.",
        epilog="Everything else goes to pytest: scripts/faults -k power -x",
        allow_abbrev=False,
    )
    parser.add_argument("--ordinary", action="store_true", help="the counts of the ordinary suite, not the full ones")
    own, others = parser.parse_known_args(arguments)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.jsonl"
        environment = {**os.environ, FILE: str(figures), "TL_FAULTS": "" if own.ordinary else "full"}
        command = [sys.executable, "-m", "pytest", *map(str, (HERE, *BESIDE)), "-q", "-n0", *others]
        code = subprocess.run(command, cwd=TESTS.parent, env=environment, check=False).returncode
        lines = [json.loads(line) for line in figures.read_text().splitlines()] if figures.exists() else []
    counts = "counts of the ordinary suite" if own.ordinary else "full counts"
    title = f"Faults: {counts}, {(time.monotonic() - start) / 60:.1f} min on {os.cpu_count()} cores"
    Console(width=None if sys.stdout.isatty() else 140).print(make_table(lines, title=title))
    return code


def make_table(lines: Lines, *, title: str) -> Table:
    """Make the scorecard: a row for each fault in a fixed order, then tests that failed or were skipped without one."""
    table = Table("fault", "outcome", title=title, title_justify="left")
    for row in _rows(lines):
        outcomes = dict.fromkeys(_outcomes([line for line in lines if line["row"] == row]))
        table.add_row(row, "\n".join(outcomes) or "not tried")
    told = {line["skipped"] for line in lines if line["row"] and "skipped" in line}
    for line in (line for line in lines if not line["row"]):
        if "failed" in line:
            table.add_row(line["failed"], "FAILED")
        elif line["reason"] not in told:
            table.add_row(line["skipped"], f"skipped: {line['reason']}")
    return table


def _rows(lines: Lines) -> Iterator[str]:
    """Yield the rows in their order; `tracking, hung` is a part of `tracking`."""
    named = dict.fromkeys(line["row"] for line in lines if line["row"])
    for row in ROWS:
        parts = [name for name in named if name == row or name.startswith(f"{row}, ")]
        yield from parts or [row]
        for part in parts:
            del named[part]
    yield from named


def _outcomes(lines: Lines) -> Iterator[str]:
    for line in lines:
        figures = [f"{name.replace('_', ' ')} {_text(line[name])}" for name in line if name not in ("row", "tried")]
        if "skipped" in line:
            yield f"skipped: {line['skipped']}"
        else:
            yield (f"{line['tried']}: " if "tried" in line else "") + " · ".join(figures)


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
