"""What every world has: factors, questions about them, things to be seen, and how these are laid over each other."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Factors = Mapping[str, Int[np.ndarray, " n"]]
ABSENT_FACTOR = -1  # the value of a factor whose entity was taken out

# What an answer needs of time. static: any frame that shows the thing; everywhere: each frame alike; timed: the frames
# of an event, in any order; dynamic: frames in their order; form: several frames, forwards or backwards; dated: the
# frames of an event and when they come.
TemporalKind = Literal["static", "everywhere", "timed", "dynamic", "form", "dated"]

DIRECTION_STEPS = np.array([(0, -1), (0, 1), (-1, 0), (1, 0)])  # y, x of each direction
DIRECTIONS = ("left", "right", "up", "down")
GLYPH_SHAPES = ("plus", "ring", "x", "bars")
GLYPH_CELLS = 7  # cells on a side, about as many of them filled in each shape; the core is the middle 3 x 3
CORE_CELLS = slice(2, 5)
GLYPH_MASKS = np.array(
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


@dataclass(frozen=True)
class WorldQuestion:
    """What is asked of a clip, and what a network is meant to answer by."""

    answers: tuple[str, ...]
    factors: tuple[str, ...]  # that the label depends on
    entities: tuple[str, ...]  # in which the cause is to be seen
    temporal_kind: TemporalKind
    invariant_to: tuple[str, ...] = ()  # entities that look like a cause and are none
    rule: Callable[..., np.ndarray] = np.asarray  # the number of the answer, from the factors' values
    cause: tuple[str, ...] = ()  # the factors that a network goes by, where they are not the label's

    def label(self, factors: Factors) -> Int[np.ndarray, " n"]:
        return self.rule(*(factors[name] for name in self.factors)).astype(np.int64)

    def cause_label(self, factors: Factors) -> Int[np.ndarray, " n"]:
        """What a network says that goes by the cause; `ABSENT` where the cause alone makes the answer and is absent."""
        return self.rule(*(factors[name] for name in self.cause or self.factors)).astype(np.int64)


class EntitySquare(NamedTuple):
    """The square that something fills, frame by frame, on the torus."""

    y: Int[np.ndarray, "n t"]  # of the upper left corner
    x: Int[np.ndarray, "n t"]
    side: int
    visible: Bool[np.ndarray, "n t"]  # whether it is there

    def pixel_indices(self, size: int) -> Int[np.ndarray, "n t s s"]:
        """Of each pixel the place in the flattened clips, shown or not."""
        along = np.arange(self.side)
        rows, columns = (self.y[..., None] + along) % size, (self.x[..., None] + along) % size
        frames = np.arange(self.y.size).reshape(*self.y.shape, 1, 1)
        return (frames * size + rows[..., None]) * size + columns[:, :, None]


Layer = tuple[Int[np.ndarray, "..."], Float[np.ndarray, "..."]]  # pixels of the flattened clips, and their colours


@dataclass(frozen=True)
class WorldSpec(ABC):
    """Sizes of everything, in pixels and frames.

    An entity's name may be the beginning of another's: `key_event` goes with `key`, and is seen where `key` is.
    """

    frames: int = 8
    size: int = 32  # height and width
    cell: int = 1  # pixels on a side of one of a glyph's cells
    speed: int = 2  # pixels per frame
    noise: float = 0.05  # standard deviation, in each pixel and colour

    description: ClassVar[str]  # what is to be seen, in words
    objects: ClassVar[tuple[str, ...]]  # from back to front

    def __post_init__(self):
        if problems := self.problems():
            raise ValueError(f"there is no such world: {'; '.join(problems)}")

    def problems(self) -> list[str]:
        return ["frames and cell must be at least 1"] if min(self.frames, self.cell) < 1 else []

    @property
    def glyph(self) -> int:
        """Pixels on a side of a glyph."""
        return GLYPH_CELLS * self.cell

    @property
    @abstractmethod
    def factors(self) -> dict[str, int]:
        """Every factor and how many values it has."""

    @property
    @abstractmethod
    def questions(self) -> dict[str, WorldQuestion]: ...

    @property
    @abstractmethod
    def entities(self) -> dict[str, tuple[str, ...]]:
        """All that can be taken out, and the factors that then have no value."""

    @property
    def heads(self) -> dict[str, tuple[str, ...]]:
        """The names of the answers to each question."""
        return {name: question.answers for name, question in self.questions.items()}

    @property
    @abstractmethod
    def tracks(self) -> tuple[str, ...]:
        """The entities that have a box; a track's number is its place here."""

    def draw_factors(self, random: np.random.Generator) -> Int[np.ndarray, " factors"]:
        """The factors of one clip, uniform and independent."""
        return random.integers(list(self.factors.values()))

    def factors_without(self, factors: Factors, removed: Iterable[str]) -> dict[str, Int[np.ndarray, " n"]]:
        """The factors of clips without these entities: theirs are `ABSENT`."""
        absent = (name for entity in removed for name in self.entities[entity])
        return dict(factors) | {name: np.full_like(factors[name], ABSENT_FACTOR) for name in absent}

    @abstractmethod
    def entity_square(self, factors: Factors, entity: str) -> EntitySquare: ...

    @abstractmethod
    def ground(self, factors: Factors, removed: frozenset[str]) -> Float[np.ndarray, "n _ h w"]:
        """The grey that everything lies over."""

    @abstractmethod
    def layers(self, factors: Factors) -> dict[str, Layer]:
        """What lies over the ground, from back to front, by entity."""


def is_part_of(name: str, entities: frozenset[str]) -> bool:
    """Whether this is one of the entities or a part of one: a track, a layer."""
    return any(name == entity or name.startswith(entity + "_") for entity in entities)
