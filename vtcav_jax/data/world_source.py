"""Worlds as a source: clips that are made when they are read."""

import hashlib
import re
from dataclasses import asdict, dataclass

import numpy as np

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.clip import Clip, How, clip_of
from vtcav_jax.data.open import Item, Lazy, digest
from vtcav_jax.names import unknown
from vtcav_jax.worlds.export import FPS
from vtcav_jax.worlds.glyphs import World
from vtcav_jax.worlds.render import WORLDS, Clips, drawn_factors, make_clips, remove
from vtcav_jax.worlds.spec import AnyWorld

CLIPS, SEED = 1000, 0
LACKING = 1 << 20  # of the seeds: which clips lack something


@dataclass(frozen=True)
class Synthetic:
    """Each clip by itself, in any order at the same price: rendering many at once is hardly faster."""

    spec: str
    name: str
    world: AnyWorld
    count: int
    seed: int
    without: str = ""  # an entity that is taken out of a `share` of the clips
    share: float = 0.0

    @property
    def heads(self) -> dict[str, tuple[str, ...]]:
        return self.world.heads

    @property
    def items(self) -> Lazy:
        return Lazy(self.count, self._item)

    @property
    def identity(self) -> str:
        kind = [] if type(self.world) is World else [type(self.world).__name__]
        less = [self.without, self.share] if self.without else []
        return digest([asdict(self.world), self.count, self.seed, *kind, *less])

    def _lacks(self, i: int) -> bool:
        return bool(self.without) and np.random.default_rng((self.seed, LACKING, i)).random() < self.share

    def rendered(self, first: int, count: int = 1) -> Clips:
        """Clips with all that is known of them; several together lack nothing, or all of them the same."""
        clips = make_clips(self.world, count, self.seed, first=first)
        lacking = {self._lacks(i) for i in range(first, first + count)}
        if len(lacking) > 1:
            raise ValueError(f"{self.spec}: what some of the clips lack cannot be told here; leave ?without=... away")
        return remove(clips, self.without) if True in lacking else clips

    def _item(self, i: int) -> Item:
        """With the answers that can still be given."""
        gone = {self.without} if self._lacks(i) else set()
        factors = self.world.lacking(drawn_factors(self.world, self.seed, np.array([i])), gone)
        absent = {name for entity in gone for name in self.world.entities[entity]}
        asked = {name: q for name, q in self.world.questions.items() if not set(q.factors) <= absent}
        labels = {name: int(question.label(factors)[0]) for name, question in asked.items()}
        return Item(f"{self.name}_{self.seed}_{i:06d}", labels)

    def read(self, i: int, geometry: ClipSpec, how: How) -> Clip:
        frames = np.rint(255 * self.rendered(i).video[0]).astype(np.uint8)
        times, content = np.arange(len(frames)) / FPS, hashlib.sha256(repr(frames.shape).encode() + frames.tobytes())
        return clip_of(
            times,
            len(frames) / FPS,
            lambda wanted: ((j, frames[j]) for j in wanted),
            content.hexdigest(),
            geometry,
            how.drawn(i),
        )


def opened(rest: str, spec: str) -> Synthetic:
    """`rest` is NAME[:N[:SEED]], perhaps with ?without=ENTITY:SHARE behind it."""
    rest, _, option = rest.partition("?")
    name, *numbers = rest.split(":")
    if len(numbers) > 2 or not all(number.isdecimal() for number in numbers) or numbers[:1] == ["0"]:
        raise ValueError(f"{spec}: expected worlds:NAME, worlds:NAME:N or worlds:NAME:N:SEED, such as worlds:small:100")
    if name not in WORLDS:
        raise ValueError(f"{spec}: {unknown('world', [name], WORLDS)}")
    count, seed = (*map(int, numbers), *(CLIPS, SEED)[len(numbers) :])
    if not option:
        return Synthetic(spec, name, WORLDS[name], count, seed)
    entity, _, share = option.removeprefix("without=").partition(":")
    if not option.startswith("without=") or not re.fullmatch(r"0?\.\d+|1", share):
        raise ValueError(f"{spec}: expected ?without=ENTITY:SHARE, such as ?without=distractor:0.2, got ?{option}")
    if entity not in WORLDS[name].entities:
        raise ValueError(f"{spec}: {unknown('entity', [entity], WORLDS[name].entities)}")
    return Synthetic(spec, name, WORLDS[name], count, seed, entity, float(share))
