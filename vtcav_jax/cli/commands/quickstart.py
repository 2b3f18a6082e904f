"""--task=quickstart: ordinary commands in a row, each printed as it would be typed, and three sentences about the end.

The network is one that ships; what it should go by is known, because the clips are synthetic: its head for directions
by the motion of the green glyph, its head for shapes by the look of it.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

from vtcav_jax.cli.commands.pipeline import run_pipeline
from vtcav_jax.console import emit
from vtcav_jax.report.run_reader import RunFolder, open_run_folder
from vtcav_jax.report.text.tcav import class_answers, trust_notes

QUICKSTART_TARGETS = "direction:left", "shape:ring"
QUICKSTART_CONCEPTS = "left=@direction:left", "right=@direction:right", "ring=@shape:ring", "bars=@shape:bars"


def quickstart_commands(folder: Path) -> Iterator[list[str]]:
    """The steps: clips as files, concepts out of them, and the experiment on other clips, which ends with a page."""
    yield ["--task=worlds", "--videos=worlds:small:600:21", f"--out={folder / 'videos'}"]
    yield [
        *("--task=mine", f"--videos={folder / 'videos' / 'manifest.csv'}", "--model=worlds_swin"),
        *(
            f"--concepts={','.join(QUICKSTART_CONCEPTS)}",
            "--most=25",
            "--random_sets=5",
            f"--out={folder / 'concepts'}",
        ),
    ]
    yield [
        *("--task=tcav", "--model=worlds_swin", f"--targets={','.join(QUICKSTART_TARGETS)}"),
        *("--target_videos=worlds:small:160:5", "--n_targets=30", f"--concepts={folder / 'concepts'}"),
        *("--stages=layers.0,layers.1,pool", "--tests=absolute,motion"),
        f"--run={folder / 'tcav'}",
    ]


def quickstart(program: Path, folder: Path, verbosity_flags: list[str]) -> int:
    """Runs the commands by `program`, with the flags `style` besides; returns the exit code of the first that fails."""
    if code := run_pipeline(program, list(quickstart_commands(folder)), verbosity_flags):
        return code
    emit(quickstart_summary(open_run_folder(folder / "tcav"), folder))
    return 0


def quickstart_summary(run: RunFolder, folder: Path) -> str:
    """The page's place, three sentences that the numbers support, and what to try next."""
    sentences = [
        f"{lead} {rest.partition('. ')[0].rstrip('.')}."
        for one in class_answers(run)
        for lead, rest in one.findings[:1]
    ]
    nothing = [(one.target, one.no_effect_text) for one in class_answers(run) if one.no_effect_text]
    sentences += [f"{target}: {text[0].lower()}{text[1:]}" for target, text in nothing[:1]] or trust_notes(run)[:1]
    next_flags = [
        *("--task=explain_concepts", "--model=worlds_swin", f"--run={folder / 'tcav'}", "--videos=worlds:small:20:9"),
        *(f"--targets={QUICKSTART_TARGETS[0]}", f"--out={folder / 'explained'}"),
    ]
    lines = [f"\nthe page: {run.folder / 'report' / 'index.html'}", "", *sentences[:3], ""]
    lines += ["next, the same concepts in clips that nobody has seen:", f"  python main.py {shlex.join(next_flags)}"]
    return "\n".join(lines)
