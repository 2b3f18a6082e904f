"""A line on the terminal for whatever takes more than two seconds: how far, how fast, how long still."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from vtcav_jax.telling import event, style

T = TypeVar("T")
# Called with every unit, told or not: work in another thread can so be heard of, and stopped by what this raises
heard: ContextVar[Callable[[], None]] = ContextVar("heard", default=lambda: None)


def progress(
    batches: Iterable[T],
    total: int,
    unit: str,
    *,
    size: Callable[[Any], int] = len,
    note: Callable[[], str] = lambda: "",
) -> Iterator[T]:
    """Passes `batches` on and tells on stderr how many of `total` have come, and what `note` says.

    A terminal sees one line that moves; a log file a line every ten seconds, and nothing of what takes under two. How
    it is told, if at all, is for `telling.style` to say.
    """
    how, hear = style.get(), heard.get()
    if how == "quiet":
        for batch in batches:
            hear()
            yield batch
        return
    terminal = how == "plain" and sys.stderr.isatty()
    start = told = time.monotonic()
    done, open_line = 0, terminal
    if terminal:
        sys.stderr.write(f"0/{total} {unit} ...")
        sys.stderr.flush()
    for batch in batches:
        hear()
        done += size(batch)
        now = time.monotonic()
        if done and now - start > 2 and (done >= total or now - told > (0.2 if terminal else 10)):
            rate = done / (now - start)
            said, told = note(), now
            if how == "json":
                left = max(total - done, 0) / rate
                event("progress", done=done, total=total, unit=unit, rate=rate, seconds_left=left, note=said)
                yield batch
                continue
            line = f"{done}/{total} {unit}, {rate:.3g} {unit}/s, {max(total - done, 0) / rate:.0f} s left" + (
                f", {said}" if said else ""
            )
            sys.stderr.write(f"\r\x1b[K{line}" if terminal else f"{line}\n")
            sys.stderr.flush()
        yield batch
    if open_line:
        sys.stderr.write("\r\x1b[K")
