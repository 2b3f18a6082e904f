"""Gates: causal checks that a network relies on the known causes of synthetic clips, before explanations are scored.

A label has one or two causes, but a network may predict it from something else. The gates redraw each factor and remove
each entity in turn, and compare the predictions before and after. Explanations of a network that passes can be compared
with the masks of the cause; a network that fails relies on something else.

For a question about two factors, redrawing one of them changes the class of some clips only: a prediction must change
exactly where the class that the cause determines changes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from vtcav_jax.console import progress
from vtcav_jax.names import count_noun
from vtcav_jax.tap import Model
from vtcav_jax.worlds.render import WorldClips, make_clips, redraw, remove
from vtcav_jax.worlds.spec import TemporalKind, WorldQuestion, WorldSpec

MIN_GATE_ACCURACY = 0.98  # G1: of predicting the class that the cause determines
MIN_UNCHANGED_SHARE = 0.97  # G2: of predictions where the redrawn factor does not change the class
MAX_UNCHANGED_SHARE = 0.03  # G3: of predictions where it does
MIN_MARGIN_LOST = 0.5  # G5: share of the margin lost when the entity of the cause is removed
MAX_MARGIN_LOST = 0.1  # G5: share of the margin that may change when a look-alike entity is removed

MAX_SHUFFLED_DYNAMIC = 1 / 2
SLACK_SD = 4  # standard deviations
TIME_PROBES = ("reversed", "shuffled", "frozen")


def expected_range(probe: str, temporal_kind: TemporalKind, n_answers: int) -> tuple[float, float]:
    """Return the permitted range of the share of predictions that stay unchanged under a time edit (gate G4).

    A single frame shows no direction, order or motion-defined form. A frozen or shuffled clip keeps the appearance but
    is unlike the training clips, so only the factors visible alike in every frame must keep their predictions. Other
    upper bounds are the chance level without temporal order: a shuffled clip still shows the axis of motion, but either
    direction is equally likely; a flash is in the frozen frame of one clip in four, and is guessed otherwise. How much
    of a form remains after shuffling depends on the displacement between frames, so any share is permitted. Reversal
    changes the time of an event unless it is in the middle.
    """
    chance = 1 / n_answers
    stays = (MIN_UNCHANGED_SHARE, 1.0)
    bounds: dict[TemporalKind, tuple[tuple[float, float], ...]] = {
        "static": (stays, (0.5, 1.0), (0.5, 1.0)),
        "everywhere": (stays, stays, stays),
        "timed": (stays, (0.5, 1.0), (0.0, 1 / 4 + (1 - 1 / 4) * chance)),
        "dynamic": ((0.0, MAX_UNCHANGED_SHARE), (0.0, MAX_SHUFFLED_DYNAMIC), (0.0, chance)),
        "form": (stays, (0.0, 1.0), (0.0, chance)),
        "dated": ((0.0, 0.5), (0.0, 1.0), (0.0, 1.0)),
    }
    return bounds[temporal_kind][TIME_PROBES.index(probe)]


@dataclass(frozen=True, eq=False)
class Gates:
    """Results of the gates; array elements are the questions, keys of dictionaries are factors, entities or time edits.

    "Class" means the class that the cause determines, which is the label except in worlds with a shortcut. NaN means
    that no clip qualified.
    """

    questions: dict[str, WorldQuestion]
    n_clips: int
    accuracy: Float[np.ndarray, " heads"]  # share of predictions equal to the class
    # Share of unchanged predictions among clips whose class a redrawn factor keeps or changes, by factor.
    same_answer_unchanged: dict[str, Float[np.ndarray, " heads"]]
    other_answer_unchanged: dict[str, Float[np.ndarray, " heads"]]
    time_probes: dict[str, Float[np.ndarray, " heads"]]  # share of unchanged predictions by time edit
    margin: Float[np.ndarray, " heads"]  # mean logit of the class minus the maximum of the others
    margin_drops: dict[str, Float[np.ndarray, " heads"]]  # loss of margin by removed entity
    # Share of the margin lost among clips whose class changes with the removal, by entity.
    margin_lost: dict[str, Float[np.ndarray, " heads"]]
    stable: Bool[np.ndarray, "n heads"]  # clips fit for scoring: only a change of class changes the prediction

    def failures(self) -> tuple[str, ...]:
        """Return one line per failed gate, factor and head; non-finite values fail."""
        failed_gates = []

        def expect(gate: str, subject: str, value: float, low: float, high: float) -> None:
            if not low <= value <= high:
                bound = f"at least {low:.2f}" if value < low else f"at most {high:.2f}"
                failed_gates.append(f"{gate} {subject}: {value:.3f}, expected {bound}")

        for j, (head, question) in enumerate(self.questions.items()):
            expect("G1 accuracy", head, self.accuracy[j], MIN_GATE_ACCURACY, 1.0)
            for factor, stayed in self.same_answer_unchanged.items():
                if not np.isnan(stayed[j]):
                    expect("G2 sufficiency", f"{head} unchanged by {factor}", stayed[j], MIN_UNCHANGED_SHARE, 1.0)
            for factor in question.cause or question.factors:
                subject = "its cause" if len(question.factors) == 1 else factor
                expect(
                    "G3 necessity",
                    f"{head} unchanged without {subject}",
                    self.other_answer_unchanged[factor][j],
                    0.0,
                    MAX_UNCHANGED_SHARE,
                )
            for probe, stayed in self.time_probes.items():
                low, high = expected_range(probe, question.temporal_kind, len(question.answers))
                slack = 0.0 if high == MAX_UNCHANGED_SHARE else SLACK_SD * (high * (1 - high) / self.n_clips) ** 0.5
                expect("G4 time", f"{head} unchanged when {probe}", stayed[j], low, high + slack)
            for entity, share in self.margin_lost.items():
                if entity in question.entities or not np.isnan(share[j]):
                    expect(
                        "G5 entity", f"share of {head}'s margin lost with {entity}", share[j], MIN_MARGIN_LOST, np.inf
                    )
            margin = self.margin[j] if self.margin[j] > 0 else np.nan  # shares of a non-positive margin are undefined
            for entity in question.invariant_to:
                share = abs(self.margin_drops[entity][j] / margin)
                expect("G5 entity", f"share of {head}'s margin changed with the {entity}", share, 0.0, MAX_MARGIN_LOST)
        return tuple(failed_gates)

    def check(self) -> "Gates":
        """Return `self` if all gates pass; otherwise raise ValueError with the failed gates and the table."""
        if failed_gates := self.failures():
            lines = "\n  ".join(failed_gates)
            raise ValueError(
                f"the network does not rely on the known causes, {count_noun(len(failed_gates), 'gate')} failed;"
                f" train it longer, or"
                f" on more clips, before scoring its explanations:\n  {lines}\n\n{self.table()}"
            )
        return self

    def table(self) -> str:
        """Return all results as text."""
        width = max(9, *map(len, self.questions)) + 1
        lines = [" " * 24 + "".join(f"{head:>{width}}" for head in self.questions)]

        def section(title: str, rows: Mapping[str, np.ndarray]) -> None:
            lines.append(title)
            for name, values in rows.items():
                cells = (f"{'-' if np.isnan(v) else f'{v:.3f}':>{width}}" for v in values)
                lines.append(f"  {name:<22}" + "".join(cells))

        section(
            f"over {count_noun(self.n_clips, 'clip')}", {"accuracy": self.accuracy, "stable clips": self.stable.mean(0)}
        )
        section("prediction unchanged, factor redrawn, same class", self.same_answer_unchanged)
        causes = {name: values for name, values in self.other_answer_unchanged.items() if not np.isnan(values).all()}
        section("prediction unchanged, factor redrawn, different class", causes)
        section("prediction unchanged, frames reordered or frozen", self.time_probes)
        section("margin of the right class", {"in the clips": self.margin})
        section("margin lost, entity removed", self.margin_drops)
        margin_lost = {name: values for name, values in self.margin_lost.items() if not np.isnan(values).all()}
        section("share of the margin lost, entity of the cause removed", margin_lost)
        return "\n".join(lines)


def measure_gates(
    model: Model,
    world: str | WorldSpec = "small",
    n_clips: int = 256,
    seed: int = 1,
    *,
    prepare: Callable[[np.ndarray], np.ndarray] = np.asarray,
    batch_size: int = 32,
) -> Gates:
    """Measure all gates on `n_clips` clips of `seed`, which should differ from the seed of the training clips.

    `model` returns the concatenated logits of the world's heads. `prepare` maps videos in 0..1 to the model's input,
    for example by normalisation. Failed gates raise no error here; `check()` does.

    ```python
    network = models.load("worlds_cnn")
    prepare = lambda video: network.clip_spec.normalise(255 * video)
    gates = measure_gates(network.model, "small", prepare=prepare).check()
    ```
    """
    clips = make_clips(world, n_clips, seed)
    questions, entities = clips.world.questions, clips.world.entities
    correct = _cause_answers(questions, clips)
    variants = 1 + len(clips.factors) + len(TIME_PROBES) + len(entities)
    predicted, same_answer, margins = {}, {}, {}
    for ((variant, variant_clips, video),) in progress(
        ([entry] for entry in _clip_variants(clips, seed)), variants, "checks"
    ):
        logits = _compute_head_logits(model, prepare(video), batch_size, clips.world.heads)
        predicted[variant] = np.stack([head_logits.argmax(-1) for head_logits in logits.values()], 1)
        same_answer[variant] = _cause_answers(questions, variant_clips) == correct
        margins[variant] = np.stack(
            [_correct_margins(head_logits, correct[:, j]) for j, head_logits in enumerate(logits.values())], 1
        )

    before, margin = predicted["clips", ""], margins["clips", ""]
    unchanged = {variant: head_logits == before for variant, head_logits in predicted.items()}
    stable = np.ones(correct.shape, bool)
    for factor in clips.factors:
        stable &= unchanged["redraw", factor] | ~same_answer["redraw", factor]
    return Gates(
        questions=questions,
        n_clips=n_clips,
        accuracy=(before == correct).mean(0),
        same_answer_unchanged={
            f: _masked_mean(unchanged["redraw", f], same_answer["redraw", f]) for f in clips.factors
        },
        other_answer_unchanged={
            f: _masked_mean(unchanged["redraw", f], ~same_answer["redraw", f]) for f in clips.factors
        },
        time_probes={probe: unchanged["probe", probe].mean(0) for probe in TIME_PROBES},
        margin=margin.mean(0),
        margin_drops={entity: (margin - margins["remove", entity]).mean(0) for entity in entities},
        margin_lost={e: _margin_share_lost(margin, margins["remove", e], ~same_answer["remove", e]) for e in entities},
        stable=stable,
    )


def _cause_answers(questions: Mapping[str, WorldQuestion], clips: WorldClips) -> np.ndarray:
    """Return the class that the cause determines for each question, taking removed entities into account."""
    factors = clips.world.factors_without(clips.factors, clips.removed)
    return np.stack([question.cause_label(factors) for question in questions.values()], 1)


def _clip_variants(clips: WorldClips, seed: int) -> Iterator[tuple[tuple[str, str], WorldClips, np.ndarray]]:
    """Yield each edit with its name, the clips whose factors apply, and the edited video."""
    yield ("clips", ""), clips, clips.video
    for factor in clips.factors:
        other = redraw(clips, factor, seed)
        yield ("redraw", factor), other, other.video
    for entity in clips.world.entities:
        other = remove(clips, entity)
        yield ("remove", entity), other, other.video
    video = clips.video
    frames = video.shape[1]
    orders = np.argsort(np.random.default_rng(seed).random(video.shape[:2]), 1)
    yield ("probe", "reversed"), clips, video[:, ::-1]
    yield ("probe", "shuffled"), clips, np.take_along_axis(video, orders[:, :, None, None, None], 1)
    middle = video[:, [(frames - 1) // 2]]
    yield ("probe", "frozen"), clips, np.repeat(middle, frames, 1)


def _compute_head_logits(
    model: Model, video: np.ndarray, batch_size: int, heads: Mapping[str, tuple[str, ...]]
) -> dict[str, Float[np.ndarray, "n answers"]]:
    """Return the logits by head; the last batch is padded by its last clip, so that the model is compiled once."""
    n = len(video)
    if jax.tree_util.all_leaves([model]):  # a plain function
        model = Partial(model)
    video = np.concatenate([video, np.repeat(video[-1:], -n % batch_size, 0)])
    parts = [np.asarray(_run_model(model, video[i : i + batch_size])) for i in range(0, len(video), batch_size)]
    logits = np.concatenate(parts)[:n].astype(np.float64)
    ends = np.cumsum([len(answers) for answers in heads.values()])
    if logits.shape != (n, ends[-1]):
        expected_heads = ", ".join(f"{len(answers)} for {head}" for head, answers in heads.items())
        raise ValueError(
            f"expected {ends[-1]} logits per clip, {expected_heads}, got shape {logits.shape}; use a network with these"
            " heads, concatenated in this order"
        )
    if not np.isfinite(logits).all():
        raise ValueError("expected finite logits, got NaN or infinity; check the weights and `prepare`")
    return dict(zip(heads, np.split(logits, ends[:-1], 1), strict=True))


@jax.jit
def _run_model(model, video) -> Array:
    return model(video)


def _correct_margins(logits: Float[np.ndarray, "n k"], correct: np.ndarray) -> Float[np.ndarray, " n"]:
    is_correct = np.arange(logits.shape[-1]) == correct[:, None]
    return logits[is_correct] - np.where(is_correct, -np.inf, logits).max(-1)


def _masked_mean(values: np.ndarray, mask: Bool[np.ndarray, "n heads"]) -> Float[np.ndarray, " heads"]:
    """Return the mean over the masked clips; NaN where there are none."""
    counted = mask.sum(0)
    return np.where(counted, (values * mask).sum(0) / np.maximum(counted, 1), np.nan)


def _margin_share_lost(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> Float[np.ndarray, " heads"]:
    """Return the lost share of the margin over the masked clips: NaN without clips, -inf for a margin of at most 0."""
    mean_before, mean_after = _masked_mean(before, mask), _masked_mean(after, mask)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean_before > 0, 1 - mean_after / mean_before, np.where(np.isnan(mean_before), np.nan, -np.inf))
