"""Matching of the stages of two networks, by name or by relative depth."""

from collections.abc import Mapping, Sequence

MAX_DEPTH_GAP = 0.25  # of the network's depth

StageDepths = Mapping[str, float]  # 0: first stage, 1: last stage


def relative_depths(stages: Sequence[str]) -> dict[str, float]:
    """Return the relative depth of each stage; `stages` are in forward order."""
    return {stage: round(i / max(len(stages) - 1, 1), 4) for i, stage in enumerate(stages)}


def match_stages(left: Sequence[str], right: Sequence[str], depths: tuple[StageDepths, StageDepths]) -> dict[str, str]:
    """Return the matched stage of `right` for each stage of `left`, each at most once.

    Equal names match. Depths are used only for networks with different stages: two stages of one network never match.
    """
    matches = {name: name for name in left if name in right}
    if not depths[0] or not depths[1] or depths[0].keys() == depths[1].keys():
        return matches
    pairs = [(abs(depths[0][a] - depths[1][b]), a, b) for a in left for b in right if a in depths[0] and b in depths[1]]
    for distance, a, b in sorted(pairs):
        if distance <= MAX_DEPTH_GAP and a not in matches and b not in matches.values():
            matches[a] = b
    return matches
