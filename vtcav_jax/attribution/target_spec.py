"""Targets as text, for networks with named heads: `direction:left`, `direction`, `a vs b`, `a or b`, `layers.2#17`.

A head alone stands for the network's prediction of that head, clip by clip. A class is compared with the other classes
of its head. `layers.2#17` is channel 17 of a stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.attribution.targets import Channel, Contrast, Group, Margin
from vtcav_jax.models import Network
from vtcav_jax.names import unknown_name_message

VERSUS_SEPARATOR, EITHER_SEPARATOR, CHANNEL_SEPARATOR = " vs ", " or ", "#"


@dataclass(frozen=True)
class TargetSpec:
    """A parsed target: one class, several, or (without any) the network's prediction among the logits in `head_range`.

    Or a `custom` target, the same for all clips.
    """

    name: str
    head_range: tuple[int, int] = (0, 0)
    classes: tuple[int, ...] = ()
    contrast: int | None = None
    custom: Any = None

    def answers(self, logits: Float[np.ndarray, "b k"]) -> Int[np.ndarray, " b"]:
        """Return the explained class of each clip; -1 for several classes and for custom targets."""
        if self.custom is not None or self.contrast is not None or len(self.classes) > 1:
            return np.full(len(logits), -1)
        if self.classes:
            return np.full(len(logits), self.classes[0])
        return self.head_range[0] + logits[:, slice(*self.head_range)].argmax(1)

    def target(self, logits: Float[np.ndarray, "b k"]) -> Any:
        """Return the target of clips with these logits."""
        if self.custom is not None:
            return self.custom
        if self.contrast is not None:
            return Contrast(*(np.full(len(logits), index) for index in (self.classes[0], self.contrast)))
        if len(self.classes) > 1:
            return Group(self.classes)
        return Margin(self.answers(logits), self.head_range)


def parse_targets(network: Network, texts: Sequence[str]) -> tuple[TargetSpec, ...]:
    """Parse `texts`, by default the prediction of every head; one error lists all invalid texts."""
    target_specs, errors = [], []
    for text in texts or network.heads:
        try:
            target_specs.append(_parse_target(network, text))
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ValueError("; ".join(errors))
    return tuple(target_specs)


def _parse_target(network: Network, text: str) -> TargetSpec:
    if text in network.heads and text not in network.labels:
        head_slice = network.head_slices[text]
        return TargetSpec(text, (head_slice.start, head_slice.stop))
    for separator in () if text in network.labels else (VERSUS_SEPARATOR, EITHER_SEPARATOR):
        if separator not in text:
            continue
        classes: tuple[int, ...] = tuple(_class_index(network, name.strip()) for name in text.split(separator))
        if len(set(classes)) < len(classes) or (separator == VERSUS_SEPARATOR and len(classes) != 2):
            raise ValueError(f"{text!r}: expected two classes with 'vs', two or more with 'or', all different")
        if separator == VERSUS_SEPARATOR:
            first_class, second_class = classes
            return TargetSpec(text, _head_range(network, first_class), (first_class,), second_class)
        return TargetSpec(text, _head_range(network, classes[0]), classes)
    stage, separator, channel = text.rpartition(CHANNEL_SEPARATOR)
    if separator and channel.isdecimal() and text not in network.labels:
        return TargetSpec(text, custom=Channel(stage, int(channel)))
    index = _class_index(network, text)
    return TargetSpec(network.labels[index], _head_range(network, index), (index,))


def _class_index(network: Network, text: str) -> int:
    try:
        return network.class_index(text)
    except ValueError as error:
        raise ValueError(unknown_name_message("target", [text], [*network.heads, *network.labels])) from error


def _head_range(network: Network, index: int) -> tuple[int, int]:
    return next(
        (head_slice.start, head_slice.stop)
        for head_slice in network.head_slices.values()
        if head_slice.start <= index < head_slice.stop
    )
