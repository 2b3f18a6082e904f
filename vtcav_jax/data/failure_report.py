"""Reports of unreadable clips with their reasons: a summary for the terminal, and a complete CSV."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vtcav_jax.data.loader import ReadResult
from vtcav_jax.names import escape_control_chars
from vtcav_jax.runs.tables import write_table

MAX_NAMES_PER_REASON = 20


def failure_table(reads: Iterable[ReadResult]) -> str:
    """Return the failures grouped by reason, the most frequent first; numbers that differ are `..`."""
    failed = [read for read in reads if read.failure is not None]
    if not failed:
        return "nothing failed"
    noun = "file" if all(read.item.path or read.item.stored_video for read in failed) else "clip"
    if len(failed) == 1:
        return f"1 {noun} could not be read: {failed[0].item.name}: {_without_name(failed[0])}"
    reads_by_reason: dict[str, list[ReadResult]] = {}
    for read in failed:
        reads_by_reason.setdefault(_reason_pattern(read), []).append(read)
    lines = [f"{len(failed)} {noun}s could not be read:"]
    for reason, failed_reads in sorted(reads_by_reason.items(), key=lambda pair: -len(pair[1])):
        texts = {_without_name(read) for read in failed_reads}
        lines.append(f"{len(failed_reads):>6}  {texts.pop() if len(texts) == 1 else reason}")
        lines.extend(f"{'':>10}{read.item.name}" for read in failed_reads[:MAX_NAMES_PER_REASON])
        if len(failed_reads) > MAX_NAMES_PER_REASON:
            lines.append(f"{'':>10}and {len(failed_reads) - MAX_NAMES_PER_REASON} more")
    return "\n".join(lines)


def write_failures(path: str | Path, reads: Sequence[ReadResult]) -> None:
    """Write a CSV with the columns name, file and reason; it has no rows if all clips were read."""
    failed = (read for read in reads if read.failure is not None)
    rows = ((read.item.name, read.item.path or read.item.stored_video or "", read.failure) for read in failed)
    write_table(Path(path), ("name", "file", "reason"), rows, errors="backslashreplace")


def _without_name(read: ReadResult) -> str:
    text = str(read.failure)
    place = read.item.path or read.item.stored_video
    for name in (str(place), place.name) if place else (read.item.name,):
        text = text.replace(name, "")
    text = re.sub(r" +([;,.])", r"\1", text.strip().removeprefix("is "))
    return escape_control_chars(text).replace("\n", " ")


def _reason_pattern(read: ReadResult) -> str:
    return re.sub(r"(?<!\w)\d+(\.\d+)?(?!\w)", "..", _without_name(read))
