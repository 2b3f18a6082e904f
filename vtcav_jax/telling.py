"""Who is told what: a person, nobody, or a program that reads JSON.

Answers (what a command was given for) go to stdout and always come. What is said by the way goes to stdout as well, and
how far things are to stderr; `quiet` keeps both back, `json` makes of each one JSON object a line on stderr.
"""

import json
import sys
import time
from contextvars import ContextVar
from typing import Any, Literal

from vtcav_jax.names import printable

Style = Literal["plain", "quiet", "json"]
style: ContextVar[Style] = ContextVar("style", default="plain")


def say(text: str) -> None:
    """By the way; names from files cannot move the cursor."""
    if style.get() == "plain":
        print(printable(text), flush=True)
    else:
        event("note", text=text)


def answer(text: str) -> None:
    """What the command was given for."""
    print(printable(text), flush=True)


def warn(text: str) -> None:
    """What should not be overlooked, beside the answers."""
    if style.get() == "json":
        event("warning", text=text)
    else:
        sys.stderr.write(printable(text) + "\n")


def event(kind: str, **told: Any) -> None:
    """One line of JSON, where that is asked for."""
    if style.get() == "json":
        sys.stderr.write(json.dumps({"time": round(time.time(), 3), "event": kind, **told}) + "\n")
        sys.stderr.flush()
