"""Comparison of the concepts discovered in several runs: which behave alike on the same videos."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float

from vtcav_jax.names import count_noun
from vtcav_jax.report import html
from vtcav_jax.report.effect_sizes import format_number, format_p
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder
from vtcav_jax.report.text.names import join_names
from vtcav_jax.stats.matching import match_columns

MIN_COMMON_VIDEOS = 10
LEVEL = 0.05


def discovered_comparison_sections(runs: Sequence[RunFolder], labels: Sequence[str]) -> list[Section]:
    """Return one section for each pair of runs whose concepts were scored on enough common videos."""
    sections = []
    for i, j in combinations(range(len(runs)), 2):
        scores = _scores_by_video(runs[i]), _scores_by_video(runs[j])
        common = sorted(scores[0].keys() & scores[1].keys())
        if len(common) >= MIN_COMMON_VIDEOS:
            left, right = (np.stack([by_video[video] for video in common]) for by_video in scores)
            inside = _pair_content((runs[i], runs[j]), (labels[i], labels[j]), left, right)
            sections.append(Section(f"discovered{i}{j}", f"Discovered concepts of {labels[i]} and {labels[j]}", inside))
    return sections


def _scores_by_video(run: RunFolder) -> Mapping[str, Float[np.ndarray, " k"]]:
    """Return the mean scores of the discovered concepts in each source video, in the order of the run's table."""
    scores = run.discovered_scores
    if not scores:
        return {}
    table = np.stack([scores[row.concept] for row in run.discovered_rows], 1)
    videos = scores["video"]
    return {str(video): table[videos == video].mean(0) for video in np.unique(videos)}


def _pair_content(
    runs: tuple[RunFolder, RunFolder],
    labels: tuple[str, str],
    left: Float[np.ndarray, "n k"],
    right: Float[np.ndarray, "n l"],
) -> str:
    rows = [run.discovered_rows for run in runs]
    pairs = match_columns(left, right, seed=0)
    shared = [pair for pair in pairs if pair.p <= LEVEL]
    lines = []
    for pair in pairs:
        concepts = rows[0][pair.left], rows[1][pair.right]
        cells = [text for row in concepts for text in (row.name or row.concept, row.label)]
        lines.append(("", [*cells, format_number(pair.correlation, 2), format_p(pair.p)]))
    matched = {pair.left for pair in shared}, {pair.right for pair in shared}
    answers = [
        f"Of {count_noun(len(rows[0]), 'concept')} of {labels[0]} and {len(rows[1])} of {labels[1]}, {len(shared)} "
        f"pairs behave alike in {len(left)} videos: their scores are correlated more than those of unrelated concepts"
        f" would be (adjusted p at most {LEVEL})."
    ]
    for label, run_rows, indices in zip(labels, rows, matched, strict=True):
        others = [row.name or row.concept for i, row in enumerate(run_rows) if i not in indices]
        if others:
            answers.append(f"No such counterpart: {join_names(others)} of {label}.")
    text = (
        "Concepts are matched one to one by the rank correlation of their scores over the source videos that both runs"
        " scored. Equal behaviour in these videos does not make concepts the same."
    )
    heads = (labels[0], "label", labels[1], "label", "rank correlation", "adjusted p")
    return (
        html.callout(html.bullet_list(answers), "answer") + html.paragraph(text, "soft") + html.html_table(heads, lines)
    )
