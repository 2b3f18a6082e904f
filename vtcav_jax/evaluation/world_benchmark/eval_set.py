"""Clips of a world for one network: those that it answers as planted, and all that is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Int

from vtcav_jax import models
from vtcav_jax.attribution.resample import area_resize
from vtcav_jax.attribution.targets import Margin
from vtcav_jax.evaluation.world_benchmark.questions import AREAS, KEY, OTHER, QUESTIONS, WITHIN, Question
from vtcav_jax.evaluation.world_benchmark.world_metrics import Known, zones
from vtcav_jax.models import Network, parameters
from vtcav_jax.worlds.gates import Gates, gates
from vtcav_jax.worlds.render import WORLDS, Clips, as_world, make_clips, redraw, remove
from vtcav_jax.worlds.spec import ABSENT

SPARE = 1.4  # clips made for each that is wanted: some are not answered as planted
FEWEST = 400  # clips on which gates are judged: of fewer, a few of bad luck would fail a network
AT_ONCE = 25  # clips in a batch: more of them are slower, as they leave the caches
LOGITS = max(sum(map(len, world.heads.values())) for world in WORLDS.values())
CELL = (2, 4, 4)  # frames and pixels of a cell in a world of size 32


@dataclass(frozen=True, eq=False)
class Material:
    """`n` clips of `world` that pass every gate of their own, for the questions `ids` of one network."""

    loaded: Network
    world: str
    ids: tuple[str, ...]
    clips: Clips
    gates: Gates
    seed: int

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Of the grid of cells."""
        t, h, w = self.clips.video.shape[1:4]
        return t // CELL[0], h // (CELL[1] * self.clips.world.cell), w // (CELL[2] * self.clips.world.cell)

    @cached_property
    def wide(self) -> Network:
        """The network with as many logits as any world asks for, the further ones 0: so networks of one architecture
        share what is compiled. Its own come first, and nothing that is asked here looks at others. What was not made
        as a preset is, of other types perhaps, stays what it is."""
        count = len(self.loaded.labels)
        make, plain = (partial(models.make, self.loaded.preset, num_classes=n) for n in (max(LOGITS, count), count))
        if nnx.graphdef(nnx.eval_shape(plain)) != nnx.graphdef(self.loaded.model):
            return self.loaded
        own, wanted = (parameters.named_parameters(model) for model in (self.loaded.model, nnx.eval_shape(make)))
        short = {name: wanted[name].shape[-1] - a.shape[-1] for name, a in own.items()}
        padded = {name: jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, short[name])]) for name, a in own.items()}
        return replace(self.loaded, model=parameters.load(make, padded))

    @cached_property
    def video(self) -> Float[np.ndarray, "n t h w 3"]:
        return self.prepared(self.clips.video)

    def prepared(self, video: Float[np.ndarray, "n t h w 3"]) -> Float[np.ndarray, "n t h w 3"]:
        return prepared(self.loaded, video)

    def classes(self, head: str) -> Int[np.ndarray, " n"]:
        """The logits of the right answers."""
        return self.loaded.head_slices[head].start + self.clips.labels[head]

    def target(self, head: str, rows: slice = slice(None)) -> Margin:
        where = self.loaded.head_slices[head]
        return Margin(self.classes(head)[rows], (where.start, where.stop))

    def redrawn(self, factor: str, rows: slice) -> Float[np.ndarray, "m t h w 3"]:
        return self.prepared(redraw(self.clips[rows], factor, self.seed).video)

    @cached_property
    def cells(self) -> dict[str, Float[np.ndarray, "n t h w"]]:
        """Of each mask, and of the scene, the share of each cell."""
        masks = dict(self.clips.masks)
        if OTHER in masks:
            masks[OTHER] = masks[OTHER] & ~masks[KEY]  # what the key hides is not seen
        if "marker" in masks:
            masks |= {box: masks[box] & ~masks["marker"] for box in (KEY, OTHER)}  # it is in front of all
        covered = np.any([mask for name, mask in masks.items() if name.endswith("_box")], 0)
        masks |= {"scene": ~covered}
        return {
            name: area_resize(mask.astype(np.float32), self.sizes).astype(np.float64) for name, mask in masks.items()
        }

    @property
    def questions(self) -> list[Question]:
        return [QUESTIONS[name] for name in self.ids]

    @property
    def _within(self) -> list[tuple[str, str]]:
        return [pair for pair in WITHIN.items() if pair[0] in self.clips.world.entities]

    @cached_property
    def areas(self) -> dict[str, Float[np.ndarray, "n t h w"]]:
        """Of everything that can be taken out the share of each cell, each place counted once."""
        there = self.clips.world.entities
        found = {entity: self.cells[mask] for entity, mask in AREAS.items() if entity in there}
        for inner, outer in self._within:
            found[outer] = np.maximum(found[outer] - found[inner], 0)
        return found | {"scene": np.maximum(1 - sum(found.values()), 0)}

    @cached_property
    def drops(self) -> dict[str, Float[np.ndarray, "n heads"]]:
        """What the margins lose with each entity, an outer one without what goes with it; a gain counts as 0."""
        before = self._margins(self.clips)
        lost = {entity: before - self._margins(remove(self.clips, entity)) for entity in self.areas}
        for inner, outer in self._within:
            lost[outer] = lost[outer] - np.maximum(lost[inner], 0)
        return {entity: np.maximum(drop, 0) for entity, drop in lost.items()}

    def _margins(self, clips: Clips) -> Float[np.ndarray, "n heads"]:
        logits = outputs(self.loaded, self.prepared(clips.video))
        found = []
        for head, where in self.loaded.head_slices.items():
            own = logits[:, where]
            right = np.take_along_axis(own, clips.labels[head][:, None], 1)[:, 0]
            found.append(right - (own.sum(1) - right) / (own.shape[1] - 1))
        return np.stack(found, 1)

    @cached_property
    def known(self) -> dict[str, Known]:
        """For each question."""
        heads, every = list(self.loaded.head_slices), np.ones(len(self), bool)
        found = {}
        for name in self.ids:
            question = QUESTIONS[name]
            decides = self._deciding(question)
            shown = [np.where(decides[box][:, None, None, None], self.cells[box], 0) for box in decides]
            core, rest = zones(np.max(shown, 0), everywhere=question.core == "scene")
            drops = np.stack([drop[:, heads.index(question.head)] for drop in self.drops.values()], 1)
            own, other = (self.cells[box] for box in question.who) if question.who else (None, None)
            found[name] = Known(
                core=core,
                rest=rest,
                areas=np.stack(list(self.areas.values()), 1),
                effects=drops / np.maximum(drops.sum(1, keepdims=True), 1e-9),
                own=own,
                other=other,
                event=self.cells[question.event].max((2, 3)) > 0 if question.event else None,
                unlike=tuple(
                    (head, np.where(decides.get(mask, every)[:, None, None, None], self.cells[mask], np.nan))
                    for head, mask in question.unlike
                ),
            )
        return found

    def _deciding(self, question: Question) -> dict[str, Bool[np.ndarray, " n"]]:
        """Of each mask of the cause in which clips it is one: where there are several, those whose thing makes the
        answer by itself, and all of them where none does."""
        masks = question.core.split("+")
        if len(masks) == 1:
            return {question.core: np.ones(len(self), bool)}
        asked, entities = self.clips.world.questions[question.head], self.clips.world.entities
        before, changed = asked.caused(self.clips.factors), {}
        for mask in masks:
            entity = next(name for name, own in AREAS.items() if own == mask)
            gone = {name: np.full(len(self), ABSENT) for name in entities[entity]}
            changed[mask] = asked.caused({**self.clips.factors, **gone}) != before
        none = ~np.any(list(changed.values()), 0)
        return {mask: own | none for mask, own in changed.items()}

    @property
    def heads(self) -> tuple[str, ...]:
        """Of which maps are needed: those that are asked, and those that they are compared with."""
        asked = [QUESTIONS[name] for name in self.ids]
        wanted = [q.head for q in asked] + [head for q in asked for head, _ in q.unlike]
        return tuple(dict.fromkeys(wanted))


def material(loaded: Network, world: str, ids: Sequence[str], n: int, seed: int, *, gated: int = FEWEST) -> Material:
    """Raises with every failed gate if the network does not go by what was planted."""
    made = max(int(np.ceil(n * SPARE)), gated)
    found = gates(loaded.model, world, made, seed, prepare=lambda video: prepared(loaded, video), at_once=AT_ONCE)
    found.check()
    clips = make_clips(world, made, seed)
    logits = outputs(loaded, prepared(loaded, clips.video))
    right = [logits[:, where].argmax(1) == clips.labels[head] for head, where in loaded.head_slices.items()]
    fit = np.flatnonzero(np.all(right, 0) & found.stable.all(1))[:n]
    if len(fit) < n:
        raise ValueError(
            f"expected {n} clips that {loaded.preset} answers as planted whatever else is changed, found {len(fit)} of"
            f" {made}; ask for fewer with --truth_clips, or train the network further"
        )
    return Material(loaded, world, tuple(ids), clips[fit], found, seed)


def questions_of(loaded: Network) -> dict[str, tuple[str, ...]]:
    """The questions that a network can be asked, by the world that they are about."""
    found: dict[str, list[str]] = {}
    for name, question in QUESTIONS.items():
        if answers(loaded, question.world):
            found.setdefault(question.world, []).append(name)
    return {world: tuple(names) for world, names in found.items()}


def answers(loaded: Network, name: str) -> bool:
    """Whether it has the heads of a world, and reads its clips."""
    shape, world = models.PRESETS[loaded.preset].clip_spec.shape, as_world(name)
    heads = {name: tuple(answers) for name, answers in world.heads.items()}
    return dict(loaded.heads) == heads and shape == (world.frames, world.size, world.size, 3)


def prepared(loaded: Network, video: Float[np.ndarray, "n t h w 3"]) -> Float[np.ndarray, "n t h w 3"]:
    """As the network reads it from a file: in steps of 1/255."""
    return models.PRESETS[loaded.preset].clip_spec.normalise(np.rint(255 * video).astype(np.uint8))


def outputs(loaded: Network, video: Float[np.ndarray, "n t h w 3"]) -> Float[np.ndarray, "n k"]:
    """The logits; the last batch is filled up, so that all have one shape."""
    n = len(video)
    video = np.concatenate([video, np.repeat(video[-1:], -n % AT_ONCE, 0)])
    found = [np.asarray(_logits(loaded.model, part)) for part in np.split(video, len(video) // AT_ONCE)]
    return np.concatenate(found)[:n]


@jax.jit
def _logits(model, video):
    return model(video)
