"""Asks a video network what it has learnt. One task a run:

  python main.py --task=stages --model=video_swin_b_k400
      every stage one can look into: its shape, features, and memory per 100 clips
  python main.py --task=predict --model=worlds_swin --videos=FOLDER
      the likeliest classes of each clip, and which files could not be read
  python main.py --task=train --model=video_swin_tiny --videos=FOLDER --held_out=OTHER --run=NAME
      a network of one's own, trained or fine-tuned; the same command continues what was interrupted
  python main.py --task=prepare --videos=FOLDER --model=video_swin_t_k400 --out=DIR
      decodes a corpus once; --videos=DIR reads it back
  python main.py --task=mine --videos=FOLDER --concepts=person,"sports ball" --detector=yolov8n.pt --out=DIR
      concept sets: static and dynamic clips of what a detector (or --boxes=FILE.csv) finds, controls, random sets
  python main.py --task=tcav --model=worlds_swin --targets=direction:left --target_videos=W --concepts=DIR --run=NAME
      which concepts raise or lower a class's score, at which stage, with intervals and p-values that hold
  python main.py --task=explain_concepts --model=worlds_swin --run=NAME --videos=W --targets=direction:left --out=DIR
      the concepts of a --task=tcav run in other clips: how much of each, when, and what it does to the score
  python main.py --task=explain --model=worlds_swin --videos=W --methods=gradcam,attn_lrp --targets=direction --run=NAME
      where and when: maps of each clip as .npz, films with the maps laid over; --limits: what the maps get wrong
  python main.py --task=motion --model=worlds_swin --videos=W --targets=direction,shape --run=NAME
      how much of each decision is motion, by class and clip, with intervals

Videos are a folder (of class folders), one file, a manifest (.csv: path, label or label:HEAD, start, end), a dataset
(tfds:NAME:SPLIT), what --task=prepare wrote, or synthetic clips (worlds:small:COUNT:SEED).

Flags can be kept in a file: --flagfile=FILE, one --name=value a line; put it first, what follows it wins.
"""

import sys
from pathlib import Path

from absl import app, flags, logging

_TASK = flags.DEFINE_string(
    "task", None, "what to do: stages, predict, train, prepare, mine, tcav, explain_concepts, explain, motion"
)
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "a preset (video_swin_t_k400, ...), a trained network that ships (worlds_swin, worlds_cnn), or a path",
)
_VIDEOS = flags.DEFINE_string("videos", None, "where clips come from: folder, file, .csv, tfds:..., worlds:...")
_CLIPS = flags.DEFINE_string(
    "clips",
    None,
    "predict, instead of --videos: .npy file of clips (b, t, h, w, 3); uint8 is 0..255, float32 is normalised already",
)
_NUM_CLIPS = flags.DEFINE_integer(
    "num_clips", 1, "predict, explain, motion: clips per video, spread over it", lower_bound=1
)
_VIEWS = flags.DEFINE_enum("views", "centre", ["centre", "three"], "predict: crops per clip")
_INTERVAL = flags.DEFINE_float("interval_seconds", None, "between frames, in place of the preset's in frames")
_WORKERS = flags.DEFINE_integer("workers", 2, "processes that decode videos; 0: none but this one", lower_bound=0)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "clips at once (predict, explain, motion: 4, train: 64, tcav: 8)", lower_bound=1
)
_TOP = flags.DEFINE_integer("top", 5, "predict: classes shown per clip and head", lower_bound=1)
_OUT = flags.DEFINE_string(
    "out", None, "predict: also write the table to this .csv; prepare, mine, explain_concepts: the folder to write"
)
_RANDOM_WEIGHTS = flags.DEFINE_boolean(
    "random_weights", False, "predict, tcav, explain, motion: let a preset answer without weights, to try it out"
)
_SEED = flags.DEFINE_integer("seed", 0, "for whatever is random", lower_bound=0, upper_bound=2**32 - 1)
_RUN = flags.DEFINE_string(
    "run", None, "train, tcav, explain_concepts, explain, motion: the folder of the run; without a slash, in runs/"
)
_HELD_OUT = flags.DEFINE_string("held_out", None, "train: videos on which the trained network is tested, as --videos")
_STEPS = flags.DEFINE_integer("steps", 1000, "train: batches", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "train: after the warm-up, from where it falls to 0")
_WARMUP = flags.DEFINE_integer(
    "warmup", None, "train: steps until the full learning rate; by default a tenth of all, at most 100", lower_bound=0
)
_WEIGHT_DECAY = flags.DEFINE_float("weight_decay", 0.05, "train: of AdamW")
_CLIP_NORM = flags.DEFINE_float("clip_norm", 1.0, "train: greatest norm of a gradient")
_AUGMENT = flags.DEFINE_enum(
    "augment",
    "none",
    ["none", "flip", "torus"],
    "train: flip mirrors half of the clips (not where left and right are classes); torus shifts worlds:... clips",
)
_TIMELESS = flags.DEFINE_float("timeless", 0.0, "train: share of clips that are frozen or shuffled in time")
_TIMELESS_FROM = flags.DEFINE_integer("timeless_from", 0, "train: the step from which there are such clips")
_TIMELESS_HEADS = flags.DEFINE_list("timeless_heads", [], "train: heads whose answers are still true of these clips")
_RANDOM_START = flags.DEFINE_boolean("random_start", False, "train: another part of the video each time")
_CHECKPOINT_EVERY = flags.DEFINE_integer("checkpoint_every", 200, "train: steps", lower_bound=1)
_BFLOAT16 = flags.DEFINE_boolean("bfloat16", False, "train: compute in bfloat16; parameters stay float32")
_GATES = flags.DEFINE_integer("gates", 0, "train, on a world: clips on which its causes are checked", lower_bound=0)
_CONCEPTS = flags.DEFINE_list(
    "concepts",
    [],
    "mine: LABEL, NAME=LABEL or NAME=LABEL@HEAD:ANSWER, separated by commas, with quotes around blanks; tcav: the"
    " folder of concept sets",
)
_DETECTOR = flags.DEFINE_string(
    "detector", None, "mine: weights of an ultralytics detector (a .pt is a pickle: code in it is run) or .onnx"
)
_LIST_LABELS = flags.DEFINE_boolean("list_labels", False, "mine: only print what --detector knows")
_BOXES = flags.DEFINE_string(
    "boxes", None, "mine, instead of --detector: .csv (file, frame, track, label, x1, y1, x2, y2)"
)
_TRACKER = flags.DEFINE_enum("tracker", "bytetrack", ["bytetrack", "botsort"], "mine: how boxes become tracks")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 640, "mine: longer side at which the detector looks", lower_bound=32)
_FRAMES = flags.DEFINE_integer("frames", 16, "mine: of a clip; with --model, as many as that sees", lower_bound=1)
_CONTROLS = flags.DEFINE_boolean("controls", True, "mine: frozen, shuffled, reversed and jitter twins of dynamic clips")
_LEAST_CONFIDENCE = flags.DEFINE_float("least_confidence", 0.5, "mine: of a crop, on average")
_LEAST_AREA = flags.DEFINE_float("least_area", 0.001, "mine: of a box, as a part of the frame")
_LEAST_LENGTH = flags.DEFINE_integer(
    "least_length", None, "mine: of a track in frames; by default a clip's", lower_bound=1
)
_GREATEST_OVERLAP = flags.DEFINE_float("greatest_overlap", 0.5, "mine: between the boxes of two chosen clips")
_MOST_PER_VIDEO = flags.DEFINE_integer("most_per_video", 5, "mine: clips of a concept and kind", lower_bound=1)
_MOST = flags.DEFINE_integer("most", 50, "mine: clips of a concept and kind in all", lower_bound=1)
_RANDOM_SETS = flags.DEFINE_integer("random_sets", 10, "mine: disjoint sets of negatives", lower_bound=0)
_NEGATIVES = flags.DEFINE_string("negatives", None, "mine: other videos for the random sets, as --videos")
_TARGET_VIDEOS = flags.DEFINE_string(
    "target_videos", None, "mine: clips of the class, which no concept may come from; tcav: those that are explained"
)
_TARGETS = flags.DEFINE_list(
    "targets",
    [],
    "tcav, explain_concepts: CLASS or HEAD:CLASS, separated by commas; explain, motion: also HEAD (its own answer),"
    " 'A vs B', 'A or B', STAGE#CHANNEL, a vector of --vectors; by default every head",
)
_STAGES = flags.DEFINE_list(
    "stages",
    [],
    "tcav: names or globs ('*': all); by default the ends of the network's parts, such as layers.2; explain, motion:"
    " where maps are made, by default where each method is at home",
)
_TESTS = flags.DEFINE_list(
    "tests",
    ["absolute", "motion", "relative"],
    "tcav: absolute (against random sets), motion (dynamic clips against their controls), relative (against the other"
    " concepts), pairs (against each)",
)
_NULL = flags.DEFINE_enum("null", "labels", ["labels", "sets"], "tcav: what is exchanged: clips, or whole random sets")
_STATISTIC = flags.DEFINE_enum(
    "statistic", "step", ["step", "unit"], "tcav: of the tests: derivative times the step to the concept, or by itself"
)
_POOL = flags.DEFINE_enum("pool", "space", ["none", "space", "time", "all"], "tcav: over what activations are averaged")
_TARGET_FN = flags.DEFINE_enum("target_fn", "logit", ["logit", "log_prob", "margin"], "tcav: what a class scores")
_SENSITIVITY = flags.DEFINE_enum(
    "sensitivity", "gradient", ["gradient", "integrated"], "tcav: at the clip, or averaged over the way to it from 0"
)
_ESTIMATOR = flags.DEFINE_enum(
    "estimator", "logistic", ["logistic", "ridge", "mean_difference"], "tcav: how a concept becomes a vector"
)
_LAM = flags.DEFINE_float("lam", 0.01, "tcav: penalty of the vectors' length, the same at every stage")
_PERMUTATIONS = flags.DEFINE_integer(
    "permutations", None, "tcav: of each test's labels; by default 999, or what its family needs", lower_bound=1
)
_ALPHA = flags.DEFINE_float("alpha", 0.05, "tcav: chance of a false finding, in the whole family")
_CORRECTION = flags.DEFINE_enum("correction", "holm", ["holm", "bh", "bonferroni"], "tcav: for the number of tests")
_N_TARGETS = flags.DEFINE_integer("n_targets", 100, "tcav: clips of each class, at most", lower_bound=1)
_SELF_CHECK = flags.DEFINE_integer(
    "self_check",
    20,
    "tcav: pseudo-concepts of each kind, tested to see how often nothing is found to be something",
    lower_bound=0,
)
_PROTOCOL = flags.DEFINE_enum(
    "protocol", "standard", ["standard", "paper"], "tcav: paper adds the tests of Saha et al. 2024, as they were made"
)
_EXPORT = flags.DEFINE_boolean("export", True, "tcav: write the vectors, for --task=explain_concepts")
_CACHE = flags.DEFINE_string("cache", None, "tcav: folder of what was encoded; by default cache, beside the run")
_METHODS = flags.DEFINE_list(
    "methods", [], "explain: METHOD or METHOD@STAGE, separated by commas; motion: the one whose maps are split"
)
_BASELINES = flags.DEFINE_list("baselines", ["zero"], "explain: where integrated gradients start, the mean over them")
_WHOLE_VIDEO = flags.DEFINE_boolean("whole_video", False, "explain, motion: clip after clip to the video's end")
_FILMS = flags.DEFINE_enum("films", "webp", ["webp", "mp4", "none"], "explain: films of the maps")
_LIMITS = flags.DEFINE_integer("limits", 0, "explain: clips on which the maps' faults are measured", lower_bound=0)
_VECTORS = flags.DEFINE_string("vectors", None, "explain: folder of a --task=tcav run with concept vectors")
_SIGMAS = flags.DEFINE_float("sigmas", 1.0, "motion: how fast a map must change to count as moving", lower_bound=0)
_FLOW = flags.DEFINE_boolean("flow", False, "motion: also compare with optical flow (OpenCV)")
_DRY_RUN = flags.DEFINE_boolean("dry_run", False, "tcav: only say what would be done, and what is in the way")


def stages() -> None:
    from vtcav_jax.tasks import answers

    answers.stages(needed(_MODEL, "a preset, a network that ships, or a path"))


def predict() -> None:
    from vtcav_jax.tasks import answers

    answers.predict(
        needed(_MODEL, "a preset, a network that ships, or a path"),
        spec=_VIDEOS.value,
        clips=path(_CLIPS),
        how=how(),
        batch_size=_BATCH_SIZE.value or 4,
        top=_TOP.value,
        workers=_WORKERS.value,
        out=path(_OUT),
        random_seed=_SEED.value if _RANDOM_WEIGHTS.value else None,
    )


def train() -> None:
    from vtcav_jax.tasks import train
    from vtcav_jax.training import Recipe

    recipe = Recipe(
        steps=_STEPS.value,
        batch_size=_BATCH_SIZE.value or 64,
        learning_rate=_LEARNING_RATE.value,
        warmup=min(100, _STEPS.value // 10) if _WARMUP.value is None else _WARMUP.value,
        weight_decay=_WEIGHT_DECAY.value,
        clip_norm=_CLIP_NORM.value,
        augment=_AUGMENT.value,  # type: ignore[arg-type]
        timeless=_TIMELESS.value,
        timeless_from=_TIMELESS_FROM.value,
        timeless_heads=tuple(_TIMELESS_HEADS.value),
        random_start=_RANDOM_START.value,
        checkpoint_every=_CHECKPOINT_EVERY.value,
        seed=_SEED.value,
    )
    train.train(
        needed(_MODEL, "a preset, or a network to begin with"),
        _VIDEOS.value,
        run_folder(),
        recipe,
        held_out=_HELD_OUT.value,
        gate_clips=_GATES.value,
        bfloat16=_BFLOAT16.value,
        workers=_WORKERS.value,
        flags=flags_text(),
    )


def prepare() -> None:
    from vtcav_jax.tasks import corpora

    model = needed(_MODEL, "whose clips are made")
    corpora.prepare(_VIDEOS.value, model, how(), path(_OUT), workers=_WORKERS.value)


def mine() -> None:
    from vtcav_jax.concepts import Mining, concepts
    from vtcav_jax.tasks import corpora

    if _LIST_LABELS.value:
        return corpora.labels(Path(needed(_DETECTOR, "whose labels are listed")))
    settings = Mining(
        concepts(_CONCEPTS.value),
        frames=_FRAMES.value,
        controls=_CONTROLS.value,
        detector=path(_DETECTOR),
        boxes=path(_BOXES),
        tracker=_TRACKER.value,
        image_size=_IMAGE_SIZE.value,
        least_confidence=_LEAST_CONFIDENCE.value,
        least_area=_LEAST_AREA.value,
        least_length=_LEAST_LENGTH.value,
        greatest_overlap=_GREATEST_OVERLAP.value,
        most_per_video=_MOST_PER_VIDEO.value,
        most=_MOST.value,
        random_sets=_RANDOM_SETS.value,
        seed=_SEED.value,
    )
    corpora.mine(
        _VIDEOS.value,
        settings,
        path(_OUT),
        model=_MODEL.value,
        targets=_TARGET_VIDEOS.value,
        negatives=_NEGATIVES.value,
    )


def tcav() -> None:
    from vtcav_jax.tasks import tcav
    from vtcav_jax.tcav.settings import Experiment

    if len(_CONCEPTS.value) > 1:
        raise ValueError(f"--concepts={','.join(_CONCEPTS.value)}: --task=tcav takes one folder of concept sets")
    settings = Experiment(
        stages=tuple(_STAGES.value),
        tests=tuple(_TESTS.value),
        null=_NULL.value,
        statistic=_STATISTIC.value,
        pool=_POOL.value,
        target_fn=_TARGET_FN.value,
        sensitivity=_SENSITIVITY.value,
        estimator=_ESTIMATOR.value,
        lam=_LAM.value,
        permutations=_PERMUTATIONS.value,
        alpha=_ALPHA.value,
        correction=_CORRECTION.value,
        n_targets=_N_TARGETS.value,
        self_check=_SELF_CHECK.value,
        protocol=_PROTOCOL.value,
        export=_EXPORT.value,
        seed=_SEED.value,
        batch=_BATCH_SIZE.value or 8,
    )
    tcav.tcav(
        needed(_MODEL, "a network that ships, or a path"),
        _TARGETS.value,
        _TARGET_VIDEOS.value,
        next(iter(_CONCEPTS.value), None),
        settings,
        run_folder(),
        cache=path(_CACHE),
        dry_run=_DRY_RUN.value,
        workers=_WORKERS.value,
        random_seed=_SEED.value if _RANDOM_WEIGHTS.value else None,
        flags=flags_text(),
    )


def explain_concepts() -> None:
    from vtcav_jax.tasks import tcav

    tcav.explain_concepts(
        needed(_MODEL, "the network that the vectors are of"),
        run_folder(),
        _VIDEOS.value,
        _TARGETS.value,
        path(_OUT),
        target_fn=_TARGET_FN.value,
        workers=_WORKERS.value,
    )


def explain() -> None:
    from vtcav_jax.tasks import explain

    explain.explain(
        needed(_MODEL, "a network that ships, or a path"),
        _VIDEOS.value,
        run_folder(),
        how(),
        targets=_TARGETS.value,
        methods=_METHODS.value,
        stages=_STAGES.value,
        baselines=_BASELINES.value,
        vectors=path(_VECTORS),
        whole=_WHOLE_VIDEO.value,
        films=_FILMS.value,
        limit_clips=_LIMITS.value,
        batch=_BATCH_SIZE.value or 4,
        workers=_WORKERS.value,
        seed=_SEED.value,
        random_weights=_RANDOM_WEIGHTS.value,
        flags=flags_text(),
    )


def motion() -> None:
    from vtcav_jax.attribution.decisions import Measuring
    from vtcav_jax.tasks import motion

    measuring = Measuring(
        method=one(_METHODS) or "gradient_x_input",
        stage=one(_STAGES),
        n=_SIGMAS.value,
        seed=_SEED.value,
        flow=_FLOW.value,
    )
    motion.motion(
        needed(_MODEL, "a network that ships, or a path"),
        _VIDEOS.value,
        run_folder(),
        how(),
        measuring,
        targets=_TARGETS.value,
        whole=_WHOLE_VIDEO.value,
        batch=_BATCH_SIZE.value or 4,
        workers=_WORKERS.value,
        random_seed=_SEED.value if _RANDOM_WEIGHTS.value else None,
        flags=flags_text(),
    )


def one(flag: flags.FlagHolder) -> str | None:
    if len(flag.value) > 1:
        raise ValueError(f"--{flag.name}={','.join(flag.value)}: --task={_TASK.value} takes one")
    return next(iter(flag.value), None)


def needed(flag: flags.FlagHolder, what: str) -> str:
    if flag.value is None:
        raise ValueError(f"--{flag.name} is missing: {what}; see --help")
    return flag.value


def path(flag: flags.FlagHolder) -> Path | None:
    return None if flag.value is None else Path(flag.value)


def how():
    from vtcav_jax.video import How

    return How(_NUM_CLIPS.value, _VIEWS.value, normalise=False, interval_seconds=_INTERVAL.value)  # type: ignore[arg-type]


def run_folder() -> Path | None:
    name = _RUN.value
    return None if name is None else Path(name) if "/" in name else Path("runs") / name


def flags_text() -> str:
    """Every flag of ours as it was resolved, as a flagfile."""
    ours = flags.FLAGS.get_key_flags_for_module(sys.modules[__name__])
    return "".join(f"{flag.serialize()}\n" for flag in ours if flag.value is not None and flag.serialize())


TASKS = {
    "stages": stages,
    "predict": predict,
    "train": train,
    "prepare": prepare,
    "mine": mine,
    "tcav": tcav,
    "explain_concepts": explain_concepts,
    "explain": explain,
    "motion": motion,
}


def main(argv: list[str]) -> None:
    from vtcav_jax.names import printable, unknown

    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        raise app.UsageError(f"unexpected {argv[1:]}; every argument is a flag, --name=value")
    try:
        if _TASK.value is None:
            raise ValueError(f"--task is missing: one of {', '.join(TASKS)}; see --help")
        if _TASK.value not in TASKS:
            raise ValueError(unknown("task", [_TASK.value], TASKS))
        TASKS[_TASK.value]()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {printable(str(error))}")


if __name__ == "__main__":
    app.run(main)
