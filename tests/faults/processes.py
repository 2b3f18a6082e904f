"""Commands in several connected processes, as on a cluster, but on this machine."""

import os
import socket
import subprocess
import sys

from tests.faults.material import SECONDS_UNTIL_HANG, quick


def start_processes(command: list[str], count: int) -> list[subprocess.Popen[str]]:
    """Start a command in `count` processes that share its work, with one thread of NumPy's products each."""
    with socket.socket() as unused:
        unused.bind(("localhost", 0))
        port = unused.getsockname()[1]
    shared = [f"--coordinator=localhost:{port}", f"--num_processes={count}"] if count > 1 else []
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "vtcav_jax", *quick(command), *shared),
                *([f"--process_id={i}"] if shared else []),
            ],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
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
