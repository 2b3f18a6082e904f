"""Glossary of a report page, and paragraphs whose terms link to it."""

import re

from markupsafe import escape

from vtcav_jax.report.html import Section

STAGE_TERM = {"stage": "A layer of the network, or a group of layers, whose output has a name, such as layers.1."}
SCORE_TERMS = {
    "score": "The number that is explained. For a class: its logit minus the mean logit of the other classes of the"
    " same head (margin). For “a vs b”: the difference of two logits. For “a or b”: the log odds of the group. For"
    " “layers.2#17”: the mean activation of a channel.",
}
TCAV_TERMS = {
    "class score": "The number that Video-TCAV explains: the logit, the log probability or the margin (logit minus the"
    " largest other logit) of a class.",
    **STAGE_TERM,
    "target clip": "A clip of the class whose score is explained.",
    "concept": "A set of clips that share something a person can name, such as an object or a direction of motion."
    " Static clips show one frame throughout; dynamic clips move.",
    "negatives": "The clips that a concept is compared with: the random clips, the clips of the other concepts"
    " (“others”) or control clips.",
    "control clip": "A copy of a dynamic clip with the same appearance and another motion: frozen (one frame"
    " repeated, so that every other moment is lost too), shuffled (the same frames in another order), reversed (the"
    " same frames backwards) or jitter (a static crop that shakes like the tracked box).",
    "concept vector": "The direction, of length 1, in the activations of a stage that separates the concept clips from"
    " the negatives.",
    "derivative": "The derivative of the class score along the concept vector at one target clip: the change of the"
    " score per unit length.",
    "effect": "The mean derivative over the target clips times the distance from the mean of the negatives to the mean"
    " of the concept clips, measured on source videos that the vector was not trained on: the change of the class"
    " score, to first order, when the activations move that far. Comparisons with control clips use"
    " differences (dynamic clip minus control) of the concept and of random clips. Runs"
    " with --statistic=unit_derivative report the mean derivative instead.",
    "95 % CI": "The 95 % bootstrap interval of an effect over the source videos of concept clips, negatives and target"
    " clips, all resampled together, unless a section names other units.",
    "adjusted p": "The p-value of a permutation test, in which the source videos of concept clips and negatives"
    " exchange labels, corrected for all tests of the run. A finding needs an adjusted p of at most alpha and a 95 % CI"
    " without 0.",
    "inconclusive": "A test whose outcome says nothing, such as one at a stage that does not separate the concept clips"
    " from the negatives. “What limits these results” lists the reasons.",
    "share of gradient": "The mean derivative divided by the mean length of the gradient, from −1 to 1. It does not"
    " depend on the scale of a network's activations.",
}
MAP_TERMS = (
    SCORE_TERMS
    | STAGE_TERM
    | {
        "attribution map": "A value for each place and time step of a clip (or of a stage's output) that says how much"
        " it contributes to the score. Signed maps also say whether it raises or lowers the score.",
        "question": "What is explained: a class, a head of the network (each clip is then explained for its predicted"
        " class), two classes, a group of classes, a channel or a concept.",
    }
)
MOTION_TERMS = MAP_TERMS | {
    "loss of score": "1 minus the score of the edited clips divided by the score of the original clips: 0 % if the edit"
    " changes nothing, 100 % if the score vanishes, negative if the edited clips score higher. By class, the score is"
    " the mean margin of the clips of the class minus that of the clips of other classes (“other clips”), or the mean"
    " margin itself, which is 0 if the class is not preferred (“no preference”).",
}
PYRAMID_TERMS = (
    SCORE_TERMS
    | STAGE_TERM
    | {
        "channel": "One feature of a stage: the output of one convolution kernel, or one entry of a token.",
        "share": "The mean over clips of the part of the target's positive contributions that passes through a channel"
        " or an edge. Its 95 % interval is a bootstrap over clips.",
        "level": "One step back from the score towards the input. A level has one or more stages.",
    }
)


def glossary_section(terms: dict[str, str]) -> Section:
    items = "".join(
        f'<dt id="{_anchor(name)}">{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in terms.items()
    )
    return Section("terms", "Terms", f"<dl>{items}</dl>")


def linked_paragraph(text: str) -> str:
    """Return a soft paragraph in which `[[term]]` and `[[words|term]]` link to the glossary."""
    linked = re.sub(r"\[\[([^]|]+)(?:\|([^]]+))?\]\]", _link, str(escape(text)))
    return f'<p class="soft">{linked}</p>'


def _link(match: re.Match[str]) -> str:
    return f'<a href="#{_anchor(match[2] or match[1])}">{match[1]}</a>'


def _anchor(name: str) -> str:
    return "term-" + re.sub(r"\W+", "-", name)
