"""Arguments of the task attribute, resolved to a network, targets, methods and their options."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from vtcav_jax import attribution
from vtcav_jax.attribution.attention import globally_mixed_stages
from vtcav_jax.attribution.cam_methods import CAM_METHODS
from vtcav_jax.attribution.conditional.directions import FORMS, parse_directions
from vtcav_jax.attribution.conditional.relevance import CONDITIONAL_METHODS
from vtcav_jax.attribution.conditional.videos import ConditionalPlan
from vtcav_jax.attribution.registry import PERTURBATION_METHODS
from vtcav_jax.attribution.removal.engine import HOLD
from vtcav_jax.attribution.removal.optimised_masks import MASK_METHODS
from vtcav_jax.attribution.removal.plans import DEFAULT_BUDGET
from vtcav_jax.attribution.removal.segments import SegmentKind
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.target_spec import TargetSpec, parse_targets
from vtcav_jax.attribution.videos.clip_windows import Window, stream_windows
from vtcav_jax.attribution.videos.explain_videos import (
    MethodStages,
    resolve_methods,
)
from vtcav_jax.cli.arguments import (
    TARGET_FORMS,
    LabelTreeArguments,
    ModelArguments,
    ProcessArguments,
    RandomWeightsArguments,
    RunArguments,
    VideoArguments,
)
from vtcav_jax.cli.commands import load_network, open_nonempty
from vtcav_jax.data import SamplingConfig, Source
from vtcav_jax.models import Network
from vtcav_jax.names import unknown_name_message
from vtcav_jax.report.animation.overlay import DEFAULT_STYLE, OverlayStyle
from vtcav_jax.report.colormaps import color_table
from vtcav_jax.settings import (
    BATCH_HELP,
    MAX_BATCH_SIZE,
    MAX_SEED,
    SEED_HELP,
    SettingError,
    check_settings,
    concerning,
    nested,
    setting,
)

# The two methods with the best ground-truth score for their cost, and Grad-CAM as the best-known method
DEFAULT_ATTRIBUTION_METHODS = ("attn_lrp", "gradient_x_input", "gradcam")
N_REFERENCE_CLIPS = 8  # number of reference clips of expected gradients
RENAMED_SETTINGS = {"infill": "baseline"}  # setting: keyword argument, where they differ


def parse_sizes(values: Sequence[str]) -> tuple[int, int, int] | None:
    """Return frames, height and width of a flag such as `--window=4,16,16`; None without values."""
    if not values:
        return None
    if len(values) != 3 or not all(value.isascii() and value.isdigit() for value in values):
        raise ValueError(f"expected frames, height and width as three whole numbers, got {','.join(values)}")
    t, h, w = map(int, values)
    return t, h, w


@dataclass(frozen=True)
class RemovalConfig:
    """Settings of removal methods; None: the method's default."""

    window: tuple[int, ...] | None = setting(
        None,
        "window of occlusion and sos in frames, rows and columns [default: a share of the clip]",
        convert=parse_sizes,
    )
    stride: tuple[int, ...] | None = setting(
        None, "stride of occlusion and sos, in the same order [default: half a window]", convert=parse_sizes
    )
    segments: SegmentKind | None = setting(
        None, "parts that loco, up, lime, kernel_shap and shapley remove; flow needs OpenCV [default: grid]"
    )
    masks: int | None = setting(
        None, "random masks of lime, kernel_shap and rise [default: the budget]", minimum=2, maximum=10**7
    )
    infill: str | None = setting(
        None,
        "replacement of removed parts [default: zero, and hold for frame_shapley]",
        choices=(*attribution.BASELINES, HOLD),
    )
    budget: int | None = setting(
        None,
        f"maximum forward passes per clip of removal methods and optimised masks [default: {DEFAULT_BUDGET}]",
        minimum=2,
        maximum=10**7,
    )

    def options(self, method: str, seed: int = 0) -> dict[str, Any]:
        """Return the given settings that a method takes, as its keyword arguments, and the seed."""
        parameters = inspect.signature(attribution.METHODS[method]).parameters
        settings = {RENAMED_SETTINGS.get(name, name): value for name, value in vars(self).items() if value is not None}
        settings["seed"] = seed
        return {name: value for name, value in settings.items() if name in parameters}

    def check(self, methods: Sequence[str]) -> None:
        """Raise a `SettingError` for given settings that none of `methods` takes."""
        parameters = {name for method in methods for name in self.options(method)}
        unused = [n for n, v in vars(self).items() if v is not None and RENAMED_SETTINGS.get(n, n) not in parameters]
        if unused:
            text = f"none of the methods {', '.join(methods)} uses it; choose one that does, or omit it"
            raise SettingError(*((name, text) for name in unused))


@dataclass(frozen=True, kw_only=True)
class AttributeArguments(
    ModelArguments, LabelTreeArguments, VideoArguments, RunArguments, RandomWeightsArguments, ProcessArguments
):
    targets: tuple[str, ...] = setting(
        (),
        f"{TARGET_FORMS}; with --label_tree GROUP or 'A vs siblings' (A: a class, group or wildcard); with"
        " --concept_run STAGE|CONCEPT/CLIP_TYPE/NEGATIVES [default: every head]",
    )
    methods: tuple[str, ...] = setting(
        DEFAULT_ATTRIBUTION_METHODS, "attribution methods, separated by commas: METHOD or METHOD@STAGE"
    )
    stages: tuple[str, ...] = setting((), "layers of the maps: names or globs [default: each method's default layer]")
    baselines: tuple[str, ...] = setting(
        ("zero",),
        "baselines of integrated gradients; the maps of several are averaged",
        choices=tuple(attribution.BASELINES),
    )
    ig_steps: int = setting(
        attribution.IG_STEPS, "integration steps of integrated gradients, per baseline", minimum=1, maximum=10**5
    )
    concept_run: Path | None = setting(None, "run folder of the task tcav whose concept vectors can be targets")
    through: tuple[str, ...] = setting(
        (),
        f"channels and concepts, separated by commas: {FORMS}; shows how much of each class's relevance passes through"
        " them, where, and in which clips, by the first of --methods that can (gradient_x_input and relevance"
        " propagation)",
    )
    slide_over_video: bool = setting(False, "explain consecutive clips from the start to the end of each video")
    animations: Literal["webp", "mp4", "none"] = setting("webp", "format of the animated maps")
    film_size: int = setting(
        DEFAULT_STYLE.panel_side,
        "width in pixels to which smaller clips are enlarged in animations, by a whole factor",
        minimum=16,
        maximum=2048,
    )
    colormap: str = setting(
        DEFAULT_STYLE.colormap,
        "colours of animated maps: a colour map of matplotlib  [default: viridis; RdBu_r for signed maps]",
    )
    sanity_clips: int = setting(
        0, "number of clips for sanity checks of the maps (flicker, shuffled weights, ...); 0: no checks", minimum=0
    )
    faithfulness_clips: int = setting(
        0, "number of clips for faithfulness metrics of the maps; 0: no metrics", minimum=0
    )
    removal: RemovalConfig = nested(RemovalConfig)
    sampling: SamplingConfig = nested(SamplingConfig)
    batch_size: int = setting(4, BATCH_HELP, minimum=1, maximum=MAX_BATCH_SIZE)
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)

    def __post_init__(self):
        check_settings(self)
        if self.colormap:
            with concerning("colormap"):
                color_table(signed=True, name=self.colormap)

    @property
    def style(self) -> OverlayStyle:
        """Appearance of the animations."""
        return OverlayStyle(self.film_size, self.colormap)


@dataclass(frozen=True, eq=False)
class AttributionJob:
    """Resolved arguments, which maps, sanity checks and faithfulness metrics share."""

    args: AttributeArguments
    network: Network
    source: Source
    target_specs: tuple[TargetSpec, ...]
    method_stages: MethodStages
    options: dict[str, dict[str, Any]]  # by method name
    conditional: ConditionalPlan | None = None  # of --through


def resolve_job(args: AttributeArguments) -> AttributionJob:
    """Load the network and resolve targets, methods and their options; every invalid argument raises here."""
    source = open_nonempty(args.videos)
    network = load_network(args, args.seed)
    vector_names = [text for text in args.targets if "|" in text]
    other_targets = [text for text in args.targets if "|" not in text]
    with concerning("targets"):
        target_specs = parse_targets(network, other_targets) if other_targets or not vector_names else ()
        target_specs += concept_targets(vector_names, args.concept_run, network)
    with concerning("methods"):
        method_stages = resolve_methods(network, args.methods, args.stages, target_specs)
        args.removal.check([name for name, _ in method_stages])
        options = _method_options(args, method_stages, network, source)
        for name, _ in method_stages:
            attribution.planned_passes(name, network.clip_spec.shape[:3], **options.get(name, {}))
    conditional = _plan_conditional(args, network, target_specs, [name for name, _ in method_stages])
    return AttributionJob(args, network, source, target_specs, method_stages, options, conditional)


def _plan_conditional(
    args: AttributeArguments, network: Network, target_specs: Sequence[TargetSpec], methods: Sequence[str]
) -> ConditionalPlan | None:
    """Return the channels and concepts of `--through` and the method, or None without the flag."""
    if not args.through:
        return None
    with concerning("through"):
        directions = parse_directions(network, args.through)
        video = jnp.zeros((1, *network.clip_spec.shape))
        for target_spec in target_specs:
            target = target_spec.target(np.zeros((1, len(network.labels)), np.float32))
            prepare_explanation(network.model, video, target).require_reachable(directions.stages)
    if not (suitable := [name for name in methods if name in CONDITIONAL_METHODS]):
        raise SettingError(
            ("methods", f"--through needs one of {', '.join(CONDITIONAL_METHODS)}; got {', '.join(methods)}")
        )
    return ConditionalPlan(directions, suitable[0], args.seed)


def describe_plan(job: AttributionJob) -> str:
    """Return one line with the number of videos and targets, and each method's forward passes per clip."""
    clip_shape, n_targets = job.network.clip_spec.shape[:3], len(job.target_specs)
    costs = {
        name: attribution.planned_passes(name, clip_shape, **job.options.get(name, {})) for name, _ in job.method_stages
    }
    per_target = [f"{name} {passes}" for name, passes in costs.items() if name not in PERTURBATION_METHODS]
    shared = [f"{name} {passes}" for name, passes in costs.items() if name in PERTURBATION_METHODS]
    parts = [f"{', '.join(per_target)} for each target"] if per_target else []
    parts += [f"{', '.join(shared)} for all targets together"] if shared else []
    if job.conditional is not None:
        parts.append(f"3 for each of {len(job.conditional.directions.chosen)} in --through and each target")
    return (
        f"plan: videos: {len(job.source.items)}, targets: {n_targets}; forward passes per clip (a backward pass counts"
        f" as two): {'; '.join(parts)}"
    )


def mixed_stage_names(network: Network, target_specs: Sequence[TargetSpec], method_stages: MethodStages) -> list[str]:
    """Return the stages of CAM maps at which attention has mixed all positions of a frame."""
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
    """Return vectors of a tcav run, `STAGE|CONCEPT/CLIP_TYPE/NEGATIVES`, as targets whose maps show concepts."""
    if not texts:
        return ()
    if run is None:
        raise ValueError(
            f"{texts[0]} is a concept vector; name the run of the task tcav that has it with --concept_run=DIR"
        )
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
            raise ValueError(
                f"{text} is at {stage}, whose shape {shape} has no time and space; choose a vector of another stage"
            )
        vector = broadcast_vector(bundle.arrays[text], shape, bundle.pool)
        places = np.prod([n for n, m in zip(shape, vector.shape) if m == 1])
        per_place = np.broadcast_to(vector, shape) / np.float32(places)
        out.append(TargetSpec(text, custom=attribution.ConceptTarget(stage, jnp.asarray(per_place))))
    return tuple(out)


def _method_options(
    args: AttributeArguments, methods: MethodStages, network: Network, source: Source
) -> dict[str, dict[str, Any]]:
    """Return the method-specific options: pixel bounds, baselines, reference clips."""
    clip_spec = network.clip_spec
    names = {name for name, _ in methods}
    budgeted = names & {*PERTURBATION_METHODS, *MASK_METHODS}
    out = {name: args.removal.options(name, args.seed) for name in budgeted}
    if "deep_taylor" in names:
        out["deep_taylor"] = {"bounds": attribution.pixel_bounds(clip_spec)}
    if "integrated_gradients" in names:
        out["integrated_gradients"] = {"baseline": args.baselines, "ig_steps": args.ig_steps}
    if "expected_gradients" in names:
        random = np.random.default_rng(args.seed)
        count = len(source.items)
        indices = sorted(random.choice(count, min(N_REFERENCE_CLIPS, count), replace=False).tolist())
        results = stream_windows(source, clip_spec, SamplingConfig(), num_workers=args.num_workers, indices=indices)
        clips = [window.clip.video for window in results if isinstance(window, Window)]
        if not clips:
            raise ValueError("expected_gradients needs reference clips from --videos, and none could be read")
        out["expected_gradients"] = {"references": clip_spec.normalise(np.concatenate(clips)), "seed": args.seed}
    return out
