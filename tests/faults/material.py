"""Small inputs of every task, made once, and the commands that the fault suite runs on them."""

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from tests.support.cli_runner import run_cli
from vtcav_jax.checksums import file_sha256
from vtcav_jax.data import decoded_dataset
from vtcav_jax.data.world_export import write_clips
from vtcav_jax.runs.lock import LOCK_FILE
from vtcav_jax.worlds import make_clips

INTERNAL_ERROR, REFUSED = 70, 1
SECONDS_UNTIL_HANG = 300
N_CLIPS = 20
MODEL = "--model=worlds_cnn"


@dataclass(frozen=True)
class Material:
    """Folder with videos of a world, concepts mined from them, and a finished tcav run."""

    folder: Path

    @property
    def videos(self) -> str:
        return str(self.folder / "videos" / "manifest.csv")

    @property
    def targets(self) -> str:
        return str(self.folder / "targets" / "manifest.csv")

    @property
    def concepts(self) -> str:
        return str(self.folder / "concepts")

    @property
    def run(self) -> str:
        return str(self.folder / "run")

    @property
    def other_run(self) -> str:
        return str(self.folder / "other_run")


@dataclass(frozen=True)
class FaultTask:
    """A command that writes `folder`, made from the material and the videos to read.

    `unequal` are patterns of files that differ between two undisturbed runs: they hold times, or names that a library
    draws.
    """

    name: str
    arguments: Callable[[Material, str, Path], list[str]]
    unequal: tuple[str, ...] = ()
    reads_videos: bool = True

    def command(self, material: Material, folder: Path, videos: str | None = None) -> list[str]:
        return [self.name, *self.arguments(material, videos or material.videos, folder)]


NO_CHECKS = ("--calibration_trials=0", "--steering_clips=0")
SMALL_SETS = ("--max_clips=4", "--num_random_sets=2")
CONCEPTS = "--concepts=left=@direction:left,ring=@shape:ring"
CLASS_CONCEPTS = "--concepts=left=@label:left,right=@label:right"
TIMES = ("*/run.json", "*/report/*")
TASKS = {
    task.name: task
    for task in (
        FaultTask("predict", lambda m, v, out: [MODEL, f"--videos={v}", f"--out={out}.csv"]),
        FaultTask("preprocess", lambda m, v, out: [MODEL, f"--videos={v}", f"--out={out}"]),
        FaultTask("report", lambda m, v, out: [f"--run={m.run},{m.other_run}", f"--out={out}"], (), False),
        FaultTask("render_world", lambda m, v, out: ["--videos=worlds:small:20:3", f"--out={out}"], (), False),
        FaultTask(
            "mine_concepts",
            lambda m, v, out: [
                MODEL,
                f"--videos={v}",
                CONCEPTS if v == m.videos else CLASS_CONCEPTS,
                "--max_clips=4",
                "--num_random_sets=2",
                f"--out={out}",
            ],
        ),
        FaultTask(
            "discover",
            lambda m, v, out: [
                *(MODEL, f"--videos={v}", "--stages=convs.2", "--num_concepts=4", "--clips_per_concept=4"),
                *("--num_random_sets=2", f"--out={out}"),
            ],
        ),
        FaultTask(
            "tcav",
            lambda m, v, out: [
                *(MODEL, f"--target_videos={m.targets if v == m.videos else v}", f"--concept_dir={m.concepts}"),
                *("--targets=direction:left", "--stages=convs.2", *NO_CHECKS),
                *(f"--run={out}/run", f"--cache_dir={out}/cache"),
            ],
            TIMES,
        ),
        FaultTask(
            "attribute",
            lambda m, v, out: [MODEL, f"--videos={v}", "--methods=gradcam", "--targets=direction", f"--run={out}"],
        ),
        FaultTask("evaluate", lambda m, v, out: [MODEL, f"--videos={v}", f"--run={out}"]),
        FaultTask("motion", lambda m, v, out: [MODEL, f"--videos={v}", "--targets=direction", f"--run={out}"]),
        FaultTask(
            "pyramid",
            lambda m, v, out: [MODEL, f"--videos={v}", "--targets=direction:left", "--depth=2", f"--run={out}"],
        ),
        FaultTask(
            "train",
            lambda m, v, out: [
                *("--model=small_cnn", f"--videos={v}", "--steps=6", "--batch_size=8", "--checkpoint_every=2"),
                f"--run={out}",
            ],
            ("*/checkpoints*",),
        ),
        FaultTask(
            "evaluate_methods",
            lambda m, v, out: [
                *("--networks=worlds_cnn", "--methods=gradcam", "--questions=W1"),
                *("--max_clips=4", f"--run={out}"),
            ],
            (*TIMES, "*/method_*", "*/parts/*.npz"),
            reads_videos=False,
        ),
        FaultTask(
            "score_concepts",
            lambda m, v, out: [MODEL, f"--run={m.run}", f"--videos={v}", "--targets=direction:left", f"--out={out}"],
        ),
    )
}


TASKS_WITH_WORKERS = {task.name for task in TASKS.values() if task.reads_videos}


def make_material(folder: Path) -> Material:
    """Write the videos, mine the concepts and run tcav."""
    material = Material(folder)
    for name, seed in (("videos", 1), ("targets", 2)):
        write_clips(make_clips("small", N_CLIPS, seed), folder / name)
    mine = ["mine_concepts", MODEL, "--videos=worlds:small:150:1", CONCEPTS, "--max_clips=6", "--num_random_sets=4"]
    for command in ([*mine, f"--out={material.concepts}"], TASKS["tcav"].command(material, folder)):
        code, output, errors = run_cli(*quick(command))
        if code:
            raise RuntimeError(f"{command[0]} ended with {code}: {output}{errors}")
    shutil.copytree(material.run, material.other_run)
    return material


def quick(command: list[str]) -> list[str]:
    """Return the command with decoding in its own process, which saves the start of workers."""
    return [*command, "--num_workers=0"] if command[0] in TASKS_WITH_WORKERS else command


def run_command(command: list[str], kill_after: float | None = None) -> tuple[int, str]:
    """Return exit code and output; a signal (negative code) ends it after `kill_after` seconds, or when it hangs.

    The default action of SIGALRM ends a process as SIGKILL does, without any clean-up, from within the process.
    """
    seconds = SECONDS_UNTIL_HANG if kill_after is None else max(kill_after, 1e-3)
    timer = f"import signal; signal.setitimer(signal.ITIMER_REAL, {seconds}); main.start()"
    code, output, errors = run_cli(*quick(command), program=timer)
    return code, output + errors


def _records_sha256(path: Path) -> str:
    """Return the SHA-256 of the clips of a prepared dataset; the order of its fields differs between runs."""
    dataset = decoded_dataset.open_prepared(path.parent, str(path))
    digest = hashlib.sha256()
    for i in range(len(dataset.items)):
        for value in dataset.records[i, decoded_dataset.CLIP_FEATURES].values():
            digest.update(value if isinstance(value, bytes) else np.asarray(value).tobytes())
    return digest.hexdigest()


def unequal_files(expected: dict[str, str], written: dict[str, str]) -> list[str]:
    """Return the names of files that are missing on one side or have other bytes."""
    return sorted(name for name in {*expected, *written} if expected.get(name) != written.get(name))


def file_hashes(folder: Path, unequal: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder, apart from locks, incomplete files and those that hold times."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: _records_sha256(path) if ".array_record-" in name else file_sha256(path)
        for name, path in files.items()
        if path.name != LOCK_FILE
        and not re.match(r"\..*\.part", path.name)
        and not any(fnmatch(name, pattern) for pattern in unequal)
    }
