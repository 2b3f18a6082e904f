"""A world whose glyph is seen by motion alone: within it dots move together, around it each frame has new ones.

The glyph stays where it is, as a window onto a sheet of dots that slides behind it. Dots are squares on a lattice, to
which the glyph and the steps of the sheet keep. Whether a square is lit is drawn independently of all others, on the
sheet and around it with the same chance, and the sheet never slides by its whole length. In each single frame all
squares therefore are independent and alike, within the glyph and without, and in two frames so are the two values of
each: neither a frame nor where frames differ shows the glyph. Only that what is lit is found a step further in the next
frame does.
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

DOT_SEEDS = 2**31  # so that two clips hardly ever have the same dots
DARK_LEVEL, LIT_LEVEL = 0.15, 0.85  # three sigma of noise away from the ends of the range


@dataclass(frozen=True)
class Dots(WorldSpec):
    """Sizes; all dots that move together move the same way."""

    cell: int = 2  # pixels on a side of one of the glyph's cells, and the steps in which it is placed
    speed: int = 1  # pixels per frame
    dot: int = 1  # pixels on a side of a dot
    density: float = 0.5  # share of the dots' places that are lit

    description: ClassVar[str] = (
        "synthetic clips: dots, of which those within a glyph move together; asked are the glyph's form, which no"
        " single frame shows, and the direction of its dots"
    )
    objects: ClassVar[tuple[str, ...]] = ("key",)

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.size < self.glyph or self.size % self.cell:
            problems.append(f"size {self.size} must hold a glyph of {self.glyph} pixels, in whole cells of {self.cell}")
        if not 0 < self.density < 1:
            problems.append(f"density {self.density} must be a share of the places")
        if self.dot < 1 or self.cell % self.dot or self.speed % self.dot:
            problems.append(f"cell {self.cell} and speed {self.speed} must be multiples of dot {self.dot}")
        if self.speed < 1 or self.speed * (self.frames - 1) >= self.size:
            problems.append(f"speed {self.speed} must be at least 1 and bring no dot around in {self.frames} frames")
        return problems

    @property
    def factors(self) -> dict[str, int]:
        """Every factor and how many values it has.

        `y`, `x` are the upper left corner of the glyph's square, in cells; `dots` numbers the dots, those that move
        together and all others.
        """
        places = self.size // self.cell
        return {"form": 4, "direction": 4, "y": places, "x": places, "dots": DOT_SEEDS}

    @property
    def questions(self) -> dict[str, WorldQuestion]:
        """The direction is asked for as well: the same dots, but for another reason."""
        return {
            "form": WorldQuestion(GLYPH_SHAPES, ("form",), ("key",), "form"),
            "direction": WorldQuestion(DIRECTIONS, ("direction",), ("key",), "dynamic"),
        }

    @property
    def entities(self) -> dict[str, tuple[str, ...]]:
        """Without the key there are new dots in its place as well, without the scene other ones around the key: what is
        left is a clip like any other, where darkness would be unlike all."""
        return {"key": ("form", "direction"), "scene": ()}

    @property
    def tracks(self) -> tuple[str, ...]:
        return ("key",)

    def entity_square(self, factors: Factors, entity: str) -> EntitySquare:
        del entity
        y, x = (np.repeat(self.cell * factors[name][:, None], self.frames, 1) for name in "yx")
        return EntitySquare(y, x, self.glyph, np.ones(y.shape, bool))

    def ground(self, factors: Factors, removed: frozenset[str]) -> Float[np.ndarray, "n _ h w"]:
        """Dark, but for the dots that take the place of the scene's."""
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
        """Which pixels are lit by the dots around the key, were they everywhere, and by those of the sheet."""
        around, sheet = [], []
        for dots, direction in zip(factors["dots"].tolist(), factors["direction"].tolist()):
            random = np.random.default_rng(dots)
            around.append(self._draw_lit(random))
            first_sheet, step = self._draw_lit(random, 1)[0], self.speed // self.dot * DIRECTION_STEPS[direction]
            sheet.append([np.roll(first_sheet, tuple(t * step), (0, 1)) for t in range(self.frames)])
        return self._enlarge_dots(np.stack(around)), self._enlarge_dots(np.array(sheet))

    def _draw_lit(self, random: np.random.Generator, frames: int = 0) -> Bool[np.ndarray, "t side side"]:
        """Which squares are lit, in each frame anew."""
        side = self.size // self.dot
        return random.random((frames or self.frames, side, side), np.float32) < self.density

    def _enlarge_dots(self, lit: Bool[np.ndarray, "n t side side"]) -> Bool[np.ndarray, "n t h w"]:
        return lit.repeat(self.dot, 2).repeat(self.dot, 3)
