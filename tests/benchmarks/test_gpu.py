"""What runs all of it on a GPU never fails for its own sake: parts that hang, crash, or lose the device."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu

    return gpu


def python(source):
    return ["-S", "-c", source]


def part(gpu, *sources, **options):
    return gpu.Part(1, {f"number {index}": python(source) for index, source in enumerate(sources)}, **options)


EVENTS = """
import json, sys, time
with open(sys.argv[1], "a") as file:
    for event in json.loads(sys.argv[2]):
        print(json.dumps(event), file=file, flush=True)
"""


def telling(gpu, events, then=""):
    return gpu.Part(1, {"checks": [*python(EVENTS + then), gpu.REPORT, json.dumps(events)]})


def failure(name, kind="ValueError: 1"):
    return {"name": name, "outcome": "failed", "kind": kind, "error": f"Traceback of {name}"}


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def up_when(gpu, monkeypatch):
    """Return a function that lets the time of all parts be up once there is a file."""

    def wait_for(path):
        clock = types.SimpleNamespace(**vars(time))
        clock.monotonic = lambda: time.monotonic() + (1e6 if path.exists() else 0)
        monkeypatch.setattr(gpu, "time", clock)

    return wait_for


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- a part -------------------------------------------------------------------------------------------------


def test_all_commands_of_a_part_run_and_each_failure_is_told(gpu):
    found = gpu.run(part(gpu, "print(1)", "raise ValueError(8)", "raise ValueError(9)"), 60)
    assert found["outcome"] == gpu.FAILED
    assert found["exits"] == {"number 0": 0, "number 1": 1, "number 2": 1}
    # Those that differ in numbers alone are of one kind.
    (kind,) = found["failures"]
    assert (kind["count"], sorted(kind["names"])) == (2, ["number 1", "number 2"])
    assert kind["error"].startswith("Traceback")
    assert gpu.run(part(gpu, "print(1)"), 60)["outcome"] == gpu.PASSED


def test_a_part_that_runs_out_of_time_is_ended_with_its_children(gpu, up_when, tmp_path):
    pid = tmp_path / "pid"
    up_when(pid)
    source = f"""
import subprocess, sys, pathlib
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
print("waiting", flush=True)
new = pathlib.Path({str(pid)!r}).with_suffix(".new")
new.write_text(str(child.pid))
new.rename({str(pid)!r})
child.wait()
"""
    found = gpu.run(part(gpu, source), 60)
    assert found["outcome"] == gpu.CUT_OFF
    assert found["cut off"] == ["number 0"]
    assert found["said"] == {"number 0": ["waiting"]}
    wait_until(lambda: not is_alive(int(pid.read_text())))


def test_what_checks_said_is_kept_when_their_part_is_cut_off(gpu, up_when, tmp_path):
    up_when(tmp_path / "told")
    events = [
        {"name": "", "outcome": "collected", "names": ["a", "b", "f.py::c", "f.py::d"]},
        failure("a"),
        {"name": "b", "outcome": "passed", "notes": {"refused": 1}},
        {"name": "f.py::c", "outcome": "started"},
    ]
    noted = []
    source = f"open({str(tmp_path / 'told')!r}, 'w').close(); time.sleep(600)"
    found = gpu.run(telling(gpu, events, source), 60, note=noted.append)
    assert found["outcome"] == gpu.CUT_OFF
    assert (found["passed"], found["failed"], found["left"]) == (1, 1, ["f.py"])
    assert found["notes"] == {"b": {"refused": 1}}
    assert found["failures"] == [
        {"kind": "ValueError: 1", "count": 1, "names": ["a"], "error": "Traceback of a"}
    ]
    assert noted[-1] == found
    assert gpu.again(found) == ["a", "f.py"]


def test_a_crash_behind_failures_is_told_too(gpu):
    found = gpu.run(telling(gpu, [failure("a")], "import os; os.abort()"), 60)
    assert [kind["names"] for kind in found["failures"]] == [["a"], ["checks"]]
    assert "ended with -6" in found["failures"][1]["kind"]
    found = gpu.run(telling(gpu, [failure("a")], "sys.exit(1)"), 60)
    assert [kind["names"] for kind in found["failures"]] == [["a"]]


def test_a_flood_of_output_is_not_passed_on(gpu, capsys):
    found = gpu.run(part(gpu, "for i in range(20_000): print('line', i)\nraise ValueError(3)"), 60)
    assert len(capsys.readouterr().out.splitlines()) == gpu.SHOWN + 1
    assert found["failures"][0]["error"].endswith("ValueError: 3\n")
    assert len(found["failures"][0]["error"]) == gpu.KEPT


def test_only_what_failed_runs_again(gpu, capsys):
    both = part(gpu, "print(0)", "print(1)")
    assert gpu.run(both, 60, ["number 1"])["exits"] == {"number 1": 0}
    checks = gpu.Part(1, {"checks": [*python("import sys; print(sys.argv)"), gpu.REPORT]})
    gpu.run(checks, 60, ["a check"])
    assert "--check=a check" in capsys.readouterr().out
    gpu.run(checks, 60, ["checks"])  # which failed before it told anything
    assert "--check" not in capsys.readouterr().out


def test_names_of_tests_are_handed_in_a_file(gpu, tmp_path):
    names = ["tests/test_tree.py::test_a[1-x y]", "tests/gone.py::test_b"]
    option, path, *files = gpu._only(["-m", "pytest"], names, tmp_path)
    assert option == "--chosen"
    assert json.loads(Path(path).read_text()) == names
    assert files == ["tests/test_tree.py"]


def test_paths_of_modules_are_kept_for_children(gpu, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    command = gpu.Command(["-c", "import os; print(os.environ['PYTHONPATH'])"], {})
    command.process.wait()
    command.end()
    assert command.said.strip().split(os.pathsep) == [str(BENCHMARKS.parent), "/somewhere"]


# -- all of them --------------------------------------------------------------------------------------------


@pytest.fixture
def main(gpu, monkeypatch, capsys):
    """Return a function that runs the script with other parts, and returns its exit status and output."""

    def call(parts, *arguments, problems=()):
        answers = iter(problems)
        monkeypatch.setattr(gpu, "parts", lambda options: parts)
        monkeypatch.setattr(gpu, "problem", lambda device: next(answers, ""))
        monkeypatch.setattr(gpu.signal, "signal", lambda *_: None)
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", *map(str, arguments)])
        try:
            status = gpu.main()
        except SystemExit as error:
            status = error.code
        return status, "".join(capsys.readouterr())

    return call


def result(folder):
    return json.loads((folder / "gpu-cpu.json").read_text())


def test_the_parts_and_their_commands(gpu, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cuda"])
    parts = gpu.parts(gpu.arguments())
    assert list(parts)[:6] == ["smoke", "digits", "convolution", "training", "tests", "examples"]
    assert parts["smoke"].most == 60
    assert parts["tests"].variables["CUPY_ACCELERATORS"] == ""
    scripts = [command[0] for each in parts.values() for command in each.commands.values()]
    assert all(script == "-m" or Path(script).exists() for script in scripts)
    examples = {path.stem for path in (BENCHMARKS.parent / "examples").glob("*.py")}
    run = [name for each in parts.values() for name in each.commands]
    assert examples < set(run)
    assert len(run) == len(set(run))


def test_a_part_that_fails_does_not_stop_the_others(gpu, main, tmp_path):
    parts = {"one": part(gpu, "raise ValueError(1)"), "two": part(gpu, "print(2)")}
    status, said = main(parts, "--json", tmp_path / "new")
    assert status == 1
    assert {name: each["outcome"] for name, each in result(tmp_path / "new")["parts"].items()} == {
        "one": "failed",
        "two": "passed",
    }
    assert "one: 1 × number 0 ended with 1: ValueError: 1" in said
    assert main({"two": parts["two"]})[0] == 0


def test_time_that_is_not_needed_goes_to_later_parts(gpu, main, monkeypatch):
    given = []
    monkeypatch.setattr(gpu, "run", lambda part, seconds, *_: given.append(seconds) or {"outcome": "passed"})
    parts = {name: part(gpu)._replace(weight=weight) for name, weight in (("a", 1), ("b", 1), ("c", 2))}
    parts["a"] = parts["a"]._replace(most=2)
    main(parts, "--minutes", 1)
    assert given == pytest.approx([2, 60 / 3, 60], abs=1)
    given.clear()
    assert main(parts, "--minutes", 1e-3)[0] == 1
    assert not given


def test_only_some_parts(gpu, main):
    parts = {name: part(gpu, f"print('this is', {name!r})") for name in ("one", "two", "three")}
    _, said = main(parts, "--only", "two", "--only", "three")
    assert [f"this is {name}" in said for name in parts] == [False, True, True]


def test_what_failed_or_was_not_run_runs_again(gpu, main, tmp_path):
    before = {
        "one": {"outcome": "passed"},
        "two": {"outcome": "failed", "failures": [{"names": ["number 1"]}]},
        "three": {"outcome": "not run"},
        "four": {"outcome": "cut off", "cut off": ["number 0"]},
    }
    path = tmp_path / "gpu-cpu.json"
    path.write_text(json.dumps({"parts": before}))
    parts = {name: part(gpu, "print(0)", "print(1)") for name in (*before, "new")}
    main(parts, "--failed", path, "--json", tmp_path / "again")
    found = {name: sorted(each["exits"]) for name, each in result(tmp_path / "again")["parts"].items()}
    assert found == {"two": ["number 1"], "three": ["number 0", "number 1"], "four": ["number 0"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "smoky"], "--only must be one of one; received smoky"),
        (["--minutes", "0"], "--minutes must be greater than 0, received 0"),
        (["--json", "{file}/results"], "--json must be a folder that can be written to"),
        (["--failed", "{file}"], "--failed must be a result of this script"),
        (["--failed", "{folder}/other.json"], "--failed must be a result of this script"),
        (["--failed", "{folder}/none.json"], "--failed must be a result of this script"),
        (["--failed", "{folder}/gpu-cpu.json", "--json", "{folder}"], "--failed must be in another folder"),
    ],
)
def test_bad_input(arguments, message, gpu, main, tmp_path):
    (tmp_path / "file").write_text("[1]")
    (tmp_path / "gpu-cpu.json").write_text('{"parts": {}}')
    (tmp_path / "other.json").write_text('{"parts": {"one": {}}}')
    arguments = [text.format(file=tmp_path / "file", folder=tmp_path) for text in arguments]
    status, said = main({"one": part(gpu, "print('began')")}, *arguments)
    assert status == 2
    assert message in said
    assert "began" not in said


def test_a_folder_in_which_nothing_can_be_written(gpu, main, monkeypatch, tmp_path):
    def full(**_):
        raise OSError("No space left on device")

    monkeypatch.setattr(gpu.tempfile, "TemporaryFile", full)
    status, said = main({"one": part(gpu, "print('began')")}, "--json", tmp_path)
    assert status == 2
    assert "No space left on device" in said
    assert "began" not in said


def test_a_folder_that_is_full_half_way(gpu, main, monkeypatch, tmp_path):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(gpu, "keep", full)
    status, said = main({"one": part(gpu, "print('began')")}, "--json", tmp_path)
    assert "the results cannot be written now: No space left on device" in said
    assert "one            passed" in said
    assert status == 1


def test_results_are_whole_for_whoever_reads_them(gpu, tmp_path):
    path = tmp_path / "new" / "result.json"
    gpu.keep(path, {"a": 1})
    with path.open() as before:
        gpu.keep(path, {"a": 2})
        assert json.load(before) == {"a": 1}
    with pytest.raises(TypeError):
        gpu.keep(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 2}
    events = tmp_path / "events"
    events.write_text('{"name": "a"}\n{"name": "b')
    assert gpu.read(events) == [{"name": "a"}]


def test_without_a_gpu_nothing_is_run_and_nothing_is_written(gpu, main, tmp_path):
    status, said = main(
        {"one": part(gpu, "print('began')")}, "--json", tmp_path, problems=["there is no driver"]
    )
    assert status == 2
    assert "cannot be used: there is no driver" in said
    assert "began" not in said
    assert list(tmp_path.iterdir()) == []


def test_there_is_a_result_from_the_start_on(gpu, main, tmp_path):
    source = f"print(open({str(tmp_path / 'gpu-cpu.json')!r}).read())"
    _, said = main({"one": part(gpu, source), "two": part(gpu, "")}, "--json", tmp_path)
    assert said.count('"outcome": "not run"') == 2


def test_a_gpu_that_is_lost_half_way(gpu, main, tmp_path):
    parts = {"one": part(gpu, "print(1)"), "two": part(gpu, "raise ValueError(2)"), "three": part(gpu, "")}
    status, said = main(parts, "--json", tmp_path, problems=["", "it does not answer"])
    assert status == 1
    assert "the GPU was lost in two: it does not answer" in said
    found = result(tmp_path)
    assert found["problem"] == "the GPU was lost in two: it does not answer"
    assert [each["outcome"] for each in found["parts"].values()] == ["passed", "failed", "not run"]


def test_a_device_that_does_not_answer(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "ANSWER", 0.2)
    monkeypatch.setattr(gpu, "PROBLEM", "import time; time.sleep(600)")
    assert gpu.problem("cuda") == "it does not answer"
    monkeypatch.setattr(gpu, "ANSWER", 60)
    for source, answer in (("print('it works')", ""), ("print('a driver')", "a driver"), ("1/0", "Zero")):
        monkeypatch.setattr(gpu, "PROBLEM", source)
        assert gpu.problem("cuda").startswith(answer)
        assert bool(gpu.problem("cuda")) == bool(answer)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_has_shown_something(number, tmp_path):
    events = [{"name": "", "outcome": "collected", "names": ["a", "b"]}, failure("a")]
    pid = tmp_path / "pid"
    then = f"import os; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    checks = [*python(EVENTS + then), "REPORT", json.dumps(events)]
    source = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import gpu
gpu.OFTEN = 0.05
commands = {{"one": ["-S", "-c", "print(1)"], "two": {checks!r}}}
gpu.parts = lambda options: {{name: gpu.Part(1, {{name: each}}) for name, each in commands.items()}}
sys.argv = ["gpu.py", "--device", "cpu", "--json", {str(tmp_path)!r}]
sys.exit(gpu.main())
"""
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    path = tmp_path / "gpu-cpu.json"
    wait_until(lambda: path.exists() and result(tmp_path)["parts"]["two"].get("failed"))
    wait_until(lambda: pid.exists() and pid.read_text())
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    found = result(tmp_path)
    assert process.returncode == (-9 if number == signal.SIGKILL else 1)
    assert found["parts"]["one"]["outcome"] == "passed"
    assert found["parts"]["two"]["failures"][0]["error"] == "Traceback of a"
    assert found["parts"]["two"]["left"] == ["b"]
    wait_until(lambda: not is_alive(int(pid.read_text())))  # or it would hold the device
    if number != signal.SIGKILL:
        assert found["problem"] == "it was stopped"
        assert "Not all was run: it was stopped" in said
