"""The text of `--help`: all tasks, or one task with its flags."""

import textwrap
from dataclasses import MISSING

from vtcav_jax.cli.arguments import CommonArguments, FlagSpec, flag_specs
from vtcav_jax.cli.tasks import TASKS
from vtcav_jax.settings import choices_of, without_none

EXIT_CODES = {
    0: "done",
    1: "refused: a flag or a file is wrong; one sentence on stderr says what to do",
    70: "internal error, with its traceback; please report it",
    130: "interrupted by Ctrl-C; a message says what was kept and how to continue",
}
SOURCES = """Videos are a folder (of class folders), one file, a manifest (.csv: path, label or label:HEAD, start, end),
a data set (tfds:NAME:SPLIT), the output of --task=preprocess, or synthetic clips (worlds:small:COUNT:SEED)."""


def format_help(task: str | None = None) -> str:
    """Help for one task, or for all."""
    if task in TASKS:
        spec = TASKS[task]
        lines = [*_wrap(spec.summary, 0), "", f"  {example_command(task)}", ""]
        lines += [*_wrap(f"When interrupted, it keeps {spec.on_interrupt}.", 0), "", SOURCES, ""]
        lines += [f"{task}:", *_flag_lines(flag_specs(spec.argument_class)), ""]
    else:
        lines = ["python main.py --task=TASK ...   explain what a video network has learnt", ""]
        for name, spec in TASKS.items():
            lines += [f"  {example_command(name)}", *_wrap(spec.summary, 6)]
        lines += ["", "python main.py --task=TASK --help   lists the flags of one task", "", SOURCES, ""]
        listed: set[str] = set()
        for name, spec in TASKS.items():
            specs = {flag: s for flag, s in flag_specs(spec.argument_class).items() if flag not in listed}
            listed |= set(specs)
            lines += [f"{name}:", *_flag_lines(specs), ""] if specs else []
    lines += ["every task:", *_flag_lines(flag_specs(CommonArguments)), ""]
    lines += ["exit codes:", *(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items()), ""]
    lines.append(
        "--flagfile=FILE reads flags from a file, one --name=value per line; later flags override earlier ones."
    )
    return "\n".join(lines)


def example_command(task: str) -> str:
    """A command that can be typed, except for names in capitals."""
    return f"python main.py --task={task} {TASKS[task].example}".rstrip()


def _flag_lines(specs: dict[str, FlagSpec]) -> list[str]:
    lines = []
    for spec in sorted(specs.values(), key=lambda spec: spec.default is not MISSING):
        name = f"[no]{spec.name}" if without_none(spec.hint) is bool else spec.name
        options = choices_of(without_none(spec.hint), spec.info)
        values = f" <{'|'.join(options)}>" if options else " (required)" if spec.default is MISSING else ""
        lines += [f"  --{name}:{values}", *_wrap(spec.text, 6)]
    return lines


def _wrap(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=" " * indent, subsequent_indent=" " * indent)
