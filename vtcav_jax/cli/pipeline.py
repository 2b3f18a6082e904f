"""Commands that consist of several others, each printed as a user would type it: quickstart and experiment."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import vtcav_jax
from vtcav_jax.cli.help_text import format_command
from vtcav_jax.console import info, warn


def run_pipeline(steps: Sequence[Sequence[str]], common_flags: Sequence[str] = (), *, dry_run: bool = False) -> int:
    """Run a command with the flags of each step; return the exit code of the first that fails, else 0.

    A step that was interrupted before continues. `dry_run` only prints the commands.
    """
    root = str(Path(vtcav_jax.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    for i, flags in enumerate(steps, start=1):
        info(f"\n[{i}/{len(steps)}] {format_command(flags)}")
        command = [sys.executable, "-m", "vtcav_jax", *flags, *common_flags]
        if not dry_run and (code := subprocess.run(command, env=environment).returncode):
            if code < 0:  # the step could not say so itself
                warn(f"error: step {i} was ended by {signal.Signals(-code).name}, possibly out of memory")
            return code if code > 0 else 128 - code
    return 0
