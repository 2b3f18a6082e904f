"""Several commands in a row, each printed as it could be typed: quickstart and experiment consist of them."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import vtcav_jax
from vtcav_jax.console import info


def run_pipeline(steps: Sequence[Sequence[str]], verbosity_flags: Sequence[str] = (), *, dry_run: bool = False) -> int:
    """Run a command with the flags of each step; return the exit code of the first that fails. Each step continues
    where it was stopped. `dry_run` only prints the commands."""
    root = str(Path(vtcav_jax.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    for i, flags in enumerate(steps, start=1):
        info(f"\n[{i}/{len(steps)}] python main.py {shlex.join(flags)}")
        command = [sys.executable, "-m", "vtcav_jax", *flags, *verbosity_flags]
        if not dry_run and (code := subprocess.run(command, env=environment).returncode):
            return code
    return 0
