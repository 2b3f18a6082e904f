"""Every flag of main.py, and what it says of itself: tasks with an example each, flags in groups, exit codes.

The help of a flag begins with the tasks that take it, as in `tcav, predict: ...`; without any it is for all of them.
"""

import re
import sys
from dataclasses import dataclass

from absl import flags as absl_flags


@dataclass(frozen=True)
class About:
    """A task: what it does, a command, and what is kept of it when it is stopped."""

    what: str
    example: str
    kept: str = "nothing was written; give the command again"


TASKS = {
    "quickstart": About(
        "the whole story in one command: synthetic clips, concepts out of them, Video-TCAV, its page",
        "",
        "each finished step; the same command goes on",
    ),
    "experiment": About(
        "concepts out of your videos and Video-TCAV on them: mine, then tcav, whose flags it takes, by one command;"
        " --dry_run prints both",
        "--videos=FOLDER --concepts='person,\"sports ball\"' --detector=yolov8n.pt --target_videos=OTHER"
        " --model=weights/swin_t --targets='playing tennis' --run=NAME",
        "every video that was looked through and every clip that went through the network; the same command goes on",
    ),
    "stages": About(
        "every stage one can look into: its shape, features, memory per 100 clips", "--model=video_swin_b_k400"
    ),
    "predict": About(
        "the likeliest classes of each clip, and which files could not be read",
        "--model=worlds_swin --videos=worlds:small:4:0 --out=top.csv",
    ),
    "train": About(
        "a network of one's own, trained or fine-tuned",
        "--model=video_swin_tiny --videos=FOLDER --held_out=OTHER --run=NAME",
        "all steps up to the last checkpoint; the same command goes on from there and ends the same",
    ),
    "prepare": About(
        "a corpus decoded once; --videos=DIR reads it back",
        "--videos=FOLDER --model=video_swin_t_k400 --out=DIR",
        "every whole file of records; the same command goes on",
    ),
    "worlds": About(
        "synthetic clips whose cause is known, as mp4 files with their answers and boxes",
        "--videos=worlds:small:100:0 --out=DIR",
        "the files that are whole; the tables come last, so give the command again",
    ),
    "mine": About(
        "concept sets: static and dynamic clips of what a detector (or --boxes=FILE.csv) finds, or whole labelled clips"
        " (--concepts=@HEAD:ANSWER), with controls and random sets",
        "--videos=FOLDER --concepts='person,\"sports ball\"' --detector=yolov8n.pt --out=DIR",
        "every video that was looked through and every clip that was written; the same command goes on",
    ),
    "review": About(
        "the page on which concept sets are looked at, for a folder that was made by hand",
        "--concepts=DIR",
        "nothing; give the command again",
    ),
    "tcav": About(
        "which concepts raise or lower a class's score, at which stage, with intervals and p-values that hold; ends"
        " with a page",
        "--model=worlds_swin --targets=direction:left --target_videos=worlds:small:200:5 --concepts=DIR --run=NAME",
        "every clip that went through the network, in the cache beside the run; the same command goes on",
    ),
    "explain_concepts": About(
        "the concepts of a --task=tcav run in other clips: how much of each, when, and what it does to the score",
        "--model=worlds_swin --run=NAME --videos=worlds:small:20:9 --targets=direction:left --out=DIR",
    ),
    "explain": About(
        "where and when: maps of each clip as .npz, films with the maps laid over; --limits: what the maps get wrong;"
        " --metrics: insertion, deletion and others",
        "--model=worlds_swin --videos=worlds:small:8:7 --methods=gradcam,attn_lrp --targets=direction --run=NAME",
        "the maps of every batch that is done; the same command goes on",
    ),
    "motion": About(
        "how much of each decision is motion, by class and clip, with intervals",
        "--model=worlds_swin --videos=worlds:small:64:7 --targets=direction,shape --run=NAME",
    ),
    "pyramid": About(
        "which kernels a class hangs on, and those on which others: a graph, what ablation says of it, and films",
        "--model=worlds_cnn --videos=worlds:small:200:7 --targets=direction:left,shape:ring --run=NAME",
    ),
    "truth": About(
        "score explanation methods where the cause is known: which map tells the truth, and what it costs",
        "--network=worlds_swin --methods=gradcam,layercam,attn_lrp --run=NAME",
        "every row that is measured; the same command goes on",
    ),
    "report": About(
        "the page of a run, or of several side by side (--run=A,B)",
        "--run=NAME",
        "the run itself; its page is made again by the same command",
    ),
}
CODES = {
    0: "done",
    1: "refused: a flag, a file or what was asked is wrong; one sentence on stderr says what to do",
    70: "a fault of the program itself, with its traceback; please report it",
    130: "stopped by Ctrl-C; what is safe and how to go on is told",
}

APART = ("list_labels", "coordinator", "num_processes", "process_id")  # flags of mine and tcav, not of an experiment

TASK = absl_flags.DEFINE_string("task", None, f"what to do: {', '.join(TASKS)}")
MODEL = absl_flags.DEFINE_string(
    "model",
    None,
    "a preset (video_swin_t_k400, ...), a trained network that ships (worlds_swin, worlds_cnn), or a path",
)
VIDEOS = absl_flags.DEFINE_string("videos", None, "where clips come from: folder, file, .csv, tfds:..., worlds:...")
CLIPS = absl_flags.DEFINE_string(
    "clips",
    None,
    "predict, instead of --videos: .npy file of clips (b, t, h, w, 3); uint8 is 0..255, float32 is normalised already",
)
NUM_CLIPS = absl_flags.DEFINE_integer(
    "num_clips", 1, "predict, explain, motion, pyramid: clips per video, spread over it", lower_bound=1
)
VIEWS = absl_flags.DEFINE_enum("views", "centre", ["centre", "three"], "predict: crops per clip")
INTERVAL = absl_flags.DEFINE_float("interval_seconds", None, "between frames, in place of the preset's in frames")
WORKERS = absl_flags.DEFINE_integer("workers", 2, "processes that decode videos; 0: none but this one", lower_bound=0)
BATCH_SIZE = absl_flags.DEFINE_integer(
    "batch_size", None, "clips at once; by default 4, to train 64, for tcav 8", lower_bound=1
)
TOP = absl_flags.DEFINE_integer("top", 5, "predict: classes shown per clip and head", lower_bound=1)
OUT = absl_flags.DEFINE_string(
    "out",
    None,
    "predict, prepare, worlds, mine, experiment, explain_concepts, report: the folder to write; of predict a .csv; of"
    " an experiment the concept sets, by default RUN_concepts",
)
RANDOM_WEIGHTS = absl_flags.DEFINE_boolean(
    "random_weights",
    False,
    "predict, tcav, explain, motion, pyramid: let a preset answer without weights, to try it out; its answers mean"
    " nothing",
)
SEED = absl_flags.DEFINE_integer("seed", 0, "for whatever is random", lower_bound=0, upper_bound=2**32 - 1)
RUN = absl_flags.DEFINE_string(
    "run",
    None,
    "train, tcav, explain_concepts, explain, motion, pyramid, truth, report, quickstart: the folder of the run;"
    " without a slash, in runs/; report takes several, separated by commas",
)
HELD_OUT = absl_flags.DEFINE_string(
    "held_out", None, "train: videos on which the trained network is tested, as --videos"
)
STEPS = absl_flags.DEFINE_integer("steps", 1000, "train: batches", lower_bound=1)
LEARNING_RATE = absl_flags.DEFINE_float("learning_rate", 1e-3, "train: after the warm-up, from where it falls to 0")
WARMUP = absl_flags.DEFINE_integer(
    "warmup", None, "train: steps until the full learning rate; by default a tenth of all, at most 100", lower_bound=0
)
WEIGHT_DECAY = absl_flags.DEFINE_float("weight_decay", 0.05, "train: of AdamW")
CLIP_NORM = absl_flags.DEFINE_float("clip_norm", 1.0, "train: greatest norm of a gradient")
LABEL_SMOOTHING = absl_flags.DEFINE_float("label_smoothing", 0.0, "train: share of each answer that is spread over all")
AUGMENT = absl_flags.DEFINE_enum(
    "augment",
    "none",
    ["none", "flip", "torus"],
    "train: flip mirrors half of the clips (not where left and right are classes); torus shifts worlds:... clips",
)
TIMELESS = absl_flags.DEFINE_float("timeless", 0.0, "train: share of clips that are frozen or shuffled in time")
TIMELESS_FROM = absl_flags.DEFINE_integer("timeless_from", 0, "train: the step from which there are such clips")
TIMELESS_HEADS = absl_flags.DEFINE_list(
    "timeless_heads", [], "train: heads whose answers are still true of these clips"
)
RANDOM_START = absl_flags.DEFINE_boolean("random_start", False, "train: another part of the video each time")
CHECKPOINT_EVERY = absl_flags.DEFINE_integer("checkpoint_every", 200, "train: steps", lower_bound=1)
BFLOAT16 = absl_flags.DEFINE_boolean("bfloat16", False, "train: compute in bfloat16; parameters stay float32")
GATES = absl_flags.DEFINE_integer("gates", 0, "train, on a world: clips on which its causes are checked", lower_bound=0)
CONCEPTS = absl_flags.DEFINE_list(
    "concepts",
    [],
    "mine, review, tcav: mine and experiment take LABEL, NAME=LABEL or NAME=LABEL@HEAD:ANSWER, and NAME=@HEAD:ANSWER"
    " for whole clips, separated by commas, with quotes around blanks; the others the folder of concept sets",
)
DETECTOR = absl_flags.DEFINE_string(
    "detector", None, "mine: weights of an ultralytics detector (a .pt is a pickle: code in it is run) or .onnx"
)
LIST_LABELS = absl_flags.DEFINE_boolean("list_labels", False, "mine: only print what --detector knows")
BOXES = absl_flags.DEFINE_string(
    "boxes", None, "mine, instead of --detector: .csv (file, frame, track, label, x1, y1, x2, y2)"
)
TRACKER = absl_flags.DEFINE_enum("tracker", "bytetrack", ["bytetrack", "botsort"], "mine: how boxes become tracks")
IMAGE_SIZE = absl_flags.DEFINE_integer(
    "image_size", 640, "mine: longer side at which the detector looks", lower_bound=32
)
FRAMES = absl_flags.DEFINE_integer("frames", 16, "mine: of a clip; with --model, as many as that sees", lower_bound=1)
CONTROLS = absl_flags.DEFINE_boolean(
    "controls", True, "mine: frozen, shuffled, reversed and jitter twins of dynamic clips"
)
LEAST_CONFIDENCE = absl_flags.DEFINE_float("least_confidence", 0.5, "mine: of a crop, on average")
LEAST_AREA = absl_flags.DEFINE_float("least_area", 0.001, "mine: of a box, as a part of the frame")
LEAST_LENGTH = absl_flags.DEFINE_integer(
    "least_length", None, "mine: of a track in frames; by default a clip's", lower_bound=1
)
GREATEST_OVERLAP = absl_flags.DEFINE_float("greatest_overlap", 0.5, "mine: between the boxes of two chosen clips")
MOST_PER_VIDEO = absl_flags.DEFINE_integer("most_per_video", 5, "mine: clips of a concept and kind", lower_bound=1)
MOST = absl_flags.DEFINE_integer("most", 50, "mine: clips of a concept and kind in all", lower_bound=1)
RANDOM_SETS = absl_flags.DEFINE_integer("random_sets", 10, "mine: disjoint sets of negatives", lower_bound=0)
NEGATIVES = absl_flags.DEFINE_string("negatives", None, "mine: other videos for the random sets, as --videos")
TARGET_VIDEOS = absl_flags.DEFINE_string(
    "target_videos", None, "mine, tcav: clips of the class; no concept may come from them, and tcav explains them"
)
TARGETS = absl_flags.DEFINE_list(
    "targets",
    [],
    "tcav, explain_concepts, explain, motion, pyramid: CLASS or HEAD:CLASS, separated by commas; explain, motion and"
    " pyramid also take HEAD (its own answer), 'A vs B', 'A or B', STAGE#CHANNEL, and explain a vector of --vectors; by"
    " default every head",
)
STAGES = absl_flags.DEFINE_list(
    "stages",
    [],
    "tcav, explain, motion: names or globs ('*': all); pyramid: names, A+B for stages side by side; by default the ends"
    " of the network's parts, such as layers.2, for maps where each method is at home, and for pyramids the last ones"
    " that nothing by-passes",
)
TESTS = absl_flags.DEFINE_list(
    "tests",
    ["absolute", "motion", "relative"],
    "tcav: absolute (against random sets), motion (dynamic clips against their controls), relative (against the other"
    " concepts), pairs (against each), group (against the others and the random sets, each with the same weight)",
)
NULL = absl_flags.DEFINE_enum(
    "null", "labels", ["labels", "sets"], "tcav: what is exchanged: clips, or whole random sets"
)
STATISTIC = absl_flags.DEFINE_enum(
    "statistic", "step", ["step", "unit"], "tcav: of the tests: derivative times the step to the concept, or by itself"
)
POOL = absl_flags.DEFINE_enum(
    "pool", "space", ["none", "space", "time", "all"], "tcav: over what activations are averaged"
)
TARGET_FN = absl_flags.DEFINE_enum("target_fn", "logit", ["logit", "log_prob", "margin"], "tcav: what a class scores")
SENSITIVITY = absl_flags.DEFINE_enum(
    "sensitivity",
    "gradient",
    ["gradient", "integrated", "finite"],
    "tcav: at the clip; averaged over the way to it from 0; or where scores go when clips are moved by a whole step",
)
ESTIMATOR = absl_flags.DEFINE_enum(
    "estimator", "logistic", ["logistic", "ridge", "mean_difference"], "tcav: how a concept becomes a vector"
)
LAM = absl_flags.DEFINE_float("lam", 0.01, "tcav: penalty of the vectors' length, the same at every stage")
SOLVER = absl_flags.DEFINE_enum(
    "solver", "host", ["host", "optax"], "tcav: what finds the vectors: the host's cores, or optax on jax's device"
)
PERMUTATIONS = absl_flags.DEFINE_integer(
    "permutations", None, "tcav: of each test's labels; by default 999, or what its family needs", lower_bound=1
)
ALPHA = absl_flags.DEFINE_float("alpha", 0.05, "tcav: chance of a false finding, in the whole family")
CORRECTION = absl_flags.DEFINE_enum("correction", "holm", ["holm", "bh", "bonferroni"], "tcav: for the number of tests")
N_TARGETS = absl_flags.DEFINE_integer("n_targets", 100, "tcav: clips of each class, at most", lower_bound=1)
SELF_CHECK = absl_flags.DEFINE_integer(
    "self_check",
    20,
    "tcav: pseudo-concepts of each kind, tested to see how often nothing is found to be something",
    lower_bound=0,
)
PROTOCOL = absl_flags.DEFINE_enum(
    "protocol", "standard", ["standard", "paper"], "tcav: paper adds the tests of Saha et al. 2024, as they were made"
)
EXPORT = absl_flags.DEFINE_boolean("export", True, "tcav: write the vectors, for --task=explain_concepts")
METHODS = absl_flags.DEFINE_list(
    "methods",
    [],
    "explain, motion, truth: METHOD or (but for truth, which takes all stages) METHOD@STAGE, separated by commas;"
    " motion takes one, whose maps are split; truth takes those that are named with large budgets too",
)
BASELINES = absl_flags.DEFINE_list(
    "baselines", ["zero"], "explain: where integrated gradients start, the mean over them"
)
NODES = absl_flags.DEFINE_integer(
    "nodes", 64, "explain: places on the way from each baseline at which integrated gradients look", lower_bound=1
)
WHOLE_VIDEO = absl_flags.DEFINE_boolean("whole_video", False, "explain, motion: clip after clip to the video's end")
FILMS = absl_flags.DEFINE_enum("films", "webp", ["webp", "mp4", "none"], "explain: films of the maps")
METRICS = absl_flags.DEFINE_integer(
    *("metrics", 0, "explain: clips on which the maps are measured by metrics that need no truth"), lower_bound=0
)
LIMITS = absl_flags.DEFINE_integer("limits", 0, "explain: clips on which the maps' faults are measured", lower_bound=0)
VECTORS = absl_flags.DEFINE_string(
    "vectors", None, "explain, pyramid: folder of a --task=tcav run with concept vectors"
)
NETWORK = absl_flags.DEFINE_list(
    "network", [], "truth: networks whose cause is planted; by default all that ship, or your own with a world's heads"
)
METHOD = absl_flags.DEFINE_multi_string(
    "method", [], "truth: a function of your own as well, package.module:function (model, clips, target) -> maps"
)
WORLDS = absl_flags.DEFINE_list(
    "worlds", [], "truth: which questions, W0 to W8; by default all that the networks answer"
)
TRUTH_CLIPS = absl_flags.DEFINE_integer("truth_clips", 200, "truth: clips for each network", lower_bound=2)
DEPTH = absl_flags.DEFINE_integer("depth", 3, "pyramid: levels back from the class", lower_bound=1)
SELECT = absl_flags.DEFINE_string(
    "select",
    "mass:0.5",
    "pyramid: kernels of a level: mass:SHARE of what helps, threshold:SHARE of the best, top:NUMBER",
)
KERNELS = absl_flags.DEFINE_integer("kernels", 32, "pyramid: at most so many at each level", lower_bound=1)
EDGES = absl_flags.DEFINE_enum(
    "edges", "gradient", ["gradient", "paper"], "pyramid: paper takes mean kernel times mean activation, as in 2019"
)
PYRAMID_CLIPS = absl_flags.DEFINE_integer(
    "pyramid_clips", 64, "pyramid: at most so many clips of each target, half of them for ablation", lower_bound=2
)
SIGMAS = absl_flags.DEFINE_float("sigmas", 1.0, "motion: how fast a map must change to count as moving", lower_bound=0)
FLOW = absl_flags.DEFINE_boolean("flow", False, "motion: also compare with optical flow (OpenCV)")
STEERING = absl_flags.DEFINE_integer(
    "steering",
    0,
    "tcav: move targets along the vectors of findings, and along so many random directions beside each; 19 will do",
    lower_bound=0,
)
COORDINATOR = absl_flags.DEFINE_string(
    "coordinator", None, "tcav: by several processes, HOST:PORT of the first one, or auto (what a cluster provides)"
)
NUM_PROCESSES = absl_flags.DEFINE_integer("num_processes", None, "tcav: with --coordinator, how many", lower_bound=1)
PROCESS_ID = absl_flags.DEFINE_integer("process_id", None, "tcav: with --coordinator, which one this is", lower_bound=0)
CACHE = absl_flags.DEFINE_string("cache", None, "tcav: folder of what was encoded; by default cache, beside the run")
DRY_RUN = absl_flags.DEFINE_boolean("dry_run", False, "tcav: only say what would be done, and what is in the way")
QUIET = absl_flags.DEFINE_boolean("quiet", False, "say nothing but answers and errors")
LOG_JSON = absl_flags.DEFINE_boolean(
    "log_json", False, "tell progress, notes and errors as one JSON object a line on stderr; answers stay on stdout"
)


def tasks_of(flag: absl_flags.Flag) -> list[str]:
    """The tasks that take it; none are named for a flag of all of them. An experiment takes what its steps take."""
    prefix, colon, _ = told(flag).partition(": ")
    named = [word for word in prefix.split(", ") if word in TASKS] if colon else []
    steps = {"mine", "tcav"} & set(named) and flag.name not in APART
    return [*named, "experiment"] if steps and "experiment" not in named else named


def told(flag: absl_flags.Flag) -> str:
    """Its help, without the values that absl puts before it."""
    return re.sub(r"^<[^>]*>: ", "", flag.help or "")


def ours() -> list[absl_flags.Flag]:
    return absl_flags.FLAGS.get_key_flags_for_module(sys.modules[__name__])
