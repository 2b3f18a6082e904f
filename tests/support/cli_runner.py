"""Commands as typed by a user, each in a process forked from one that has imported everything.

jax is not initialised when a process is forked. The differences from `python main.py` are that imports, which take most
of the time of a command with invalid flags, are done before, and that there is no teardown at exit.
"""

import json
import subprocess
import sys
import tempfile
from functools import cache
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


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@cache
def _server() -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def stop_cli_server() -> None:
    """Run the process that others are forked from."""
    if _server.cache_info().currsize:
        with _server() as server:
            _stream(server.stdin).close()
        _server.cache_clear()


def run_cli(*arguments, program="main.start()", cwd: str | Path = ROOT) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of `python main.py ARGUMENTS`, or of a `program` that has `main`."""
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        output_files = [Path(folder, name) for name in ("out", "err")]
        _stream(server.stdin).write(
            json.dumps([program, list(map(str, arguments)), *map(str, output_files), str(cwd)]) + "\n"
        )
        _stream(server.stdin).flush()
        code = _stream(server.stdout).readline()
        assert code, "the process that commands are forked from has ended"
        out, err = (path.read_text(encoding="utf-8") for path in output_files)
        return int(code), out, err


def command_context() -> CommandContext:
    """Return the context of a command without flags."""
    return CommandContext(flags.FlagValues())
