"""First pass of discovery: a sample of activations of fixed size, and the mean activation at each place."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.discovery.dictionaries import TokenPairs

HELD_OUT_SHARE = 1 / 4  # of the videos, which measures how much the dictionaries of each size explain


@dataclass
class TokenSample:
    """Activations at random places of each clip, with those one step later, and the mean activation at each place.

    Its size does not depend on the number of clips: each gives its share of `max_tokens`.
    """

    grid: tuple[int, int, int]
    per_clip: int
    seed: int
    now: list[Float[np.ndarray, "n c"]]
    after: list[Float[np.ndarray, "n c"]]
    places: list[Int[np.ndarray, "2 n"]]
    total: Float[np.ndarray, "t h w c"]  # over clips

    @classmethod
    def empty(cls, shape: tuple[int, ...], per_clip: int, seed: int) -> "TokenSample":
        grid = (shape[0], shape[1], shape[2])
        return cls(grid, min(per_clip, int(np.prod(grid))), seed, [], [], [], np.zeros(shape))

    @property
    def mean(self) -> Float[np.ndarray, "t h w c"]:
        return (self.total / max(len(self.now), 1)).astype(np.float32)

    def add(self, clip: int, activation: Float[np.ndarray, "t h w c"]) -> None:
        """Add tokens of a clip, at places that depend on its number and the seed alone."""
        self.total += activation
        tokens = activation.reshape(-1, activation.shape[-1])
        places = np.random.default_rng([self.seed, clip]).choice(len(tokens), self.per_clip, replace=False)
        steps, area = self.grid[0], self.grid[1] * self.grid[2]
        # The last step has no next one and is paired with the one before
        later = np.where(places + area < len(tokens), places + area, places - area if steps > 1 else places)
        self.now.append(tokens[places])
        self.after.append(tokens[later])
        self.places.append(np.stack([places, later]))

    def centred(self) -> tuple[TokenPairs, Float[np.ndarray, "n c"]]:
        """Return the tokens minus the mean at their place, and those of held-out videos."""
        means = self.mean.reshape(-1, self.total.shape[-1])
        pairs = [
            TokenPairs(now - means[places[0]], after - means[places[1]])
            for now, after, places in zip(self.now, self.after, self.places, strict=True)
        ]
        last = len(pairs) - max(1, int(HELD_OUT_SHARE * len(pairs)))
        fitted = TokenPairs(*(np.concatenate(part) for part in zip(*pairs[:last], strict=True)))
        return fitted, np.concatenate([pair.now for pair in pairs[last:]])

    def state(self) -> dict[str, np.ndarray]:
        """Return the content as arrays, for storage."""
        lists = {"now": self.now, "after": self.after, "places": self.places}
        return {"total": self.total, **{name: np.stack(parts) for name, parts in lists.items() if parts}}

    def merge(self, state: Mapping[str, np.ndarray]) -> None:
        """Add the clips of a stored part."""
        self.total = self.total + state["total"]
        for name in ("now", "after", "places"):
            getattr(self, name).extend(state.get(name, ()))
