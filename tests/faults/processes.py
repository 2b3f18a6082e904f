"""Commands in several connected processes, as on a cluster, but on this machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.faults.material import SECONDS_UNTIL_HANG, quick
from tests.support.cli_runner import ROOT, start_cli

# One thread of NumPy's products each
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def command_lines(command: list[str], count: int) -> list[list[str]]:
    """Return the arguments of each of `count` processes that share the work of a command."""
    if count == 1:
        return [quick(command)]
    with socket.socket() as unused:
        unused.bind(("localhost", 0))
        port = unused.getsockname()[1]
    shared = [*quick(command), f"--coordinator=localhost:{port}", f"--num_processes={count}"]
    return [[*shared, f"--process_id={i}"] for i in range(count)]


def run_processes(
    command: list[str],
    count: int,
    *,
    further: Sequence[Sequence[str]] = (),
    folders: Sequence[str | Path] = (),
    program: str = "main.start()",
) -> list[tuple[int, str]]:
    """Return the exit code and the output of each process; each is forked from one that has imported everything.

    `further` are arguments of each process, and `folders` those that they are started in.
    """
    timer = f"import signal; signal.setitimer(signal.ITIMER_REAL, {SECONDS_UNTIL_HANG})"
    running = [
        start_cli(
            *arguments,
            *(further[i] if further else ()),
            program=f"{timer}; {program}",
            cwd=folders[i] if folders else ROOT,
            number=i,
            environment=tuple(ENVIRONMENT.items()),
        )
        for i, arguments in enumerate(command_lines(command, count))
    ]
    results = [process.result() for process in running]
    return [(code, out + errors) for code, out, errors in results]


def start_processes(command: list[str], count: int) -> list[subprocess.Popen[str]]:
    """Start processes of their own, which can be killed."""
    return [
        subprocess.Popen(
            [sys.executable, "-m", "vtcav_jax", *arguments],
            env=os.environ | ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments in command_lines(command, count)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Return the exit code and the output of each process."""
    try:
        outputs = [process.communicate(timeout=SECONDS_UNTIL_HANG) for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
            process.communicate()
        raise
    return [(process.returncode, out + errors) for process, (out, errors) in zip(processes, outputs, strict=True)]
