"""What a person sees while something runs."""

import io

import pytest

from vtcav_jax import progress, telling


class Stream(io.StringIO):
    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def clock(monkeypatch):
    """Five seconds pass between two looks at the clock."""
    now = iter(range(0, 1000, 5))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))


def shown(monkeypatch, terminal: bool) -> str:
    stream = Stream(terminal)
    monkeypatch.setattr(progress.sys, "stderr", stream)
    batches = [[1, 2], [3, 4], [5]]
    assert list(progress.progress(batches, 5, "clips")) == batches
    return stream.getvalue()


def test_a_log_gets_a_line_every_ten_seconds_and_the_last(monkeypatch, clock):
    assert shown(monkeypatch, terminal=False).splitlines() == ["5/5 clips, 0.333 clips/s, 0 s left"]


def test_a_terminal_gets_one_line_that_moves(monkeypatch, clock):
    text = shown(monkeypatch, terminal=True)
    assert "0/5 clips ..." in text and "2/5 clips, 0.4 clips/s, 8 s left" in text and "\n" not in text
    assert text.endswith("\r\x1b[K")


def test_what_is_quick_leaves_no_trace_in_a_log(monkeypatch):
    assert shown(monkeypatch, terminal=False) == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_signs_of_life_before_the_first_is_done_are_no_rate(monkeypatch, clock, terminal):
    stream = Stream(terminal)
    monkeypatch.setattr(progress.sys, "stderr", stream)
    assert list(progress.progress([0, 0, 0, 2, 0, 2], 4, "rows", size=int)) == [0, 0, 0, 2, 0, 2]
    assert "2/4 rows, 0.1 rows/s" in stream.getvalue() and "\n0/4" not in f"\n{stream.getvalue()[20:]}"


def test_whoever_hears_of_every_unit_can_stop_the_work(monkeypatch, clock):
    heard, units = [], iter(range(9))

    def hear():
        heard.append(1)
        if len(heard) == 3:
            raise KeyboardInterrupt

    before = progress.heard.set(hear)
    how = telling.style.set("quiet")
    try:
        with pytest.raises(KeyboardInterrupt):
            list(progress.progress(units, 9, "rows", size=int))
    finally:
        telling.style.reset(how)
        progress.heard.reset(before)
    assert next(units) == 3
