"""What is asked of a network with named heads, as it is written: `direction:left`, `direction`, `a vs b`, `a or b`.

A head alone stands for what the network itself answers there, clip by clip. Rivals are the classes of the same head.
`layers.2#17` is a channel of a stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.attribution.targets import Channel, Contrast, Group, Margin
from vtcav_jax.models import Loaded
from vtcav_jax.names import unknown

VERSUS, EITHER, CHANNEL = " vs ", " or ", "#"


@dataclass(frozen=True)
class Asked:
    """A question: one class, several, or (without any) the network's own answer among the logits `among`.

    Or any target that is the same for all clips, `fixed`.
    """

    name: str
    among: tuple[int, int] = (0, 0)
    classes: tuple[int, ...] = ()
    against: int | None = None
    fixed: Any = None

    def answers(self, logits: Float[np.ndarray, "b k"]) -> Int[np.ndarray, " b"]:
        """The class that is explained, for each clip: of several, and of what is no class, -1."""
        if self.fixed is not None or self.against is not None or len(self.classes) > 1:
            return np.full(len(logits), -1)
        if self.classes:
            return np.full(len(logits), self.classes[0])
        return self.among[0] + logits[:, slice(*self.among)].argmax(1)

    def target(self, logits: Float[np.ndarray, "b k"]) -> Any:
        if self.fixed is not None:
            return self.fixed
        if self.against is not None:
            return Contrast(*(np.full(len(logits), one) for one in (self.classes[0], self.against)))
        if len(self.classes) > 1:
            return Group(self.classes)
        return Margin(self.answers(logits), self.among)


def asked(loaded: Loaded, texts: Sequence[str]) -> tuple[Asked, ...]:
    """`texts`, or if there are none, every head's own answer; all that is wrong with them is told at once."""
    out, strange = [], []
    for text in texts or loaded.heads:
        try:
            out.append(_asked(loaded, text))
        except ValueError as error:
            strange.append(str(error))
    if strange:
        raise ValueError("; ".join(strange))
    return tuple(out)


def _asked(loaded: Loaded, text: str) -> Asked:
    if text in loaded.heads and text not in loaded.labels:
        part = loaded.slices[text]
        return Asked(text, (part.start, part.stop))
    for sign in () if text in loaded.labels else (VERSUS, EITHER):
        if sign not in text:
            continue
        classes: tuple[int, ...] = tuple(_class(loaded, name.strip()) for name in text.split(sign))
        if len(set(classes)) < len(classes) or (sign == VERSUS and len(classes) != 2):
            raise ValueError(f"{text!r}: expected two classes with 'vs', two or more with 'or', all different")
        if sign == VERSUS:
            one, other = classes
            return Asked(text, _head(loaded, one), (one,), other)
        return Asked(text, _head(loaded, classes[0]), classes)
    stage, sign, channel = text.rpartition(CHANNEL)
    if sign and channel.isdecimal() and text not in loaded.labels:
        return Asked(text, fixed=Channel(stage, int(channel)))
    index = _class(loaded, text)
    return Asked(loaded.labels[index], _head(loaded, index), (index,))


def _class(loaded: Loaded, text: str) -> int:
    try:
        return loaded.target(text)
    except ValueError as error:
        raise ValueError(unknown("target", [text], [*loaded.heads, *loaded.labels])) from error


def _head(loaded: Loaded, index: int) -> tuple[int, int]:
    return next((part.start, part.stop) for part in loaded.slices.values() if part.start <= index < part.stop)
