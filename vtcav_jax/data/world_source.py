"""Source of synthetic worlds, whose clips are rendered on access."""

import hashlib
import re
from dataclasses import asdict, dataclass

import numpy as np

from vtcav_jax.checksums import json_sha256
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.clip import Clip, SamplingConfig, clip_from_frames
from vtcav_jax.data.source import LazySequence, SourceItem
from vtcav_jax.data.world_export import WORLD_FPS
from vtcav_jax.names import unknown_name_message
from vtcav_jax.settings import MAX_SEED
from vtcav_jax.worlds.glyphs import GlyphWorld
from vtcav_jax.worlds.render import WORLDS, WorldClips, make_clips, remove, sample_factors
from vtcav_jax.worlds.spec import WorldSpec

MAX_WORLD_CLIPS, MAX_DIGITS = 10**7, 20
DEFAULT_WORLD_CLIPS, DEFAULT_WORLD_SEED = 1000, 0
ABSENCE_STREAM = 1 << 20  # seed stream that selects the clips without an entity


@dataclass(frozen=True)
class WorldSource:
    """Source that renders clips of a world one at a time, with random access."""

    spec: str
    name: str
    world: WorldSpec
    n_clips: int
    seed: int
    removed_entity: str = ""  # removed from `removed_share` of the clips
    removed_share: float = 0.0

    @property
    def heads(self) -> dict[str, tuple[str, ...]]:
        return self.world.heads

    @property
    def items(self) -> LazySequence:
        return LazySequence(self.n_clips, self._make_item)

    @property
    def identity(self) -> str:
        class_name = [] if type(self.world) is GlyphWorld else [type(self.world).__name__]
        removal = [self.removed_entity, self.removed_share] if self.removed_entity else []
        return json_sha256([asdict(self.world), self.n_clips, self.seed, *class_name, *removal])

    def _is_entity_removed(self, i: int) -> bool:
        return (
            bool(self.removed_entity)
            and np.random.default_rng((self.seed, ABSENCE_STREAM, i)).random() < self.removed_share
        )

    def render(self, first: int, n_clips: int = 1) -> WorldClips:
        """Render clips with their factors and boxes; the entity must be removed from all of them or from none."""
        clips = make_clips(self.world, n_clips, self.seed, first=first)
        removal_flags = {self._is_entity_removed(i) for i in range(first, first + n_clips)}
        if len(removal_flags) > 1:
            raise ValueError(
                f"{self.spec}: clips with and without an entity cannot be rendered together; omit ?without="
            )
        return remove(clips, self.removed_entity) if True in removal_flags else clips

    def _make_item(self, i: int) -> SourceItem:
        """Make an item with the labels that remain defined after the removal."""
        removed = {self.removed_entity} if self._is_entity_removed(i) else set()
        factors = self.world.factors_without(sample_factors(self.world, self.seed, np.array([i])), removed)
        absent = {name for entity in removed for name in self.world.entities[entity]}
        questions = {name: q for name, q in self.world.questions.items() if not set(q.factors) <= absent}
        labels = {name: int(question.label(factors)[0]) for name, question in questions.items()}
        return SourceItem(f"{self.name}_{self.seed}_{i:06d}", labels)

    def read(self, i: int, clip_spec: ClipSpec, sampling: SamplingConfig) -> Clip:
        frames = self.render(i).frames[0]
        times, content = (
            np.arange(len(frames)) / WORLD_FPS,
            hashlib.sha256(repr(frames.shape).encode() + frames.tobytes()),
        )
        return clip_from_frames(
            times,
            len(frames) / WORLD_FPS,
            lambda indices: ((j, frames[j]) for j in indices),
            content.hexdigest(),
            clip_spec,
            sampling.with_random_start(i),
        )


def open_world(rest: str, spec: str) -> WorldSource:
    """Open the world that `rest` names: NAME[:N[:SEED]][?without=ENTITY:SHARE]."""
    rest, _, option = rest.partition("?")
    name, *numbers = rest.split(":")
    is_valid = [number.isdecimal() and len(number) <= MAX_DIGITS for number in numbers]
    if len(numbers) > 2 or not all(is_valid) or numbers[:1] == ["0"]:
        raise ValueError(f"{spec}: expected worlds:NAME, worlds:NAME:N or worlds:NAME:N:SEED, such as worlds:small:100")
    if name not in WORLDS:
        raise ValueError(f"{spec}: {unknown_name_message('world', [name], WORLDS)}")
    n_clips, seed = (*map(int, numbers), *(DEFAULT_WORLD_CLIPS, DEFAULT_WORLD_SEED)[len(numbers) :])
    if n_clips > MAX_WORLD_CLIPS or seed > MAX_SEED:
        raise ValueError(f"{spec}: expected at most {MAX_WORLD_CLIPS} clips and a seed of at most {MAX_SEED}")
    if not option:
        return WorldSource(spec, name, WORLDS[name], n_clips, seed)
    entity, _, removed_share = option.removeprefix("without=").partition(":")
    if not option.startswith("without=") or not re.fullmatch(r"0?\.\d+|1", removed_share):
        raise ValueError(f"{spec}: expected ?without=ENTITY:SHARE, such as ?without=distractor:0.2, got ?{option}")
    if entity not in WORLDS[name].entities:
        raise ValueError(f"{spec}: {unknown_name_message('entity', [entity], WORLDS[name].entities)}")
    return WorldSource(spec, name, WORLDS[name], n_clips, seed, entity, float(removed_share))
