"""What the flags ask for, in the library's own terms: settings, folders, and the commands of other tasks."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from vtcav_jax.cli import flags


def recipe():
    from vtcav_jax.training.loop import TrainConfig

    return TrainConfig(
        steps=flags.STEPS.value,
        batch_size=flags.BATCH_SIZE.value or 64,
        learning_rate=flags.LEARNING_RATE.value,
        warmup=min(100, flags.STEPS.value // 10) if flags.WARMUP.value is None else flags.WARMUP.value,
        weight_decay=flags.WEIGHT_DECAY.value,
        clip_norm=flags.CLIP_NORM.value,
        label_smoothing=flags.LABEL_SMOOTHING.value,
        augment=flags.AUGMENT.value,  # type: ignore[arg-type]
        static_fraction=flags.TIMELESS.value,
        static_from_step=flags.TIMELESS_FROM.value,
        static_heads=tuple(flags.TIMELESS_HEADS.value),
        temporal_jitter=flags.RANDOM_START.value,
        checkpoint_every=flags.CHECKPOINT_EVERY.value,
        seed=flags.SEED.value,
    )


def mining():
    from vtcav_jax.concepts import MiningConfig, parse_concepts

    return MiningConfig(
        parse_concepts(flags.CONCEPTS.value),
        clip_frames=flags.FRAMES.value,
        controls=flags.CONTROLS.value,
        detector=path(flags.DETECTOR),
        boxes=path(flags.BOXES),
        tracker=flags.TRACKER.value,
        detector_size=flags.IMAGE_SIZE.value,
        min_confidence=flags.LEAST_CONFIDENCE.value,
        min_area=flags.LEAST_AREA.value,
        min_track_length=flags.LEAST_LENGTH.value,
        max_iou=flags.GREATEST_OVERLAP.value,
        max_clips_per_video=flags.MOST_PER_VIDEO.value,
        max_clips=flags.MOST.value,
        num_random_sets=flags.RANDOM_SETS.value,
        seed=flags.SEED.value,
    )


def testing():
    from vtcav_jax.tcav.experiment.config import ExperimentConfig

    return ExperimentConfig(
        stages=tuple(flags.STAGES.value),
        comparisons=tuple(flags.TESTS.value),
        permute=flags.NULL.value,
        statistic=flags.STATISTIC.value,
        pool=flags.POOL.value,
        score_fn=flags.TARGET_FN.value,
        sensitivity=flags.SENSITIVITY.value,
        estimator=flags.ESTIMATOR.value,
        l2=flags.LAM.value,
        solver=flags.SOLVER.value,
        permutations=flags.PERMUTATIONS.value,
        alpha=flags.ALPHA.value,
        correction=flags.CORRECTION.value,
        max_target_clips=flags.N_TARGETS.value,
        calibration_trials=flags.SELF_CHECK.value,
        steering_controls=flags.STEERING.value,
        protocol=flags.PROTOCOL.value,
        export_vectors=flags.EXPORT.value,
        seed=flags.SEED.value,
        batch_size=flags.BATCH_SIZE.value or 8,
    )


def measuring():
    from vtcav_jax.attribution.motion.reliance import MotionConfig

    return MotionConfig(
        method=one(flags.METHODS) or "gradient_x_input",
        stage=one(flags.STAGES),
        motion_threshold_sd=flags.SIGMAS.value,
        seed=flags.SEED.value,
        compare_optical_flow=flags.FLOW.value,
    )


def pyramid():
    from vtcav_jax.cli.commands.pyramid import PyramidConfig

    return PyramidConfig(
        stages=tuple(flags.STAGES.value),
        depth=flags.DEPTH.value,
        channel_selection=flags.SELECT.value,
        max_channels=flags.KERNELS.value,
        edge_rule=flags.EDGES.value,  # type: ignore[arg-type]
        max_clips=flags.PYRAMID_CLIPS.value,
        seed=flags.SEED.value,
    )


def how():
    from vtcav_jax.data import SamplingConfig

    return SamplingConfig(
        flags.NUM_CLIPS.value, flags.VIEWS.value, normalise=False, interval_seconds=flags.INTERVAL.value
    )  # type: ignore[arg-type]


def run_folder(name: str | None = None) -> Path | None:
    name = flags.RUN.value if name is None else name
    return None if not name else Path(name) if "/" in name else Path("runs") / name


def path(flag: absl_flags.FlagHolder) -> Path | None:
    return None if flag.value is None else Path(flag.value)


def concepts_folder() -> str | None:
    if len(flags.CONCEPTS.value) > 1:
        given = ",".join(flags.CONCEPTS.value)
        raise ValueError(f"--concepts={given}: --task={flags.TASK.value} takes one folder of concept sets")
    return next(iter(flags.CONCEPTS.value), None)


def needed(flag: absl_flags.FlagHolder, what: str) -> str:
    if flag.value is None:
        raise ValueError(f"--{flag.name} is missing: {what}; see --help")
    return flag.value


def one(flag: absl_flags.FlagHolder) -> str | None:
    if len(flag.value) > 1:
        raise ValueError(f"--{flag.name}={','.join(flag.value)}: --task={flags.TASK.value} takes one")
    return next(iter(flag.value), None)


def random_seed() -> int | None:
    return flags.SEED.value if flags.RANDOM_WEIGHTS.value else None


def flags_text() -> str:
    """Every flag that the task takes, as it was resolved, as a flagfile."""
    mine = [flag for flag in flags.ours() if flags.TASK.value in (flags.tasks_of(flag) or [flags.TASK.value])]
    told = [flag for flag in mine if flag.value is not None and flag.name != flags.PROCESS_ID.name]
    return "".join(f"{flag.serialize()}\n" for flag in told if flag.serialize())


def given(task: str, but: Sequence[absl_flags.FlagHolder] = ()) -> list[str]:
    """What was given of the flags that a task takes, to be given to it."""
    names = {*(flag.name for flag in but), "task", "quiet", "log_json"}
    some = [flag for flag in flags.ours() if task in (flags.tasks_of(flag) or [task]) and flag.name not in names]
    return [flag.serialize() for flag in some if not flag.using_default_value]


def style() -> list[str]:
    """The flags of how things are told, for another process."""
    return [flag.serialize() for flag in (absl_flags.FLAGS["quiet"], absl_flags.FLAGS["log_json"])]
