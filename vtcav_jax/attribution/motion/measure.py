"""`measure_motion`: how much the decisions of a network depend on motion, over all clips of a source."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vtcav_jax.attribution.motion.part_rows import part_means
from vtcav_jax.attribution.motion.reliance import (
    MotionConfig,
    MotionEvidence,
    resolve_motion_methods,
    stream_motion,
)
from vtcav_jax.attribution.motion.summary import motion_sentences, summarise_by_class
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.console import progress
from vtcav_jax.data.clip import DEFAULT_SAMPLING, SamplingConfig
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.open import open_source
from vtcav_jax.data.source import Source
from vtcav_jax.displayed_result import DisplayedResult
from vtcav_jax.models.network import Network
from vtcav_jax.runs.attribution_rows import ClassMotionRow, ClipMotionRow, MotionMapMeanRow, MotionMapRow

DEFAULT_MOTION = MotionConfig()
MAX_NAMED_TARGETS = 4  # in one line


@dataclass(frozen=True)
class MotionResults(DisplayedResult):
    """Rows per clip and per class, the videos that could not be read, and the motion parts of maps by clip and method,
    with their means."""

    clips: tuple[ClipMotionRow, ...]
    classes: tuple[ClassMotionRow, ...]
    failures: tuple[ReadResult, ...]
    maps: tuple[MotionMapRow, ...] = ()
    map_means: tuple[MotionMapMeanRow, ...] = ()

    def __repr__(self) -> str:
        overall = [row for row in self.classes if not row.answer]
        losses = ", ".join(f"{row.target} {row.drop_shuffled:.0%}" for row in overall[:MAX_NAMED_TARGETS])
        more = f" and {len(overall) - MAX_NAMED_TARGETS} more" if len(overall) > MAX_NAMED_TARGETS else ""
        n_clips = len({(row.clip, row.clip_index) for row in self.clips})
        return f"MotionResults({n_clips} clips; loss of score in shuffled clips: {losses or 'unknown'}{more})"

    def __str__(self) -> str:
        return "\n".join(motion_sentences(self.classes))


def measure_motion(
    network: Network,
    source: Source | str | Path,
    targets: Sequence[str] = (),
    config: MotionConfig = DEFAULT_MOTION,
    *,
    sampling: SamplingConfig = DEFAULT_SAMPLING,
    batch_size: int = 4,
    num_workers: int = 2,
) -> MotionResults:
    """Measure how much each decision depends on motion.

    For each clip and target, the class margin of the clip is compared with the margins of its frozen, shuffled and
    reversed versions. With margin m and the margin m₀ of a clip without content, the share that an edit removes is

        drop = 1 - (m_edited - m₀) / (m - m₀)

    A large `drop_shuffled` means that the decision needs the order of the frames; a large `drop_frozen` alone means
    that it needs several moments in any order. `targets` are names such as `direction:left`, or of a head (for the
    predicted class); by default every head.

        results = measure_motion(network, "worlds:small:64:7", ["direction", "shape"])
        print(results)                       # one sentence per class, with 95 % CI over source videos
        results.classes[0].drop_shuffled     # with drop_shuffled_low and drop_shuffled_high: 95 % CI over videos
        results.map_means                    # motion parts of maps: shares, areas, agreement with optical flow
    """
    if not isinstance(source, Source):
        source = open_source(source)
    target_specs = parse_targets(network, targets)
    measurements = stream_motion(
        network,
        source,
        target_specs,
        resolve_motion_methods(network, config, target_specs),
        config,
        sampling,
        batch_size=batch_size,
        num_workers=num_workers,
    )
    evidence: list[MotionEvidence] = []
    failures = []
    for read, clip_evidence in progress(measurements, len(source.items), "videos", size=lambda _: 1):
        evidence += clip_evidence
        if read.clip is None:
            failures.append(read)
    if failures and not evidence:
        raise ValueError(f"no video of {source.spec} could be read: {failures[0].failure}")
    classes = summarise_by_class(evidence, config.seed)
    map_rows = tuple(row for clip_evidence in evidence for row in clip_evidence.maps)
    return MotionResults(
        tuple(clip_evidence.row for clip_evidence in evidence),
        tuple(classes),
        tuple(failures),
        map_rows,
        tuple(part_means(map_rows, config.motion_threshold_sd)),
    )
