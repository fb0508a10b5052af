"""The tables of docs/performance.md, from the results of `training.py` and `training_gpu.py`.

`python benchmarks/tables.py benchmarks/results/training-cuda.json` writes them to the output.
"""

import json
import sys
from pathlib import Path


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def amount(number, unit):
    """Return a number in units, with three digits or more."""
    if number is None:
        return "–"
    return f"{number / unit:,.0f}" if number >= 100 * unit else f"{number / unit:.1f}"


def by_library(rows, name, unit, text):
    """Return a table of a figure: cases below, libraries beside."""
    libraries = list(dict.fromkeys(library for row in rows for library in row[name]))
    lines = [[row["case"], *(amount(row[name].get(each), unit) for each in libraries)] for row in rows]
    return table([text, *libraries], lines)


def aims(found):
    lines = [
        [
            f"{aim['case']}: {aim['what']}",
            f"{aim['limit']:.3g}",
            f"{aim['median']:.2f}",
            "met" if aim["met"] else "missed",
        ]
        for aim in found["aims"]
    ]
    return table(["aim", "at most", "measured", ""], lines)


def tables(found):
    """Return all tables of a result, and what they were measured with."""
    device = [text for name, text in (found.get("device") or {}).items() if name != "memory.total"]
    versions = [" ".join(pair) for pair in found["versions"].items()]
    rows = found["rows"]
    parts = [", ".join([*device, *versions, found.get("date", "")]).rstrip(", ")]
    parts.append(by_library(rows, "seconds", 1e-6, "µs"))
    if "host" in rows[0]:
        parts.append(by_library(rows, "host", 1e-6, "µs of the host"))
    if any(taken is not None for row in rows for taken in row.get("memory", {}).values()):
        parts.append(by_library(rows, "memory", 2**20, "MiB"))
    return "\n\n".join([*parts, aims(found)])


if __name__ == "__main__":
    print(tables(json.loads(Path(sys.argv[1]).read_text())))
