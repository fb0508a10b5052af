"""Where the time of a small training step goes: finding arrays, the plan, and putting the results together.

The first and the last depend on how many arrays there are, and not on their sizes: four parameters and Adam's
state, 2 µs at most for both in the first case. All are timed in turns, and medians shown.
"""

import os
import statistics
import time

os.environ |= {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}

from training import RATE, TRAININGS, Xpnet, batch_of

CASES = ("64-32-10, batch 32", "2-16-16-1, tanh, batch 16")
ROUNDS, TIMES = 21, 2000


def parts(step, *arguments):
    """Return what a call of a function under `jit` does, whole and part by part, as functions."""
    received = (arguments, {})
    step(*arguments)
    (recording,) = step._recordings
    arrays, others, usual = recording.match(received)
    plan = recording.plan.run if usual else recording.plan
    results = plan(arrays)
    return {
        "a step": lambda: step(*arguments),
        "finding arrays": lambda: recording.match(received),
        "the plan": lambda: plan(arrays),
        "putting results together": lambda: recording._build(results, others),
    }


def seconds(run):
    start = time.perf_counter()
    for _ in range(TIMES):
        run()
    return (time.perf_counter() - start) / TIMES


def main():
    for name in CASES:
        case = TRAININGS[name]
        runs = parts(*Xpnet().training(case, RATE), *batch_of(case))
        times = {part: [] for part in runs}
        for _ in range(ROUNDS):
            for part, run in runs.items():
                times[part].append(seconds(run))
        print(f"{name}, one thread")
        for part, each in times.items():
            print(f"  {part:26} {statistics.median(each) * 1e6:6.2f} µs, at least {min(each) * 1e6:.2f}")


if __name__ == "__main__":
    main()
