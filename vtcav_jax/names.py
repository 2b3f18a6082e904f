"""Names that a person typed or a file holds: what to say when there is no such thing, and how to say it safely."""

import difflib
from collections.abc import Iterable


def escape_control_chars(text: str) -> str:
    """`text` for a terminal: names from files may hold codes that would move its cursor or change its title."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def safe_filename(text: str) -> str:
    """`text` as a part of a file's name."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in text)


def unknown_name_message(kind: str, names: Iterable[str], known: Iterable[str]) -> str:
    """One sentence for all of `names` that are not `known`: the nearest ones, then the list."""
    known = list(known)
    parts = []
    for name in names:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        near = near or [other for other in known if len(name) > 1 and name.lower() in other.lower()][:3]
        parts.append(f"{name!r}" + (f" (did you mean {' or '.join(near)}?)" if near else ""))
    return f"no {kind} named {', '.join(parts)}; there are: {', '.join(known)}"
