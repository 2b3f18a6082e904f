"""Is what was planted in the clips what the network goes by? To be asked before any explanation of it is scored.

A label has one cause, but a network may have found another way to it. Here every factor is drawn again and everything
is taken out in turn, and the predictions before and after are compared. Explanations of a network that passes can be
held against the masks of the cause; one that fails explains something else.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from vtcav_jax.progress import progress
from vtcav_jax.tap import Model
from vtcav_jax.worlds.generator import ENTITIES, QUESTIONS, Clips, World, make_clips, redraw, remove

HEADS = tuple(QUESTIONS)
CAUSE = {"shape": "key", "direction": "key", "flash": "key", "scene": "scene"}  # the entity that each head is about

ACCURACY = 0.98  # G1, at least
SUFFICIENCY = 0.97  # G2, at least: unchanged when anything but the cause is drawn again
NECESSITY = 0.03  # G3, at most: unchanged when the cause is
LOST = 0.5  # G5, at least: share of the margin that goes with the cause's entity
SPARED = 0.1  # G5, at most: share that changes with the distractor

# G4: between which shares of the predictions may stay when time is tampered with. One frame holds no direction; a
# frozen or shuffled clip holds the shape and the scene, but is unlike any that the network has seen, so that only the
# scene, which is in every frame alike, must stay. The others' upper ends are what no network can beat but by luck: a
# shuffled clip still shows along which axis the key moves, as often in one order as in the opposite one; a flash is in
# the frozen frame in one clip of four, and is otherwise guessed.
CHANCE = 1 / 4
SHUFFLED_DIRECTION = 1 / 2
FROZEN_FLASH = CHANCE + (1 - CHANCE) * CHANCE
LUCK = 4  # standard deviations
PROBES: dict[str, dict[str, tuple[float, float]]] = {
    "reversed": {
        "shape": (SUFFICIENCY, 1.0),
        "direction": (0.0, NECESSITY),
        "flash": (SUFFICIENCY, 1.0),
        "scene": (SUFFICIENCY, 1.0),
    },
    "shuffled": {
        "shape": (0.5, 1.0),
        "direction": (0.0, SHUFFLED_DIRECTION),
        "flash": (0.5, 1.0),
        "scene": (SUFFICIENCY, 1.0),
    },
    "frozen": {
        "shape": (0.5, 1.0),
        "direction": (0.0, CHANCE),
        "flash": (0.0, FROZEN_FLASH),
        "scene": (SUFFICIENCY, 1.0),
    },
}


@dataclass(frozen=True, eq=False)
class Gates:
    """What was measured; rows are named by the dictionaries' keys, columns are `HEADS`."""

    clips: int
    accuracy: Float[np.ndarray, " heads"]
    redrawn: dict[str, Float[np.ndarray, " heads"]]  # by factor: share of predictions that stayed
    probes: dict[str, Float[np.ndarray, " heads"]]  # by what was done to time: share of predictions that stayed
    margin: Float[np.ndarray, " heads"]  # mean logit of the right class over the best other
    drops: dict[str, Float[np.ndarray, " heads"]]  # by entity: what the margin loses with it
    stable: Bool[np.ndarray, "n heads"]  # no other factor than the cause changes the prediction: clips fit for scoring

    def failures(self) -> tuple[str, ...]:
        """One line for each gate, factor and head that did not pass; a number that is not finite does not pass."""
        failed = []

        def expect(gate: str, what: str, value: float, low: float, high: float) -> None:
            if not low <= value <= high:
                bound = f"at least {low:.2f}" if value < low else f"at most {high:.2f}"
                failed.append(f"{gate} {what}: {value:.3f}, expected {bound}")

        for j, head in enumerate(HEADS):
            expect("G1 accuracy", head, self.accuracy[j], ACCURACY, 1.0)
            for factor, stayed in self.redrawn.items():
                if factor == head:
                    expect("G3 necessity", f"{head} unchanged without its cause", stayed[j], 0.0, NECESSITY)
                else:
                    expect("G2 sufficiency", f"{head} unchanged by {factor}", stayed[j], SUFFICIENCY, 1.0)
            for probe, stayed in self.probes.items():
                low, high = PROBES[probe][head]
                luck = 0.0 if high == NECESSITY else LUCK * (high * (1 - high) / self.clips) ** 0.5
                expect("G4 time", f"{head} unchanged when {probe}", stayed[j], low, high + luck)
            margin = self.margin[j] if self.margin[j] > 0 else np.nan  # no share of a margin that is not there
            lost = {entity: drop[j] / margin for entity, drop in self.drops.items()}
            expect("G5 entity", f"share of {head}'s margin lost with {CAUSE[head]}", lost[CAUSE[head]], LOST, np.inf)
            if CAUSE[head] == "key":
                share = abs(lost["distractor"])
                expect("G5 entity", f"share of {head}'s margin changed with the distractor", share, 0.0, SPARED)
        return tuple(failed)

    def check(self) -> "Gates":
        """Itself if every gate is passed; otherwise a ValueError that lists all that are not, and the table."""
        if failed := self.failures():
            lines = "\n  ".join(failed)
            raise ValueError(
                f"the network does not go by the planted causes, {len(failed)} gates failed; train it further, or on"
                f" more clips, before its explanations are scored:\n  {lines}\n\n{self.table()}"
            )
        return self

    def table(self) -> str:
        """Everything as text; an entry that should be near 0 has its head's own factor as its row."""
        lines = [" " * 24 + "".join(f"{head:>10}" for head in HEADS)]

        def section(title: str, rows: Mapping[str, np.ndarray]) -> None:
            lines.append(title)
            lines.extend(f"  {name:<22}" + "".join(f"{v:>10.3f}" for v in values) for name, values in rows.items())

        section(f"over {self.clips} clips", {"accuracy": self.accuracy, "stable clips": self.stable.mean(0)})
        section("prediction unchanged, factor drawn again", self.redrawn)
        section("prediction unchanged, time tampered with", self.probes)
        section("margin of the right class", {"in the clips": self.margin})
        section("margin lost, entity removed", self.drops)
        return "\n".join(lines)


def gates(
    model: Model,
    world: str | World = "small",
    n: int = 256,
    seed: int = 1,
    *,
    prepare: Callable[[np.ndarray], np.ndarray] = np.asarray,
    at_once: int = 32,
) -> Gates:
    """Every gate on `n` clips of `seed`, which should not be the one that `model` was trained on.

    `model` gives 16 logits: four for each question, in the order of `QUESTIONS`. `prepare` makes what it expects from
    videos in 0..1, such as its normalisation. `at_once` clips go through the model together; it is compiled once.
    Nothing is judged here: `gates(...).check()` is loud.
    """
    clips = make_clips(world, n, seed)
    labels = np.stack([clips.labels[head] for head in HEADS], 1)
    variants = 1 + len(clips.factors) + len(PROBES) + len(ENTITIES)
    logits = {}
    for ((kind, video),) in progress(([variant] for variant in _variants(clips, seed)), variants, "checks"):
        logits[kind] = _logits(model, prepare(video), at_once)

    before = logits["clips", ""]
    answer = before.argmax(-1)
    margin = _margins(before, labels).mean(0)
    stayed = {kind: answer == some.argmax(-1) for kind, some in logits.items()}
    stable = np.ones(answer.shape, bool)
    for factor in clips.factors:
        stable &= stayed["redraw", factor] | (np.array(HEADS) == factor)
    return Gates(
        clips=n,
        accuracy=(answer == labels).mean(0),
        redrawn={factor: stayed["redraw", factor].mean(0) for factor in clips.factors},
        probes={probe: stayed["probe", probe].mean(0) for probe in PROBES},
        margin=margin,
        drops={entity: margin - _margins(logits["remove", entity], labels).mean(0) for entity in ENTITIES},
        stable=stable,
    )


def _variants(clips: Clips, seed: int) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    yield ("clips", ""), clips.video
    for factor in clips.factors:
        yield ("redraw", factor), redraw(clips, factor, seed).video
    for entity in ENTITIES:
        yield ("remove", entity), remove(clips, entity).video
    video = clips.video
    frames = video.shape[1]
    orders = np.argsort(np.random.default_rng(seed).random(video.shape[:2]), 1)
    yield ("probe", "reversed"), video[:, ::-1]
    yield ("probe", "shuffled"), np.take_along_axis(video, orders[:, :, None, None, None], 1)
    middle = video[:, [(frames - 1) // 2]]
    yield ("probe", "frozen"), np.repeat(middle, frames, 1)


def _logits(model: Model, video: np.ndarray, at_once: int) -> Float[np.ndarray, "n 4 4"]:
    """Clips, heads, classes. The last batch is filled up with its last clip, so that all have one shape."""
    n = len(video)
    if jax.tree_util.all_leaves([model]):  # a plain function
        model = Partial(model)
    video = np.concatenate([video, np.repeat(video[-1:], -n % at_once, 0)])
    parts = [np.asarray(_run(model, video[i : i + at_once])) for i in range(0, len(video), at_once)]
    logits = np.concatenate(parts)[:n].astype(np.float64)
    expected = sum(map(len, QUESTIONS.values()))
    if logits.shape != (n, expected):
        raise ValueError(
            f"expected {expected} logits per clip, four for each of {', '.join(HEADS)}, got shape {logits.shape};"
            " use a network with these heads, concatenated in this order"
        )
    if not np.isfinite(logits).all():
        raise ValueError("expected finite logits, got NaN or infinity; check the weights and `prepare`")
    return logits.reshape(n, len(HEADS), -1)


@jax.jit
def _run(model, video) -> Array:
    return model(video)


def _margins(logits: np.ndarray, labels: np.ndarray) -> Float[np.ndarray, "n heads"]:
    right = np.take_along_axis(logits, labels[..., None], -1)
    others = np.where(np.arange(logits.shape[-1]) == labels[..., None], -np.inf, logits)
    return right[..., 0] - others.max(-1)
