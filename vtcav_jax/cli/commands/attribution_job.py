"""What --task=attribute is asked for, resolved: network, targets, methods and their options."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from vtcav_jax import attribution
from vtcav_jax.attribution.attention import globally_mixed_stages
from vtcav_jax.attribution.cam_methods import CAM_METHODS
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.target_spec import TargetSpec, parse_targets
from vtcav_jax.attribution.videos.clip_windows import Window, stream_windows
from vtcav_jax.attribution.videos.explain_videos import (
    MethodStages,
    resolve_methods,
)
from vtcav_jax.cli.arguments import TARGETS_HELP, ModelArguments, RandomWeightsArguments, RunArguments, VideoArguments
from vtcav_jax.cli.commands import load_network, open_nonempty
from vtcav_jax.data import SamplingConfig, Source
from vtcav_jax.models import Network
from vtcav_jax.names import unknown_name_message
from vtcav_jax.settings import (
    BATCH_HELP,
    MAX_SEED,
    SEED_HELP,
    check_settings,
    concerning,
    nested,
    setting,
)

# The two with the best score for their cost, and the best known one
DEFAULT_ATTRIBUTION_METHODS = ("attn_lrp", "gradient_x_input", "gradcam")


N_REFERENCE_CLIPS = 8  # other clips that expected gradients start from


@dataclass(frozen=True, kw_only=True)
class AttributeArguments(ModelArguments, VideoArguments, RunArguments, RandomWeightsArguments):
    targets: tuple[str, ...] = setting((), f"{TARGETS_HELP}; also a concept vector of --concept_run")
    methods: tuple[str, ...] = setting(DEFAULT_ATTRIBUTION_METHODS, "METHOD or METHOD@STAGE, separated by commas")
    stages: tuple[str, ...] = setting((), "layers of the maps: names or globs [default: where each method is at home]")
    baselines: tuple[str, ...] = setting(
        ("zero",), "baselines of integrated gradients, averaged", choices=tuple(attribution.BASELINES)
    )
    ig_steps: int = setting(attribution.IG_STEPS, "steps of integrated gradients from each baseline", minimum=1)
    concept_run: Path | None = setting(None, "folder of a --task=tcav run with concept vectors")
    slide_over_video: bool = setting(False, "explain clip after clip to the end of the video")
    animations: Literal["webp", "mp4", "none"] = setting("webp", "format of the animated maps")
    sanity_clips: int = setting(0, "clips on which the maps' faults are measured", minimum=0)
    faithfulness_clips: int = setting(0, "clips on which faithfulness metrics are measured", minimum=0)
    sampling: SamplingConfig = nested(SamplingConfig)
    batch_size: int = setting(4, BATCH_HELP, minimum=1)
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)

    def __post_init__(self):
        check_settings(self)


@dataclass(frozen=True, eq=False)
class AttributionJob:
    """What the arguments ask for, resolved: the same for maps, sanity checks and faithfulness metrics."""

    args: AttributeArguments
    network: Network
    source: Source
    target_specs: tuple[TargetSpec, ...]
    method_stages: MethodStages
    options: dict[str, dict[str, Any]]  # of methods, by name


def resolve_job(args: AttributeArguments) -> AttributionJob:
    """Load the network and resolve targets, methods and their options; every fault is found here."""
    source = open_nonempty(args.videos)
    network = load_network(args.model, random_weights=args.random_weights, seed=args.seed)
    vector_names = [text for text in args.targets if "|" in text]
    other_targets = [text for text in args.targets if "|" not in text]
    with concerning("targets"):
        target_specs = parse_targets(network, other_targets) if other_targets or not vector_names else ()
        target_specs += concept_targets(vector_names, args.concept_run, network)
    with concerning("methods"):
        method_stages = resolve_methods(network, args.methods, args.stages, target_specs)
        options = _method_options(args, method_stages, network, source)
    return AttributionJob(args, network, source, target_specs, method_stages, options)


def mixed_stage_names(network: Network, target_specs: Sequence[TargetSpec], method_stages: MethodStages) -> list[str]:
    """The stages of maps at which every token may hold what any other place shows."""
    video = jnp.zeros((1, *network.clip_spec.shape))
    stage_names = []
    for target_spec in target_specs:
        context = prepare_explanation(
            network.model, video, target_spec.target(np.zeros((1, len(network.labels)), np.float32))
        )
        mixed = globally_mixed_stages(context)
        stage_names += [
            at for name, stage in method_stages if name in CAM_METHODS and (at := context.resolve_stage(stage)) in mixed
        ]
    return list(dict.fromkeys(stage_names))


def concept_targets(texts: Sequence[str], run: Path | None, network: Network) -> tuple[TargetSpec, ...]:
    """Concept vectors of a --task=tcav run as targets, `STAGE|CONCEPT/KIND/AGAINST`: where and when is the concept?"""
    if not texts:
        return ()
    if run is None:
        raise ValueError(f"{texts[0]} is a concept vector; say which --task=tcav run has it: --concept_run=RUN")
    from vtcav_jax import tap
    from vtcav_jax.tcav.features.pooling import broadcast_vector
    from vtcav_jax.tcav.vector_file import load_vectors_for

    bundle = load_vectors_for(network.model, run)
    if unknown_vectors := [text for text in texts if text not in bundle.arrays]:
        raise ValueError(unknown_name_message("concept vector", unknown_vectors, bundle.arrays))
    video = jnp.zeros((1, *network.clip_spec.shape))
    out = []
    for text in texts:
        stage = text.split("|")[0]
        shape = tap.activations(network.model, video, stage)[1][stage].shape[1:]
        if len(shape) != 4:
            raise ValueError(f"{text} is at {stage}, {shape}, without time and space; choose a vector of another stage")
        vector = broadcast_vector(bundle.arrays[text], shape, bundle.pool)
        places = np.prod([n for n, m in zip(shape, vector.shape) if m == 1])
        per_place = np.broadcast_to(vector, shape) / np.float32(places)
        out.append(TargetSpec(text, custom=attribution.ConceptTarget(stage, jnp.asarray(per_place))))
    return tuple(out)


def _method_options(
    args: AttributeArguments, methods: MethodStages, network: Network, source: Source
) -> dict[str, dict[str, Any]]:
    """What methods need besides a clip: the range of pixels, other clips."""
    clip_spec = network.clip_spec
    names, out = {name for name, _ in methods}, {}
    if "deep_taylor" in names:
        out["deep_taylor"] = {"bounds": attribution.pixel_bounds(clip_spec)}
    if "integrated_gradients" in names:
        out["integrated_gradients"] = {"baseline": args.baselines, "ig_steps": args.ig_steps}
    if "expected_gradients" in names:
        random = np.random.default_rng(args.seed)
        count = len(source.items)
        numbers = sorted(random.choice(count, min(N_REFERENCE_CLIPS, count), replace=False).tolist())
        results = stream_windows(source, clip_spec, SamplingConfig(), num_workers=args.num_workers, indices=numbers)
        clips = [one.clip.video for one in results if isinstance(one, Window)]
        if not clips:
            raise ValueError("expected_gradients starts from other clips of --videos, and none could be read")
        out["expected_gradients"] = {"references": clip_spec.normalise(np.concatenate(clips)), "seed": args.seed}
    return out
