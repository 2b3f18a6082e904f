"""The tasks as data: summary, example, command, and what an interrupted run keeps."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from absl import flags

from vtcav_jax.cli.arguments import COMMON_FLAGS, flagfile_text, serialize_flags


@dataclass(frozen=True)
class CommandContext:
    """The parsed flags of a command, for run records and for the commands that it starts."""

    flags: flags.FlagValues

    @property
    def flags_text(self) -> str:
        """The command as a flagfile, which is stored in the run folder."""
        return flagfile_text(self.flags)

    @property
    def common_flags(self) -> list[str]:
        """The flags that other commands started by this one share with it."""
        return serialize_flags(self.flags, iter(COMMON_FLAGS))


@dataclass(frozen=True)
class TaskSpec:
    """A task: `function` and its argument dataclass `arguments` are in the module `module` of `cli.commands`."""

    summary: str
    example: str
    module: str
    function: str
    arguments: str
    on_interrupt: str = "nothing; run the command again"

    def _attribute(self, name: str) -> Any:
        return getattr(import_module(f"vtcav_jax.cli.commands.{self.module}"), name)

    @property
    def argument_class(self) -> type:
        return self._attribute(self.arguments)

    @property
    def command(self) -> Callable[[Any, CommandContext], int | None]:
        return self._attribute(self.function)


TASKS = {
    "quickstart": TaskSpec(
        "A complete example in about a minute, without a download: synthetic clips, concepts, Video-TCAV, a page.",
        "",
        *("quickstart", "quickstart", "QuickstartArguments"),
        "each finished step; the same command continues",
    ),
    "experiment": TaskSpec(
        "Mine concepts from your videos (or let --movements or --discover find some) and test them: two commands in"
        " one; --dry_run prints them.",
        "--videos=FOLDER --concepts='person,\"sports ball\"' --detector=yolov8n.pt --target_videos=OTHER"
        " --model=weights/swin_t --targets='playing tennis' --run=NAME",
        *("experiment", "experiment", "ExperimentArguments"),
        "every scanned video and every encoded clip; the same command continues",
    ),
    "inspect": TaskSpec(
        "List the stages (layers) of a network: shape, number of features, memory per 100 clips. With --target: whether"
        " it fits an accelerator, and a lower bound of its time there.",
        "--model=video_swin_b_k400",
        *("inspect_network", "inspect_network", "InspectArguments"),
    ),
    "predict": TaskSpec(
        "Print the most likely classes of each clip, and the files that could not be read.",
        "--model=worlds_swin --videos=worlds:small:4:0 --out=top.csv",
        *("predict", "predict", "PredictArguments"),
    ),
    "evaluate": TaskSpec(
        "Measure the accuracy of a network on labelled videos: top-1, top-5, mean per class and mAP with intervals, and"
        " which classes it confuses.",
        "--model=worlds_swin --videos=worlds:small:200:7 --run=NAME",
        *("evaluate", "evaluate", "EvaluateArguments"),
        "the prediction of every finished video; the same command continues",
    ),
    "train": TaskSpec(
        "Train or fine-tune a network.",
        "--model=video_swin_tiny --videos=FOLDER --eval_videos=OTHER --run=NAME",
        *("train", "train", "TrainArguments"),
        "all steps up to the last checkpoint; the same command continues from there, with the same result",
    ),
    "preprocess": TaskSpec(
        "Decode a dataset once, so that later commands read it fast with --videos=DIR.",
        "--videos=FOLDER --model=video_swin_t_k400 --out=DIR",
        *("prepare_videos", "preprocess", "PreprocessArguments"),
        "every complete record file; the same command continues",
    ),
    "render_world": TaskSpec(
        "Write synthetic clips with a known cause as MP4 files, with their labels and boxes.",
        "--videos=worlds:small:100:0 --out=DIR",
        *("prepare_videos", "render_world", "RenderWorldArguments"),
        "the clips written so far; run the command again for its tables",
    ),
    "mine_concepts": TaskSpec(
        "Build concept sets from videos: crops of detected objects (--detector or --boxes), whole labelled clips"
        " (--concepts=@HEAD:CLASS), or movements of people (--movements), with matched controls and random sets.",
        "--videos=FOLDER --concepts='person,\"sports ball\"' --detector=yolov8n.pt --out=DIR",
        *("mine_concepts", "mine_concepts", "MineConceptsArguments"),
        "every scanned video and every written clip; the same command continues",
    ),
    "discover": TaskSpec(
        "Discover concepts that nobody named: directions of a network's activations and the clips that show them, as a"
        " concept folder for tcav.",
        "--model=worlds_swin --videos=worlds:small:500:3 --stages=layers.1 --out=DIR",
        *("discover_concepts", "discover_concepts", "DiscoverArguments"),
        "the state of every 64 videos, and every written clip; the same command continues",
    ),
    "review_concepts": TaskSpec(
        "Write the review page of a concept folder that was made by hand.",
        "--concept_dir=DIR",
        *("mine_concepts", "review_concepts", "ReviewConceptsArguments"),
    ),
    "tcav": TaskSpec(
        "Test which concepts raise or lower a class score, at which layer, with permutation p-values (Video-TCAV).",
        "--model=worlds_swin --targets=direction:left --target_videos=worlds:small:200:5 --concept_dir=DIR --run=NAME",
        *("tcav", "tcav", "TcavArguments"),
        "every encoded clip in the cache; the same command continues",
    ),
    "score_concepts": TaskSpec(
        "Score other clips with the concept vectors of a tcav run: how strongly each concept is present, when, and its"
        " effect on the class score.",
        "--model=worlds_swin --run=NAME --videos=worlds:small:20:9 --targets=direction:left --out=DIR",
        *("score_concepts", "score_concepts", "ScoreConceptsArguments"),
    ),
    "attribute": TaskSpec(
        "Write attribution maps in space and time as .npz files and animations; --sanity_clips and"
        " --faithfulness_clips measure their reliability.",
        "--model=worlds_swin --videos=worlds:small:8:7 --methods=gradcam,attn_lrp --targets=direction --run=NAME",
        *("attribute", "attribute", "AttributeArguments"),
        "the maps of every finished batch; the same command continues",
    ),
    "motion": TaskSpec(
        "Measure how much each decision depends on motion, per class and per clip, with intervals.",
        "--model=worlds_swin --videos=worlds:small:64:7 --targets=direction,shape --run=NAME",
        *("motion", "measure_motion_reliance", "MotionArguments"),
        "every measured video; the same command continues",
    ),
    "pyramid": TaskSpec(
        "Find the channels that a class depends on, layer by layer (class feature pyramid), and ablate them.",
        "--model=worlds_cnn --videos=worlds:small:200:7 --targets=direction:left,shape:ring --run=NAME",
        *("pyramid", "pyramid", "PyramidArguments"),
    ),
    "evaluate_methods": TaskSpec(
        "Score explanation methods on synthetic clips with a known cause, and measure their cost.",
        "--networks=worlds_swin --methods=gradcam,layercam,attn_lrp --run=NAME",
        *("evaluate_methods", "evaluate_methods", "EvaluateMethodsArguments"),
        "every finished row; the same command continues",
    ),
    "report": TaskSpec(
        "Write the report page of a run, or compare several runs (--run=A,B).",
        "--run=NAME",
        *("report", "report_runs", "ReportArguments"),
        "the run; the same command writes its page again",
    ),
    "serve": TaskSpec(
        "Open runs in the browser: one timeline for film, map and curves, clips sorted by a concept's effect, steering,"
        " further maps, and the review of concepts; prints its address.",
        "--run=NAME",
        *("report", "serve", "ServeArguments"),
        "every verdict; the same command shows the same page",
    ),
}

TASK_GROUPS = {
    "Start here": ("quickstart",),
    "Explain a network": ("tcav", "experiment", "score_concepts", "attribute", "motion", "pyramid", "report", "serve"),
    "Prepare concepts and videos": ("mine_concepts", "discover", "review_concepts", "preprocess", "render_world"),
    "Networks": ("inspect", "predict", "evaluate", "train"),
    "Evaluate explanation methods": ("evaluate_methods",),
}
