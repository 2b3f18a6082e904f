"""Worlds as a source: clips that are made when they are read."""

import hashlib
from dataclasses import asdict, dataclass

import numpy as np

from vtcav_jax.geometry import ClipGeometry
from vtcav_jax.names import unknown
from vtcav_jax.video.clip import Clip, How, clip_of
from vtcav_jax.video.sources import Item, Lazy, digest
from vtcav_jax.worlds.export import FPS
from vtcav_jax.worlds.generator import WORLDS, drawn_factors, make_clips
from vtcav_jax.worlds.glyphs import World
from vtcav_jax.worlds.world import AnyWorld

CLIPS, SEED = 1000, 0


@dataclass(frozen=True)
class Synthetic:
    """Each clip by itself, in any order at the same price: rendering many at once is hardly faster."""

    spec: str
    name: str
    world: AnyWorld
    count: int
    seed: int

    @property
    def heads(self) -> dict[str, tuple[str, ...]]:
        return self.world.heads

    @property
    def items(self) -> Lazy:
        return Lazy(self.count, self._item)

    @property
    def identity(self) -> str:
        kind = [] if type(self.world) is World else [type(self.world).__name__]
        return digest([asdict(self.world), self.count, self.seed, *kind])

    def _item(self, i: int) -> Item:
        factors = drawn_factors(self.world, self.seed, np.array([i]))
        labels = {name: int(question.label(factors)[0]) for name, question in self.world.questions.items()}
        return Item(f"{self.name}_{self.seed}_{i:06d}", labels)

    def read(self, i: int, geometry: ClipGeometry, how: How) -> Clip:
        frames = np.rint(255 * make_clips(self.world, 1, self.seed, first=i).video[0]).astype(np.uint8)
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
    """`rest` is NAME[:N[:SEED]]."""
    name, *numbers = rest.split(":")
    if len(numbers) > 2 or not all(number.isdecimal() for number in numbers) or numbers[:1] == ["0"]:
        raise ValueError(f"{spec}: expected worlds:NAME, worlds:NAME:N or worlds:NAME:N:SEED, such as worlds:small:100")
    if name not in WORLDS:
        raise ValueError(f"{spec}: {unknown('world', [name], WORLDS)}")
    count, seed = (*map(int, numbers), *(CLIPS, SEED)[len(numbers) :])
    return Synthetic(spec, name, WORLDS[name], count, seed)
