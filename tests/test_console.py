"""Console output in each verbosity, and progress on a terminal and in a log."""

import io
import json
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest
import tqdm.std

from vtcav_jax import console


class Stream(io.StringIO):
    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def verbosity():
    tokens = []
    yield lambda name: tokens.append(console.verbosity.set(name))
    for token in reversed(tokens):
        console.verbosity.reset(token)


@pytest.fixture
def clock(monkeypatch):
    """Advance the clocks by five seconds at every reading."""
    monotonic, wall = iter(range(0, 1000, 5)), iter(range(100, 1100, 5))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(monotonic)))
    monkeypatch.setattr(tqdm.std, "time", lambda: float(next(wall)))


def write_everything():
    console.info("by the way")
    console.emit("the result \x1b[2J")
    console.warn("take care \x1b[2J")
    console.json_event("end", code=0)
    assert list(console.progress([[1], [2], [3]], 3, "clips", note=lambda: "loss 1")) == [[1], [2], [3]]


def test_plain_writes_text(capsys, clock, verbosity):
    verbosity("plain")
    write_everything()
    out, err = capsys.readouterr()
    assert out == "by the way\nthe result \\x1b[2J\n"
    assert err.splitlines()[0] == "take care \\x1b[2J" and "clips: 3/3, " in err
    assert "loss 1" in err and "end" not in err


def test_quiet_keeps_results_and_warnings(capsys, clock, verbosity):
    verbosity("quiet")
    write_everything()
    assert capsys.readouterr() == ("the result \\x1b[2J\n", "take care \\x1b[2J\n")


def test_json_is_one_object_per_line(capsys, clock, verbosity):
    verbosity("json")
    write_everything()
    out, err = capsys.readouterr()
    assert out == "the result \\x1b[2J\n"
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["event"] for line in lines] == ["note", "warning", "end", "progress"]
    assert lines[-1]["done"] == lines[-1]["total"] == 3 and lines[-1]["note"] == "loss 1"
    assert all(line["time"] > 0 for line in lines)


def shown(monkeypatch, terminal: bool, note=lambda: "") -> str:
    stream = Stream(terminal)
    monkeypatch.setattr(console.sys, "stderr", stream)
    batches = [[1, 2], [3, 4], [5]]
    assert list(console.progress(batches, 5, "clips", note=note)) == batches
    return stream.getvalue()


def test_log_gets_a_line_every_ten_seconds_and_the_last(monkeypatch, clock):
    (line,) = shown(monkeypatch, terminal=False).splitlines()
    assert line.startswith("clips: 5/5, ") and line.endswith(", 0 s left")


def test_terminal_gets_one_moving_line_that_is_removed(monkeypatch, clock):
    text = shown(monkeypatch, terminal=True, note=lambda: "loss \x1b[2J1")
    assert "clips: 0/5" in text and "clips: 2/5, " in text and "loss \\x1b[2J1" in text and "\n" not in text
    assert not text.rpartition("5/5")[2].split("\r", 1)[1].strip()


def test_progress_lines_have_a_rate_or_the_time_of_one_unit():
    assert console.progress_line(15, 20, "tests at layers.0", 2.54) == "tests at layers.0: 15/20, 2.54/s, 2 s left"
    assert console.progress_line(1, 9, "videos", 1 / 1.22, "loss 1") == "videos: 1/9, 1.2 s each, 10 s left, loss 1"
    assert console.progress_line(1, 9, "videos", 1 / 120) == "videos: 1/9, 2 min each, 16 min left"
    assert console.progress_line(0, 9, "videos", 0) == "videos: 0/9"


def test_short_work_writes_no_progress_to_a_log(monkeypatch):
    assert shown(monkeypatch, terminal=False) == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_units_of_size_zero_do_not_divide_by_zero(monkeypatch, clock, terminal):
    stream = Stream(terminal)
    monkeypatch.setattr(console.sys, "stderr", stream)
    assert list(console.progress([0, 0, 0, 2, 0, 2], 4, "rows", size=int)) == [0, 0, 0, 2, 0, 2]
    assert "rows: 2/4, " in stream.getvalue() and ("0/4" in stream.getvalue()) == terminal


def test_on_tick_can_stop_the_work(verbosity):
    ticks, units = [], iter(range(9))

    def tick():
        ticks.append(1)
        if len(ticks) == 3:
            raise KeyboardInterrupt

    before = console.on_tick.set(tick)
    verbosity("quiet")
    try:
        with pytest.raises(KeyboardInterrupt):
            list(console.progress(units, 9, "rows", size=int))
    finally:
        console.on_tick.reset(before)
    assert next(units) == 3


class _Cell:
    """A notebook cell: `display` returns a handle whose updates replace its content."""

    def __init__(self):
        self.outputs = []

    def display(self, content, *, raw, display_id):
        assert raw and display_id
        self.outputs.append([content["text/plain"]])
        return self

    def update(self, content, *, raw):
        assert raw
        self.outputs[-1].append(content["text/plain"])


def test_progress_in_a_notebook_is_one_output_that_is_updated(clock, monkeypatch):
    cell, errors = _Cell(), Stream(terminal=False)
    monkeypatch.setattr(console, "notebook_output", lambda: console.NotebookOutput(cell.display, 1))
    monkeypatch.setattr("sys.stderr", errors)
    assert list(console.progress([[1, 2], [3], [4, 5]], 5, "clips")) == [[1, 2], [3], [4, 5]]
    (updates,) = cell.outputs
    assert updates[-1].startswith("clips: 5/5") and len(updates) > 1 and errors.getvalue() == ""


def test_a_notebook_is_a_kernel_of_ipython(monkeypatch):
    assert console.notebook_output() is None
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    display.display = lambda *args, **kwargs: None  # type: ignore (a stand-in)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    for shell in (None, SimpleNamespace()):
        ipython.get_ipython = lambda shell=shell: shell  # type: ignore (a stand-in)
        assert console.notebook_output() is None
    shell = SimpleNamespace(kernel=object(), execution_count=1)
    ipython.get_ipython = lambda: shell  # type: ignore (a stand-in)
    first = console.notebook_output()
    assert first is not None and console.notebook_output() is first  # one output per cell
    shell.execution_count = 2
    assert console.notebook_output() is not first
