"""Commands as typed by a user, each in a process forked from one that has imported everything.

jax is not initialised when a process is forked. The differences from `python main.py` are that imports, which take most
of the time of a command with invalid flags, are done before, and that there is no teardown at exit.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from absl import flags

from vtcav_jax.cli.tasks import CommandContext

ROOT = str(Path(__file__).parents[2])
SERVER = """
import importlib, json, os, pkgutil, signal, sys, traceback
sys.path.insert(0, os.getcwd())
import vtcav_jax.report.build, vtcav_jax.cli.commands
from vtcav_jax.cli import main
for module in pkgutil.iter_modules(vtcav_jax.cli.commands.__path__):
    importlib.import_module(f"vtcav_jax.cli.commands.{module.name}")
for line in sys.stdin:
    program, arguments, out, err, cwd = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    code = 1
    for number, path in enumerate((os.devnull, out, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.chdir(cwd)
    signal.alarm(900)
    sys.argv = ["vtcav", *arguments]
    try:
        exec(program, {"main": main})
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
"""


Environment = tuple[tuple[str, str], ...]
_SERVERS: dict[tuple[int, Environment], subprocess.Popen] = {}


@dataclass(frozen=True)
class RunningCommand:
    """A command that a server runs; each server runs one at a time."""

    server: subprocess.Popen
    folder: tempfile.TemporaryDirectory

    def result(self) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr when the command has ended."""
        with self.folder as folder:
            code = _stream(self.server.stdout).readline()
            assert code, "the process that commands are forked from has ended"
            out, err = (Path(folder, name).read_text(encoding="utf-8") for name in ("out", "err"))
            return int(code), out, err


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _server(number: int, environment: Environment) -> subprocess.Popen:
    if (number, environment) not in _SERVERS:
        _SERVERS[number, environment] = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=ROOT,
            env=os.environ | dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    return _SERVERS[number, environment]


def stop_cli_server() -> None:
    """End the processes that others are forked from."""
    while _SERVERS:
        with _SERVERS.popitem()[1] as server:
            _stream(server.stdin).close()


def start_cli(
    *arguments,
    program: str = "main.start()",
    cwd: str | Path = ROOT,
    number: int = 0,
    environment: Environment = (),
) -> RunningCommand:
    """Start `python main.py ARGUMENTS`, or a `program` that has `main`, in the server of a number and environment."""
    command = RunningCommand(_server(number, environment), tempfile.TemporaryDirectory())
    output_files = [str(Path(command.folder.name, name)) for name in ("out", "err")]
    stdin = _stream(command.server.stdin)
    stdin.write(json.dumps([program, list(map(str, arguments)), *output_files, str(cwd)]) + "\n")
    stdin.flush()
    return command


def run_cli(*arguments, program: str = "main.start()", cwd: str | Path = ROOT) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of `python main.py ARGUMENTS`, or of a `program` that has `main`."""
    return start_cli(*arguments, program=program, cwd=cwd).result()


def command_context() -> CommandContext:
    """Return the context of a command without flags."""
    return CommandContext(flags.FlagValues())
