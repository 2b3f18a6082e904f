"""`WorldSpec`, the interface of synthetic worlds: factors, questions about them, entities, and their layers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Factors = Mapping[str, Int[np.ndarray, " n"]]
ABSENT_FACTOR = -1  # value of a factor whose entity was removed

# Temporal information that a class depends on. static: any frame that shows the entity; everywhere: visible alike in
# each frame; timed: the frames of an event, in any order; dynamic: frames in order; form: several frames, forwards or
# backwards; dated: the frames of an event and their times.
TemporalKind = Literal["static", "everywhere", "timed", "dynamic", "form", "dated"]

DIRECTION_STEPS = np.array([(0, -1), (0, 1), (-1, 0), (1, 0)])  # y, x of each direction
DIRECTIONS = ("left", "right", "up", "down")
GLYPH_SHAPES = ("plus", "ring", "x", "bars")
GLYPH_CELLS = 7  # per side; shapes fill similar numbers of cells; the core is the middle 3 x 3
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
    """Question about a clip (one labelled factor with its own head) and its intended cause."""

    answers: tuple[str, ...]
    factors: tuple[str, ...]  # determine the label
    entities: tuple[str, ...]  # show the cause
    temporal_kind: TemporalKind
    invariant_to: tuple[str, ...] = ()  # entities that look like a cause but are none
    rule: Callable[..., np.ndarray] = np.asarray  # maps values of the factors to the class index
    cause: tuple[str, ...] = ()  # factors that a network relies on, if other than `factors`

    def label(self, factors: Factors) -> Int[np.ndarray, " n"]:
        return self.rule(*(factors[name] for name in self.factors)).astype(np.int64)

    def cause_label(self, factors: Factors) -> Int[np.ndarray, " n"]:
        """Return the class that the cause determines; `ABSENT_FACTOR` where a sole cause was removed."""
        return self.rule(*(factors[name] for name in self.cause or self.factors)).astype(np.int64)


class EntitySquare(NamedTuple):
    """Square of an entity in each frame, on the torus."""

    y: Int[np.ndarray, "n t"]  # of the upper left corner
    x: Int[np.ndarray, "n t"]
    side: int
    visible: Bool[np.ndarray, "n t"]  # whether it exists in the frame; occlusion does not count

    def pixel_indices(self, size: int) -> Int[np.ndarray, "n t s s"]:
        """Return the index of each pixel in the flattened clips, visible or not."""
        along = np.arange(self.side)
        rows, columns = (self.y[..., None] + along) % size, (self.x[..., None] + along) % size
        frames = np.arange(self.y.size).reshape(*self.y.shape, 1, 1)
        return (frames * size + rows[..., None]) * size + columns[:, :, None]


Layer = tuple[Int[np.ndarray, "..."], Float[np.ndarray, "..."]]  # pixel indices in the flattened clips, and colours


@dataclass(frozen=True)
class WorldSpec(ABC):
    """Specification of a world; sizes are in pixels and frames.

    If an entity's name is a prefix of another's, the other is a part of it: `key_event` is a part of `key`.
    """

    frames: int = 8
    size: int = 32  # height and width
    cell: int = 1  # pixels per side of a glyph cell
    speed: int = 2  # pixels per frame
    noise: float = 0.05  # standard deviation per pixel and colour

    description: ClassVar[str]  # for report pages
    objects: ClassVar[tuple[str, ...]]  # from back to front

    def __post_init__(self):
        if problems := self.problems():
            raise ValueError(f"invalid world: {'; '.join(problems)}")

    def problems(self) -> list[str]:
        return ["frames and cell must be at least 1"] if min(self.frames, self.cell) < 1 else []

    @property
    def glyph(self) -> int:
        """Pixels per side of a glyph."""
        return GLYPH_CELLS * self.cell

    @property
    @abstractmethod
    def factors(self) -> dict[str, int]:
        """Number of values of each factor."""

    @property
    @abstractmethod
    def questions(self) -> dict[str, WorldQuestion]: ...

    @property
    @abstractmethod
    def entities(self) -> dict[str, tuple[str, ...]]:
        """Removable entities and the factors that their removal leaves undefined."""

    @property
    def heads(self) -> dict[str, tuple[str, ...]]:
        """Class names of each question."""
        return {name: question.answers for name, question in self.questions.items()}

    @property
    @abstractmethod
    def tracks(self) -> tuple[str, ...]:
        """Entities with a box; the index is the track number."""

    def draw_factors(self, random: np.random.Generator) -> Int[np.ndarray, " factors"]:
        """Draw the factors of one clip, uniform and independent."""
        return random.integers(list(self.factors.values()))

    def factors_without(self, factors: Factors, removed: Iterable[str]) -> dict[str, Int[np.ndarray, " n"]]:
        """Return the factors of clips without these entities, whose factors become `ABSENT_FACTOR`."""
        absent = (name for entity in removed for name in self.entities[entity])
        return dict(factors) | {name: np.full_like(factors[name], ABSENT_FACTOR) for name in absent}

    @abstractmethod
    def entity_square(self, factors: Factors, entity: str) -> EntitySquare: ...

    @abstractmethod
    def ground(self, factors: Factors, removed: frozenset[str]) -> Float[np.ndarray, "n _ h w"]:
        """Return the grey background."""

    @abstractmethod
    def layers(self, factors: Factors) -> dict[str, Layer]:
        """Return the layers over the ground by entity, from back to front."""


def is_part_of(name: str, entities: frozenset[str]) -> bool:
    """Return True if the name is that of one of the entities or of a part of one."""
    return any(name == entity or name.startswith(entity + "_") for entity in entities)
