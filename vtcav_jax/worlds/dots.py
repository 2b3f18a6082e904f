"""World of dots whose glyph is defined by motion alone: dots inside it move coherently, dots around it are random.

The glyph does not move; it is a window onto a sheet of dots that slides behind it. Dots are squares on a lattice with
which the glyph and the steps of the sheet are aligned. Each square is lit independently with the same probability, on
the sheet and around it, and the sheet never slides by its whole length. In a single frame, all squares are therefore
independent and identically distributed, inside the glyph and outside, and so are the two values of each square in two
frames: neither a frame nor a difference of frames at the same place reveals the glyph. Only the displacement of lit
squares between frames does.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float

from vtcav_jax.worlds.spec import (
    DIRECTION_STEPS,
    DIRECTIONS,
    GLYPH_MASKS,
    GLYPH_SHAPES,
    EntitySquare,
    Factors,
    Layer,
    WorldQuestion,
    WorldSpec,
)

DOT_SEEDS = 2**31  # large enough that clips rarely share their dots
DARK_LEVEL, LIT_LEVEL = 0.15, 0.85  # three standard deviations of the noise from the limits of the range


@dataclass(frozen=True)
class Dots(WorldSpec):
    """World of dots; all dots within the glyph move in the same direction."""

    cell: int = 2  # pixels per side of a glyph cell, and the step of glyph positions
    speed: int = 1  # pixels per frame
    dot: int = 1  # pixels per side of a dot
    density: float = 0.5  # share of lit dots

    description: ClassVar[str] = (
        "synthetic clips of dots; those within a glyph move coherently. Questions: the form of the glyph, which no"
        " single frame shows, and the direction of its dots"
    )
    objects: ClassVar[tuple[str, ...]] = ("key",)

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.size < self.glyph or self.size % self.cell:
            problems.append(f"size {self.size} must be a multiple of cell {self.cell} and at least {self.glyph}")
        if not 0 < self.density < 1:
            problems.append(f"density {self.density} must be between 0 and 1")
        if self.dot < 1 or self.cell % self.dot or self.speed % self.dot:
            problems.append(f"cell {self.cell} and speed {self.speed} must be multiples of dot {self.dot}")
        if self.speed < 1 or self.speed * (self.frames - 1) >= self.size:
            problems.append(f"speed {self.speed} must be at least 1 and less than size / (frames - 1)")
        return problems

    @property
    def factors(self) -> dict[str, int]:
        """Number of values of each factor.

        `y`, `x` are the upper left corner of the glyph's square, in cells; `dots` is the seed of all dots, moving and
        random.
        """
        places = self.size // self.cell
        return {"form": 4, "direction": 4, "y": places, "x": places, "dots": DOT_SEEDS}

    @property
    def questions(self) -> dict[str, WorldQuestion]:
        """Questions on the form and the direction of motion, which depend on the same dots."""
        return {
            "form": WorldQuestion(GLYPH_SHAPES, ("form",), ("key",), "form"),
            "direction": WorldQuestion(DIRECTIONS, ("direction",), ("key",), "dynamic"),
        }

    @property
    def entities(self) -> dict[str, tuple[str, ...]]:
        """Removable entities and the factors that their removal leaves undefined.

        Removal replaces dots by new random ones, inside or around the key: dark areas would be unlike any clip.
        """
        return {"key": ("form", "direction"), "scene": ()}

    @property
    def tracks(self) -> tuple[str, ...]:
        return ("key",)

    def entity_square(self, factors: Factors, entity: str) -> EntitySquare:
        del entity
        y, x = (np.repeat(self.cell * factors[name][:, None], self.frames, 1) for name in "yx")
        return EntitySquare(y, x, self.glyph, np.ones(y.shape, bool))

    def ground(self, factors: Factors, removed: frozenset[str]) -> Float[np.ndarray, "n _ h w"]:
        """Return a dark ground, or one with the replacement dots if the scene is removed."""
        if "scene" not in removed:
            return np.full((len(factors["form"]), 1, self.size, self.size), DARK_LEVEL, np.float32)
        lit = [self._draw_lit(np.random.default_rng([dots, 1])) for dots in factors["dots"].tolist()]
        return np.where(self._enlarge_dots(np.stack(lit)), np.float32(LIT_LEVEL), np.float32(DARK_LEVEL))

    def layers(self, factors: Factors) -> dict[str, Layer]:
        around, sheet = self._lit_pixels(factors)
        square = self.entity_square(factors, "key").pixel_indices(self.size)
        glyphs = GLYPH_MASKS.repeat(self.cell, 1).repeat(self.cell, 2)[factors["form"]]
        pixels = square[np.broadcast_to(glyphs[:, None], square.shape)]
        colours = np.where(sheet.ravel()[pixels], np.float32(LIT_LEVEL), np.float32(DARK_LEVEL))[:, None]
        return {"scene": (np.flatnonzero(around), np.array(LIT_LEVEL, np.float32)), "key": (pixels, colours)}

    def _lit_pixels(self, factors: Factors) -> tuple[Bool[np.ndarray, "n t h w"], Bool[np.ndarray, "n t h w"]]:
        """Return the pixels of whole frames lit by the random dots around the key, and those lit by the sheet."""
        around, sheet = [], []
        for dots, direction in zip(factors["dots"].tolist(), factors["direction"].tolist()):
            random = np.random.default_rng(dots)
            around.append(self._draw_lit(random))
            first_sheet, step = self._draw_lit(random, 1)[0], self.speed // self.dot * DIRECTION_STEPS[direction]
            sheet.append([np.roll(first_sheet, tuple(t * step), (0, 1)) for t in range(self.frames)])
        return self._enlarge_dots(np.stack(around)), self._enlarge_dots(np.array(sheet))

    def _draw_lit(self, random: np.random.Generator, frames: int = 0) -> Bool[np.ndarray, "t side side"]:
        """Draw the lit squares of each frame independently."""
        side = self.size // self.dot
        return random.random((frames or self.frames, side, side), np.float32) < self.density

    def _enlarge_dots(self, lit: Bool[np.ndarray, "n t side side"]) -> Bool[np.ndarray, "n t h w"]:
        return lit.repeat(self.dot, 2).repeat(self.dot, 3)
