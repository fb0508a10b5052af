"""What a GPU showed, in the pages: tables from the results of `gpu.py`, `training_gpu.py` and `networks.py`.

`python benchmarks/tables.py` writes them anew from `benchmarks/results`: README's line of CuPy, and what
stands between two comments in docs/cuda.md and docs/performance.md. Where there is no result, they say so.
`python benchmarks/tables.py FILE` writes the tables of a training's results to the output.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- from here on written by benchmarks/tables.py -->", "<!-- to here -->"
NAMES = {
    "python": "Python", "numpy": "NumPy", "torch": "PyTorch", "jax": "JAX", "cupy-cuda12x": "CuPy",
    "cupy-cuda13x": "CuPy",
}  # fmt: skip


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def amount(number, unit):
    """Return a number in units, with three digits or more."""
    if number is None:
        return "–"
    return f"{number / unit:,.0f}" if number >= 100 * unit else f"{number / unit:.1f}"


def ran_on(found):
    """Say on what, with what and when something was found."""
    place = found.get("device") or {}
    device = [place["name"]] if "name" in place else []
    device += [f"driver {place['driver_version']}"] if "driver_version" in place else []
    versions = [f"{NAMES.get(name, name)} {version}" for name, version in found["versions"].items()]
    return ", ".join(filter(None, [*device, *versions, found.get("date", "")]))


# -- a training ---------------------------------------------------------------------------------------------


def by_library(rows, name, unit, text):
    """Return a table of a figure: cases below, libraries beside."""
    libraries = list(dict.fromkeys(library for row in rows for library in row[name]))
    lines = [[row["case"], *(amount(row[name].get(each), unit) for each in libraries)] for row in rows]
    return table([text, *libraries], lines)


def second_thread(found):
    """Return a table of how many times as fast libraries are with two threads as with one."""
    libraries = list(dict.fromkeys(library for ratios in found.values() for library in ratios))
    lines = [
        [case, *(f"{ratios[each]:.2f}" if each in ratios else "–" for each in libraries)]
        for case, ratios in found.items()
    ]
    return table(["times as fast with a second thread", *libraries], lines)


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
    """Return all tables of a training, and what they were measured with."""
    rows = found["rows"]
    parts = [ran_on(found), by_library(rows, "seconds", 1e-6, "µs")]
    if "host" in rows[0]:
        parts.append(by_library(rows, "host", 1e-6, "µs of the host"))
    if any(taken is not None for row in rows for taken in row.get("memory", {}).values()):
        parts.append(by_library(rows, "memory", 2**20, "MiB"))
    if found.get("second_thread"):
        parts.append(second_thread(found["second_thread"]))
    left_out = [
        f"{name} ({row['case']}): {why}" for row in rows for name, why in row.get("missing", {}).items()
    ]
    parts += [f"Left out: {'; '.join(left_out)}."] if left_out else []
    return "\n\n".join([*parts, aims(found)])


def networks(found):
    figures = found["milliseconds"]
    rows = [
        [name, f"{each['xpnet']:.1f}", f"{each['torch']:.1f}", f"{each['xpnet'] / each['torch']:.2f}"]
        for name, each in figures.items()
        if "torch" in each
    ]
    return f"{ran_on(found)}\n\n{table(['ms', 'xpnet', 'torch', 'xpnet of torch'], rows)}"


# -- what a GPU showed --------------------------------------------------------------------------------------


def counted(part):
    """Say how a part ended, in words."""
    counts = [f"{part[word]:,} {word}" for word in ("passed", "failed") if part.get(word)]
    return ", ".join([part["outcome"], *counts])


def unshown(part):
    """Say what of a part was not shown."""
    if part["outcome"] == "not run":
        return "all of it"
    failed = [name for kind in part.get("failures", ()) for name in kind["names"]]
    names = list(dict.fromkeys([*failed, *part.get("left", part.get("cut off", []))]))
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(f"`{name}`" for name in names[:8]) + rest


def shown(found):
    """Return what a run on a GPU showed."""
    rows = [[name, counted(part), unshown(part)] for name, part in found["parts"].items()]
    parts = [
        f"**What a GPU showed**: {ran_on(found)} ([results](../benchmarks/results/gpu-cuda.json)). "
        "What failed, was cut off as the time was up, or was not run, is not shown.",
        table(["part", "result", "not shown"], rows),
    ]
    kinds = [kind for part in found["parts"].values() for kind in part.get("failures", ())]
    if kinds:
        lines = [f"- {kind['count']} × `{kind['kind'].replace('`', '')}`" for kind in kinds]
        parts.append("\n".join(["What failed, by its message:", "", *lines]))
    refused = [
        f"- {name}: {len(notes['refused'])} of {notes['of']} shapes"
        for part in found["parts"].values()
        for name, notes in part.get("notes", {}).items()
        if "refused" in notes
    ]
    if refused:
        parts.append("\n".join(["What cuBLASLt does not have, so that plans do without:", "", *refused]))
    if found["problem"]:
        parts.append(f"Not all was run: {found['problem']}.")
    return "\n\n".join(parts)


NEVER_RAN = """\
**xpnet never ran on a GPU yet.** [What was checked without one](#what-was-checked-without-a-gpu) is below.
No speed was measured. If you have a GPU, `nox -s gpu` runs all that is to be seen on it, and writes down what
it measures."""


def of_cuda(results):
    """Return the stretch of docs/cuda.md."""
    found = results.get("gpu-cuda")
    return shown(found) if found else NEVER_RAN


def of_performance(results):
    """Return the stretch of docs/performance.md."""
    parts = []
    if "training-cuda" in results:
        parts.append(f"A training step: {tables(results['training-cuda'])}")
    if "networks-cuda" in results:
        parts.append(f"A convolutional network and a transformer: {networks(results['networks-cuda'])}")
    return "\n\n".join(parts) or "**No GPU has measured anything yet.**"


def of_readme(results):
    """Return README's line of CuPy."""
    found = results.get("gpu-cuda")
    if not found:
        kernels = "generated kernels, run on the CPU; the rest with a stand-in"
        return ["14.2.0", "the same, without a GPU", kernels, "**never ran on a GPU yet**"]
    parts = found["parts"]
    tests = counted(parts["tests"]) if "tests" in parts else "not run"
    examples = [part for name, part in parts.items() if name in ("digits", "convolution", "examples")]
    outcomes = {part["outcome"] for part in examples} or {"not run"}
    versions = found["versions"]
    version = next((each for name, each in versions.items() if name.startswith("cupy")), "–")
    name = (found.get("device") or {}).get("name", "a GPU without a name")
    machine = f"{name}, Python {versions['python']}, {found['date']}"
    return [version, machine, tests, ", ".join(sorted(outcomes))]


def pages(folder=RESULTS):
    """Return the texts of all pages by their paths, as the results want them."""
    names = ("gpu-cuda", "training-cuda", "networks-cuda")
    paths = {name: folder / f"{name}.json" for name in names}
    results = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    texts = {}
    for name, text in (("cuda.md", of_cuda(results)), ("performance.md", of_performance(results))):
        path = ROOT / "docs" / name
        before, _, rest = path.read_text("utf-8").partition(BEGIN)
        _, _, behind = rest.partition(END)
        texts[path] = f"{before}{BEGIN}\n\n{text}\n\n{END}{behind}"
    readme = ROOT / "README.md"
    line = f"| {' | '.join(['CuPy', *of_readme(results)])} |"
    texts[readme] = re.sub(r"^\| CuPy \|.*$", lambda _: line, readme.read_text("utf-8"), flags=re.MULTILINE)
    return texts


def main():
    if len(sys.argv) > 1:
        print(tables(json.loads(Path(sys.argv[1]).read_text())))
        return
    for path, text in pages().items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
