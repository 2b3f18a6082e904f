"""Commands that are killed at random moments and repeated, compared with an undisturbed run."""

import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.material import INTERNAL_ERROR, REFUSED, TASKS, Material, file_hashes, run_command, unequal_files


@dataclass(frozen=True)
class KillResult:
    """Counts over all kills of one task, and a sentence on each fault."""

    crashes: int
    hangs: int
    refusals: int
    differing_files: int
    repeated_share: float  # mean over kills
    faults: tuple[str, ...]


def kill_and_continue(name: str, material: Material, folder: Path, seed: int, kills: int) -> KillResult:
    """Kill the task at `kills` random moments, each in a new folder, and repeat it until it ends."""
    task, draw, faults, shares = TASKS[name], random.Random(f"{seed} {name}"), [], []
    crashes = hangs = refusals = differing = 0
    out = folder / "out"  # always the same path, which some files contain
    folder.mkdir(parents=True)
    run_command(task.command(material, out))  # compiles
    shutil.rmtree(out, ignore_errors=True)
    start = time.monotonic()
    code, output = run_command(task.command(material, out))
    whole = time.monotonic() - start
    if code:
        return KillResult(0, 0, 1, 0, 0.0, (f"exit {code}: {output[-2000:]}",))
    expected = file_hashes(folder, task.unequal)
    start = time.monotonic()
    run_command(task.command(material, out))
    again = time.monotonic() - start  # what a command takes that has nothing left to do, or all of it again
    for _ in range(kills):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        moment = draw.random() * whole
        run_command(task.command(material, out), kill_after=moment)
        start = time.monotonic()
        code, output = run_command(task.command(material, out))
        shares.append(max(0.0, moment + time.monotonic() - start - whole - again) / whole)
        written = file_hashes(folder, task.unequal)
        if code and not (code == REFUSED and written == expected):  # the first command may have finished
            crashes, hangs = crashes + (code == INTERNAL_ERROR), hangs + (code < 0)
            refusals += 0 < code < INTERNAL_ERROR
            faults.append(f"after {moment:.2f} of {whole:.2f} s: exit {code}: {output[-2000:]}")
            continue
        unequal = unequal_files(expected, written)
        differing += len(unequal)
        faults += [f"after {moment:.2f} of {whole:.2f} s: other bytes in {', '.join(unequal[:10])}"] if unequal else []
    return KillResult(crashes, hangs, refusals, differing, sum(shares) / len(shares), tuple(faults))
