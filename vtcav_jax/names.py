"""Names that a person typed: what to say when there is no such thing."""

import difflib
from collections.abc import Iterable


def unknown(kind: str, names: Iterable[str], known: Iterable[str]) -> str:
    """One sentence for all of `names` that are not `known`: the nearest ones, then the list."""
    known = list(known)
    parts = []
    for name in names:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        parts.append(f"{name!r}" + (f" (did you mean {' or '.join(near)}?)" if near else ""))
    return f"no {kind} named {', '.join(parts)}; there are: {', '.join(known)}"
