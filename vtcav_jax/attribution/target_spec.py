"""Targets as text, for networks with named heads: `direction:left`, `direction`, `a vs b`, `a or b`, `layers.2#17`.

A head alone stands for the network's prediction of that head, clip by clip. A class is compared with the other classes
of its head, and so are several (`a or b`) and the group of a label tree (`sports`). `sports vs music` compares two
groups, `tennis vs siblings` a class or group with the others of the same parent. `layers.2#17` is channel 17 of a
stage.
"""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.attribution.targets import Channel, Contrast, Group, Margin
from vtcav_jax.models import Network
from vtcav_jax.names import unknown_name_message

VERSUS_SEPARATOR, EITHER_SEPARATOR, CHANNEL_SEPARATOR = " vs ", " or ", "#"
SIBLINGS = "siblings"


@dataclass(frozen=True)
class TargetSpec:
    """A parsed target: one class, several, or (without any) the network's prediction among the logits in `head_range`.

    `contrast` has the classes that they are compared with, if these are not the mean of the head. Or a `custom` target,
    the same for all clips.
    """

    name: str
    head_range: tuple[int, int] = (0, 0)
    classes: tuple[int, ...] = ()
    contrast: tuple[int, ...] | None = None
    custom: Any = None

    @property
    def compares_groups(self) -> bool:
        """True if one side of a comparison has several classes."""
        return self.contrast is not None and len(self.classes) + len(self.contrast) > 2

    def answers(self, logits: Float[np.ndarray, "b k"]) -> Int[np.ndarray, " b"]:
        """Return the explained class of each clip; -1 for several classes and for custom targets."""
        if self.custom is not None or self.contrast is not None:
            return np.full(len(logits), -1)
        return np.full(len(logits), self.classes[0]) if self.classes else self.predictions(logits)

    def predictions(self, logits: Float[np.ndarray, "b k"]) -> Int[np.ndarray, " b"]:
        """Return the predicted class of each clip among the logits in `head_range`."""
        return self.head_range[0] + logits[:, slice(*self.head_range)].argmax(1)

    def predicted_classes(self, logits: Float[np.ndarray, "b k"]) -> Int[np.ndarray, " b"]:
        """Return the predicted class of each clip, whatever is explained; -1 if the target is not of a head."""
        return self.predictions(logits) if self.head_range[0] < self.head_range[1] else np.full(len(logits), -1)

    @property
    def has_margins(self) -> bool:
        """True for one class and for the prediction of a head."""
        return self.custom is None and self.contrast is None and len(self.classes) < 2

    def margins(self, logits: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n k2"]:
        """Return the logit of each class of the head minus the mean of the others."""
        head_logits = logits[..., slice(*self.head_range)]
        k = head_logits.shape[-1]
        return (head_logits - head_logits.mean(-1, keepdims=True)) * k / max(k - 1, 1)

    def target(self, logits: Float[np.ndarray, "b k"]) -> Any:
        """Return the target of clips with these logits."""
        if self.custom is not None:
            return self.custom
        if self.contrast is not None and self.compares_groups:
            return Group(self.classes, self.contrast)
        if self.contrast is not None:
            return Contrast(*(np.full(len(logits), index) for (index,) in (self.classes, self.contrast)))
        return Margin(self.answers(logits), self.head_range)


def parse_targets(network: Network, texts: Sequence[str]) -> tuple[TargetSpec, ...]:
    """Parse `texts`, by default the prediction of every head; one error lists all invalid texts.

    A glob before `vs siblings` stands for every class and group that it matches and that has siblings.
    """
    target_specs, errors = [], []
    for text in texts or network.heads:
        try:
            target_specs += [_parse_target(network, part) for part in _expand_siblings(network, text)]
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ValueError("; ".join(errors))
    return tuple({spec.name: spec for spec in target_specs}.values())


def _parse_target(network: Network, text: str) -> TargetSpec:
    if text in network.heads and text not in network.labels:
        head_slice = network.head_slices[text]
        return TargetSpec(text, (head_slice.start, head_slice.stop))
    if text and text in network.groups:
        return _group_target(network, text, _class_indices(network, [text]))
    for separator in () if text in network.labels else (VERSUS_SEPARATOR, EITHER_SEPARATOR):
        if separator not in text:
            continue
        names = [name.strip() for name in text.split(separator)]
        if separator == VERSUS_SEPARATOR and names[1:] == [SIBLINGS]:
            sides = [_class_indices(network, [names[0]]), _class_indices(network, _siblings(network, names[0]))]
        else:
            sides = [_class_indices(network, [name]) for name in names]
        classes = [index for side in sides for index in side]
        if len(set(classes)) < len(classes) or (separator == VERSUS_SEPARATOR and len(sides) != 2):
            raise ValueError(f"{text!r}: expected two classes with 'vs', two or more with 'or', all different")
        if separator == EITHER_SEPARATOR:
            return _group_target(network, text, tuple(classes))
        return TargetSpec(text, _head_range(network, classes[0]), *sides)
    stage, separator, channel = text.rpartition(CHANNEL_SEPARATOR)
    if separator and channel.isdecimal() and text not in network.labels:
        return TargetSpec(text, custom=Channel(stage, int(channel)))
    index = _class_index(network, text)
    return TargetSpec(network.labels[index], _head_range(network, index), (index,))


def _group_target(network: Network, text: str, classes: tuple[int, ...]) -> TargetSpec:
    """Return the log odds of a group of classes against the other classes of their head."""
    start, stop = _head_range(network, classes[0])
    if others := [index for index in classes if not start <= index < stop]:
        raise ValueError(
            f"{text!r}: expected classes of one head; {network.labels[classes[0]]} and {network.labels[others[0]]} are"
            " of different heads"
        )
    rest = tuple(index for index in range(start, stop) if index not in classes)
    if not rest:
        raise ValueError(f"{text!r}: these are all classes of their head; leave some out, to compare them with")
    return TargetSpec(text, (start, stop), classes, rest)


def _expand_siblings(network: Network, text: str) -> list[str]:
    """Return `tennis vs siblings`, ... for a pattern such as `* vs siblings`; other texts as they are."""
    pattern, separator, rest = text.rpartition(VERSUS_SEPARATOR)
    if rest.strip() != SIBLINGS or not separator or not any(character in pattern for character in "*?["):
        return [text]
    names = [name for children in network.groups.values() for name in children]
    matches = [name for name in names if fnmatch.fnmatchcase(name, pattern.strip()) and network.siblings(name)]
    if not matches:
        raise ValueError(f"{text!r}: no class or group of the label tree has siblings and matches {pattern.strip()!r}")
    return [f"{name}{VERSUS_SEPARATOR}{SIBLINGS}" for name in matches]


def _siblings(network: Network, name: str) -> tuple[str, ...]:
    """Return the siblings of a class or group; an error if it has none."""
    if not network.groups:
        raise ValueError(f"'{name} vs siblings' needs a label tree; pass one with --label_tree=FILE")
    node = name if name in network.groups else network.labels[_class_index(network, name)]
    if not (siblings := network.siblings(node)):
        raise ValueError(f"{name} has no siblings in the label tree; name another class or group")
    return siblings


def _class_indices(network: Network, names: Sequence[str]) -> tuple[int, ...]:
    """Return the classes that `names`, of classes or groups, have."""
    labels = (label for name in names for label in network.group_labels(name))
    return tuple(_class_index(network, label) for label in labels)


def _class_index(network: Network, text: str) -> int:
    try:
        return network.class_index(text)
    except ValueError as error:
        raise ValueError(
            unknown_name_message("target", [text], [*network.heads, *filter(None, network.groups), *network.labels])
        ) from error


def _head_range(network: Network, index: int) -> tuple[int, int]:
    return next(
        (head_slice.start, head_slice.stop)
        for head_slice in network.head_slices.values()
        if head_slice.start <= index < head_slice.stop
    )
