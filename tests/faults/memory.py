"""Peak memory of tasks against the number of target clips and the length of a video.

    python -m tests.faults.memory [--write] [--tasks=attribute,motion] [--folder=FOLDER]

Each task runs in a process of its own, on a number of short clips and four times as many, and on a video and one four
times as long. Memory that grows with either shows in the ratio of the peaks.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np

from benchmarks.timing import replace_results
from tests.faults.material import CONCEPTS, MODEL, NO_CHECKS
from vtcav_jax.data.world_export import write_clips
from vtcav_jax.worlds import make_clips

CLIP_COUNTS, MINUTES = (800, 3200), (7.5, 30.0)
FPS, HEIGHT, WIDTH, SEGMENT_FRAMES, KEYFRAME_INTERVAL = 25, 240, 320, 250, 10
PROGRAM = """
import re, sys
from pathlib import Path
from vtcav_jax.cli import main
code = main.main(sys.argv[1:])
print("PEAK", re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
sys.exit(code)
"""
CLIP_TASKS = {
    "predict": lambda videos, folder: [f"--videos={videos}", f"--out={folder}.csv"],
    "attribute": lambda videos, folder: [
        *(f"--videos={videos}", "--methods=gradcam", "--targets=direction", "--animations=none", f"--run={folder}"),
    ],
    "motion": lambda videos, folder: [
        *(f"--videos={videos}", "--targets=direction", "--examples=2", f"--run={folder}"),
    ],
    "tcav": lambda videos, folder: [
        *(f"--target_videos={videos}", f"--concept_dir={folder.parent / 'concepts'}", "--targets=direction:left"),
        *("--stages=convs.2", *NO_CHECKS, f"--run={folder / 'run'}", f"--cache_dir={folder / 'cache'}"),
    ],
    "discover": lambda videos, folder: [
        *(f"--videos={videos}", "--stages=convs.2", "--num_concepts=4", "--clips_per_concept=4"),
        *(
            "--max_tokens=20000",
            f"--out={folder}",
        ),  # the bound of the sample, which fewer clips do not reach by default
    ],
}
VIDEO_TASKS = {
    "predict": lambda videos, folder: [*CLIP_TASKS["predict"](videos, folder), "--clips_per_video=100"],
    "attribute": lambda videos, folder: [
        *(f"--videos={videos}", "--methods=gradcam", "--targets=direction", "--slide_over_video", f"--run={folder}"),
    ],
    "motion": lambda videos, folder: [*CLIP_TASKS["motion"](videos, folder), "--slide_over_video"],
}


@dataclass(frozen=True)
class PeakRow:
    """Peak memory of a task in MiB, on some input and on four times as much."""

    task: str
    input: str
    small: str
    large: str
    small_mib: float
    large_mib: float

    @property
    def ratio(self) -> float:
        return self.large_mib / self.small_mib


def write_long_video(path: Path, minutes: float) -> None:
    """Write a video whose few seconds of a moving square repeat."""
    frames = np.zeros((SEGMENT_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    for t, frame in enumerate(frames):
        frame[60:120, t : t + 60] = (200, 40, 90)
    segment = path.with_name("segment.mp4")
    with av.open(segment, "w") as output:
        stream = output.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "g": str(KEYFRAME_INTERVAL)})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode(None))
    with av.open(path, "w") as output, av.open(segment) as first:
        stream = output.add_stream_from_template(first.streams.video[0])
        time_base = first.streams.video[0].time_base
        assert time_base is not None
        duration = round(SEGMENT_FRAMES / FPS / time_base)
        for repeat in range(round(minutes * 60 * FPS / SEGMENT_FRAMES)):
            with av.open(segment) as copy:
                for packet in copy.demux(video=0):
                    if packet.pts is not None and packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + repeat * duration, packet.dts + repeat * duration
                        packet.stream = stream
                        output.mux(packet)
    segment.unlink()


def write_first_rows(manifest: Path, count: int) -> Path:
    """Return a manifest of the first clips of another."""
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    path = manifest.with_name(f"first_{count}.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows[: count + 1])
    return path


def peak_mib(command: list[str]) -> float:
    """Run a command and return its peak memory."""
    run = subprocess.run([sys.executable, "-c", PROGRAM, *command], capture_output=True, text=True, check=False)
    *_, peak = run.stderr.strip().splitlines()
    if run.returncode or not peak.startswith("PEAK "):
        raise RuntimeError(f"{command} ended with {run.returncode}: {run.stdout[-2000:]}{run.stderr[-2000:]}")
    return int(peak.removeprefix("PEAK ")) / 1024


def measure_task(task: str, folder: Path, kind: str, names: tuple[str, str], inputs: tuple[Path, Path]) -> PeakRow:
    """Run a task on the small and on the large input."""
    arguments = (CLIP_TASKS if kind == "clips" else VIDEO_TASKS)[task]
    peaks = [
        peak_mib([task, MODEL, "--num_workers=0", *arguments(videos, folder / f"{task}_{kind}_{i}")])
        for i, videos in enumerate(inputs)
    ]
    return PeakRow(task, kind, *names, *peaks)


def measure_all(folder: Path, tasks: list[str], kinds: list[str]) -> Iterator[PeakRow]:
    """Write the inputs and yield the peaks of each task."""
    if "clips" in kinds:
        write_clips(make_clips("small", max(CLIP_COUNTS), 1), folder / "videos")
        mine = ["mine_concepts", MODEL, "--videos=worlds:small:150:1", CONCEPTS, "--num_workers=0"]
        peak_mib([*mine, "--max_clips=6", "--num_random_sets=4", f"--out={folder / 'concepts'}"])
        few, many = (write_first_rows(folder / "videos" / "manifest.csv", count) for count in CLIP_COUNTS)
        names = f"{CLIP_COUNTS[0]} clips", f"{CLIP_COUNTS[1]} clips"
        for task in CLIP_TASKS:
            if task in tasks:
                yield measure_task(task, folder, "clips", names, (few, many))
    if "video" in kinds:
        short, long = (folder / f"{minutes:g}_minutes.mp4" for minutes in MINUTES)
        for path, minutes in zip((short, long), MINUTES):
            write_long_video(path, minutes)
        names = f"{MINUTES[0]:g} minutes", f"{MINUTES[1]:g} minutes"
        for task in VIDEO_TASKS:
            if task in tasks:
                yield measure_task(task, folder, "video", names, (short, long))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(CLIP_TASKS))
    parser.add_argument("--kinds", default="clips,video")
    parser.add_argument("--write", action="store_true", help="write the peaks for docs/reliability.md")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in measure_all(Path(folder), options.tasks.split(","), options.kinds.split(",")):
            rows.append(row)
            print(row, f"{row.ratio:.2f}", flush=True)
            if options.write:  # each time, so that an interrupted run leaves its rows
                replace_results("memory", [asdict(row) for row in rows], ("task", "input"))


if __name__ == "__main__":
    main()
