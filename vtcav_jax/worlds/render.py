"""Synthetic clips whose cause is known.

Every property of a clip is a factor, drawn uniformly and independently of all others (but for a shortcut, whose purpose
is to go along with another), and a question asks for one or two of them. Any factor can be drawn again and anything be
taken out by rendering the same clip once more, its noise included, so that each counterfactual is an ordinary clip and
not a picture with a hole. What there is to be seen is in `glyphs` and `dots`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.names import unknown
from vtcav_jax.worlds.dots import Dots
from vtcav_jax.worlds.glyphs import Events, Shortcut, World
from vtcav_jax.worlds.spec import AnyWorld, Layer, within

AT_ONCE = 32  # clips: what is rendered together stays in cache
FACTOR_STREAM, NOISE_STREAM, REDRAW_STREAM = range(3)

BOX = np.dtype([(name, np.int64) for name in ("clip", "frame", "track", "x1", "y1", "x2", "y2")])

WORLDS: dict[str, AnyWorld] = {
    "small": World(),
    # Twice the small one in space and in time. Speed is the same: over the clip, the same share of the picture.
    "large": World(frames=16, size=64, cell=2, distance=24, event_times=(0, 4, 8, 12), event_frames=4),
    "events": Events(),
    # The same clips. Of the order alone a Swin learns nothing; asked when flashes come it learns that first.
    "events_timed": Events(timed=True),
    "dots": Dots(),
    "shortcut": Shortcut(),
    "shortcut_broken": Shortcut(agreement=1 / 4),  # what was learnt on the one is seen for what it is on the other
}


@dataclass(frozen=True, eq=False)
class Clips:
    """Rendered clips and all there is to know about them; the leading axis `n` is the clip."""

    world: AnyWorld
    seed: int
    index: Int[np.ndarray, " n"]  # which clips of the seed
    factors: dict[str, Int[np.ndarray, " n"]]
    removed: frozenset[str]
    video: Float[np.ndarray, "n t h w 3"]  # 0..1

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> "Clips":
        """Some of the clips, by a slice, their numbers or a mask."""
        rows = np.arange(len(self))[rows]
        factors = {name: values[rows] for name, values in self.factors.items()}
        return replace(self, index=self.index[rows], factors=factors, video=self.video[rows])

    @property
    def labels(self) -> dict[str, Int[np.ndarray, " n"]]:
        """The answer to each question, as an index into its names."""
        return {name: question.label(self.factors) for name, question in self.world.questions.items()}

    @cached_property
    def masks(self) -> dict[str, Bool[np.ndarray, "n t h w"]]:
        """Where things are to be seen: nothing of what was removed, nor of what something else hides.

        Of each entity but the scene, with `dis` for the distractor. `key` and `dis` include their events; `key_box` and
        `dis_box` are the full squares, hidden or not.
        """
        world = self.world
        shape = (len(self), world.frames, world.size, world.size)
        layers = _layers(world, self.factors, self.removed)

        def mask(*pixels: np.ndarray) -> np.ndarray:
            found = np.zeros(shape, bool)
            for some in pixels:
                found.reshape(-1)[some.ravel()] = True
            return found

        found, nearer = {}, mask()
        for thing in reversed(world.objects):
            short = thing.replace("distractor", "dis")
            for entity in world.entities:
                if within(entity, frozenset([thing])):
                    parts = [pixels for name, (pixels, _) in layers.items() if within(name, frozenset([entity]))]
                    found[entity.replace(thing, short)] = mask(*parts) & ~nearer
            if not within(thing, self.removed):
                found[f"{short}_box"] = mask(world.place(self.factors, thing).pixels(world.size))
            else:
                found[f"{short}_box"] = mask()
            nearer |= found[short]
        return found

    @cached_property
    def boxes(self) -> np.ndarray:
        """Rows of `BOX`: clip (of the seed), frame, track, and the box, its lower right end excluded.

        What crosses the border has a row for each of its two or four pieces, all of one track.
        """
        rows = []
        for track, entity in enumerate(self.world.tracks):
            if within(entity, self.removed):
                continue
            y, x, side, shown = self.world.place(self.factors, entity)
            for dy in (0, self.world.size):
                for dx in (0, self.world.size):
                    x1, y1 = np.maximum(x - dx, 0), np.maximum(y - dy, 0)
                    x2, y2 = (np.minimum(start + side, self.world.size) for start in (x - dx, y - dy))
                    clip, frame = np.nonzero(shown & (x2 > x1) & (y2 > y1))
                    piece = np.zeros(len(clip), BOX)
                    piece["clip"], piece["frame"], piece["track"] = self.index[clip], frame, track
                    for name, values in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2)):
                        piece[name] = values[clip, frame]
                    rows.append(piece)
        return np.sort(np.concatenate([np.zeros(0, BOX), *rows]))


def make_clips(world: str | AnyWorld, n: int, seed: int, *, first: int = 0) -> Clips:
    """Clips `first` to `first + n` of `seed`; each is the same however many are made with it."""
    world = as_world(world)
    if n < 1 or first < 0 or seed < 0:
        raise ValueError(f"expected n of at least 1, first and seed of at least 0; got {n=}, {first=}, {seed=}")
    index = np.arange(first, first + n)
    return _rendered(world, seed, index, drawn_factors(world, seed, index), frozenset())


def drawn_factors(world: AnyWorld, seed: int, index: Int[np.ndarray, " n"]) -> dict[str, Int[np.ndarray, " n"]]:
    """The factors of these clips of `seed`, without the pictures."""
    values = np.stack([world.drawn(_random(seed, FACTOR_STREAM, i)) for i in index.tolist()], 1)
    return dict(zip(world.factors, values, strict=True))


def redraw(clips: Clips, factor: str, seed: int) -> Clips:
    """The same clips with another value of `factor`, uniform among the values that each does not have."""
    count = clips.world.factors.get(factor)
    if count is None:
        raise ValueError(unknown("factor", [factor], clips.world.factors))
    stream = (REDRAW_STREAM, list(clips.world.factors).index(factor))
    further = np.array([_random(seed, *stream, i).integers(1, count) for i in clips.index.tolist()])
    factors = clips.factors | {factor: (clips.factors[factor] + further) % count}
    return _rendered(clips.world, clips.seed, clips.index, factors, clips.removed)


def remove(clips: Clips, entity: str) -> Clips:
    """The same clips without `entity`, and what was behind it to be seen. An object's event goes with the object."""
    if entity not in clips.world.entities:
        raise ValueError(unknown("entity", [entity], clips.world.entities))
    return _rendered(clips.world, clips.seed, clips.index, clips.factors, clips.removed | {entity})


def as_world(world: str | AnyWorld) -> AnyWorld:
    if isinstance(world, AnyWorld):
        return world
    if world not in WORLDS:
        raise ValueError(unknown("world", [world], WORLDS))
    return WORLDS[world]


def _random(seed: int, *stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))


def _rendered(
    world: AnyWorld, seed: int, index: np.ndarray, factors: dict[str, np.ndarray], removed: frozenset[str]
) -> Clips:
    video = np.empty((len(index), world.frames, world.size, world.size, 3), np.float32)
    for start in range(0, len(index), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        part = video[rows]
        for i, clip in zip(index[rows].tolist(), part):
            _random(seed, NOISE_STREAM, i).standard_normal(dtype=np.float32, out=clip)
        part *= np.float32(world.noise)
        part += _picture(world, {name: values[rows] for name, values in factors.items()}, removed)
        np.clip(part, 0, 1, out=part)
    return Clips(world, seed, index, factors, removed, video)


def _picture(world: AnyWorld, factors: dict[str, np.ndarray], removed: frozenset[str]) -> np.ndarray:
    """The clips without noise, (n, t, h, w, 3)."""
    ground = world.ground(factors, removed)
    picture = np.empty((len(ground), world.frames, world.size, world.size, 3), np.float32)
    picture[:] = ground[..., None]
    for pixels, colours in _layers(world, factors, removed).values():
        picture.reshape(-1, 3)[pixels] = colours
    return picture


def _layers(world: AnyWorld, factors: dict[str, np.ndarray], removed: frozenset[str]) -> dict[str, Layer]:
    return {name: layer for name, layer in world.layers(factors).items() if not within(name, removed)}
