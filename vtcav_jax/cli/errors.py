"""What is refused, told in the words of whoever typed the command: the flag that is at fault, and no other."""

import math
import re
import sys

from absl import flags as absl_flags

from vtcav_jax.cli import flags

CODE = 1  # see options.CODES


def with_flags(text: str) -> str:
    """A sentence of the library in the words of the command line: a setting that is a flag is written as one, and what
    names none of them gets the flag that holds the name it speaks of in front."""
    given = [(value, flag.name) for flag in flags.ours() if not flag.using_default_value for value in _values(flag)]
    known = {flag.name for flag in flags.ours() if flags.TASK.value in (flags.tasks_of(flag) or [flags.TASK.value])}
    known -= {value for value, _ in given}  # a stage may be called as a flag is

    def flagged(found: re.Match) -> str:
        return f"{found[1]}--{found[2]}" if found[2] in known else found[0]

    text = re.sub(r"(^|; |: )(\w+)(?= (?:is|are|must|needs) )", flagged, text)
    sentence = text.partition("\n")[0]  # a table may follow, whose names are not spoken of
    if sentence.startswith("--") or set(re.findall(r"--(\w+)", sentence)) - {flags.TASK.name}:
        return text
    spoken = [(len(value), name) for value, name in given if re.search(rf"(?<!\w){re.escape(value)}(?!\w)", sentence)]
    return f"--{max(spoken)[1]}: {text}" if spoken else text


def unparsed(error: absl_flags.Error) -> str:
    """What absl says of a value that it cannot read, as a sentence for whoever typed it."""
    text = re.sub(r"invalid literal for int\(\) with base 10: '.*'", "expected a whole number", str(error))
    text = re.sub(r"could not convert string to float: '.*'", "expected a number", text)
    text = re.sub(r"\('Non-boolean argument to boolean flag', .*\)", "expected true or false", text)
    text = text.replace("ERROR:: Unable to open flagfile", "--flagfile cannot be read")
    return f"{re.sub('^flag --', '--', text).rstrip('. ')}; see --help"


def _values(flag: absl_flags.Flag) -> list[str]:
    """What a flag was given, where it is a name."""
    values = flag.value if isinstance(flag.value, list) else [flag.value]
    return [value for value in values if isinstance(value, str) and flag.name != "task"]


def parsed(argv: list[str]) -> list[str]:
    """What is left of the command when its flags are read; what cannot be read is refused in one sentence."""
    try:
        left = absl_flags.FLAGS(argv)
        if endless := [f for f in flags.ours() if isinstance(f.value, float) and not math.isfinite(f.value)]:
            told = ", ".join(f"--{flag.name}={flag.value}" for flag in endless)
            raise absl_flags.IllegalFlagValueError(f"{told}: expected a finite number")
        return left
    except absl_flags.Error as error:
        print(f"error: {unparsed(error)}", file=sys.stderr)
        sys.exit(CODE)
