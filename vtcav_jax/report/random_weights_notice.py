"""What a page says of a network that has learnt nothing: first of all that, and no sentence that reads as a finding."""

from collections.abc import Iterable, Sequence

from vtcav_jax.report import html
from vtcav_jax.report.run_reader import RunFolder

RANDOM_WEIGHTS_NOTICE = (
    "The network's weights are random: it has learnt nothing, so nothing here says what a trained network goes by. The"
    " run only shows the machinery."
)
RANDOM_WEIGHTS_PREFIX = "With random weights:"


def random_weights_warning(run: RunFolder, task: str) -> str:
    """The first thing in a part of the page; nothing of a trained network."""
    return html.callout(html.paragraph(RANDOM_WEIGHTS_NOTICE), "warn") if run.has_random_weights(task) else ""


def answer_callout(run: RunFolder, task: str, sentences: Iterable[tuple[str, str]]) -> str:
    """Sentences with what matters most in bold; of random weights plain ones that say so themselves."""
    if not run.has_random_weights(task):
        return html.callout(html.lead_list(sentences), "answer")
    return html.callout(
        html.bullet_list(" ".join(filter(None, (RANDOM_WEIGHTS_PREFIX, *sentence))) for sentence in sentences), "trial"
    )


def random_runs_warning(runs: Sequence[RunFolder], labels: Sequence[str]) -> str:
    """The first thing on a page of several runs: which of them are of such a network."""
    random_labels = [
        name for name, run in zip(labels, runs) if any(run.has_random_weights(record.task) for record in run.records)
    ]
    if not random_labels:
        return ""
    text = (
        f"The weights of {', '.join(random_labels)} are random: that network has learnt nothing, and its numbers mean"
        " nothing."
    )
    return html.callout(html.paragraph(text), "warn")
