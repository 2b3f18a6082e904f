"""Conditioning: the clips of a comparison are compared within strata, such as clips of the same direction.

A concept vector contains whatever is correlated with the concept in its clips. Within strata of a known label, this
label cannot be the difference: negatives are weighted so that each label has the same share on both sides, and labels
are permuted between videos of the same stratum only. Clips of a stratum that one side lacks are left out.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vtcav_jax.concepts.concept_sets import ConceptClip
from vtcav_jax.names import unknown_name_message
from vtcav_jax.settings import concerning
from vtcav_jax.tcav.experiment.comparisons import Comparison, Comparisons

CLIP_FIELDS = ("source", "detector", "label")  # columns of concepts.csv that can also define strata


def known_labels(clips: Sequence[ConceptClip], *, columns: bool = True) -> tuple[str, ...]:
    """Return the names of labels, and with `columns` of table columns, that have a value for some of the clips."""
    heads = dict.fromkeys(head for clip in clips for head in clip.labels)
    fields = CLIP_FIELDS if columns else ()
    return (*heads, *(name for name in fields if name not in heads and any(getattr(clip, name) for clip in clips)))


def stratum_values(clips: Sequence[ConceptClip], within: str) -> tuple[str, ...]:
    """Return the value of each clip for `within`; empty if it is not known.

    `within` is HEAD, a label; HEAD:CLASS, whether the label has this value; or a column of concepts.csv.
    """
    names = known_labels(clips)
    name = next((name for name in names if within == name or within.startswith(f"{name}:")), "")
    label_class = within.removeprefix(name).removeprefix(":")
    if not name:
        raise ValueError(unknown_name_message("label of the concept clips", [within], names or ["none"]))
    values = [clip.labels.get(name) or (getattr(clip, name) if name in CLIP_FIELDS else "") for clip in clips]
    if label_class:
        if label_class not in values:
            raise ValueError(unknown_name_message(f"class of {name}", [label_class], sorted({*values} - {""})))
        return tuple(value and str(value == label_class) for value in values)
    return tuple(values)


def compare_within(comparison: Comparison, strata: Sequence[str]) -> Comparison | None:
    """Return the comparison within `strata` (a value per clip, empty if unknown); None if no stratum has both sides."""
    if comparison.pairs and not comparison.random_pairs:
        return comparison  # a clip and its own control always share a stratum
    positive = [i for i, row in enumerate(comparison.positive_clips) if strata[row]]
    negative = [i for i, row in enumerate(comparison.negative_clips) if strata[row]]
    weights = comparison.negative_weights or (1.0,) * len(comparison.negative_clips)
    n_positive = Counter(strata[comparison.positive_clips[i]] for i in positive)
    negative_weight: dict[str, float] = defaultdict(float)
    for i in negative:
        negative_weight[strata[comparison.negative_clips[i]]] += weights[i]
    shared = {value for value in n_positive if negative_weight[value] > 0}
    positive = [i for i in positive if strata[comparison.positive_clips[i]] in shared]
    negative = [i for i in negative if strata[comparison.negative_clips[i]] in shared]
    if not shared:
        return None
    concept_rows = tuple(comparison.positive_clips[i] for i in positive)
    negative_rows = tuple(comparison.negative_clips[i] for i in negative)
    scale = {value: n_positive[value] / negative_weight[value] for value in shared}
    return replace(
        comparison,
        positive_clips=concept_rows,
        negative_clips=negative_rows,
        pairs=tuple(comparison.pairs[i] for i in positive) if comparison.pairs else (),
        random_pairs=tuple(comparison.random_pairs[i] for i in negative) if comparison.pairs else (),
        random_sets=(),
        negative_weights=tuple(weights[i] * scale[strata[row]] for i, row in zip(negative, negative_rows)),
        strata=tuple(strata[row] for row in (*concept_rows, *negative_rows)),
    )


def comparisons_within(comparisons: Comparisons, clips: Sequence[ConceptClip], within: str) -> Comparisons:
    """Return the comparisons within the strata of `within`, with notes on clips and comparisons that are left out."""
    with concerning("within"):
        strata = stratum_values(clips, within)
    entries, notes = [], list(comparisons.notes)
    if n_unknown := strata.count(""):
        notes.append(f"{n_unknown} concept clips have no {within} and are left out")
    for comparison in comparisons.entries:
        conditioned = compare_within(comparison, strata)
        if conditioned is None or min(len(conditioned.positive_clips), len(conditioned.negative_clips)) < 2:
            notes.append(f"{comparison.name} is not tested: its two sides have no clips of the same {within}")
            continue
        entries.append(conditioned)
        n_left_out = len(comparison.positive_clips) - len(conditioned.positive_clips)
        if n_left_out > strata.count(""):
            notes.append(f"{comparison.name}: {n_left_out} concept clips have a {within} that no negative has")
    return replace(comparisons, entries=tuple(entries), notes=tuple(notes))


def value_shares(values: Sequence[str]) -> Mapping[str, float]:
    """Return the share of each value among those that are known."""
    counts = Counter(value for value in values if value)
    return {value: n / counts.total() for value, n in counts.items()}
