"""The command line: `vtcav TASK --FLAG=VALUE ...`; `--task=TASK` in a command or a flagfile means the same.

`vtcav`, `python -m vtcav_jax` and `python main.py` are one program. The flags of a task are the fields of its argument
dataclass. Every command ends with one of `EXIT_CODES`.
"""

import os
import select
import signal
import sys
import time
import traceback
from pathlib import Path

from absl import flags

import vtcav_jax
from vtcav_jax import console, distributed
from vtcav_jax.atomic import explain_disk_full
from vtcav_jax.cli import arguments, help_text
from vtcav_jax.cli.compile_cache import use_compile_cache
from vtcav_jax.cli.tasks import TASKS, CommandContext
from vtcav_jax.host_memory import keep_freed_memory
from vtcav_jax.names import escape_control_chars, unknown_name_message
from vtcav_jax.runs.lock import exclusive_folders
from vtcav_jax.settings import SettingError

REFUSED, INTERNAL_ERROR, INTERRUPTED, READER_CLOSED = 1, 70, 130, 141
HELP_FLAGS = {"--help", "-h", "-help", "--helpfull"}


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    words = name_task(sys.argv[1:] if argv is None else argv)
    if not words or (HELP_FLAGS | {"--version"}) & set(words):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the reader may close early, as `head` does
        if "--version" in words:
            print(f"vtcav {vtcav_jax.__version__}")
        elif "--helpfull" in words:
            print(help_text.format_all_flags())
        else:
            print(help_text.format_help(task_of(words)))
        return 0
    started, task = time.monotonic(), None
    try:
        task, values = parse_command(words)
        mode = "json" if values["log_json"].value else "quiet" if values["quiet"].value else "plain"
        console.verbosity.set(mode)
        cache = values["compile_cache"].value
        use_compile_cache(Path(cache) if cache else None)
        keep_freed_memory()
        code = run_task(task, values)
    except KeyboardInterrupt:
        saved = TASKS[task].on_interrupt if task else "nothing"
        console.warn(f"\ninterrupted; saved: {saved}\n  {help_text.format_command(words)}")
        code = INTERRUPTED
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and discard_closed_output():
            return READER_CLOSED
        console.warn(f"error: {escape_control_chars(render_error(error))}")
        code = REFUSED
    except Exception:
        missing = missing_device_error()
        console.warn(
            f"error: {missing}"
            if missing
            else f"{traceback.format_exc()}\ninternal error; please report it with the lines above"
        )
        code = REFUSED if missing else INTERNAL_ERROR
    console.json_event("end", task=task, code=code, seconds=round(time.monotonic() - started, 3))
    return code


def name_task(words: list[str]) -> list[str]:
    """Replace a task that is the first word by its flag: `tcav --run=x` becomes `--task=tcav --run=x`."""
    return [f"--task={words[0]}", *words[1:]] if words and not words[0].startswith("-") else words


def task_of(words: list[str]) -> str | None:
    """Return the task that the words of a command name; the last one counts, as for every flag."""
    named = [word.partition("=")[2] for word in words if word.startswith("--task=")]
    return named[-1] if named else None


def parse_command(words: list[str]) -> tuple[str, flags.FlagValues]:
    """Return the task of a command and its flags, including those in flagfiles."""
    try:
        words = flags.FlagValues().read_flags_from_files(words, force_gnu=False)
        if (task := task_of(words)) is None:
            raise ValueError(f"no task is given; expected vtcav TASK, with one of {', '.join(TASKS)}; see vtcav --help")
        if task not in TASKS:
            raise ValueError(unknown_name_message("task", [task], TASKS))
        values = arguments.define_flags(TASKS[task].argument_class)
        unexpected = values(["vtcav", *words])[1:]
    except flags.UnrecognizedFlagError as error:
        raise ValueError(_describe_unknown_flag(error, task_of(words) or "")) from error
    except flags.Error as error:
        raise ValueError(arguments.describe_flag_error(error)) from error
    if unexpected:
        plural = "s" if len(unexpected) > 1 else ""
        raise ValueError(
            f"unexpected argument{plural}: {' '.join(unexpected)}; after the task, every argument is a flag,"
            " --name=value; see --help"
        )
    return task, values


def _describe_unknown_flag(error: flags.UnrecognizedFlagError, task: str) -> str:
    takers = [name for name, spec in TASKS.items() if error.flagname in arguments.flag_specs(spec.argument_class)]
    if takers:
        return (
            f"--{error.flagname} is a flag of {', '.join(takers)}, not of {task}; remove it, or see vtcav {task} --help"
        )
    return arguments.describe_flag_error(error)


def run_task(task: str, values: flags.FlagValues) -> int:
    """Run the command of a task while holding the locks of the folders that it writes; return its exit code."""
    spec = TASKS[task]
    args = arguments.parse_arguments(spec.argument_class, values, task)
    if isinstance(args, arguments.ProcessArguments):
        distributed.connect(args.coordinator, args.num_processes, args.process_id)
        from vtcav_jax.cli.process_agreement import require_same_command  # imports JAX, unlike this module

        require_same_command(task, values)
        if not distributed.is_main_process():
            console.verbosity.set("quiet")
    with exclusive_folders(), explain_disk_full(_output_folder(args)):
        code = spec.command(args, CommandContext(values)) or 0
        distributed.wait_for_all()
        return code


def _output_folder(args: object) -> Path:
    """Return the folder that a command writes; the current one if it has none."""
    folder = getattr(args, "out", None) or getattr(args, "run", None) or Path()
    return folder[-1] if isinstance(folder, tuple) else folder


def render_error(error: Exception) -> str:
    """Return a library error as a message of the command line, where a setting is the flag of the same name."""
    if isinstance(error, SettingError):
        return "; ".join(f"--{name}: {text}" for name, text in error.problems)
    return str(error)


def discard_closed_output() -> bool:
    """Send output whose reader has closed it, as `| head` does, to the null device; return whether there is any.

    The default action of SIGPIPE would do for output, but would also end the command when a decoding worker dies.
    """
    closed = []
    for descriptor in (1, 2):
        poll = select.poll()
        poll.register(descriptor, 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            closed.append(descriptor)
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return bool(closed)


def missing_device_error() -> str:
    """Return the message for a JAX_PLATFORMS whose devices JAX does not find; empty if it finds them."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if not platforms:
        return ""
    import jax

    try:
        jax.devices()
        return ""
    except Exception:  # of several types, among them AssertionError
        extra = next((name for name in ("cuda", "tpu") if name in platforms), None)
        return (
            f"JAX finds no {platforms} device; {f'install the extra {extra}, or ' if extra else ''}unset JAX_PLATFORMS"
        )


def start() -> None:
    """Run the command in `sys.argv` and exit; the entry point of `vtcav`."""
    code = main()
    if code and distributed.may_wait_at_exit():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
