"""Join of the classes of a network with those of labelled videos, by name."""

import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from vtcav_jax.models.network import Heads
from vtcav_jax.names import abridged_list

MAX_NEAREST_NAMES = 3


@dataclass(frozen=True)
class HeadJoin:
    """A head of the network and the one of the videos that has the same classes.

    `source_index` has the videos' index of each class of the network, `network_index` the reverse; -1 if there is none.
    """

    head: str  # of the network
    source_head: str
    source_index: tuple[int, ...]
    network_index: tuple[int, ...]


@dataclass(frozen=True)
class UnmatchedClass:
    """A class of the videos or of the network without counterpart, and the other side's nearest names."""

    head: str
    of_network: bool
    name: str
    nearest: tuple[str, ...]


def comparable_name(name: str) -> str:
    """Return the letters and digits of a name in lower case: `Playing_Tennis` and `playing tennis` are one class."""
    return "".join(c for c in unicodedata.normalize("NFKD", name).casefold() if c.isalnum())


def match_heads(network_heads: Heads, source_heads: Heads) -> list[HeadJoin]:
    """Join the heads of the same name, or a single head of one side with the head that has most of its classes.

    Classes of the same name are one; case, spaces and punctuation may differ unless two names then coincide. Raises
    ValueError if no head, or no class of any, has a counterpart.
    """
    if not source_heads:
        raise ValueError("the videos have no labels; expected class folders, a manifest, or annotations of a data set")
    by_name = {comparable_name(head): head for head in source_heads}
    pairs = {head: by_name[name] for head in network_heads if (name := comparable_name(head)) in by_name}
    if not pairs and 1 in (len(network_heads), len(source_heads)):
        candidates = list(product(network_heads, source_heads))
        n_shared = {(head, other): _n_shared(network_heads[head], source_heads[other]) for head, other in candidates}
        head, other = max(candidates, key=n_shared.__getitem__)
        if n_shared[head, other] or len(network_heads) == len(source_heads):
            pairs[head] = other
    if not pairs:
        raise ValueError(
            f"the network has the heads {', '.join(network_heads)}, but the videos are labelled for"
            f" {', '.join(source_heads)}; rename the heads of the labels, as in the column label:HEAD of a manifest"
        )
    joins = [_join_head(head, other, network_heads[head], source_heads[other]) for head, other in pairs.items()]
    if all(set(join.network_index) <= {-1} for join in joins):
        head, other = joins[0].head, joins[0].source_head
        raise ValueError(
            f"no class of the videos is one of the network: the videos have {abridged_list(source_heads[other][:6])},"
            f" the network {abridged_list(network_heads[head][:6])}; pass --labels=LIST if the network's classes have"
            " other names"
        )
    return joins


def unmatched_classes(joins: Iterable[HeadJoin], network_heads: Heads, source_heads: Heads) -> list[UnmatchedClass]:
    """Return the classes without counterpart with the nearest names, those of the videos first."""
    unmatched = []
    for join in joins:
        network_names, video_names = network_heads[join.head], source_heads[join.source_head]
        for names, indices, candidates, of_network in (
            (video_names, join.network_index, network_names, False),
            (network_names, join.source_index, video_names, True),
        ):
            unmatched += [
                UnmatchedClass(join.head, of_network, name, nearest_names(name, candidates))
                for name, i in zip(names, indices)
                if i < 0
            ]
    return unmatched


def nearest_names(name: str, candidates: Sequence[str]) -> tuple[str, ...]:
    """Return the most similar names, regardless of case and punctuation."""
    by_comparable: Mapping[str, str] = {comparable_name(candidate): candidate for candidate in candidates}
    near = difflib.get_close_matches(comparable_name(name), list(by_comparable), n=MAX_NEAREST_NAMES, cutoff=0.6)
    return tuple(by_comparable[other] for other in near)


def _join_head(head: str, source_head: str, names: Sequence[str], source_names: Sequence[str]) -> HeadJoin:
    return HeadJoin(head, source_head, _match(names, source_names), _match(source_names, names))


def _match(names: Sequence[str], candidates: Sequence[str]) -> tuple[int, ...]:
    """Return the index of each name among the candidates, by the exact name or else by an unambiguous similar one."""
    exact = {candidate: i for i, candidate in enumerate(candidates)}
    ambiguous = _repeated(map(comparable_name, candidates)) | _repeated(map(comparable_name, names))
    similar = {comparable_name(candidate): i for candidate, i in exact.items()}
    return tuple(
        exact[name]
        if name in exact
        else -1
        if (comparable := comparable_name(name)) in ambiguous
        else similar.get(comparable, -1)
        for name in names
    )


def _repeated(names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    return {name for name in names if name in seen or seen.add(name)}


def _n_shared(names: Sequence[str], others: Sequence[str]) -> int:
    return len(set(map(comparable_name, names)) & set(map(comparable_name, others)))
