"""Clips of a world that a network classifies correctly, with the known cause of each answer."""

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
from vtcav_jax.evaluation.world_benchmark.questions import (
    DISTRACTOR_BOX,
    ENTITY_MASKS,
    EVAL_QUESTIONS,
    KEY_BOX,
    NESTED_ENTITIES,
    EvalQuestion,
)
from vtcav_jax.evaluation.world_benchmark.world_metrics import (
    CELL_SHAPE,
    GroundTruth,
    Mass,
    core_and_rest,
    normalise_mass,
    read_map,
)
from vtcav_jax.models import Network, parameters
from vtcav_jax.worlds.gates import Gates, measure_gates
from vtcav_jax.worlds.render import WORLDS, WorldClips, as_world, make_clips, redraw, remove
from vtcav_jax.worlds.spec import ABSENT_FACTOR

OVERSAMPLE = 1.4  # generated clips per requested clip: some do not qualify
MIN_GATE_CLIPS = 400  # with fewer clips a network could fail a gate by chance
EVAL_BATCH_SIZE = 25  # larger batches are slower on CPU, because they do not fit the caches
MAX_WORLD_LOGITS = max(sum(map(len, world.heads.values())) for world in WORLDS.values())


@dataclass(frozen=True, eq=False)
class EvalSet:
    """Clips of `world` that one network classifies correctly and stably, and the questions about them."""

    network: Network
    world: str
    question_ids: tuple[str, ...]
    clips: WorldClips
    gates: Gates
    seed: int

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Numbers of cells along time, height and width."""
        t, h, w = self.clips.video.shape[1:4]
        return (
            t // CELL_SHAPE[0],
            h // (CELL_SHAPE[1] * self.clips.world.cell),
            w // (CELL_SHAPE[2] * self.clips.world.cell),
        )

    @cached_property
    def padded_network(self) -> Network:
        """Network padded with zero logits to the maximum over worlds, so that networks of one architecture share
        compiled code. Targets read only the first, original logits. A network that differs from its preset (for
        example in type) is not padded."""
        if (preset := self.network.preset) is None:
            return self.network
        count = len(self.network.labels)
        make, plain = (partial(models.make, preset, num_classes=n) for n in (max(MAX_WORLD_LOGITS, count), count))
        if nnx.graphdef(nnx.eval_shape(plain)) != nnx.graphdef(self.network.model):
            return self.network
        current, target_shapes = (
            parameters.named_parameters(model) for model in (self.network.model, nnx.eval_shape(make))
        )
        missing = {name: target_shapes[name].shape[-1] - a.shape[-1] for name, a in current.items()}
        padded = {name: jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, missing[name])]) for name, a in current.items()}
        return replace(self.network, model=parameters.load(make, padded))

    @cached_property
    def video(self) -> Float[np.ndarray, "n t h w 3"]:
        return self.preprocess(self.clips.video)

    def preprocess(self, video: Float[np.ndarray, "n t h w 3"]) -> Float[np.ndarray, "n t h w 3"]:
        return quantise_and_normalise(self.network, video)

    def class_indices(self, head: str) -> Int[np.ndarray, " n"]:
        """Return the logit of each clip's correct class."""
        return self.network.head_slices[head].start + self.clips.labels[head]

    def target(self, head: str, rows: slice = slice(None)) -> Margin:
        where = self.network.head_slices[head]
        return Margin(self.class_indices(head)[rows], (where.start, where.stop))

    def redraw_factor(self, factor: str, rows: slice) -> Float[np.ndarray, "m t h w 3"]:
        return self.preprocess(redraw(self.clips[rows], factor, self.seed).video)

    @cached_property
    def visible_masks(self) -> dict[str, Bool[np.ndarray, "n frames height width"]]:
        """Visible voxels by mask; `scene` is what no box covers."""
        masks = dict(self.clips.masks)
        if DISTRACTOR_BOX in masks:
            masks[DISTRACTOR_BOX] = masks[DISTRACTOR_BOX] & ~masks[KEY_BOX]  # the key occludes it
        if "marker" in masks:
            masks |= {
                box: masks[box] & ~masks["marker"] for box in (KEY_BOX, DISTRACTOR_BOX)
            }  # the marker occludes all objects
        covered = np.any([mask for name, mask in masks.items() if name.endswith("_box")], 0)
        return masks | {"scene": ~covered}

    @cached_property
    def cell_shares(self) -> dict[str, Float[np.ndarray, "n t h w"]]:
        """Covered share of each cell, by mask."""
        return {name: self._shares(mask) for name, mask in self.visible_masks.items()}

    def _shares(self, mask: Bool[np.ndarray, "n frames height width"]) -> Float[np.ndarray, "n t h w"]:
        return area_resize(mask.astype(np.float32), self.grid_shape).astype(np.float64)

    @property
    def questions(self) -> list[EvalQuestion]:
        return [EVAL_QUESTIONS[name] for name in self.question_ids]

    @property
    def _nested_entities(self) -> list[tuple[str, str]]:
        return [pair for pair in NESTED_ENTITIES.items() if pair[0] in self.clips.world.entities]

    @cached_property
    def entity_masks(self) -> dict[str, Bool[np.ndarray, "n frames height width"]]:
        """Voxels of each removable entity; the masks do not overlap, and the scene is the rest."""
        entities = self.clips.world.entities
        masks = {entity: self.visible_masks[mask] for entity, mask in ENTITY_MASKS.items() if entity in entities}
        for inner, outer in self._nested_entities:
            masks[outer] = masks[outer] & ~masks[inner]
        return masks | {"scene": ~np.any(list(masks.values()), 0)}

    @cached_property
    def areas(self) -> dict[str, Float[np.ndarray, "n t h w"]]:
        """Covered share of each cell, by removable entity; the shares do not overlap."""
        return {entity: self._shares(mask) for entity, mask in self.entity_masks.items()}

    def read(self, maps: Float[np.ndarray, "n t1 h1 w1"], reading: str, *, in_time: bool = False) -> Mass:
        """Return maps of any resolution on the grid of cells, or on its steps alone."""
        cells = (self.grid_shape[0], 1, 1) if in_time else self.grid_shape
        return read_map(maps, self.clips.video.shape[1:4], cells, reading)

    def reference_map(self, name: str, head: str) -> Float[np.ndarray, "n frames height width"]:
        """Return a map made from the known cause, with which other maps are compared.

        `oracle` spreads the effect of each entity evenly over its visible voxels; `exact_box` is 1 on the cause of the
        head's question and 0 elsewhere, and equals the oracle for heads of no question.
        """
        question = next((question for question in self.questions if question.head == head), None)
        if name == "exact_box" and question is not None:
            boxes = [
                self.visible_masks[mask] & is_decisive[:, None, None, None]
                for mask, is_decisive in self._decisive_masks(question).items()
            ]
            return np.any(boxes, 0).astype(np.float32)
        column = list(self.network.head_slices).index(head)
        total = np.zeros(self.clips.video.shape[:4])
        for entity, mask in self.entity_masks.items():
            density = self.causal_effects[entity][:, column] / np.maximum(mask.sum((1, 2, 3)), 1)
            total += mask * density[:, None, None, None]
        return total.astype(np.float32)

    @cached_property
    def true_maps(self) -> dict[str, Mass]:
        """True map of each head on the grid of cells, with sum 1."""
        return {head: normalise_mass(self.read(self.reference_map("oracle", head), "net")) for head in self.heads}

    @cached_property
    def causal_effects(self) -> dict[str, Float[np.ndarray, "n heads"]]:
        """Loss of each head's margin when an entity is removed, at least 0; nested entities are subtracted."""
        before = self._margins(self.clips)
        losses = {entity: before - self._margins(remove(self.clips, entity)) for entity in self.areas}
        for inner, outer in self._nested_entities:
            losses[outer] = losses[outer] - np.maximum(losses[inner], 0)
        return {entity: np.maximum(drop, 0) for entity, drop in losses.items()}

    def _margins(self, clips: WorldClips) -> Float[np.ndarray, "n heads"]:
        logits = batched_logits(self.network, self.preprocess(clips.video))
        margins = []
        for head, where in self.network.head_slices.items():
            head_logits = logits[:, where]
            true_logits = np.take_along_axis(head_logits, clips.labels[head][:, None], 1)[:, 0]
            margins.append(true_logits - (head_logits.sum(1) - true_logits) / (head_logits.shape[1] - 1))
        return np.stack(margins, 1)

    @cached_property
    def ground_truth(self) -> dict[str, GroundTruth]:
        """Known cause of each question in each clip."""
        every = np.ones(len(self), bool)
        by_question = {}
        for name in self.question_ids:
            question = EVAL_QUESTIONS[name]
            decisive_masks = self._decisive_masks(question)
            cause_masks = [
                np.where(decisive_masks[box][:, None, None, None], self.cell_shares[box], 0) for box in decisive_masks
            ]
            core, rest = core_and_rest(np.max(cause_masks, 0), everywhere=question.cause_mask == "scene")
            target_boxes, distractor_boxes = (
                (self.cell_shares[box] for box in question.box_pair) if question.box_pair else (None, None)
            )
            by_question[name] = GroundTruth(
                true_map=self.true_maps[question.head],
                core=core,
                rest=rest,
                areas=np.stack(list(self.areas.values()), 1),
                target_boxes=target_boxes,
                distractor_boxes=distractor_boxes,
                event=self.cell_shares[question.event_mask].max((2, 3)) > 0 if question.event_mask else None,
                contrast_masks=tuple(
                    (
                        head,
                        np.where(decisive_masks.get(mask, every)[:, None, None, None], self.cell_shares[mask], np.nan),
                    )
                    for head, mask in question.contrast_masks
                ),
                other_true_maps=self.true_maps,
            )
        return by_question

    def _decisive_masks(self, question: EvalQuestion) -> dict[str, Bool[np.ndarray, " n"]]:
        """Return, for each mask of the cause, the clips in which it is a cause.

        With several masks, these are the masks of objects whose removal alone changes the correct answer; all masks,
        in clips where no single object does.
        """
        masks = question.cause_mask.split("+")
        if len(masks) == 1:
            return {question.cause_mask: np.ones(len(self), bool)}
        world_question, entities = self.clips.world.questions[question.head], self.clips.world.entities
        before, changed = world_question.cause_label(self.clips.factors), {}
        for mask in masks:
            entity = next(name for name, entity_mask in ENTITY_MASKS.items() if entity_mask == mask)
            absent_factors = {name: np.full(len(self), ABSENT_FACTOR) for name in entities[entity]}
            changed[mask] = world_question.cause_label({**self.clips.factors, **absent_factors}) != before
        is_undecided = ~np.any(list(changed.values()), 0)
        return {mask: is_decisive | is_undecided for mask, is_decisive in changed.items()}

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads that need maps: those of the questions, and those that WHAT-FOR compares them with."""
        questions = [EVAL_QUESTIONS[name] for name in self.question_ids]
        head_names = [q.head for q in questions] + [head for q in questions for head, _ in q.contrast_masks]
        return tuple(dict.fromkeys(head_names))


def build_eval_set(
    network: Network, world: str, ids: Sequence[str], n_clips: int, seed: int, *, n_gate_clips: int = MIN_GATE_CLIPS
) -> EvalSet:
    """Generate clips and select those that qualify; raise an error that lists the failed gates, if any."""
    n_generated = max(int(np.ceil(n_clips * OVERSAMPLE)), n_gate_clips)
    gate_results = measure_gates(
        network.model,
        world,
        n_generated,
        seed,
        prepare=lambda video: quantise_and_normalise(network, video),
        batch_size=EVAL_BATCH_SIZE,
    )
    gate_results.check()
    clips = make_clips(world, n_generated, seed)
    logits = batched_logits(network, quantise_and_normalise(network, clips.video))
    is_correct = [logits[:, where].argmax(1) == clips.labels[head] for head, where in network.head_slices.items()]
    usable_rows = np.flatnonzero(np.all(is_correct, 0) & gate_results.stable.all(1))[:n_clips]
    if len(usable_rows) < n_clips:
        raise ValueError(
            f"expected {n_clips} clips that {network.name} classifies correctly, also with other factors redrawn; got"
            f" {len(usable_rows)} of {n_generated}: reduce --max_clips, or train the network further"
        )
    return EvalSet(network, world, tuple(ids), clips[usable_rows], gate_results, seed)


def questions_by_world(network: Network) -> dict[str, tuple[str, ...]]:
    """Return the questions that a network answers, by world."""
    by_world: dict[str, list[str]] = {}
    for name, question in EVAL_QUESTIONS.items():
        if supports_world(network, question.world):
            by_world.setdefault(question.world, []).append(name)
    return {world: tuple(names) for world, names in by_world.items()}


def supports_world(network: Network, name: str) -> bool:
    """Return whether a network has the heads of a world and reads its clips."""
    shape, world = network.clip_spec.shape, as_world(name)
    heads = {name: tuple(class_names) for name, class_names in world.heads.items()}
    return dict(network.heads) == heads and shape == (world.frames, world.size, world.size, 3)


def quantise_and_normalise(network: Network, video: Float[np.ndarray, "n t h w 3"]) -> Float[np.ndarray, "n t h w 3"]:
    """Quantise clips to steps of 1/255, as in a file, and normalise them for the network."""
    return network.clip_spec.normalise(np.rint(255 * video).astype(np.uint8))


def batched_logits(network: Network, video: Float[np.ndarray, "n t h w 3"]) -> Float[np.ndarray, "n k"]:
    """Return the logits; the last batch is padded, so that all batches have the same shape."""
    n = len(video)
    video = np.concatenate([video, np.repeat(video[-1:], -n % EVAL_BATCH_SIZE, 0)])
    batch_logits = [np.asarray(_logits(network.model, part)) for part in np.split(video, len(video) // EVAL_BATCH_SIZE)]
    return np.concatenate(batch_logits)[:n]


@jax.jit
def _logits(model, video):
    return model(video)
