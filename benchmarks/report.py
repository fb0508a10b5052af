"""What checks and tests said: one line of JSON each, in a file that is whole at any moment.

An event is a dict with a ``name`` and an ``outcome``: started, passed, failed, left out. One that failed has
its ``kind``, which is the message in one line, and its ``error``, the whole traceback.
"""

import json
import re
import traceback

MOST = 20_000  # characters of a traceback


class Report:
    def __init__(self, path):
        self.path = path
        path.touch()

    def add(self, name, outcome, **more):
        with self.path.open("a") as file:  # each line for itself, as this process may be killed
            print(json.dumps({"name": name, "outcome": outcome} | more), file=file)

    def fail(self, name, kind, error):
        self.add(name, "failed", kind=" ".join(kind.split())[:300], error=error[-MOST:])

    def fail_with(self, name, error):
        """Note an exception."""
        kind = traceback.format_exception_only(error)[-1]
        self.fail(name, kind, "".join(traceback.format_exception(error)))


def read(path):
    """Return the events so far."""
    events = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:  # its writer was killed in the middle of it
            continue
    return events


def kinds(failed):
    """Put failures that differ in numbers only together: the first of each kind in full, and all names."""
    found = {}
    for event in failed:
        key = re.sub(r"0x[0-9a-fA-F]+|\d+(\.\d+)?(e[+-]?\d+)?", "0", event["kind"])
        each = found.setdefault(
            key, {"kind": event["kind"], "count": 0, "names": [], "error": event["error"]}
        )
        each["count"] += 1
        each["names"].append(event["name"])
    return sorted(found.values(), key=lambda each: -each["count"])
