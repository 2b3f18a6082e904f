"""Ordinary commands in a row, each printed as it could be typed: quickstart and experiment consist of them.

Each goes on where it was stopped, and so does the row.
"""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vtcav_jax.console import info


def run_pipeline(
    program: Path, steps: Sequence[Sequence[str]], verbosity_flags: Sequence[str] = (), *, dry_run: bool = False
) -> int:
    """Runs `program` with the flags of each step, and `style` besides; returns the exit code of the first that fails.
    `dry_run` only prints them."""
    for i, flags in enumerate(steps, start=1):
        info(f"\n[{i}/{len(steps)}] python {program.name} {shlex.join(flags)}")
        if not dry_run and (
            code := subprocess.run([sys.executable, str(program), *flags, *verbosity_flags]).returncode
        ):
            return code
    return 0
