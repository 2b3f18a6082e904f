"""A server in a process of its own, as a user starts it."""

import subprocess
import sys
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]


class ServeProcess:
    """`vtcav serve` with its address; `lines` is all that it printed until it was ready."""

    def __init__(self, *flags: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vtcav_jax", "serve", *flags], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        while not (self.lines and self.lines[-1].startswith("http://")):
            line = self._output.readline()
            if not line:
                raise RuntimeError(f"the server ended with {self.process.wait()}: {self.lines}")
            self.lines.append(line.strip())

    @property
    def _output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    @property
    def address(self) -> str:
        return self.lines[-1]

    @property
    def port(self) -> int:
        return int(self.address.split(":")[2].split("/")[0])

    def kill(self) -> None:
        """End the process without a chance to save anything."""
        self.process.kill()
        self.close()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)
        self._output.close()

    def __enter__(self) -> "ServeProcess":
        return self

    def __exit__(self, *_) -> None:
        self.close()
