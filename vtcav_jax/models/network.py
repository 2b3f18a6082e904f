"""`Network`: a model with the metadata needed to explain it; accepted by all explanation functions of the package."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from vtcav_jax.checksums import json_sha256
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.fingerprint import fingerprint
from vtcav_jax.names import count_noun, unknown_name_message
from vtcav_jax.tap import Model

DEFAULT_HEAD = "label"  # of a network with one head

Heads = Mapping[str, Sequence[str]]


@dataclass(frozen=True, eq=False)
class Network:
    """Model with named stages (layers), its clip format and its classes.

    `heads` maps each head to its class names (indices as text if unknown); the logits are those of all heads, in this
    order. `name` is used in tables and pages. `preset` names the architecture in `models.zoo`, if it is one of those;
    only storing and rebuilding the network needs it. `groups`, the label tree that `models.read_label_tree` reads, has
    the classes and groups directly below each group, and those at its top under the empty name.

    ```python
    network = Network(my_module, ClipSpec(frames=16, size=112), {"label": ("run", "jump")}, name="mine")
    ```
    """

    model: Model
    clip_spec: ClipSpec
    heads: dict[str, tuple[str, ...]]
    name: str = "network"
    preset: str | None = None
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        heads = ", ".join(f"{head}: {count_noun(len(names), 'class')}" for head, names in self.heads.items())
        return f"Network({self.name}, clips {self.clip_spec.shape}, {heads})"

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each logit in the format of targets: CLASS, or HEAD:CLASS if there are several heads."""
        if len(self.heads) == 1:
            return tuple(*self.heads.values())
        return tuple(f"{head}:{name}" for head, names in self.heads.items() for name in names)

    @property
    def head_slices(self) -> dict[str, slice]:
        """Range of logits of each head."""
        return head_slices(self.heads)

    def identity(self) -> dict[str, str]:
        """Return hashes of everything that results depend on: weights, clips and class names."""
        return {
            "weights": fingerprint(self.model),
            "preprocessing": json_sha256(asdict(self.clip_spec)),
            "class names": json_sha256([list(self.heads.items()), list(self.groups.items())]),
        }

    def class_index(self, text: str) -> int:
        """Return the index of the logit that `text` names: CLASS, HEAD:CLASS, or an index if there is one head."""
        if text in self.labels:
            return self.labels.index(text)
        if len(self.heads) == 1:
            head, names = next(iter(self.heads.items()))
            bare = text.removeprefix(f"{head}:")
            if bare in names:
                return names.index(bare)
            if text.isascii() and text.isdigit() and int(text) < len(names):
                return int(text)
        raise ValueError(unknown_name_message("target", [text], self.labels))

    def expand_classes(self, texts: Iterable[str]) -> dict[str, bool]:
        """Return the labels that `texts` name, without duplicates, and whether a text names the class itself.

        A text is a class (see `class_index`), a head or a group of the label tree, which stand for all their classes,
        or a glob such as `shape:r*`. One error lists all texts that name nothing.
        """
        is_named: dict[str, bool] = {}
        unknown = []
        for text in texts:
            matches = self._labels_of_pattern(text)
            if matches is None:
                try:
                    is_named[self.labels[self.class_index(text)]] = True
                except ValueError:
                    unknown.append(text)
                continue
            unknown += [] if matches else [text]
            for label in matches:
                is_named.setdefault(label, False)
        if unknown:
            heads = self.heads if len(self.heads) > 1 else ()
            known = [*heads, *filter(None, self.groups), *self.labels]
            raise ValueError(unknown_name_message("target", unknown, known))
        return is_named

    def group_labels(self, name: str) -> tuple[str, ...]:
        """Return the labels of all classes of a group of the label tree; a class stands for itself."""
        if name not in self.groups:
            return (name,)
        return tuple(label for child in self.groups[name] for label in self.group_labels(child))

    def siblings(self, name: str) -> tuple[str, ...]:
        """Return the other classes and groups with the same parent in the label tree, as far as of the same head."""
        children = next((names for names in self.groups.values() if name in names), ())
        return tuple(child for child in children if child != name and self._head_of(child) == self._head_of(name))

    def _head_of(self, name: str) -> str:
        index = self.labels.index(self.group_labels(name)[0])
        return next(head for head, part in self.head_slices.items() if part.start <= index < part.stop)

    def _labels_of_pattern(self, text: str) -> list[str] | None:
        """Return the labels of a head or those that match a glob; None if the text can only be a single class."""
        full_names = [f"{head}:{name}" for head, names in self.heads.items() for name in names]
        if text in self.labels or text in full_names:
            return None
        if text and text in self.groups:
            return list(self.group_labels(text))
        if text in self.heads:
            return list(self.labels[self.head_slices[text]])
        if not any(character in text for character in "*?["):
            return None
        return [
            label
            for label, full_name in zip(self.labels, full_names)
            if fnmatch.fnmatchcase(label, text) or fnmatch.fnmatchcase(full_name, text)
        ]


def head_slices(heads: Heads) -> dict[str, slice]:
    """Return the range of logits of each head."""
    ends = [0]
    for names in heads.values():
        ends.append(ends[-1] + len(names))
    return {head: slice(start, stop) for head, start, stop in zip(heads, ends, ends[1:])}


def single_head(num_classes: int, names: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    return {DEFAULT_HEAD: tuple(names) if names else tuple(map(str, range(num_classes)))}
