"""What a page says of a network that has learnt nothing: first of all that, and no sentence that reads as a finding."""

from collections.abc import Iterable, Sequence

from vtcav_jax.report import html
from vtcav_jax.report.run_reader import RunFolder

RANDOM = (
    "The network's weights are random: it has learnt nothing, so nothing here says what a trained network goes by. The"
    " run only shows the machinery."
)
SAYS = "With random weights:"


def warning(run: RunFolder, task: str) -> str:
    """The first thing in a part of the page; nothing of a trained network."""
    return html.box(html.paragraph(RANDOM), "warn") if run.random_weights(task) else ""


def answer(run: RunFolder, task: str, told: Iterable[tuple[str, str]]) -> str:
    """Sentences with what matters most in bold; of random weights plain ones that say so themselves."""
    if not run.random_weights(task):
        return html.box(html.leads(told), "answer")
    return html.box(html.bullets(" ".join(filter(None, (SAYS, *each))) for each in told), "trial")


def some(runs: Sequence[RunFolder], called: Sequence[str]) -> str:
    """The first thing on a page of several runs: which of them are of such a network."""
    random = [name for name, run in zip(called, runs) if any(run.random_weights(one.task) for one in run.records)]
    if not random:
        return ""
    text = (
        f"The weights of {', '.join(random)} are random: that network has learnt nothing, and its numbers mean nothing."
    )
    return html.box(html.paragraph(text), "warn")
