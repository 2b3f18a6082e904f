"""The command line: `python main.py --task=TASK ...`, or `python -m vtcav_jax --task=TASK ...`.

A task's flags are the fields of its argument dataclass. What a command does ends as one of `EXIT_CODES`.
"""

import shlex
import signal
import sys
import time
import traceback

from absl import flags

from vtcav_jax import console
from vtcav_jax.cli import arguments, help_text
from vtcav_jax.cli.tasks import TASKS, CommandContext
from vtcav_jax.names import unknown_name_message
from vtcav_jax.runs.lock import exclusive_runs
from vtcav_jax.settings import SettingError

REFUSED, INTERNAL_ERROR, INTERRUPTED = 1, 70, 130
HELP_FLAGS = {"--help", "-h", "-help", "--helpfull"}


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if HELP_FLAGS & set(words):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the reader may close early, as `head` does
        print(help_text.format_help(task_of(words)))
        return 0
    started, task = time.monotonic(), None
    try:
        task, values = parse_command(words)
        mode = "json" if values["log_json"].value else "quiet" if values["quiet"].value else "plain"
        console.verbosity.set(mode)
        code = run_task(task, values)
    except KeyboardInterrupt:
        kept = TASKS[task].on_interrupt if task else "nothing"
        console.warn(f"\nstopped; kept: {kept}\n  python main.py {shlex.join(words)}")
        code = INTERRUPTED
    except (ValueError, OSError) as error:
        console.warn(f"error: {render_error(error)}")
        code = REFUSED
    except Exception:
        console.warn(f"{traceback.format_exc()}\ninternal error; please report it with the lines above")
        code = INTERNAL_ERROR
    console.json_event("end", task=task, code=code, seconds=round(time.monotonic() - started, 3))
    return code


def task_of(words: list[str]) -> str | None:
    named = [word.partition("=")[2] for word in words if word.startswith("--task=")]
    return named[-1] if named else None


def parse_command(words: list[str]) -> tuple[str, flags.FlagValues]:
    """The task of a command and its flags, those in flagfiles included."""
    try:
        words = flags.FlagValues().read_flags_from_files(words, force_gnu=False)
        if (task := task_of(words)) is None:
            raise ValueError(f"--task is missing: one of {', '.join(TASKS)}; see --help")
        if task not in TASKS:
            raise ValueError("--task: " + unknown_name_message("task", [task], TASKS))
        values = arguments.define_flags(TASKS[task].argument_class)
        unexpected = values(["main.py", *words])[1:]
    except flags.UnrecognizedFlagError as error:
        raise ValueError(_describe_unknown_flag(error, task_of(words) or "")) from error
    except flags.Error as error:
        raise ValueError(arguments.describe_flag_error(error)) from error
    if unexpected:
        raise ValueError(f"unexpected {unexpected}; every argument is a flag, --name=value; see --help")
    return task, values


def _describe_unknown_flag(error: flags.UnrecognizedFlagError, task: str) -> str:
    takers = [name for name, spec in TASKS.items() if error.flagname in arguments.flag_specs(spec.argument_class)]
    if takers:
        return f"--{error.flagname} is a flag of {', '.join(takers)}, not of --task={task}; leave it out, or see --help"
    return arguments.describe_flag_error(error)


def run_task(task: str, values: flags.FlagValues) -> int:
    spec = TASKS[task]
    with exclusive_runs():
        return spec.command(arguments.parse_arguments(spec.argument_class, values, task), CommandContext(values)) or 0


def render_error(error: Exception) -> str:
    """A library error in the words of the command line: each setting is the flag of the same name."""
    if isinstance(error, SettingError):
        return "; ".join(f"--{name}: {text}" for name, text in error.problems)
    return str(error)


def start() -> None:
    """The entry point of `main.py`."""
    sys.exit(main())
