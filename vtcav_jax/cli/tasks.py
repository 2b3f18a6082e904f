"""The tasks as data: what each does, an example, its command, and what an interrupted run keeps."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from absl import flags

from vtcav_jax.cli.arguments import VERBOSITY_FLAGS, flagfile_text, serialize_flags


@dataclass(frozen=True)
class CommandContext:
    """What a command knows of how it was started."""

    flags: flags.FlagValues

    @property
    def flags_text(self) -> str:
        """The command as a flagfile, for the run's folder."""
        return flagfile_text(self.flags)

    @property
    def verbosity_flags(self) -> list[str]:
        """The flags that make another process as quiet as this one."""
        return serialize_flags(self.flags, iter(VERBOSITY_FLAGS))


@dataclass(frozen=True)
class TaskSpec:
    """`module` of `cli.commands` has the function `name` and its argument dataclass, `arguments`."""

    summary: str
    example: str
    module: str
    function: str
    arguments: str
    on_interrupt: str = "nothing was written; give the command again"

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
        "The whole story in one command: synthetic clips, concepts mined from them, Video-TCAV, a report page.",
        "",
        *("quickstart", "quickstart", "QuickstartArguments"),
        "each finished step; the same command continues",
    ),
    "experiment": TaskSpec(
        "Concepts from your videos, then Video-TCAV on them: mine_concepts and tcav in one command, with the flags of"
        " both; --dry_run prints the two commands.",
        "--videos=FOLDER --concepts='person,\"sports ball\"' --detector=yolov8n.pt --target_videos=OTHER"
        " --model=weights/swin_t --targets='playing tennis' --run=NAME",
        *("experiment", "experiment", "ExperimentArguments"),
        "every scanned video and every encoded clip; the same command continues",
    ),
    "inspect": TaskSpec(
        "List the stages (layers) of a network: shape, number of features, memory per 100 clips.",
        "--model=video_swin_b_k400",
        *("inspect_network", "inspect_network", "InspectArguments"),
    ),
    "predict": TaskSpec(
        "Print the most likely classes of each clip, and which files could not be read.",
        "--model=worlds_swin --videos=worlds:small:4:0 --out=top.csv",
        *("predict", "predict", "PredictArguments"),
    ),
    "train": TaskSpec(
        "Train or fine-tune a network.",
        "--model=video_swin_tiny --videos=FOLDER --eval_videos=OTHER --run=NAME",
        *("train", "train", "TrainArguments"),
        "all steps up to the last checkpoint; the same command continues from there and ends the same",
    ),
    "preprocess": TaskSpec(
        "Decode a data set once; --videos=DIR reads it back.",
        "--videos=FOLDER --model=video_swin_t_k400 --out=DIR",
        *("preprocess", "preprocess", "PreprocessArguments"),
        "every complete file of records; the same command continues",
    ),
    "render_world": TaskSpec(
        "Write synthetic clips with a known cause as mp4 files, with their labels and boxes.",
        "--videos=worlds:small:100:0 --out=DIR",
        *("render_world", "render_world", "RenderWorldArguments"),
        "complete files; the tables come last, so give the command again",
    ),
    "mine_concepts": TaskSpec(
        "Mine concept sets: static and dynamic clips of what a detector (or --boxes=FILE.csv) finds, or whole labelled"
        " clips (--concepts=@HEAD:CLASS), with controls and random sets.",
        "--videos=FOLDER --concepts='person,\"sports ball\"' --detector=yolov8n.pt --out=DIR",
        *("mine_concepts", "mine_concepts", "MineConceptsArguments"),
        "every scanned video and every written clip; the same command continues",
    ),
    "review_concepts": TaskSpec(
        "Write the review page of a concept folder, for one that was made by hand.",
        "--concept_dir=DIR",
        *("review_concepts", "review_concepts", "ReviewConceptsArguments"),
        "nothing; give the command again",
    ),
    "tcav": TaskSpec(
        "Test which concepts raise or lower a class score, and at which layer (Video-TCAV), with intervals and"
        " permutation p-values; ends with a page.",
        "--model=worlds_swin --targets=direction:left --target_videos=worlds:small:200:5 --concept_dir=DIR --run=NAME",
        *("tcav", "tcav", "TcavArguments"),
        "every encoded clip, in the cache beside the run; the same command continues",
    ),
    "score_concepts": TaskSpec(
        "Score other clips by the concept vectors of a tcav run: how much of each concept, when, and its effect on the"
        " class score.",
        "--model=worlds_swin --run=NAME --videos=worlds:small:20:9 --targets=direction:left --out=DIR",
        *("score_concepts", "score_concepts", "ScoreConceptsArguments"),
    ),
    "attribute": TaskSpec(
        "Attribution maps in space and time of each clip, as .npz files and animations; --sanity_clips and"
        " --faithfulness_clips measure how far the maps can be trusted.",
        "--model=worlds_swin --videos=worlds:small:8:7 --methods=gradcam,attn_lrp --targets=direction --run=NAME",
        *("attribute", "attribute", "AttributeArguments"),
        "the maps of every finished batch; the same command continues",
    ),
    "motion": TaskSpec(
        "Measure how much of each decision depends on motion, by class and by clip, with intervals.",
        "--model=worlds_swin --videos=worlds:small:64:7 --targets=direction,shape --run=NAME",
        *("motion", "measure_motion_reliance", "MotionArguments"),
        "every measured video; the same command continues",
    ),
    "pyramid": TaskSpec(
        "Class feature pyramids: the channels that a class depends on, level by level, with an ablation check.",
        "--model=worlds_cnn --videos=worlds:small:200:7 --targets=direction:left,shape:ring --run=NAME",
        *("pyramid", "pyramid", "PyramidArguments"),
    ),
    "evaluate_methods": TaskSpec(
        "Score explanation methods on synthetic clips whose cause is known, and measure their cost.",
        "--networks=worlds_swin --methods=gradcam,layercam,attn_lrp --run=NAME",
        *("evaluate_methods", "evaluate_methods", "EvaluateMethodsArguments"),
        "every finished row; the same command continues",
    ),
    "report": TaskSpec(
        "Write the page of a run, or of several side by side (--run=A,B).",
        "--run=NAME",
        *("report", "report_runs", "ReportArguments"),
        "the run itself; the same command writes its page again",
    ),
}
