"""One forward and one backward pass, from which as many maps are made as share it."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from vtcav_jax import tap as taps
from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.attribution.targets import Seen, Target, as_target
from vtcav_jax.names import unknown
from vtcav_jax.tap import Tap, keep


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scored:
    """A model that answers with the target's score only, `(b, 1)`, and names its video as a stage too."""

    model: Any
    target: Any

    @property
    def stages(self) -> tuple[str, ...]:
        known = taps.stages_of(self.model)
        return (VIDEO, *known) if known else ()

    def __call__(self, video: Array, tap: Tap = keep) -> Array:
        seen = {}

        def recorded(name: str, value: Array) -> Array:
            value = tap(name, value)
            if name == self.target.stage:
                seen[name] = value
            return value

        return _one_each(self.target, self.model(tap(VIDEO, video), recorded), seen)[:, None]

    def score(self, video: Array) -> Array:
        return self(video)[:, 0]


def _one_each(target: Any, logits: Array, seen: Seen) -> Array:
    scores = target(logits, seen)
    if scores.shape != logits.shape[:1]:
        raise ValueError(f"the target must give one score per clip, {logits.shape[:1]}; it gave {scores.shape}")
    return scores


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Several:
    """A model that answers with the scores of several targets, `(targets, b)`, from one pass."""

    model: Any
    targets: tuple

    def scores(self, video: Array) -> Array:
        return self._of(*self._asked(video))

    def scores_in_place(self, other: Array, clips: int) -> Array:
        """`(targets, b)`: of one clip as if it stood in the place of each, from one pass of it."""
        return self._of(*jax.tree.map(lambda a: jnp.broadcast_to(a, (clips, *a.shape[1:])), self._asked(other)))

    def _asked(self, video: Array) -> tuple[Array, Seen]:
        wanted, seen = {target.stage for target in self.targets}, {}

        def recorded(name: str, value: Array) -> Array:
            if name in wanted:
                seen[name] = value
            return value

        return self.model(video, recorded), seen

    def _of(self, logits: Array, seen: Seen) -> Array:
        return jnp.stack([_one_each(target, logits, seen) for target in self.targets])

    def gradients(self, video: Array) -> Array:
        """`(targets, b, t, h, w, c)`, from one forward pass and as many backward ones as there are targets.

        These are written out: as one of all targets together they take 1.4 times as long on a CPU, whose caches are
        too small for that.
        """
        scores, back = jax.vjp(self.scores, video)
        one_by_one = jnp.eye(len(scores), dtype=scores.dtype)[:, :, None] * jnp.ones_like(scores)[None]
        return jnp.stack([back(one)[0] for one in one_by_one])


class Explained(NamedTuple):
    """What is to be explained, checked: everything that an explainer needs."""

    scored: Scored
    video: Array
    shapes: dict[str, tuple[int, ...]]  # of every stage, in forward order, the video first

    def stage(self, wanted: str | None) -> str:
        """`wanted` if it is a stage with time and space; by default the last of them on which the target depends."""
        grids = [name for name, shape in self.shapes.items() if len(shape) == 5]
        if wanted is None:
            order = list(self.shapes)
            end = order.index(self.scored.target.stage) if self.scored.target.stage else len(order)
            return [name for name in grids if order.index(name) <= end][-1]
        if wanted not in self.shapes:
            raise ValueError(unknown("stage", [wanted], grids))
        if wanted not in grids:
            raise ValueError(
                f"{wanted} is {self.shapes[wanted]}, without time and space; use one of {', '.join(grids)}"
            )
        return wanted

    def require(self, stages: Sequence[str]) -> None:
        """Refuses stages on which a target within the network cannot depend."""
        order, end = list(self.shapes), self.scored.target.stage
        if end is not None and (late := [s for s in stages if order.index(s) > order.index(end)]):
            raise ValueError(
                f"the target is at {end}, which does not depend on {', '.join(late)}; choose an earlier stage"
            )


class Passed(NamedTuple):
    """Scores `(b,)`, and by stage the activation and the score's gradient."""

    score: Array
    activations: dict[str, Array]
    gradients: dict[str, Array]


def explained(model: taps.Model, clips: ArrayLike, target: Target) -> Explained:
    """Checks everything that can be checked before time is spent."""
    video, model = taps._checked(clips), taps.as_pytree(model)
    logits, seen = jax.eval_shape(_everything, model, video)
    shapes = {VIDEO: video.shape} | {name: value.shape for name, value in seen.items()}
    checked = as_target(target, len(video), logits.shape[-1])
    if checked.stage is not None and checked.stage not in shapes:
        raise ValueError(unknown("stage", [checked.stage], shapes))
    return Explained(Scored(model, checked), video, shapes)


def several(model: taps.Model, clips: ArrayLike, targets: Sequence[Target]) -> tuple[Several, Array]:
    """Targets that share their passes, and the video; each is checked."""
    if not targets:
        raise ValueError("expected at least one target, got none")
    checked = [explained(model, clips, target) for target in targets]
    return Several(checked[0].scored.model, tuple(what.scored.target for what in checked)), checked[0].video


def passed(what: Explained, stages: Sequence[str]) -> Passed:
    """Activation and gradient at each of `stages`, from one forward and one backward pass."""
    what.require(stages)
    return at_stages(what.scored, what.video, stages)


def at_stages(scored: Scored, video: Array, stages: Sequence[str]) -> Passed:
    tapped = taps.activations_and_gradients(scored, video, _only, tuple(dict.fromkeys(stages)))
    return Passed(tapped.logits[:, 0], tapped.activations, tapped.gradients)


def scores(scored: Scored, video: Array) -> np.ndarray:
    """Of each clip `(b,)`, from one forward pass.

    Many passes are calls in a row and no loop inside a compiled function: there, XLA's CPU compiler is three times
    slower with convolutions, and the clips that are changed one after the other would have to fit in memory at once.
    """
    return on_host(_score(scored, video))


def scores_of(asked: Several, video: Array) -> np.ndarray:
    """Of each target and clip `(targets, b)`, from one forward pass."""
    return on_host(_scores(asked, video))


@jax.jit
def _score(scored: Scored, video: Array) -> Array:
    return scored.score(video)


@jax.jit
def _scores(asked: Several, video: Array) -> Array:
    return asked.scores(video)


def on_host(values: Array) -> np.ndarray:
    """As numpy, float32 at least."""
    array = np.asarray(values)
    return array if array.dtype == np.float64 else array.astype(np.float32)


def _only(scores: Array) -> Array:
    return scores[:, 0]


@jax.jit
def _everything(model, video):
    seen = OrderedDict()  # unlike a dict it keeps its order through jit

    def record(name, value):
        if name in seen:
            raise ValueError(f"the model names two values {name!r}; each stage needs a name of its own")
        seen[name] = value
        return value

    return model(video, record), seen
