"""The text of `--help`: an overview of the tasks, or one task with its flags."""

import shlex
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import MISSING

from vtcav_jax.cli.arguments import CommonArguments, FlagSpec, flag_specs
from vtcav_jax.cli.tasks import TASK_GROUPS, TASKS
from vtcav_jax.settings import choices_of, without_none

EXIT_CODES = {
    0: "success",
    1: "a flag or a file is wrong; one sentence on stderr says what to change",
    70: "internal error, with its traceback; please report it",
    130: "interrupted by Ctrl-C; a message says what was saved and how to continue",
    141: "the reader of the output closed it, as head does",
}
SOURCES = """Videos are a folder (of class folders), one file, a manifest (.csv: path, label or label:HEAD, start, end),
a dataset (tfds:NAME:SPLIT), the output of the task preprocess, synthetic clips (worlds:small:COUNT:SEED), or the
official annotations of a data set and the folder of its videos:
kinetics:CSV:FOLDER, ucf101:LIST:FOLDER, hmdb51:SPLITS/1/test:FOLDER, ssv2:JSON:FOLDER, epic:CSV:FOLDER,
egtea:LIST:FOLDER."""
FLAGFILES = """--flagfile=FILE reads flags from a file, one --name=value per line; later flags override earlier ones."""
DEVICES = """The environment variable JAX_PLATFORMS (cpu, cuda or tpu) selects the device."""
WIDTH, TEXT_COLUMN = 100, 26


def format_help(task: str | None = None) -> str:
    """Return the help of one task, or the overview of all tasks."""
    return _task_help(task) if task in TASKS else _overview()


def format_all_flags() -> str:
    """Return the help of every task, one after the other."""
    return "\n\n\n".join([_overview(), *map(_task_help, TASKS)])


def format_command(words: Sequence[str]) -> str:
    """Return a command as a user would type it; its task comes first."""
    tasks = [word.partition("=")[2] for word in words if word.startswith("--task=")]
    return shlex.join(["vtcav", *tasks[-1:], *(word for word in words if not word.startswith("--task="))])


def example_command(task: str) -> str:
    """Return a command that can be typed, except for names in capitals."""
    return f"vtcav {task} {TASKS[task].example}".rstrip()


def _overview() -> str:
    lines = ["vtcav TASK --FLAG=VALUE ...   Explain what a video classifier has learnt.", ""]
    for group, tasks in TASK_GROUPS.items():
        lines += [f"{group}:"]
        for task in tasks:
            lines += _two_columns(f"  {task}", TASKS[task].summary)
        lines.append("")
    lines += ["vtcav TASK --help   flags of a task, with an example", "vtcav --helpfull    flags of all tasks", ""]
    lines += [SOURCES, FLAGFILES, DEVICES, ""]
    lines += ["Exit codes:", *(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())]
    return "\n".join(lines)


def _task_help(task: str) -> str:
    spec, specs = TASKS[task], flag_specs(TASKS[task].argument_class).values()
    lines = [*textwrap.wrap(f"vtcav {task}   {spec.summary}", WIDTH, subsequent_indent="  "), ""]
    lines += ["Example:", f"  {example_command(task)}", ""]
    lines += _section("Required flags", (spec for spec in specs if spec.default is MISSING))
    lines += _section("Optional flags", (spec for spec in specs if spec.default is not MISSING))
    lines += _section("Flags of every task", flag_specs(CommonArguments).values())
    lines += [*textwrap.wrap(f"If interrupted, {task} keeps {spec.on_interrupt}.", WIDTH), "", SOURCES, FLAGFILES]
    return "\n".join(lines)


def _section(title: str, specs: Iterable[FlagSpec]) -> list[str]:
    lines = [line for spec in specs for line in _two_columns(f"  {_flag_name(spec)}", _flag_text(spec))]
    return [f"{title}:", *lines, ""] if lines else []


def _flag_name(spec: FlagSpec) -> str:
    return f"--[no]{spec.name}" if without_none(spec.hint) is bool else f"--{spec.name}"


def _flag_text(spec: FlagSpec) -> str:
    choices = choices_of(without_none(spec.hint), spec.info)
    unexplained = [choice for choice in choices or () if choice not in spec.text]
    return f"{spec.text}  ({' | '.join(choices)})" if choices and unexplained else spec.text


def _two_columns(left: str, right: str) -> list[str]:
    indent = " " * TEXT_COLUMN
    lines = textwrap.wrap(right, WIDTH, initial_indent=indent, subsequent_indent=indent)
    if len(left) > TEXT_COLUMN - 2:
        return [left, *lines]
    return [left.ljust(TEXT_COLUMN) + lines[0].lstrip(), *lines[1:]]
