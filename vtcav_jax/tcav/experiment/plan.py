"""Plan of an experiment, made before anything is encoded: stages (layers), clips, comparisons, cost and power."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vtcav_jax.concepts.concept_sets import ConceptClip, ConceptSets
from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.concepts.crops import CONTROLS
from vtcav_jax.data.source import Source
from vtcav_jax.fingerprint import fingerprint
from vtcav_jax.models import Network
from vtcav_jax.models.stages import resolve_stages
from vtcav_jax.names import abridged_list, count_noun
from vtcav_jax.settings import concerning
from vtcav_jax.tcav.experiment import cost_estimate
from vtcav_jax.tcav.experiment.comparisons import Comparisons, build_comparisons
from vtcav_jax.tcav.experiment.config import CALIBRATION_PERMUTATIONS, ExperimentConfig
from vtcav_jax.tcav.experiment.dataset import ExperimentClips, select_clips
from vtcav_jax.tcav.experiment.strata import comparisons_within
from vtcav_jax.tcav.experiment.verdicts import MIN_VIDEOS, videos_needed
from vtcav_jax.tcav.features.cache import Cache, content_key, source_hash
from vtcav_jax.tcav.features.encode import stage_shapes
from vtcav_jax.tcav.stats.multiple_testing import Attainable, attainable

MAX_PLAN_LINES = 8
# Seconds per vector, per vector and pair of examples, and per table row, on one CPU core of 2020
SECONDS_PER_VECTOR, SECONDS_PER_PAIR, SECONDS_PER_ROW = 2e-5, 3e-9, 1e-2


@dataclass(frozen=True)
class Plan:
    """A planned experiment, with the cache keys of its activations, gradients and scores."""

    network: Network
    config: ExperimentConfig
    stages: tuple[str, ...]
    shapes: dict[str, tuple[tuple[int, ...], type]]
    clips: ExperimentClips
    comparisons: Comparisons
    store: Cache
    weights_hash: str  # hash of the network
    base_key: str

    def example_key(self, row: int, stage: str) -> str:
        return content_key("activation", self.base_key, self.clips.concepts.keys[row], stage)

    def gradient_key(self, row: int, class_index: int, stage: str | None) -> str:
        """Return the key of a gradient, or of the class score if `stage` is None."""
        s = self.config
        score_key = [
            s.score_fn,
            *([s.sensitivity, s.integration_steps] if stage and s.sensitivity == "integrated" else []),
        ]
        return content_key("gradient", self.base_key, score_key, self.clips.targets.keys[row], class_index, stage)

    @property
    def forward_missing(self) -> dict[str, list[int]]:
        """Rows of the concept clips with missing activations, grouped by content, which is encoded once."""
        missing: dict[str, list[int]] = {}
        for row, key in enumerate(self.clips.concepts.keys):
            if any(not self.store.has(self.example_key(row, stage)) for stage in self.stages):
                missing.setdefault(key, []).append(row)
        return missing

    @property
    def backward_missing(self) -> dict[int, tuple[int, ...]]:
        """Classes with missing gradients, by row of the target clip."""
        missing: dict[int, tuple[int, ...]] = {}
        for target in self.clips.classes:
            for row in target.rows:
                keys = (self.gradient_key(row, target.index, stage) for stage in (None, *self.stages))
                if not all(map(self.store.has, keys)):
                    missing[row] = tuple(dict.fromkeys((*missing.get(row, ()), target.index)))
        return missing

    @property
    def family_size(self) -> int:
        return len(self.comparisons.entries) * len(self.stages) * len(self.clips.classes)

    @property
    def attainable(self) -> Attainable:
        s = self.config
        p_min = min(comparison.min_attainable_p(s, self.clips.video_ids) for comparison in self.comparisons.entries)
        return attainable(p_min, self.family_size, s.alpha, s.correction)

    def require(self) -> None:
        """Raise ValueError if no finding is possible, with what is missing."""
        if not self.comparisons.entries:
            reason = "; ".join(self.comparisons.notes) or "there are no random sets, controls or other concepts"
            raise ValueError(f"there is nothing to test: {reason}")
        self.attainable.require(self.shortfall)

    @property
    def shortfall(self) -> str:
        """Quantity that must increase for smaller p-values, in words."""
        if self.config.permute == "sets":
            return "random sets"
        s, n_needed = self.config, self.attainable.n_needed
        p_min = min(
            comparison.min_attainable_p(replace(s, permutations=n_needed), self.clips.video_ids)
            for comparison in self.comparisons.entries
        )
        if attainable(p_min, self.family_size, s.alpha, s.correction).possible:
            return "permutations"
        return "distinct label assignments (clips from more source videos, of the concepts or of the random sets)"

    @property
    def n_vectors(self) -> int:
        """Number of vectors to be trained: of all comparisons and stages, with their statistics."""
        s = self.config
        per_stage = sum(
            1
            + (0 if s.permute == "sets" and q.random_sets else s.permutations or 0)
            + 500
            + 40
            + 100
            + 2 * len(q.random_sets)
            for q in self.comparisons.entries
        )
        return len(self.stages) * (
            per_stage + CALIBRATION_PERMUTATIONS * s.calibration_trials * len(self.comparisons.random_sets)
        )

    @property
    def disk_bytes(self) -> int:
        """Bytes that will be added to the cache."""
        bytes_of = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self.shapes.values())
        return bytes_of * (len(self.forward_missing) + sum(map(len, self.backward_missing.values())))

    @property
    def memory_bytes(self) -> int:
        """Bytes of host memory for the features and products of the largest stage."""
        m = len(self.clips.concepts)
        n = sum(len(target.rows) for target in self.clips.classes)
        largest = max(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self.shapes.values())
        return min((m + n) * largest, 2 * self.config.budget) + 16 * (m * m + m * n + n * n)

    @property
    def n_moves(self) -> int:
        """Maximum number of forward passes of moved target clips for finite steps, and for steering all tests."""
        s, n = self.config, len({row for target in self.clips.classes for row in target.rows})
        n_tests = len(self.comparisons.entries) * len(self.stages)
        moves_per_test = 1 + (s.permutations or 0) if s.sensitivity == "finite" else 0
        checks = (
            CALIBRATION_PERMUTATIONS * s.calibration_trials * len(self.comparisons.random_sets) * len(self.stages)
            if moves_per_test
            else 0
        )
        n_steered = sum(min(len(target.rows), s.steering_clips) for target in self.clips.classes)
        return 2 * (n * (n_tests * moves_per_test + checks) + n_steered * n_tests * (1 + s.steering_controls))

    def video_lines(self) -> list[str]:
        """Return the clips and source videos of each concept, random set and class, and the videos that it needs.

        A concept needs enough videos for a finding against the random videos of its clip type: five, or as many as make
        the smallest p significant in this family. A class needs five.
        """
        groups: dict[tuple[str, str], list[str]] = defaultdict(list)
        for clip, video in zip(self.clips.concept_clips, self.clips.source_videos):
            if not (clip.is_negative and clip.clip_type in CONTROLS):
                groups[clip.concept, clip.clip_type].append(video)
        random_videos: dict[str, set[str]] = defaultdict(set)
        for (concept, clip_type), videos in groups.items():
            if concept.startswith(NEGATIVE_PREFIX):
                random_videos[clip_type].update(videos)
        lines = []
        for (concept, clip_type), videos in groups.items():
            text = f"{concept}, {clip_type}: {len(videos)} from {count_videos(len(set(videos)))}"
            if concept.startswith(NEGATIVE_PREFIX) or clip_type in CONTROLS or not random_videos[clip_type]:
                lines.append(text)
                continue
            needed = videos_needed(len(random_videos[clip_type]), self.config.alpha / max(self.family_size, 1))
            lines.append(f"{text}; {_format_need(len(set(videos)), needed)}")
        for target, videos in zip(self.clips.classes, self.clips.target_videos):
            n = len(np.unique(videos))
            text = f"target clips of {target.name}: {len(target.rows)} from {count_videos(n)}"
            lines.append(f"{text}; {_format_need(n, MIN_VIDEOS)}")
        return lines

    def encoding_seconds(self) -> tuple[float, float]:
        """Estimate the shortest and longest encoding time from the network's operations and one product."""
        flop, speed = (
            cost_estimate.forward_cost(self.network.model, self.network.clip_spec.shape).flop,
            cost_estimate.matmul_flops(),
        )
        paths = self.config.integration_steps * len(self.stages) if self.config.sensitivity == "integrated" else 1
        backward = sum(1 + 2 * paths * len(classes) for classes in self.backward_missing.values())
        fast, slow = (
            flop / speed / efficiency * (len(self.forward_missing) + backward)
            for efficiency in cost_estimate.REACHED_EFFICIENCIES
        )
        return fast, slow

    def statistics_seconds(self) -> float:
        """Estimate the maximum time of the statistics; tests without an effect stop early."""
        n_examples = [len(q.positive_clips) + len(q.negative_clips) for q in self.comparisons.entries] or [0]
        return (
            self.n_vectors * (SECONDS_PER_VECTOR + SECONDS_PER_PAIR * float(np.mean(n_examples)) ** 2)
            + SECONDS_PER_ROW * self.family_size
        )

    @property
    def text(self) -> str:
        """The plan as text, with estimates of memory and time."""
        clips, s = self.clips, self.config
        concept_selection, preflight = clips.concepts, clips.preflight
        missing_forward, missing_backward = self.forward_missing, self.backward_missing
        classes = abridged_list([f"{target.name} ({count_noun(len(target.rows), 'clip')})" for target in clips.classes])
        tests = ", ".join(
            f"{n} {comparison_type}"
            for comparison_type, n in Counter(q.comparison_type for q in self.comparisons.entries).items()
        )
        clip_cost = cost_estimate.forward_cost(self.network.model, self.network.clip_spec.shape)
        device_bytes = s.batch_size * (clip_cost.bytes + 4 * math.prod(self.network.clip_spec.shape))
        time_text = " to ".join(map(_format_seconds, self.encoding_seconds()))
        lines = [
            f"targets        {classes}; {s.score_fn}, {s.sensitivity}",
            f"stages         {', '.join(self.stages)}; pool {s.pool}",
            f"concept clips  {len(concept_selection)}, {len(set(concept_selection.keys))} of them distinct",
            *(f"                 {line}" for line in self.video_lines()),
            f"forwards       {len(missing_forward)} concept clips and {count_noun(len(missing_backward), 'target')};"
            f" {len(set(concept_selection.keys)) - len(missing_forward)} and"
            f" {len(clips.targets) - len(missing_backward)} are in the cache",
            f"backwards      {sum(map(len, missing_backward.values()))}, each for all stages",
            f"tests          {tests or 'none'}; times {count_noun(len(self.stages), 'stage')} and"
            f" {count_noun(len(clips.classes), 'class')}:"
            f" a family of {count_noun(self.family_size, 'test')}, correction {s.correction}",
            f"vectors        {self.n_vectors:,}, with {s.permutations} permutations per test",
            f"memory         {_format_bytes(self.memory_bytes)} of host memory for products, up to"
            f" {_format_bytes(device_bytes)} of device memory",
            f"disk           {_format_bytes(self.disk_bytes)} will be added to {self.store.folder}",
            *([f"moves          up to {self.n_moves:,} forward passes of moved targets"] if self.n_moves else []),
            f"time           about {time_text} for encoding"
            f" and up to {_format_seconds(self.statistics_seconds())} for statistics",
            *_format_list("unreadable", [f"{name}: {problem}" for name, problem in preflight.unreadable.items()]),
            *_format_list("shorter than a clip, so that frames are repeated", preflight.short_clips),
            *_format_list("identical to another target and left out", preflight.duplicate_targets),
            *(f"note: {note}" for note in (*preflight.notes, *self.comparisons.notes)),
        ]
        if self.comparisons.entries:
            lines.append(_format_attainable(self.attainable, self.shortfall))
            video_ids = self.clips.video_ids
            too_few = [
                q for q in self.comparisons.entries if q.min_attainable_p(s, video_ids) * self.family_size > s.alpha
            ]
            if too_few and self.attainable.possible and s.correction != "bh":
                smallest_p_lines = [
                    f"{q.name}: smallest attainable p {q.min_attainable_p(s, video_ids):.3g}" for q in too_few
                ]
                lines += _format_list(
                    f"with too few clips to be significant alone in a family of {self.family_size}", smallest_p_lines
                )
        return "\n".join(lines)


def plan_experiment(
    network: Network,
    targets: Sequence[str],
    source: Source,
    sets: ConceptSets,
    config: ExperimentConfig,
    store: Cache,
) -> Plan:
    """Plan an experiment; files are hashed and their indices read, but no clip is decoded."""
    clip_spec = network.clip_spec
    with concerning("stages"):
        stages = resolve_stages(config.stages, network)
    clips = select_clips(network, targets, source, sets, clip_spec, max_clips=config.max_target_clips, seed=config.seed)
    classes = np.array([target.index for target in clips.classes])
    shapes = stage_shapes(network.model, clip_spec.shape, classes, stages, config.encode_config)
    weights_hash = fingerprint(network.model)
    base_key = content_key(source_hash(), weights_hash, config.pool)
    comparisons = _comparisons(clips.concept_clips, config)
    family_size = len(comparisons.entries) * len(stages) * len(clips.classes)
    config = replace(config, permutations=config.num_permutations(max(family_size, 1)))
    return Plan(network, config, stages, shapes, clips, comparisons, store, weights_hash, base_key)


def count_videos(n: int) -> str:
    return f"{n} source video{'' if n == 1 else 's'}"


def _format_need(n: int, needed: int | None) -> str:
    if needed is None:
        return "no number is enough, use more random videos"
    return f"needs {needed}" if n >= needed else f"needs {needed}, {needed - n} more"


def _comparisons(clips: Sequence[ConceptClip], config: ExperimentConfig) -> Comparisons:
    comparisons = build_comparisons(clips, config)
    return comparisons_within(comparisons, clips, config.within) if config.within else comparisons


def drop_unreadable(plan: Plan) -> Plan:
    """Return the plan without the clips that could not be decoded, to be called after encoding."""
    clips = plan.clips
    cached_rows = [
        row
        for row in range(len(clips.concepts))
        if all(plan.store.has(plan.example_key(row, stage)) for stage in plan.stages)
    ]
    lost_rows = set(plan.backward_missing)
    if len(cached_rows) == len(clips.concepts) and not lost_rows:
        return plan
    concept_clips = tuple(clips.concept_clips[row] for row in cached_rows)
    classes = tuple(
        replace(target, rows=tuple(row for row in target.rows if row not in lost_rows)) for target in clips.classes
    )
    if empty := [target.name for target in classes if not target.rows]:
        raise ValueError(f"none of the clips of {', '.join(empty)} could be decoded; see failures.csv")
    readable_clips = replace(
        clips,
        concepts=clips.concepts.take(cached_rows),
        concept_clips=concept_clips,
        source_videos=tuple(clips.source_videos[row] for row in cached_rows),
        classes=classes,
    )
    readable_plan = replace(plan, clips=readable_clips, comparisons=_comparisons(concept_clips, plan.config))
    readable_plan.require()
    return readable_plan


def _format_attainable(best: Attainable, shortfall: str) -> str:
    """Return the plan's line about the smallest attainable p-value."""
    text = f"attainable p   {best.p_min:.3g}, adjusted {best.p_corrected:.3g} in a family of {best.family_size}"
    if not best.possible:
        return f"{text}: above alpha {best.alpha:g}, REFUSED; at least {best.n_needed} {shortfall} are needed"
    return text + ("" if best.can_pass_alone else "; a single finding cannot be significant, several together can")


def _format_list(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    rest_lines = [f"  and {len(lines) - MAX_PLAN_LINES} more"] if len(lines) > MAX_PLAN_LINES else []
    return [f"{len(lines)} {title}:", *(f"  {name}" for name in lines[:MAX_PLAN_LINES]), *rest_lines]


def _format_bytes(size: int | float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _format_seconds(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
