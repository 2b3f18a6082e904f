"""`Network`: a model and what is needed to explain it. Every function of the package takes one, whoever made the
model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.names import unknown_name_message
from vtcav_jax.tap import Model

DEFAULT_HEAD = "label"  # the name of the head of a network with one head

Heads = Mapping[str, Sequence[str]]


@dataclass(frozen=True, eq=False)
class Network:
    """A model with named stages, the clips it reads and the classes it tells apart.

    `heads` has the class names of each head; the logits are those of all heads, in this order. Where names are not
    known, a class is called by its number. `name` is what tables and pages call the network. `preset` names its
    architecture in `models.zoo`, if it is one of those: only what stores or rebuilds the network needs it.

        Network(my_module, ClipSpec(frames=16, size=112), {"label": ("run", "jump")}, name="mine")
    """

    model: Model
    clip_spec: ClipSpec
    heads: dict[str, tuple[str, ...]]
    name: str = "network"
    preset: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each logit as a target is written: CLASS, or HEAD:CLASS if there are several heads."""
        if len(self.heads) == 1:
            return tuple(*self.heads.values())
        return tuple(f"{head}:{name}" for head, names in self.heads.items() for name in names)

    @property
    def head_slices(self) -> dict[str, slice]:
        """The range of logits of each head."""
        return head_slices(self.heads)

    def class_index(self, text: str) -> int:
        """The logit that `text` names: CLASS, HEAD:CLASS, or a number where there is one head."""
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


def head_slices(heads: Heads) -> dict[str, slice]:
    """The range of logits of each head."""
    ends = [0]
    for names in heads.values():
        ends.append(ends[-1] + len(names))
    return {head: slice(start, stop) for head, start, stop in zip(heads, ends, ends[1:])}


def single_head(num_classes: int, names: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    return {DEFAULT_HEAD: tuple(names) if names else tuple(map(str, range(num_classes)))}
