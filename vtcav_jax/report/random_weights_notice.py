"""Warnings for runs of networks with random weights, so that none of their numbers reads as a finding."""

from collections.abc import Iterable, Sequence

from vtcav_jax.report import html
from vtcav_jax.report.run_reader import RunFolder

RANDOM_WEIGHTS_NOTICE = (
    "The network's weights are random. These results say nothing about a trained network; they only demonstrate the"
    " method."
)
RANDOM_WEIGHTS_PREFIX = "With random weights:"


def random_weights_warning(run: RunFolder, task: str) -> str:
    """Return the warning that starts a section, or an empty string if the task's network has trained weights."""
    return html.callout(html.paragraph(RANDOM_WEIGHTS_NOTICE), "warn") if run.has_random_weights(task) else ""


def answer_callout(run: RunFolder, task: str, sentences: Iterable[tuple[str, str]], links: str = "") -> str:
    """Return findings with bold headlines and `links` after each; with random weights, plain sentences that say so."""
    if not run.has_random_weights(task):
        return html.callout(html.lead_list(sentences, links), "answer")
    return html.callout(
        html.bullet_list(" ".join(filter(None, (RANDOM_WEIGHTS_PREFIX, *sentence))) for sentence in sentences), "trial"
    )


def random_runs_warning(runs: Sequence[RunFolder], labels: Sequence[str]) -> str:
    """Return a warning that names the runs with random weights, or an empty string."""
    random_labels = [
        name for name, run in zip(labels, runs) if any(run.has_random_weights(record.task) for record in run.records)
    ]
    if not random_labels:
        return ""
    text = f"The weights of {', '.join(random_labels)} are random; its numbers say nothing about a trained network."
    if len(random_labels) > 1:
        text = text.replace("its numbers say", "their numbers say")
    return html.callout(html.paragraph(text), "warn")
