"""Tests whether a map depends on the network's weights and on the explained class (Adebayo et al., 2018)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import ArrayLike, Float

from vtcav_jax.attribution.sanity_checks import shuffle_parameters, spearman
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.targets import Class, Margin, Target
from vtcav_jax.evaluation.faithfulness.robustness import Explainer, Maps, RobustnessPerClip, entropy
from vtcav_jax.evaluation.trivial_maps import clip_seeds
from vtcav_jax.names import unknown_name_message
from vtcav_jax.tap import Model, as_pytree, stages_of

LOGIT_STREAM = 1 << 19  # seed stream
REMAINING_PARAMETERS = "rest"  # parameters of no stage, usually the head


@dataclass(frozen=True, eq=False)
class Cascade:
    """Similarity to the original map while `layers` are randomised from head to stem; step 0 is the original.

    Absolute maps are compared, by rank correlation and by structure (SSIM on the map's own grid). `rise` is the
    relative increase of the map's entropy when all layers are randomised (efficient MPRT, Hedstroem et al., 2024).
    """

    layers: tuple[str, ...]
    rank: Float[np.ndarray, "steps b"]
    structure: Float[np.ndarray, "steps b"]
    rise: RobustnessPerClip | None  # None if layers are randomised one at a time

    @property
    def area(self) -> RobustnessPerClip:
        """Mean rank similarity over all steps but the original: low if the map depends on the weights."""
        return self.rank[1:].mean(0).astype(np.float32)


def cascade(
    explainer: Explainer,
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    original_maps: Maps | None = None,
    layers: Sequence[str] | None = None,
    independent: bool = False,
    seed: int = 0,
) -> Cascade:
    """Shuffle parameters cumulatively from head to stem, or in one layer at a time if `independent`.

    `layers` are prefixes of parameter names from head to stem; by default the parameters of no stage, then the stages.
    `original_maps` are the maps of the unchanged network, if they are available.
    """
    prepare_explanation(model, clips, target)
    model = as_pytree(model)
    names, shuffled = parameter_names(model), shuffle_parameters(model, seed)
    if shuffled is None:
        raise ValueError("the model has no parameters to shuffle")
    if layers is None:
        groups = {
            layer: members for layer, members in _groups(names, ("", *reversed(stages_of(model)))).items() if members
        }
    else:
        groups = _groups(names, layers)
        if empty := [layer for layer, members in groups.items() if not members]:
            raise ValueError(unknown_name_message("layer with parameters of its own", empty, names))
    before = np.abs(explainer(model, clips, target).map if original_maps is None else original_maps)
    rank, structure, current = [np.ones(len(before))], [np.ones(len(before))], before
    lost: set[str] = set()
    for members in groups.values():
        lost = set(members) if independent else lost | set(members)
        leaves, structure_def = jax.tree.flatten(model)
        pairs = zip(names, leaves, jax.tree.leaves(shuffled), strict=True)
        partly_shuffled = structure_def.unflatten([b if name in lost else a for name, a, b in pairs])
        current = np.abs(explainer(partly_shuffled, clips, target).map)
        rank.append(spearman(before, current))
        structure.append(ssim(before, current))
    rise = None if independent else (entropy(current) - entropy(before)) / entropy(before)
    return Cascade(tuple(groups), np.stack(rank).astype(np.float32), np.stack(structure).astype(np.float32), rise)


def random_logit(
    explainer: Explainer,
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    original_maps: Maps | None = None,
    seed: int = 0,
) -> RobustnessPerClip:
    """Return the rank correlation with the map of another, random class of the same head (Sixt et al., 2020).

    It is 1 for a method that ignores the class. `original_maps` are the maps of the class itself, if available.
    """
    context = prepare_explanation(model, clips, target)
    original_target = context.score_model.target
    if not isinstance(original_target, Class | Margin):
        raise ValueError(
            "this metric compares with another class and needs a target that is a class; give classes, Class or Margin"
        )
    k = jax.eval_shape(context.score_model.model, context.video).shape[-1]
    first, stop = (
        (0, k)
        if isinstance(original_target, Class) or original_target.head_range is None
        else np.asarray(original_target.head_range).tolist()
    )
    if stop - first < 2:
        raise ValueError("the head has one class; there is no other class to compare with")
    seeds = clip_seeds(np.asarray(context.video), seed, LOGIT_STREAM)
    offsets = np.array([np.random.default_rng(s).integers(1, stop - first) for s in seeds])
    others = first + (np.asarray(original_target.classes) - first + offsets) % (stop - first)
    original_maps = explainer(model, context.video, original_target).map if original_maps is None else original_maps
    other = explainer(model, context.video, replace(original_target, classes=others)).map
    return spearman(original_maps, other).astype(np.float32)


def ssim(a: Maps, b: Maps, reach: int = 1) -> RobustnessPerClip:
    """Return the SSIM of maps scaled to 0 to 1, over windows of `2 reach + 1` places along each axis."""
    x, y = (_min_max(maps) for maps in (a, b))
    mx, my = _smooth(x, reach), _smooth(y, reach)
    vx, vy, xy = _smooth(x * x, reach) - mx**2, _smooth(y * y, reach) - my**2, _smooth(x * y, reach) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mx * my + c1) * (2 * xy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return similarity.mean((1, 2, 3)).astype(np.float32)


def parameter_names(model: Model) -> list[str]:
    """Return the dotted name of each leaf of the model, in tree order."""
    leaves = jax.tree_util.tree_flatten_with_path(model)[0]
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]


def _groups(names: Sequence[str], layers: Sequence[str]) -> dict[str, list[str]]:
    """Assign each name to the longest layer that is its prefix; the layer "" gets the others."""
    groups: dict[str, list[str]] = {layer: [] for layer in layers}
    for name in names:
        if fitting := [layer for layer in layers if not layer or f"{name}.".startswith(f"{layer}.")]:
            groups[max(fitting, key=len)].append(name)
    return {layer or REMAINING_PARAMETERS: members for layer, members in groups.items()}


def _min_max(maps: Maps) -> Float[np.ndarray, "b t h w"]:
    low, high = (f(maps, axis=(1, 2, 3), keepdims=True).astype(np.float64) for f in (np.min, np.max))
    return (maps - low) / np.where(high > low, high - low, 1)


def _smooth(x: Float[np.ndarray, "b t h w"], reach: int) -> Float[np.ndarray, "b t h w"]:
    """Return the mean over the window around each place, cut off at the edges."""
    for axis in (1, 2, 3):
        n = x.shape[axis]
        sums = np.concatenate([np.zeros_like(np.take(x, [0], axis)), x.cumsum(axis)], axis)
        first, last = np.maximum(np.arange(n) - reach, 0), np.minimum(np.arange(n) + reach + 1, n)
        shape = [n if a == axis else 1 for a in range(4)]
        x = (np.take(sums, last, axis) - np.take(sums, first, axis)) / (last - first).reshape(shape)
    return x
