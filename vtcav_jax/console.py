"""Console output: results on stdout, notes and warnings through `logging`, progress through `tqdm`.

Results always go to stdout. Notes go to stdout as well, warnings and progress to stderr; in a
notebook, progress is one output that is updated. `verbosity` "quiet" drops notes and progress; "json" writes each note,
warning and progress update as one JSON object per line on stderr.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Literal, TypeVar

from tqdm import tqdm

from vtcav_jax.names import escape_control_chars

T = TypeVar("T")
Verbosity = Literal["plain", "quiet", "json"]
verbosity: ContextVar[Verbosity] = ContextVar("verbosity", default="plain")
# Called once per batch of `progress` in every verbosity. Raising from it stops work that runs in another thread.
on_tick: ContextVar[Callable[[], None]] = ContextVar("on_tick", default=lambda: None)

MIN_SECONDS = 2  # shorter work writes no progress to a log
LOG_INTERVAL = 10  # seconds between progress lines in a log


class _ConsoleHandler(logging.Handler):
    """Handler that looks up the streams for each record: callers may replace `sys.stdout` and `sys.stderr`."""

    def emit(self, record: logging.LogRecord) -> None:
        kind, fields = getattr(record, "event", None), getattr(record, "fields", {})
        is_warning, mode = record.levelno >= logging.WARNING, verbosity.get()
        if mode == "json":
            if kind is None:
                kind, fields = "warning" if is_warning else "note", {"text": record.getMessage()}
            line = json.dumps({"time": round(time.time(), 3), "event": kind, **fields})
        elif kind is not None or (mode == "quiet" and not is_warning):
            return
        else:
            line = escape_control_chars(record.getMessage())
        print(line, file=sys.stderr if is_warning or mode == "json" else sys.stdout, flush=True)


logger = logging.getLogger("vtcav_jax")
logger.setLevel(logging.INFO)
logger.propagate = False
if not logger.handlers:
    logger.addHandler(_ConsoleHandler())


def info(text: str) -> None:
    """Log a note that accompanies the results."""
    logger.info("%s", text)


def emit(text: str) -> None:
    """Print the result of a command, with control characters escaped."""
    print(escape_control_chars(text), flush=True)


def warn(text: str) -> None:
    """Log a warning, which every verbosity displays."""
    logger.warning("%s", text)


def json_event(kind: str, **fields: Any) -> None:
    """Log an event, displayed only if `verbosity` is "json"."""
    logger.info("%s", kind, extra={"event": kind, "fields": fields})


class _TerminalLine(tqdm):
    """Progress bar that calls `note` only when it is drawn, because `note` may wait for a device."""

    monitor_interval = 0  # no monitor thread

    def __init__(self, note: Callable[[], str], **options: Any):
        self.note = note
        super().__init__(**options)

    @property
    def format_dict(self) -> dict[str, Any]:
        state = dict(super().format_dict)
        rate = state["rate"] or state["n"] / max(state["elapsed"], 1e-6)
        return state | {
            "text": progress_line(state["n"], state["total"], state["unit"], rate, self.note() if self.n else "")
        }


class NotebookOutput:
    """File for `tqdm` that displays the last line written to it in one output of the cell `number`."""

    def __init__(self, display: Callable[..., Any], number: int):
        self.display, self.number = display, number
        self.handle: Any = None

    def write(self, text: str) -> None:
        line = text.strip()
        if not line:
            return
        content = {"text/plain": line}
        if self.handle is None:
            self.handle = self.display(content, raw=True, display_id=True)
        else:
            self.handle.update(content, raw=True)

    def flush(self) -> None:
        pass  # each line is sent when it is written


_last_output: ContextVar[NotebookOutput | None] = ContextVar("last_output", default=None)


def notebook_output() -> NotebookOutput | None:
    """Return the output of the current notebook cell, which has at most one, or None outside of an IPython kernel."""
    ipython = sys.modules.get("IPython")  # imported by every kernel
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    output = _last_output.get()
    if output is None or output.number != shell.execution_count:
        from IPython.display import display

        output = NotebookOutput(display, shell.execution_count)
        _last_output.set(output)
    return output


def progress(
    batches: Iterable[T],
    total: int,
    unit: str,
    *,
    size: Callable[[Any], int] = len,
    note: Callable[[], str] = lambda: "",
) -> Iterator[T]:
    """Yield `batches` and report on stderr how many of `total` units are done, with the text of `note`.

    A terminal shows one updating line, removed at the end; a notebook one that stays, for work of more than two
    seconds. A log file gets a line every ten seconds, and none for shorter work.
    """
    mode, tick = verbosity.get(), on_tick.get()
    notebook = notebook_output() if mode == "plain" else None
    is_terminal = mode == "plain" and (notebook is not None or sys.stderr.isatty())
    start = last = time.monotonic()
    done = 0
    with _TerminalLine(
        note,
        total=total,
        unit=unit,
        file=notebook or sys.stderr,
        disable=not is_terminal,
        leave=notebook is not None,
        delay=MIN_SECONDS if notebook else 0,
        mininterval=0.2,
        miniters=0,
        dynamic_ncols=True,
        bar_format="{text}",
    ) as line:
        for batch in batches:
            tick()
            count = size(batch) if mode != "quiet" else 0
            done += count
            line.update(count)
            now = time.monotonic()
            is_due = done and now - start > MIN_SECONDS and (done >= total or now - last > LOG_INTERVAL)
            if is_due and not is_terminal and mode != "quiet":
                last = now
                _log_progress(done, total, unit, now - start, note())
            yield batch


def _log_progress(done: int, total: int, unit: str, elapsed: float, note: str) -> None:
    rate = done / elapsed
    if verbosity.get() == "json":
        left = max(total - done, 0) / rate
        json_event("progress", done=done, total=total, unit=unit, rate=rate, seconds_left=left, note=note)
    else:
        print(progress_line(done, max(total, done), unit, rate, note), file=sys.stderr, flush=True)


def progress_line(done: int, total: int, unit: str, rate: int | float, note: str = "") -> str:
    """Return a line such as `clips: 3/20, 2.5/s, 7 s left`; `rate` is in units per second."""
    line = f"{unit}: {done}/{total}"
    if rate > 0:
        speed = f"{rate:.3g}/s" if rate >= 1 else f"{format_seconds(1 / rate)} each"
        line += f", {speed}, {format_seconds(round(max(total - done, 0) / rate))} left"
    return escape_control_chars(f"{line}, {note}" if note else line)


def format_seconds(seconds: int | float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
