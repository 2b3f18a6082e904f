"""Pairs of equal commands at the same time: one may be refused, and the results are those of one."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.faults.material import FaultTask, Material, file_hashes, quick, run_command, unequal_files
from tests.support.cli_runner import ROOT

SECONDS = 600


@dataclass(frozen=True)
class PairResult:
    """Counts over the pairs of one task, and a sentence on each fault."""

    crashes: int
    differing_files: int
    faults: tuple[str, ...]


def run_pairs(task: FaultTask, material: Material, folder: Path, pairs: int) -> PairResult:
    """Run a command `pairs` times twice at the same time, in processes of their own, and compare with a single run."""
    out, crashes, differing, faults = folder / "out", 0, 0, []
    folder.mkdir(parents=True)
    code, output = run_command(task.command(material, out))
    if code:
        return PairResult(1, 0, (f"alone: exit {code}: {output[-2000:]}",))
    expected = file_hashes(folder, task.unequal)
    command = [sys.executable, "-m", "vtcav_jax", *quick(task.command(material, out))]
    environment = os.environ | {"PYTHONPATH": ROOT}
    for _ in range(pairs):
        shutil.rmtree(out)
        pair = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        ends = [(process.communicate(timeout=SECONDS)[1], process.returncode) for process in pair]
        codes = sorted(code for _, code in ends)
        is_locked = any(
            "another process is using" in errors or "already" in errors for errors, code in ends if code == 1
        )
        written = file_hashes(folder, task.unequal)
        unequal = unequal_files(expected, written)
        differing += len(unequal)
        faults += [f"other bytes in {', '.join(unequal[:10])}"] if unequal else []
        if codes != [0, 0] and not (codes == [0, 1] and is_locked):
            crashes += 1
            faults.append(f"exit {codes}: {ends}")
    return PairResult(crashes, differing, tuple(faults))
