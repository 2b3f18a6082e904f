"""What could not be read, and why: a table for a person, and all of it as CSV."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vtcav_jax.data.loader import Read
from vtcav_jax.names import printable

NAMES = 20  # of each kind


def failure_table(reads: Iterable[Read]) -> str:
    """By kind of reason, the most frequent first; where reasons differ in numbers only, these are left out."""
    kinds: dict[str, list[Read]] = {}
    for read in reads:
        if read.failure is not None:
            kinds.setdefault(_kind(read), []).append(read)
    if not kinds:
        return "nothing failed"
    lines = [f"{sum(map(len, kinds.values()))} could not be read:"]
    for kind, some in sorted(kinds.items(), key=lambda pair: -len(pair[1])):
        lines.append(f"{len(some):>6}  {kind if len(some) > 1 else _without_name(some[0])}")
        lines.extend(f"{'':>10}{read.item.name}" for read in some[:NAMES])
        if len(some) > NAMES:
            lines.append(f"{'':>10}and {len(some) - NAMES} more")
    return "\n".join(lines)


def write_failures(path: str | Path, reads: Sequence[Read]) -> None:
    """The columns name, file and reason; a file without rows says that all was read."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "file", "reason"))
        failed = [read for read in reads if read.failure is not None]
        writer.writerows((read.item.name, read.item.path or "", read.failure) for read in failed)
    part.replace(path)


def _without_name(read: Read) -> str:
    text = str(read.failure)
    for name in (str(read.item.path), read.item.path.name) if read.item.path else (read.item.name,):
        text = text.replace(name, "")
    return printable(text.strip()).replace("\n", " ")


def _kind(read: Read) -> str:
    return re.sub(r"(?<!\w)\d+(\.\d+)?(?!\w)", "..", _without_name(read))
