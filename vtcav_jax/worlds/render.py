"""Rendering of synthetic clips with known causes.

Every property of a clip is a factor, drawn uniformly and independently of all others (except a shortcut, which is
correlated with one of them), and each question is about one or two factors. Any factor can be redrawn and any entity
removed by rendering the same clip again with the same noise, so that each counterfactual is an ordinary clip rather
than one with a hole. The contents are defined in `glyphs` and `dots`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vtcav_jax.names import unknown_name_message
from vtcav_jax.worlds.dots import Dots
from vtcav_jax.worlds.glyphs import Events, GlyphWorld, Shortcut
from vtcav_jax.worlds.spec import Layer, WorldSpec, is_part_of

CLIPS_PER_RENDER = 32  # fits the CPU cache
FACTOR_STREAM, RENDER_NOISE_STREAM, REDRAW_STREAM = range(3)

BOX_DTYPE = np.dtype([(name, np.int64) for name in ("clip", "frame", "track", "x1", "y1", "x2", "y2")])

WORLDS: dict[str, WorldSpec] = {
    "small": GlyphWorld(),
    # Twice the size of `small` in space and time; at the same speed, glyphs cross the same share of the frame.
    "large": GlyphWorld(frames=16, size=64, cell=2, distance=24, event_times=(0, 4, 8, 12), event_frames=4),
    "events": Events(),
    # The same clips. A Swin does not learn the order from its label alone; questions on the times of flashes help.
    "events_timed": Events(timed=True),
    "dots": Dots(),
    "shortcut": Shortcut(),
    "shortcut_broken": Shortcut(agreement=1 / 4),  # reveals whether a network trained on `shortcut` relies on it
}


@dataclass(frozen=True, eq=False)
class WorldClips:
    """Rendered clips with their factors; the leading axis `n` is the clip."""

    world: WorldSpec
    seed: int
    index: Int[np.ndarray, " n"]  # indices of the clips within the seed
    factors: dict[str, Int[np.ndarray, " n"]]
    removed: frozenset[str]
    video: Float[np.ndarray, "n t h w 3"]  # 0..1

    def __repr__(self) -> str:
        return f"WorldClips({type(self.world).__name__}, seed {self.seed}, {len(self)} clips {self.video.shape[1:]})"

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> "WorldClips":
        """Return a subset of the clips, by slice, indices or mask."""
        rows = np.arange(len(self))[rows]
        factors = {name: values[rows] for name, values in self.factors.items()}
        return replace(self, index=self.index[rows], factors=factors, video=self.video[rows])

    @property
    def frames(self) -> UInt8[np.ndarray, "n t h w 3"]:
        """The clips as 8-bit frames, like those of a video file."""
        return np.rint(255 * self.video).astype(np.uint8)

    @property
    def labels(self) -> dict[str, Int[np.ndarray, " n"]]:
        """Class index of each question."""
        return {name: question.label(self.factors) for name, question in self.world.questions.items()}

    @cached_property
    def masks(self) -> dict[str, Bool[np.ndarray, "n t h w"]]:
        """Masks of the visible pixels of each entity except the scene, without removed and occluded parts.

        The distractor is named `dis`. `key` and `dis` include their events; `key_box` and `dis_box` are the full
        squares, including occluded parts.
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
        """Rows of `BOX_DTYPE`: clip (index within the seed), frame, track, and the box, lower right corner excluded.

        An object that crosses the border has one row for each of its two or four pieces, all of one track.
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
    """Render clips `first` to `first + n` (excluded) of `seed`; a clip depends only on its index and the seed.

    ```python
    clips = make_clips("small", 16, seed=0)
    clips.video.shape, clips.labels["direction"], clips.masks["key"]
    ```
    """
    world = as_world(world)
    if n < 1 or first < 0 or seed < 0:
        raise ValueError(f"expected n of at least 1, first and seed of at least 0; got {n=}, {first=}, {seed=}")
    index = np.arange(first, first + n)
    return _render(world, seed, index, sample_factors(world, seed, index), frozenset())


def sample_factors(world: WorldSpec, seed: int, index: Int[np.ndarray, " n"]) -> dict[str, Int[np.ndarray, " n"]]:
    """Draw the factors of these clips of `seed` without rendering."""
    values = np.stack([world.draw_factors(_random_generator(seed, FACTOR_STREAM, i)) for i in index.tolist()], 1)
    return dict(zip(world.factors, values, strict=True))


def redraw(clips: WorldClips, factor: str, seed: int) -> WorldClips:
    """Render the same clips with a different value of `factor`, uniform over the other values."""
    count = clips.world.factors.get(factor)
    if count is None:
        raise ValueError(unknown_name_message("factor", [factor], clips.world.factors))
    stream = (REDRAW_STREAM, list(clips.world.factors).index(factor))
    offsets = np.array([_random_generator(seed, *stream, i).integers(1, count) for i in clips.index.tolist()])
    factors = clips.factors | {factor: (clips.factors[factor] + offsets) % count}
    return _render(clips.world, clips.seed, clips.index, factors, clips.removed)


def remove(clips: WorldClips, entity: str) -> WorldClips:
    """Render the same clips without `entity`, revealing what is behind it; events of a removed object vanish too."""
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
    """Return the clips without noise, (n, t, h, w, 3)."""
    ground = world.ground(factors, removed)
    video = np.empty((len(ground), world.frames, world.size, world.size, 3), np.float32)
    video[:] = ground[..., None]
    for pixels, colours in _visible_layers(world, factors, removed).values():
        video.reshape(-1, 3)[pixels] = colours
    return video


def _visible_layers(world: WorldSpec, factors: dict[str, np.ndarray], removed: frozenset[str]) -> dict[str, Layer]:
    return {name: layer for name, layer in world.layers(factors).items() if not is_part_of(name, removed)}
