"""Worlds of two glyphs that move over a grating, flash, and wrap around the borders.

The green glyph (the key) determines the labels; the white one (the distractor) has the same statistics and determines
none, except for questions about both.

Height and width wrap around like a torus, so that the key's position in a single frame is uniform and independent of
its direction. The distractor keeps a minimum distance in the first frame only: later the glyphs may meet (their boxes
do in one clip in four), and the key is in front. Their relative position in a late frame therefore carries some
information on their directions: the best guess from one frame is right in 36 % instead of 25 % of clips.
`GlyphWorld(distance=0)` avoids this, but there both may start at the same position.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.worlds.spec import (
    CORE_CELLS,
    DIRECTION_STEPS,
    DIRECTIONS,
    GLYPH_MASKS,
    GLYPH_SHAPES,
    EntitySquare,
    Factors,
    Layer,
    WorldQuestion,
    WorldSpec,
    is_part_of,
)

GLYPH_QUESTIONS: dict[str, tuple[str, ...]] = {  # heads of `GlyphWorld`
    "shape": GLYPH_SHAPES,
    "direction": DIRECTIONS,
    "flash": ("red", "blue", "yellow", "magenta"),
    "scene": ("0", "1", "2", "3"),
}
GLYPH_TRACKS = ("key", "distractor", "key_event", "distractor_event")

# Cycles along y and x of each scene's grating; integers, so that it wraps.
GRATING_CYCLES = np.array([(0, 3), (2, 2), (3, 0), (2, -2)])
# Three standard deviations of the noise from the limits of the range.
KEY_COLOUR, DISTRACTOR_COLOUR = (0.15, 0.85, 0.15), (0.85, 0.85, 0.85)
FLASH_COLOURS = np.array([(0.85, 0.15, 0.15), (0.15, 0.15, 0.85), (0.85, 0.85, 0.15), (0.85, 0.15, 0.85)], np.float32)
MARKER_CELLS = 4  # cells per side

Flash = tuple[str, Int[np.ndarray, " n"], Int[np.ndarray, " n"]]  # entity, index of the colour, first frame


@cache
def _offsets(size: int, distance: int) -> Int[np.ndarray, "m 2"]:
    """Return all positions (y, x) at least `distance` from (0, 0) on the torus."""
    places = np.stack(np.divmod(np.arange(size * size), size), -1)
    return places[np.hypot(*np.minimum(places, size - places).T) >= distance]


def _prefix(entity: str) -> str:
    return "dis_" if entity.startswith("distractor") else ""


@dataclass(frozen=True)
class GlyphWorld(WorldSpec):
    """World in which each glyph flashes once; each question is about one factor of the key, or about the grating."""

    distance: int = 12  # minimum between the glyphs in the first frame, the short way around the torus
    event_times: tuple[int, ...] = (0, 2, 4, 6)  # possible first frames of a flash, which fills a glyph's core
    event_frames: int = 2
    amplitude: float = 0.15  # of the grating around 0.5

    description: ClassVar[str] = (
        "synthetic clips of a green and a white glyph that move over a grating; each flashes once. Questions: shape,"
        " direction and flash colour of the green glyph, and the orientation of the grating (scene)"
    )
    objects: ClassVar[tuple[str, ...]] = ("distractor", "key")

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.event_frames < 1:
            problems.append("event_frames must be at least 1")
        if self.size < 2 * self.glyph:
            problems.append(f"size {self.size} must be at least two glyphs of {self.glyph} pixels")
        if not len(_offsets(self.size, self.distance)):
            problems.append(f"no two positions are {self.distance} pixels apart on a torus of size {self.size}")
        if len(self.event_times) < 2 or not all(0 <= t <= self.frames - self.event_frames for t in self.event_times):
            problems.append(
                f"event_times {self.event_times} must be two or more, each at least {self.event_frames} frames before"
                f" the end of {self.frames}"
            )
        return problems

    @property
    def factors(self) -> dict[str, int]:
        """Number of values of each factor.

        `y`, `x` are the upper left corner of the key in the first frame; `offset` is the index of the distractor's
        position relative to it; `t0` is an index into `event_times`; `phase` is that of the grating, in `size` steps.
        """
        times = len(self.event_times)
        key = {"shape": 4, "direction": 4, "flash": 4, "scene": 4, "t0": times}
        return key | {"dis_shape": 4, "dis_direction": 4, "dis_flash": 4, "dis_t0": times} | self._places

    @property
    def _places(self) -> dict[str, int]:
        places = len(_offsets(self.size, self.distance))
        return {"y": self.size, "x": self.size, "offset": places, "phase": self.size}

    @property
    def questions(self) -> dict[str, WorldQuestion]:
        key, other = ("key",), ("distractor",)
        return {
            "shape": WorldQuestion(GLYPH_QUESTIONS["shape"], ("shape",), key, "static", other),
            "direction": WorldQuestion(GLYPH_QUESTIONS["direction"], ("direction",), key, "dynamic", other),
            "flash": WorldQuestion(GLYPH_QUESTIONS["flash"], ("flash",), key, "timed", other),
            "scene": WorldQuestion(GLYPH_QUESTIONS["scene"], ("scene",), ("scene",), "everywhere"),
        }

    @property
    def entities(self) -> dict[str, tuple[str, ...]]:
        """Removable entities and the factors that their removal leaves undefined."""
        return {
            "key": ("shape", "direction", "flash", "t0"),
            "distractor": ("dis_shape", "dis_direction", "dis_flash", "dis_t0"),
            "key_event": ("flash", "t0"),
            "distractor_event": ("dis_flash", "dis_t0"),
            "scene": ("scene", "phase"),
        }

    @property
    def tracks(self) -> tuple[str, ...]:
        return GLYPH_TRACKS

    def entity_square(self, factors: Factors, entity: str) -> EntitySquare:
        """Return the square of the key, of the distractor, or of a flash in the core of either."""
        start, direction = np.stack([factors["y"], factors["x"]]), factors["direction"]
        if _prefix(entity):
            start = start + _offsets(self.size, self.distance)[factors["offset"]].T
            direction = factors["dis_direction"]
        displacement = self.speed * np.arange(self.frames)
        y, x = (start[:, :, None] + DIRECTION_STEPS[direction].T[:, :, None] * displacement) % self.size
        if entity in self.objects:
            return EntitySquare(y, x, self.glyph, np.ones(y.shape, bool))
        visible = np.zeros(y.shape, bool)
        for name, _, first in self.flashes(factors, entity):
            if is_part_of(name, frozenset([entity])):
                visible |= self._is_flashing(first)
        core = CORE_CELLS.start * self.cell
        side = (CORE_CELLS.stop - CORE_CELLS.start) * self.cell
        return EntitySquare((y + core) % self.size, (x + core) % self.size, side, visible)

    def flashes(self, factors: Factors, entity: str) -> Iterator[Flash]:
        """Yield the flashes of the key or the distractor in temporal order."""
        prefix, owner = _prefix(entity), entity.split("_")[0]
        yield f"{owner}_event", factors[prefix + "flash"], np.array(self.event_times)[factors[prefix + "t0"]]

    def _is_flashing(self, first: Int[np.ndarray, " n"]) -> Bool[np.ndarray, "n t"]:
        since = np.arange(self.frames) - first[:, None]
        return (since >= 0) & (since < self.event_frames)

    def ground(self, factors: Factors, removed: frozenset[str]) -> Float[np.ndarray, "n _ h w"]:
        """Return the grating."""
        place = np.arange(self.size)
        wave = np.sin(2 * np.pi * place / self.size) * (0 if "scene" in removed else self.amplitude) + 0.5
        along_y, along_x = GRATING_CYCLES[factors["scene"]].T[:, :, None, None]
        step = (along_y * place[:, None] + along_x * place + factors["phase"][:, None, None]) % self.size
        return wave.astype(np.float32)[step][:, None]

    def layers(self, factors: Factors) -> dict[str, Layer]:
        layers: dict[str, Layer] = {}
        core = slice(CORE_CELLS.start * self.cell, CORE_CELLS.stop * self.cell)
        for entity, colour in (("distractor", DISTRACTOR_COLOUR), ("key", KEY_COLOUR)):
            square = self.entity_square(factors, entity).pixel_indices(self.size)
            glyphs = GLYPH_MASKS.repeat(self.cell, 1).repeat(self.cell, 2)[factors[_prefix(entity) + "shape"]]
            filled = np.broadcast_to(glyphs[:, None], square.shape)
            layers[entity] = square[filled], np.array(colour, np.float32)
            for event, colours, first in self.flashes(factors, entity):
                clip, frame = np.nonzero(self._is_flashing(first))
                pixels = square[clip, frame, core, core].reshape(len(clip), -1)
                layers[event] = pixels, FLASH_COLOURS[colours[clip]][:, None]
        return layers


def _either_is_ring(shape: np.ndarray, dis_shape: np.ndarray) -> np.ndarray:
    return (shape == GLYPH_SHAPES.index("ring")) | (dis_shape == GLYPH_SHAPES.index("ring"))


def _neither_is_bars(shape: np.ndarray, dis_shape: np.ndarray) -> np.ndarray:
    return (shape != GLYPH_SHAPES.index("bars")) & (dis_shape != GLYPH_SHAPES.index("bars"))


def _first_colour(pair: np.ndarray, order: np.ndarray) -> np.ndarray:
    return (pair + order) % len(FLASH_COLOURS)


def _second_colour(pair: np.ndarray, order: np.ndarray) -> np.ndarray:
    return (pair + 1 - order) % len(FLASH_COLOURS)


@dataclass(frozen=True)
class Events(GlyphWorld):
    """World in which each glyph flashes twice, in consecutive windows, in two adjacent colours of a cycle of four.

    `pair` is the index of the adjacent colours, `order` determines which comes first: forward is red, blue, yellow,
    magenta, red. Given the colour in one window, the other colour is equally likely to be the next or the previous one
    of the cycle, so neither one window nor both without their order determine the order. (With a fixed pair, one colour
    in the first window would.) A control question asks for the pair, which depends on the same flashes but not on their
    order.

    Two questions have two causes each. `either` is yes if at least one glyph is a ring, so that each cause suffices;
    `both` is yes if neither is bars, so that both are needed. Since factors stay uniform and independent, their yes
    rates are 7 and 9 of 16, and the best constant guess is right in 9 of 16. The shape of each glyph is a question too.
    """

    timed: bool = False  # adds questions on the first and second colour and their time, which help to learn the order

    description: ClassVar[str] = (
        "synthetic clips of a green and a white glyph that move over a grating; each flashes twice. Questions: the two"
        " flash colours of the green glyph and their order (in the world events_timed also the first colour, the second"
        " colour and their times), both shapes, whether at least one glyph is a ring, and whether neither is bars"
    )

    def problems(self) -> list[str]:
        gaps = np.diff(self.event_times)
        close = len(gaps) and gaps.min() < self.event_frames
        return super().problems() + (
            [f"event_times {self.event_times} must increase by at least {self.event_frames}"] if close else []
        )

    @property
    def _windows(self) -> Int[np.ndarray, "pairs 2"]:
        """First frames of every two consecutive windows."""
        return np.stack([self.event_times[:-1], self.event_times[1:]], -1)

    @property
    def factors(self) -> dict[str, int]:
        """Factors of `GlyphWorld`, with `pair`, `order` and `times` (index of the windows) for `flash` and `t0`."""
        times = len(self._windows)
        key = {"shape": 4, "direction": 4, "pair": 4, "order": 2, "scene": 4, "times": times}
        distractor = {"dis_shape": 4, "dis_direction": 4, "dis_pair": 4, "dis_order": 2, "dis_times": times}
        return key | distractor | self._places

    @property
    def questions(self) -> dict[str, WorldQuestion]:
        shapes, glyphs, answers = ("shape", "dis_shape"), ("key", "distractor"), ("no", "yes")
        colours = GLYPH_QUESTIONS["flash"]
        pairs = tuple(f"{colour} and {other}" for colour, other in zip(colours, (*colours[1:], colours[0])))
        order = WorldQuestion(("forward", "backward"), ("order",), ("key",), "dynamic", ("distractor",))
        questions = {
            "order": order,
            "colours": WorldQuestion(pairs, ("pair",), ("key",), "timed", ("distractor",)),
            "shape": WorldQuestion(GLYPH_SHAPES, ("shape",), ("key",), "static", ("distractor",)),
            "other": WorldQuestion(GLYPH_SHAPES, ("dis_shape",), ("distractor",), "static"),  # the key may hide it
            "either": WorldQuestion(answers, shapes, glyphs, "static", rule=_either_is_ring),
            "both": WorldQuestion(answers, shapes, glyphs, "static", rule=_neither_is_bars),
        }
        if self.timed:
            windows = tuple(" and ".join(map(str, pair)) for pair in self._windows.tolist())
            key, other = ("key",), ("distractor",)
            questions["first"] = WorldQuestion(colours, ("pair", "order"), key, "dated", other, _first_colour)
            questions["second"] = WorldQuestion(colours, ("pair", "order"), key, "dated", other, _second_colour)
            questions["when"] = WorldQuestion(windows, ("times",), key, "dated", other)
        return questions

    @property
    def entities(self) -> dict[str, tuple[str, ...]]:
        """Removable entities; `key_event` is both flashes of the key, `key_event_1` the earlier one."""
        entities: dict[str, tuple[str, ...]] = {}
        for entity, prefix in (("key", ""), ("distractor", "dis_")):
            event = (prefix + "pair", prefix + "order", prefix + "times")
            entities[entity] = (prefix + "shape", prefix + "direction", *event)
            entities |= dict.fromkeys((f"{entity}_event", f"{entity}_event_1", f"{entity}_event_2"), event)
        return entities | {"scene": ("scene", "phase")}

    @property
    def tracks(self) -> tuple[str, ...]:
        return tuple(name for name in self.entities if name != "scene" and not name.endswith("_event"))

    def flashes(self, factors: Factors, entity: str) -> Iterator[Flash]:
        prefix, owner = _prefix(entity), entity.split("_")[0]
        pair, order = factors[prefix + "pair"], factors[prefix + "order"]
        windows = self._windows[factors[prefix + "times"]]
        for i, rule in enumerate((_first_colour, _second_colour)):
            yield f"{owner}_event_{i + 1}", rule(pair, order), windows[:, i]


@dataclass(frozen=True)
class Shortcut(GlyphWorld):
    """World whose question is the direction, and whose corner marker has the direction's colour in most clips.

    A network that learns the marker before the motion tends to rely on the marker, which the gates treat as the cause.
    Not every network does: a small CNN learns the motion first. An `agreement` of 1/4 makes the marker independent of
    the direction.
    """

    agreement: float = 0.95  # share of clips in which the marker has the direction's colour

    description: ClassVar[str] = (
        "synthetic clips of a green and a white glyph that move over a grating; each flashes once. Question: the"
        " direction of the green glyph, with which the colour of the upper left corner is correlated"
    )
    objects: ClassVar[tuple[str, ...]] = ("distractor", "key", "marker")

    def problems(self) -> list[str]:
        wrong = not 0 <= self.agreement <= 1
        return super().problems() + ([f"agreement {self.agreement} must be between 0 and 1"] if wrong else [])

    @property
    def factors(self) -> dict[str, int]:
        """Factors of `GlyphWorld`, and `marker`, the index of its colour."""
        return super().factors | {"marker": 4}

    def draw_factors(self, random: np.random.Generator) -> Int[np.ndarray, " factors"]:
        """Draw independent factors, except that the marker equals the direction with probability `agreement`."""
        values, names = super().draw_factors(random), list(self.factors)
        other = 0 if random.random() < self.agreement else random.integers(1, 4)
        values[names.index("marker")] = (values[names.index("direction")] + other) % 4
        return values

    @property
    def questions(self) -> dict[str, WorldQuestion]:
        glyphs = ("key", "distractor")
        direction_question = WorldQuestion(
            DIRECTIONS, ("direction",), ("marker",), "everywhere", glyphs, cause=("marker",)
        )
        return {"direction": direction_question}

    @property
    def entities(self) -> dict[str, tuple[str, ...]]:
        return super().entities | {"marker": ("marker",)}

    @property
    def tracks(self) -> tuple[str, ...]:
        return (*super().tracks, "marker")

    def entity_square(self, factors: Factors, entity: str) -> EntitySquare:
        if entity != "marker":
            return super().entity_square(factors, entity)
        corner = np.zeros((len(factors["marker"]), self.frames), np.int64)
        return EntitySquare(corner, corner, MARKER_CELLS * self.cell, np.ones(corner.shape, bool))

    def layers(self, factors: Factors) -> dict[str, Layer]:
        pixels = self.entity_square(factors, "marker").pixel_indices(self.size)
        return super().layers(factors) | {"marker": (pixels, FLASH_COLOURS[factors["marker"]][:, None, None, None])}
