"""One module per task: its arguments, and the library calls that carry it out."""

from collections.abc import Sequence
from typing import Any

from vtcav_jax import models
from vtcav_jax.attribution.target_spec import TargetSpec
from vtcav_jax.console import warn
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.open import open_source
from vtcav_jax.data.source import Source
from vtcav_jax.settings import SettingError, concerning


def open_nonempty(spec: str, name: str = "videos") -> Source:
    """Open the source that the setting `name` specifies; an empty one is an error."""
    with concerning(name):
        source = open_source(spec)
        if not source.items:
            raise ValueError(f"there are no videos in {spec}")
        return source


def load_network(name: str, *, random_weights: bool = False, seed: int = 0) -> models.Network:
    """Load a trained network; a preset only with `random_weights`."""
    if name not in models.PRESETS:
        with concerning("model"):
            return models.load(name)
    if not random_weights:
        raise SettingError(
            (
                "model",
                f"{name} is a network without weights; give the output of weights_conversion or --task=train, a network"
                f" that ships ({', '.join(models.shipped_networks())}), or --random_weights to try it out",
            )
        )
    warn(f"note: {name} has random weights: it has learnt nothing, and no answer of it means anything")
    return models.random_network(name, seed=seed)


def source_request(task: str, args: Any, source: Source, targets: Sequence[TargetSpec]) -> dict[str, Any]:
    """What a run record says of every task that explains targets on the clips of a source."""
    return {
        "task": task,
        "model": args.model,
        "random_weights": args.random_weights,
        "videos": source.spec,
        "clips": source.identity,
        "targets": [target.name for target in targets],
        "clips_per_video": args.sampling.clips_per_video,
        "interval_seconds": args.sampling.interval_seconds,
    }


def single_value(values: Sequence[str], name: str) -> str | None:
    """The value of a list setting of which the task takes one, or None."""
    if len(values) > 1:
        raise SettingError((name, f"expected one, got {','.join(values)}"))
    return next(iter(values), None)


def all_failed_error(source: Source, failed: Sequence[ReadResult]) -> SettingError:
    """The error where no video of a source could be read."""
    subject = f"none of the {len(failed)} videos" if len(failed) > 1 else "the only video"
    verb = "could" if len(failed) > 1 else "could not"
    return SettingError(("videos", f"{subject} of {source.spec} {verb} be read: {failed[0].failure}"))
