"""Who is told what."""

import json

import pytest

from vtcav_jax import progress, telling


@pytest.fixture
def style():
    tokens = []
    yield lambda name: tokens.append(telling.style.set(name))
    for token in reversed(tokens):
        telling.style.reset(token)


def everything(monkeypatch):
    now = iter(range(0, 1000, 5))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    telling.say("by the way")
    telling.answer("the answer \x1b[2J")
    telling.warn("take care")
    telling.event("end", code=0)
    assert list(progress.progress([[1], [2], [3]], 3, "clips", note=lambda: "loss 1")) == [[1], [2], [3]]


def test_a_person_is_told_all(monkeypatch, capsys, style):
    style("plain")
    everything(monkeypatch)
    out, err = capsys.readouterr()
    assert out == "by the way\nthe answer \\x1b[2J\n"
    assert err.splitlines()[0] == "take care" and "3/3 clips" in err and "end" not in err


def test_quiet_keeps_answers_and_what_should_not_be_overlooked(monkeypatch, capsys, style):
    style("quiet")
    everything(monkeypatch)
    assert capsys.readouterr() == ("the answer \\x1b[2J\n", "take care\n")


def test_json_is_one_object_a_line(monkeypatch, capsys, style):
    style("json")
    everything(monkeypatch)
    out, err = capsys.readouterr()
    assert out == "the answer \\x1b[2J\n"
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["event"] for line in lines] == ["note", "warning", "end", "progress"]
    assert lines[-1]["done"] == lines[-1]["total"] == 3 and lines[-1]["note"] == "loss 1"
    assert all(line["time"] > 0 for line in lines)
