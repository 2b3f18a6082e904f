"""Section of a Video-TCAV run with concepts that were discovered: what each could be, and what they explain."""

from vtcav_jax.report import html
from vtcav_jax.report.effect_sizes import format_percent
from vtcav_jax.report.glossary import linked_paragraph
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder
from vtcav_jax.runs.discovery_rows import DiscoveredRow
from vtcav_jax.stats.intervals import format_interval


def discovered_section(run: RunFolder) -> Section | None:
    """Table of the discovered concepts, by importance, and the share of the predictions that they determine."""
    if not run.discovered_rows:
        return None
    intro = (
        "Nobody named these concepts. Each is a direction of the activations at a [[stage]], fitted to other videos"
        " than those that show it here. Label: that of the videos in which the concept is strongest. AUROC: the"
        " probability that a video with the label has more of the concept than one without (0.5 is chance), in other"
        " videos than those that selected the label. An association is not an identity: look at the clips. Explained:"
        " share of the variance of the activations that is lost without the concept. Importance: what the predicted"
        " classes' lead over the mean of their head loses without it, to first order, summed over heads. Intervals:"
        " [[95 % CI]] over source videos."
    )
    lines = [("", _cells(row)) for row in run.discovered_rows]
    heads = ("concept", "label", "AUROC", "explained", "importance", "clips")
    parts = [linked_paragraph(intro), html.html_table(heads, lines)]
    sentences = [
        f"At {row.stage}, the scores of all concepts together determine {format_interval(row.share, row.low, row.high)}"
        f" of the predictions of {row.head} above chance, by a linear readout, tested on {row.n_videos} videos to which"
        " it was not fitted."
        for row in run.completeness_rows
    ]
    parts += [html.bullet_list(sentences)] if sentences else []
    return Section("discovered", "Discovered concepts", "".join(parts))


def _cells(row: DiscoveredRow) -> list[str]:
    name = f"{row.concept}: {row.name}" if row.name else row.concept
    auc = format_interval(row.label_auc, row.label_auc_low, row.label_auc_high) if row.label else ""
    importance = format_interval(row.importance, row.importance_low, row.importance_high)
    return [name, row.label, auc, format_percent(row.explained_share), importance, str(row.n_videos)]
