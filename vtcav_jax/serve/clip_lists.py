"""Pages of a list of clips: filtered and sorted by a number, or the most similar ones."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from vtcav_jax.serve.clip_tables import ClipChoice, ClipTable, similar_rows, strip_values

PAGE_CLIPS = 24  # clips on a page of the list
N_SIMILAR = 12
HISTOGRAM_BINS = 24

Sorting = Literal["down", "up", "name"]
Answers = Literal["all", "right", "wrong"]


@dataclass(frozen=True)
class ClipFilter:
    """Which clips a list has, in which order, and which page of it."""

    sorting: Sorting = "down"
    minimum: float | None = None
    maximum: float | None = None
    answers: Answers = "all"
    text: str = ""  # part of the name
    page: int = 0


def clip_page(table: ClipTable, choice: ClipChoice, clip_filter: ClipFilter) -> dict[str, Any]:
    """Return one page of the list, the number of clips in it, and a histogram of the values before filtering."""
    values = table.values(choice)
    n_all = len(values.clips)
    values_before = values.values
    mask = np.ones(n_all, bool)
    if clip_filter.minimum is not None:
        mask &= values.values >= clip_filter.minimum
    if clip_filter.maximum is not None:
        mask &= values.values <= clip_filter.maximum
    if clip_filter.answers != "all":
        wrong = table.wrong_clips(choice.target)
        if wrong is None:
            raise ValueError("these results do not say which answers are right; list all clips")
        is_wrong = np.array([name in wrong for name in values.names], bool)[values.clips]
        mask &= is_wrong if clip_filter.answers == "wrong" else ~is_wrong
    if clip_filter.text:
        has_text = np.array([clip_filter.text.lower() in name.lower() for name in values.names], bool)
        mask &= has_text[values.clips]
    values = strip_values(values, mask)
    if clip_filter.sorting == "name":
        order = sorted(range(len(values.clips)), key=lambda i: (values.names[values.clips[i]], values.parts[i]))
    else:  # unknown values come last
        sign = -1 if clip_filter.sorting == "down" else 1
        order = np.argsort(np.where(np.isnan(values.values), np.inf, sign * values.values), kind="stable").tolist()
    n_pages = max(1, -(-len(order) // PAGE_CLIPS))
    page = min(max(clip_filter.page, 0), n_pages - 1)
    return {
        "label": values.label,
        "total": len(order),
        "all": n_all,
        "page": page,
        "pages": n_pages,
        "histogram": _histogram(values_before),
        "clips": [
            {
                "clip": values.names[values.clips[i]],
                "part": int(values.parts[i]),
                "value": float(values.values[i]),
            }
            for i in order[page * PAGE_CLIPS : (page + 1) * PAGE_CLIPS]
        ],
    }


def _histogram(values: Float64[np.ndarray, " n"]) -> dict[str, Any] | None:
    """Return the numbers of clips in equal parts of the range of values; None without values."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    counts, edges = np.histogram(finite, HISTOGRAM_BINS)
    return {"counts": counts.tolist(), "low": float(edges[0]), "high": float(edges[-1])}


def similar_clips(table: ClipTable, choice: ClipChoice, clip: str, part: int) -> dict[str, Any]:
    """Return the clips that are most similar to one, with their distances, and by which numbers they are compared."""
    about, profile, basis = table.profiles(choice)
    rows = [i for i in np.flatnonzero(about.parts == part).tolist() if about.names[about.clips[i]] == clip]
    if not rows:
        return {"basis": basis, "clips": []}
    order, distances = similar_rows(profile, rows[0], N_SIMILAR)
    return {
        "basis": basis,
        "clips": [
            {"clip": about.names[about.clips[i]], "part": int(about.parts[i]), "value": distance}
            for i, distance in zip(order, distances)
        ],
    }
