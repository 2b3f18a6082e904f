"""Section of a Video-TCAV run with concepts that were discovered: what each could be, and what they explain."""

from vtcav_jax.names import count_noun
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.effect_sizes import format_p, format_percent
from vtcav_jax.report.glossary import linked_paragraph
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder
from vtcav_jax.report.text.names import join_names
from vtcav_jax.runs.discovery_rows import DiscoveredRow
from vtcav_jax.stats.intervals import format_interval

LEVEL = 0.05


def discovered_section(run: RunFolder) -> Section | None:
    """Table of the discovered concepts, by importance, and the share of the predictions that they determine."""
    if not run.discovered_rows:
        return None
    intro = (
        "Nobody named these concepts. Each is a direction of the activations at a [[stage]], fitted to other videos"
        " than those that show it here. Label: that of the videos in which the concept is strongest. AUROC: the"
        " probability that a video with the label has more of the concept than one without (0.5 is chance), in other"
        " videos than those that selected the label; no label if its interval contains 0.5. An association is not an"
        " identity: look at the clips. Explained: share of the variance of the activations that is lost without the"
        " concept. Importance: what the predicted classes' lead over the mean of their head loses without it, to first"
        " order, summed over heads. Every direction changes the scores of every network, also of one with random"
        " weights. p: probability that a random direction in its place has at least this importance, adjusted (Holm)"
        " for all these concepts. Intervals: [[95 % CI]] over source videos."
    )
    rows = run.discovered_rows
    important = [_title(row) for row in rows if row.importance_p <= LEVEL and row.importance_low > 0]
    answer = (
        f"{len(important)} of {count_noun(len(rows), 'concept')} have a positive importance (95 % CI over source"
        f" videos) above that of random directions (p at most {LEVEL:g})"
        + (f": {join_names(important)}." if important else ".")
    )
    heads = ("concept", "label", "AUROC", "explained", "importance", "p", "clips")
    is_random = run.has_random_weights("tcav")
    parts = [
        random_weights_notice.random_weights_warning(run, "tcav"),
        linked_paragraph(intro),
        random_weights_notice.answer_callout(run, "tcav", [("", answer)])
        if is_random
        else html.callout(html.bullet_list([answer]), "answer"),
        html.html_table(heads, [("", _cells(row)) for row in rows]),
        *_overviews(run),
    ]
    sentences = [
        f"At {row.stage}, the scores of all concepts together determine {format_interval(row.share, row.low, row.high)}"
        f" of the predictions of {row.head} above chance, by a linear readout, tested on"
        f" {count_noun(row.n_videos, 'video')} to which it was not fitted."
        for row in run.completeness_rows
    ]
    parts += [html.bullet_list(sentences)] if sentences else []
    return Section("discovered", "Discovered concepts", "".join(parts))


def _cells(row: DiscoveredRow) -> list[str]:
    auc = format_interval(row.label_auc, row.label_auc_low, row.label_auc_high) if row.label else ""
    importance = format_interval(row.importance, row.importance_low, row.importance_high)
    p = format_p(row.importance_p)
    return [_title(row), row.label, auc, format_percent(row.explained_share), importance, p, str(row.n_videos)]


def _title(row: DiscoveredRow) -> str:
    return f"{row.concept}: {row.name}" if row.name else row.concept


def _overviews(run: RunFolder) -> list[str]:
    """Return the pictures of where the concepts are."""
    files = {animation.name: animation.file for animation in run.animation_rows if animation.role == "discovered"}
    figures = []
    for row in run.discovered_rows:
        if row.concept in files:
            label = f", label {row.label} (AUROC {row.label_auc:.2f})" if row.label else ""
            figures.append(html.embed_media(run.folder / files[row.concept], f"{_title(row)}{label}"))
    text = (
        "The clips of different source videos in which each concept is strongest, in colour where and when it is"
        " present (relative to its maximum in the clip), dark grey where it is absent."
    )
    return [html.paragraph(text), f'<div class="grid">{"".join(figures)}</div>'] if figures else []
