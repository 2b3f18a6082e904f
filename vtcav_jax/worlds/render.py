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

from vtcav_jax.names import unknown_name_message
from vtcav_jax.worlds.dots import Dots
from vtcav_jax.worlds.glyphs import Events, GlyphWorld, Shortcut
from vtcav_jax.worlds.spec import Layer, WorldSpec, is_part_of

CLIPS_PER_RENDER = 32  # clips: what is rendered together stays in cache
FACTOR_STREAM, RENDER_NOISE_STREAM, REDRAW_STREAM = range(3)

BOX_DTYPE = np.dtype([(name, np.int64) for name in ("clip", "frame", "track", "x1", "y1", "x2", "y2")])

WORLDS: dict[str, WorldSpec] = {
    "small": GlyphWorld(),
    # Twice the small one in space and in time. Speed is the same: over the clip, the same share of the picture.
    "large": GlyphWorld(frames=16, size=64, cell=2, distance=24, event_times=(0, 4, 8, 12), event_frames=4),
    "events": Events(),
    # The same clips. Of the order alone a Swin learns nothing; asked when flashes come it learns that first.
    "events_timed": Events(timed=True),
    "dots": Dots(),
    "shortcut": Shortcut(),
    "shortcut_broken": Shortcut(agreement=1 / 4),  # what was learnt on the one is seen for what it is on the other
}


@dataclass(frozen=True, eq=False)
class WorldClips:
    """Rendered clips and all there is to know about them; the leading axis `n` is the clip."""

    world: WorldSpec
    seed: int
    index: Int[np.ndarray, " n"]  # which clips of the seed
    factors: dict[str, Int[np.ndarray, " n"]]
    removed: frozenset[str]
    video: Float[np.ndarray, "n t h w 3"]  # 0..1

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> "WorldClips":
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
        layers = _visible_layers(world, self.factors, self.removed)

        def mask(*pixels: np.ndarray) -> np.ndarray:
            lit = np.zeros(shape, bool)
            for indices in pixels:
                lit.reshape(-1)[indices.ravel()] = True
            return lit

        masks, occluded = {}, mask()
        for glyph in reversed(world.objects):
            short = glyph.replace("distractor", "dis")
            for entity in world.entities:
                if is_part_of(entity, frozenset([glyph])):
                    parts = [pixels for name, (pixels, _) in layers.items() if is_part_of(name, frozenset([entity]))]
                    masks[entity.replace(glyph, short)] = mask(*parts) & ~occluded
            if not is_part_of(glyph, self.removed):
                masks[f"{short}_box"] = mask(world.entity_square(self.factors, glyph).pixel_indices(world.size))
            else:
                masks[f"{short}_box"] = mask()
            occluded |= masks[short]
        return masks

    @cached_property
    def boxes(self) -> np.ndarray:
        """Rows of `BOX`: clip (of the seed), frame, track, and the box, its lower right end excluded.

        What crosses the border has a row for each of its two or four pieces, all of one track.
        """
        rows = []
        for track, entity in enumerate(self.world.tracks):
            if is_part_of(entity, self.removed):
                continue
            y, x, side, visible = self.world.entity_square(self.factors, entity)
            for dy in (0, self.world.size):
                for dx in (0, self.world.size):
                    x1, y1 = np.maximum(x - dx, 0), np.maximum(y - dy, 0)
                    x2, y2 = (np.minimum(start + side, self.world.size) for start in (x - dx, y - dy))
                    clip, frame = np.nonzero(visible & (x2 > x1) & (y2 > y1))
                    piece = np.zeros(len(clip), BOX_DTYPE)
                    piece["clip"], piece["frame"], piece["track"] = self.index[clip], frame, track
                    for name, values in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2)):
                        piece[name] = values[clip, frame]
                    rows.append(piece)
        return np.sort(np.concatenate([np.zeros(0, BOX_DTYPE), *rows]))


def make_clips(world: str | WorldSpec, n: int, seed: int, *, first: int = 0) -> WorldClips:
    """Clips `first` to `first + n` of `seed`; each is the same however many are made with it."""
    world = as_world(world)
    if n < 1 or first < 0 or seed < 0:
        raise ValueError(f"expected n of at least 1, first and seed of at least 0; got {n=}, {first=}, {seed=}")
    index = np.arange(first, first + n)
    return _render(world, seed, index, sample_factors(world, seed, index), frozenset())


def sample_factors(world: WorldSpec, seed: int, index: Int[np.ndarray, " n"]) -> dict[str, Int[np.ndarray, " n"]]:
    """The factors of these clips of `seed`, without the pictures."""
    values = np.stack([world.draw_factors(_random_generator(seed, FACTOR_STREAM, i)) for i in index.tolist()], 1)
    return dict(zip(world.factors, values, strict=True))


def redraw(clips: WorldClips, factor: str, seed: int) -> WorldClips:
    """The same clips with another value of `factor`, uniform among the values that each does not have."""
    count = clips.world.factors.get(factor)
    if count is None:
        raise ValueError(unknown_name_message("factor", [factor], clips.world.factors))
    stream = (REDRAW_STREAM, list(clips.world.factors).index(factor))
    offsets = np.array([_random_generator(seed, *stream, i).integers(1, count) for i in clips.index.tolist()])
    factors = clips.factors | {factor: (clips.factors[factor] + offsets) % count}
    return _render(clips.world, clips.seed, clips.index, factors, clips.removed)


def remove(clips: WorldClips, entity: str) -> WorldClips:
    """The same clips without `entity`, and what was behind it to be seen. An object's event goes with the object."""
    if entity not in clips.world.entities:
        raise ValueError(unknown_name_message("entity", [entity], clips.world.entities))
    return _render(clips.world, clips.seed, clips.index, clips.factors, clips.removed | {entity})


def as_world(world: str | WorldSpec) -> WorldSpec:
    if isinstance(world, WorldSpec):
        return world
    if world not in WORLDS:
        raise ValueError(unknown_name_message("world", [world], WORLDS))
    return WORLDS[world]


def _random_generator(seed: int, *stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))


def _render(
    world: WorldSpec, seed: int, index: np.ndarray, factors: dict[str, np.ndarray], removed: frozenset[str]
) -> WorldClips:
    video = np.empty((len(index), world.frames, world.size, world.size, 3), np.float32)
    for start in range(0, len(index), CLIPS_PER_RENDER):
        rows = slice(start, start + CLIPS_PER_RENDER)
        part = video[rows]
        for i, clip in zip(index[rows].tolist(), part):
            _random_generator(seed, RENDER_NOISE_STREAM, i).standard_normal(dtype=np.float32, out=clip)
        part *= np.float32(world.noise)
        part += _render_noiseless(world, {name: values[rows] for name, values in factors.items()}, removed)
        np.clip(part, 0, 1, out=part)
    return WorldClips(world, seed, index, factors, removed, video)


def _render_noiseless(world: WorldSpec, factors: dict[str, np.ndarray], removed: frozenset[str]) -> np.ndarray:
    """The clips without noise, (n, t, h, w, 3)."""
    ground = world.ground(factors, removed)
    picture = np.empty((len(ground), world.frames, world.size, world.size, 3), np.float32)
    picture[:] = ground[..., None]
    for pixels, colours in _visible_layers(world, factors, removed).values():
        picture.reshape(-1, 3)[pixels] = colours
    return picture


def _visible_layers(world: WorldSpec, factors: dict[str, np.ndarray], removed: frozenset[str]) -> dict[str, Layer]:
    return {name: layer for name, layer in world.layers(factors).items() if not is_part_of(name, removed)}
