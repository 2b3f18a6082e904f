"""Names typed by a user or read from a file: messages about unknown names, and safe printing."""

import difflib
from collections.abc import Iterable, Sequence

MAX_LISTED_NAMES = 20  # in a message


def escape_control_chars(text: str) -> str:
    """Escape control characters: names from files could move a terminal's cursor or change its title."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def safe_filename(text: str) -> str:
    """Replace everything but letters, digits, `.` and `-` by `_`."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in text)


def count_noun(n: int, noun: str) -> str:
    """Return the number with the noun in singular or plural: `1 clip`, `2 clips`, `3 classes`."""
    plural = f"{noun}es" if noun.endswith(("s", "x", "ch")) else f"{noun}s"
    return f"{n} {noun if n == 1 else plural}"


def abridged_list(names: Sequence[str]) -> str:
    """Return the names separated by commas, or the first of many and the number of the others."""
    more = f" and {len(names) - MAX_LISTED_NAMES} more" if len(names) > MAX_LISTED_NAMES else ""
    return ", ".join(names[:MAX_LISTED_NAMES]) + more


def unknown_name_message(kind: str, names: Iterable[str], known: Iterable[str]) -> str:
    """Return one sentence about `names`, none of which is in `known`: similar names, and the known ones if few."""
    known = list(known)
    parts, all_near = [], True
    for name in names:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        near = near or [other for other in known if len(name) > 1 and name.lower() in other.lower()][:3]
        all_near = all_near and bool(near)
        parts.append(f"{name!r}" + (f" (did you mean {' or '.join(near)}?)" if near else ""))
    message = f"no {kind} named {', '.join(parts)}"
    if len(known) <= MAX_LISTED_NAMES:
        return f"{message}; available: {', '.join(known)}"
    return (
        message
        if all_near
        else f"{message}; available: {', '.join(known[:MAX_LISTED_NAMES])} ... ({len(known)} in all)"
    )
