"""Synthetic clips whose cause is known: two glyphs that move, flash and wrap around over a grating.

Every property of a clip is a factor, drawn uniformly and independently of all others, and a question asks for one of
them. The green glyph (the key) answers the questions; the white one (the distractor) has the same statistics and
answers none. Any factor can be drawn again and anything be taken out by rendering the same clip once more, its noise
included, so that each counterfactual is an ordinary clip and not a picture with a hole.

Height and width close to a torus. The key therefore is, in each single frame, equally likely at each place whatever
its direction. The distractor keeps its distance in the first frame only: later the two may meet (the boxes do in one
clip of four), and then the key is in front. How they stand to each other in a late frame thus tells a little about
their directions; the best guess from one frame is right in 36 % instead of 25 %. `World(distance=0)` is without that,
and there they may start in the same place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.names import unknown

QUESTIONS: dict[str, tuple[str, ...]] = {
    "shape": ("plus", "ring", "x", "bars"),
    "direction": ("left", "right", "up", "down"),
    "flash": ("red", "blue", "yellow", "magenta"),
    "scene": ("0", "1", "2", "3"),
}
SHOWS = (
    "synthetic clips: a green glyph and a white one move over a grating, each flashes once; shape, direction and flash"
    " are asked of the green one, the scene is the grating's stripes"
)
ENTITIES = ("key", "distractor", "key_event", "distractor_event", "scene")
TRACKS = ENTITIES[:4]  # those with a box; the track number is the place in this list

STEPS = np.array([(0, -1), (0, 1), (-1, 0), (1, 0)])  # y, x of each direction
CYCLES = np.array([(0, 3), (2, 2), (3, 0), (2, -2)])  # of each scene's grating along y and x; whole, so that it wraps
KEY, DISTRACTOR = (0.15, 0.85, 0.15), (0.85, 0.85, 0.85)  # three sigma of noise away from the ends of the range
FLASHES = np.array([(0.85, 0.15, 0.15), (0.15, 0.15, 0.85), (0.85, 0.85, 0.15), (0.85, 0.15, 0.85)], np.float32)
GLYPH = 7  # cells on a side, about as many of them filled in each shape; the core is the middle 3 x 3
CORE = slice(2, 5)
GLYPHS = np.array(
    [
        [[c == "#" for c in row] for row in rows.split()]
        for rows in (
            "..###.. ..###.. ####### ####### ####### ..###.. ..###..",
            "..###.. .#####. ##...## ##...## ##...## .#####. ..###..",
            "##...## ###.### .#####. ..###.. .#####. ###.### ##...##",
            "####### ####### ....... ####### ....... ####### #######",
        )
    ]
)

AT_ONCE = 32  # clips: what is rendered together stays in cache
FACTOR_STREAM, NOISE_STREAM, REDRAW_STREAM = range(3)

BOX = np.dtype([(name, np.int64) for name in ("clip", "frame", "track", "x1", "y1", "x2", "y2")])


@cache
def _offsets(size: int, distance: int) -> Int[np.ndarray, "m 2"]:
    """Every y, x that is at least `distance` from 0, 0 on the torus."""
    places = np.stack(np.divmod(np.arange(size * size), size), -1)
    return places[np.hypot(*np.minimum(places, size - places).T) >= distance]


@dataclass(frozen=True)
class World:
    """Sizes of everything, in pixels and frames."""

    frames: int = 8
    size: int = 32  # height and width
    cell: int = 1  # pixels on a side of one of a glyph's cells
    speed: int = 2  # pixels per frame
    distance: int = 12  # at least, between the two glyphs in the first frame, the short way around the torus
    event_times: tuple[int, ...] = (0, 2, 4, 6)  # the frame in which a core may begin to flash
    event_frames: int = 2
    amplitude: float = 0.15  # of the grating around 0.5
    noise: float = 0.05  # standard deviation, in each pixel and colour

    def __post_init__(self):
        problems = []
        if min(self.frames, self.cell, self.event_frames) < 1:
            problems.append("frames, cell and event_frames must be at least 1")
        if self.size < 2 * self.glyph:
            problems.append(f"size {self.size} must hold two glyphs of {self.glyph} pixels side by side")
        if not len(_offsets(self.size, self.distance)):
            problems.append(f"no two places are {self.distance} pixels apart on a torus of size {self.size}")
        if len(self.event_times) < 2 or not all(0 <= t <= self.frames - self.event_frames for t in self.event_times):
            problems.append(
                f"event_times {self.event_times} must be two or more and leave {self.event_frames} of the"
                f" {self.frames} frames"
            )
        if problems:
            raise ValueError(f"there is no such world: {'; '.join(problems)}")

    @property
    def glyph(self) -> int:
        """Pixels on a side of a glyph."""
        return GLYPH * self.cell

    @property
    def factors(self) -> dict[str, int]:
        """Every factor and how many values it has.

        `y`, `x` are the upper left corner of the key in the first frame; `offset` numbers the places that the
        distractor may then have seen from there; `t0` numbers `event_times`; `phase` is that of the grating, in
        `size` steps.
        """
        times, places = len(self.event_times), len(_offsets(self.size, self.distance))
        key = {"shape": 4, "direction": 4, "flash": 4, "scene": 4, "t0": times}
        distractor = {"dis_shape": 4, "dis_direction": 4, "dis_flash": 4, "dis_t0": times}
        return key | distractor | {"y": self.size, "x": self.size, "offset": places, "phase": self.size}


WORLDS = {
    "small": World(),
    # Twice the small one in space and in time. Speed is the same: over the clip, the same share of the picture.
    "large": World(frames=16, size=64, cell=2, distance=24, event_times=(0, 4, 8, 12), event_frames=4),
}


@dataclass(frozen=True, eq=False)
class Clips:
    """Rendered clips and all there is to know about them; the leading axis `n` is the clip."""

    world: World
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
        return {question: self.factors[question] for question in QUESTIONS}

    @cached_property
    def masks(self) -> dict[str, Bool[np.ndarray, "n t h w"]]:
        """Where things are to be seen: nothing of what was removed, nor of the distractor behind the key.

        `key` and `dis` include their events; `key_box` and `dis_box` are the full squares, hidden or not.
        """
        world = self.world
        shape = (len(self), world.frames, world.size, world.size)
        layers = _layers(world, self.factors, self.removed)

        def mask(*pixels: np.ndarray) -> np.ndarray:
            found = np.zeros(shape, bool)
            for some in pixels:
                found.reshape(-1)[some.ravel()] = True
            return found

        def box(entity: str) -> np.ndarray:
            return mask() if entity in self.removed else mask(_square(world, self.factors, entity))

        def pixels(*entities: str) -> list[np.ndarray]:
            return [layers[entity][0] for entity in entities if entity in layers]

        key = mask(*pixels("key", "key_event"))
        return {
            "key": key,
            "key_box": box("key"),
            "dis": mask(*pixels("distractor", "distractor_event")) & ~key,
            "dis_box": box("distractor"),
            "key_event": mask(*pixels("key_event")),
            "dis_event": mask(*pixels("distractor_event")) & ~key,
        }

    @cached_property
    def boxes(self) -> np.ndarray:
        """Rows of `BOX`: clip (of the seed), frame, track, and the box, its lower right end excluded.

        What crosses the border has a row for each of its two or four pieces, all of one track.
        """
        rows = []
        for track, entity in enumerate(TRACKS):
            if entity in self.removed or entity.removesuffix("_event") in self.removed:
                continue
            y, x = _corners(self.world, self.factors, entity)
            side, shown = self.world.glyph, np.ones(y.shape, bool)
            if entity.endswith("_event"):
                first, side = CORE.start * self.world.cell, (CORE.stop - CORE.start) * self.world.cell
                y, x = (y + first) % self.world.size, (x + first) % self.world.size
                shown = _flashing(self.world, self.factors, entity)
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


def make_clips(world: str | World, n: int, seed: int, *, first: int = 0) -> Clips:
    """Clips `first` to `first + n` of `seed`; each is the same however many are made with it."""
    world = as_world(world)
    if n < 1 or first < 0 or seed < 0:
        raise ValueError(f"expected n of at least 1, first and seed of at least 0; got {n=}, {first=}, {seed=}")
    index = np.arange(first, first + n)
    return _rendered(world, seed, index, drawn_factors(world, seed, index), frozenset())


def drawn_factors(world: World, seed: int, index: Int[np.ndarray, " n"]) -> dict[str, Int[np.ndarray, " n"]]:
    """The factors of these clips of `seed`, without the pictures."""
    counts = list(world.factors.values())
    values = np.stack([_random(seed, FACTOR_STREAM, i).integers(counts) for i in index.tolist()], 1)
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
    if entity not in ENTITIES:
        raise ValueError(unknown("entity", [entity], ENTITIES))
    return _rendered(clips.world, clips.seed, clips.index, clips.factors, clips.removed | {entity})


def as_world(world: str | World) -> World:
    if isinstance(world, World):
        return world
    if world not in WORLDS:
        raise ValueError(unknown("world", [world], WORLDS))
    return WORLDS[world]


def _random(seed: int, *stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))


def _rendered(
    world: World, seed: int, index: np.ndarray, factors: dict[str, np.ndarray], removed: frozenset[str]
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


def _picture(world: World, factors: dict[str, np.ndarray], removed: frozenset[str]) -> np.ndarray:
    """The clips without noise, (n, t, h, w, 3)."""
    n, size = len(factors["scene"]), world.size
    wave = np.sin(2 * np.pi * np.arange(size) / size) * (0 if "scene" in removed else world.amplitude) + 0.5
    along_y, along_x = CYCLES[factors["scene"]].T[:, :, None, None]
    place = np.arange(size)
    step = (along_y * place[:, None] + along_x * place + factors["phase"][:, None, None]) % size
    picture = np.empty((n, world.frames, size, size, 3), np.float32)
    picture[:] = wave.astype(np.float32)[step][:, None, :, :, None]
    for pixels, colours in _layers(world, factors, removed).values():
        picture.reshape(-1, 3)[pixels] = colours
    return picture


def _layers(
    world: World, factors: dict[str, np.ndarray], removed: frozenset[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What lies over the scene, from back to front: for each entity the pixels of all clips and their colours."""
    layers = {}
    core = slice(CORE.start * world.cell, CORE.stop * world.cell)
    for entity, prefix, colour in (("distractor", "dis_", DISTRACTOR), ("key", "", KEY)):
        if entity in removed:
            continue
        square = _square(world, factors, entity)
        glyphs = GLYPHS.repeat(world.cell, 1).repeat(world.cell, 2)[factors[prefix + "shape"]]
        filled = np.broadcast_to(glyphs[:, None], square.shape)
        layers[entity] = square[filled], np.array(colour, np.float32)
        if (event := f"{entity}_event") not in removed:
            clip, frame = np.nonzero(_flashing(world, factors, entity))
            pixels = square[clip, frame, core, core].reshape(len(clip), -1)
            layers[event] = pixels, FLASHES[factors[prefix + "flash"][clip]][:, None]
    return layers


def _square(world: World, factors: dict[str, np.ndarray], entity: str) -> Int[np.ndarray, "n t g g"]:
    """Of each pixel of the glyph's square, the place in the flattened clips."""
    y, x = _corners(world, factors, entity)
    along = np.arange(world.glyph)
    rows, columns = (y[..., None] + along) % world.size, (x[..., None] + along) % world.size
    frames = np.arange(y.size).reshape(*y.shape, 1, 1)
    return (frames * world.size + rows[..., None]) * world.size + columns[:, :, None]


def _corners(world: World, factors: dict[str, np.ndarray], entity: str) -> Int[np.ndarray, "2 n t"]:
    """Upper left corner of the key's or the distractor's glyph, y and x, in each frame."""
    start, direction = np.stack([factors["y"], factors["x"]]), factors["direction"]
    if entity.startswith("distractor"):
        start = start + _offsets(world.size, world.distance)[factors["offset"]].T
        direction = factors["dis_direction"]
    moved = world.speed * np.arange(world.frames)
    return (start[:, :, None] + STEPS[direction].T[:, :, None] * moved) % world.size


def _flashing(world: World, factors: dict[str, np.ndarray], entity: str) -> Bool[np.ndarray, "n t"]:
    t0 = np.array(world.event_times)[factors["dis_t0" if entity.startswith("distractor") else "t0"]]
    since = np.arange(world.frames) - t0[:, None]
    return (since >= 0) & (since < world.event_frames)
