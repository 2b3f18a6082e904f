"""What --help says: all tasks, or one with its flags in groups."""

import textwrap

from absl import flags as absl_flags

from vtcav_jax.cli.flags import CODES, TASKS, ours, tasks_of, told


def help_text(task: str | None = None) -> str:
    """Of everything, or of one task."""
    if task not in TASKS:
        lines = ["python main.py --task=TASK ...   asks a video network what it has learnt", ""]
        for name, about in TASKS.items():
            lines += [f"  {command(name)}", *_wrapped(about.what, 6)]
        lines += ["", "python main.py --task=TASK --help   tells the flags of one task", "", SOURCES, ""]
    else:
        about = TASKS[task]
        lines = [
            *_wrapped(about.what, 0),
            "",
            f"  {command(task)}",
            "",
            *_wrapped(f"When stopped, it keeps {about.kept}.", 0),
        ]
        lines += ["", SOURCES, ""]
    groups: dict[str, list[absl_flags.Flag]] = {}
    for flag in ours():
        takers = tasks_of(flag)
        if task in TASKS and takers and task not in takers:
            continue
        groups.setdefault("every task" if not takers else takers[0] if task not in TASKS else task, []).append(flag)
    for name in sorted(groups, key=lambda name: -1 if name == "every task" else list(TASKS).index(name)):
        lines += [f"{name}:"]
        for flag in groups[name]:
            lines += _flag(flag)
        lines.append("")
    lines += ["exit codes:", *(f"  {code:>3}  {what}" for code, what in CODES.items()), ""]
    return "\n".join(
        [
            *lines,
            "Flags can be kept in a file, one --name=value a line: --flagfile=FILE; put it first, what"
            " follows it wins.",
        ]
    )


def command(task: str) -> str:
    """An example that can be typed, but for names in capitals."""
    return f"python main.py --task={task} {TASKS[task].example}".rstrip()


def _flag(flag: absl_flags.Flag) -> list[str]:
    name = f"[no]{flag.name}" if flag.boolean else flag.name
    usual = "" if flag.default is None or flag.default == [] else f" (default: {flag.default_as_str})"
    values = getattr(flag.parser, "enum_values", None)
    choices = f" <{'|'.join(values)}>" if values else ""
    return [f"  --{name}:{choices}", *_wrapped(f"{told(flag)}{usual}", 6)]


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=" " * indent, subsequent_indent=" " * indent)


SOURCES = """Videos are a folder (of class folders), one file, a manifest (.csv: path, label or label:HEAD, start, end),
a dataset (tfds:NAME:SPLIT), what --task=prepare wrote, or synthetic clips (worlds:small:COUNT:SEED)."""
