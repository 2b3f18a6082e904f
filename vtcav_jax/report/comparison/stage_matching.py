"""Which stage of one network stands for which of another: of the same name, or at about the same relative depth."""

from collections.abc import Mapping, Sequence

MAX_DEPTH_GAP = 0.25  # of the network's depth: stages further apart are not compared

StageDepths = Mapping[str, float]  # of every stage of a network, 0 for the first and 1 for the last


def relative_depths(stages: Sequence[str]) -> dict[str, float]:
    """Of a network's stages, in forward order."""
    return {stage: round(i / max(len(stages) - 1, 1), 4) for i, stage in enumerate(stages)}


def match_stages(left: Sequence[str], right: Sequence[str], depths: tuple[StageDepths, StageDepths]) -> dict[str, str]:
    """Stages of `right` by those of `left` that they stand for, each at most once.

    By name where a name is in both. Depths count only between networks of other stages: two stages of one network are
    never taken for each other.
    """
    matches = {name: name for name in left if name in right}
    if not depths[0] or not depths[1] or depths[0].keys() == depths[1].keys():
        return matches
    pairs = [(abs(depths[0][a] - depths[1][b]), a, b) for a in left for b in right if a in depths[0] and b in depths[1]]
    for distance, a, b in sorted(pairs):
        if distance <= MAX_DEPTH_GAP and a not in matches and b not in matches.values():
            matches[a] = b
    return matches
