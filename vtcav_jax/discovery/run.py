"""`discover`: concepts that nobody named, as directions of a network's activations, written as a concept folder.

Videos are split into two halves by source video. The first pass samples activations of one half and fits a dictionary
per stage. The second pass scores the other half, whose clips with the highest scores become concept clips: the videos
that show a concept are not those that its direction was fitted to. Random clips are cut from the first half. Each clip
is decoded and passed through the network once, except for the few that measure importance.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from vtcav_jax import distributed
from vtcav_jax.atomic import explain_disk_full, replacing
from vtcav_jax.checksums import json_sha256
from vtcav_jax.concepts import inputs
from vtcav_jax.concepts.inputs import VideoInput, WorldVideos
from vtcav_jax.concepts.mining import VIDEOS_FOLDER, MiningReport, claim_folder, empty_report
from vtcav_jax.concepts.video_scan import BoxTable
from vtcav_jax.console import progress
from vtcav_jax.data.clip import DEFAULT_SAMPLING, SamplingConfig
from vtcav_jax.data.source import FileSource, Source
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.discovery.activation_grids import GridReader, on_devices
from vtcav_jax.discovery.clip_scores import ClipScores
from vtcav_jax.discovery.completeness import prediction_share
from vtcav_jax.discovery.concept_clips import StageConcepts, as_files, cut_concept_clips, deal_clips
from vtcav_jax.discovery.config import DiscoveryConfig
from vtcav_jax.discovery.dictionaries import Dictionary, fit_dictionary, fit_smallest_sufficient
from vtcav_jax.discovery.dictionary_file import is_fitted_to, read_dictionaries, write_dictionaries
from vtcav_jax.discovery.importance import ConceptImportance, measure_importance
from vtcav_jax.discovery.label_association import Mark, box_marks, class_marks, suggest_label
from vtcav_jax.discovery.overviews import write_overviews
from vtcav_jax.discovery.passes import VideoPasses
from vtcav_jax.discovery.token_sample import TokenSample
from vtcav_jax.displayed_result import DisplayedResult
from vtcav_jax.models import Network
from vtcav_jax.runs.code_version import code_hash, package_versions
from vtcav_jax.runs.discovery_rows import (
    CLIP_SCORES_NPZ,
    COMPLETENESS_CSV,
    DIRECTIONS_NPZ,
    DISCOVERED_CSV,
    HEAD_IMPORTANCE_CSV,
    CompletenessRow,
    DiscoveredRow,
    HeadImportanceRow,
)
from vtcav_jax.runs.tables import read_rows, write_rows
from vtcav_jax.runtime import Runtime
from vtcav_jax.stats.intervals import mean_ci
from vtcav_jax.tcav.stats.multiple_testing import adjust_p

STATE_FOLDER, DICTIONARIES_FILE = "discovery", "dictionaries.npz"
MIN_VIDEOS = 4  # source videos of each half
DEFAULT_CONFIG = DiscoveryConfig()


@dataclass(frozen=True)
class DiscoveryReport(DisplayedResult):
    """Discovered concepts, in the order of their importance, and the result of cutting their clips."""

    folder: Path
    concepts: tuple[DiscoveredRow, ...]
    mining: MiningReport
    completeness: tuple[CompletenessRow, ...]
    n_fit_videos: int
    n_clip_videos: int

    def __repr__(self) -> str:
        stages = len({row.stage for row in self.concepts})
        labelled = sum(bool(row.label) for row in self.concepts)
        return (
            f"DiscoveryReport({len(self.concepts)} concepts at {stages} stage{'' if stages == 1 else 's'},"
            f" {labelled} with a label, {self.n_fit_videos} + {self.n_clip_videos} videos, {self.folder})"
        )


def discover(
    network: Network,
    videos: VideoInput,
    stages: Sequence[str],
    out: str | Path,
    *,
    config: DiscoveryConfig = DEFAULT_CONFIG,
    sampling: SamplingConfig = DEFAULT_SAMPLING,
    targets: VideoInput = (),
    boxes: str | Path | None = None,
    runtime: Runtime | None = None,
) -> DiscoveryReport:
    """Discover concepts at `stages` and write them to the folder `out`, in the form of mined concepts.

    `discovered.csv` describes the concepts; their clips, controls and random sets are those of `mine`. Videos that are
    among the `targets`, or show the recording of one, are left out with a note. Labels are suggested from the classes
    of the videos and from the labels of `boxes`, a CSV of boxes such as `mine` writes. Repeating a killed call
    continues it. Several processes (`distributed.connect`) share the passes over videos; the first one does the rest,
    and the report of mining is empty in the others.

    ```python
    report = discover(network, "videos", ["layers.2"], "concepts", targets="eval_videos")
    ```
    """
    out, runtime = Path(out), runtime or Runtime.local()
    network = on_devices(network, runtime)
    source = inputs.as_source(videos)
    inputs.require_files(source)
    reader = GridReader(network, tuple(dict.fromkeys(stages)), config.motion_only, runtime)
    reader.shapes()
    target_source = inputs.as_source(targets)
    if isinstance(source, WorldSource):
        inputs.forbid_same_world([WorldVideos(source, out)], target_source)
    notes: list[str] = []
    source = inputs.without_targets(source, target_source, notes)
    # Those of files are compared only once; the clips of a world have no files yet.
    unseen_targets = inputs.as_source(()) if isinstance(source, FileSource) else target_source
    fit_half, clip_half = split_videos(source, config.seed)
    file_items = [item for item, _ in inputs.items_with_labels(source, out / VIDEOS_FOLDER)]
    box_table = BoxTable("", {}) if boxes is None else inputs.boxes_from_table(Path(boxes), file_items)
    made_by = [network.identity(), code_hash(), package_versions()]
    key = json_sha256([made_by, source.identity, reader.stages, asdict(config), asdict(sampling)])[:16]
    with explain_disk_full(out):
        distributed.main_process_first(lambda: claim_folder(out))
        distributed.require_shared_folder(out)
        passes = VideoPasses(source, reader, config, sampling, _state_folder(out, key))
        fitted, fitted_to = _fit_stages(passes, fit_half)
        numbers = _video_numbers(source, clip_half)
        dictionaries = {stage: concepts.dictionary for stage, concepts in fitted.items()}
        means = {stage: concepts.mean for stage, concepts in fitted.items()}
        scores = passes.score_clips(clip_half, numbers, dictionaries, means, fitted_to)
        if not distributed.is_main_process():
            distributed.wait_for_all()
            return _read_report(out, fit_half, clip_half)
        first_of_video = list({number: i for i, number in reversed(numbers.items())}.values())[::-1]
        importance = measure_importance(passes, first_of_video, dictionaries, means)
        named = _name_by_importance(fitted, importance)
        files = as_files(source, out)
        strongest = scores.strongest
        regions, n_clips = deal_clips(files, network.clip_spec, named, strongest, config.clips_per_concept)
        write_overviews(out, passes, named, strongest)
        scored_items = [file_items[i] for i in scores.items]
        marks = class_marks(scored_items, source.heads) | box_marks(scored_items, scores.extents, box_table)
        rows, head_rows = _describe(passes, named, scores, marks, importance, n_clips)
        names = [row.concept for row in rows]
        halves = (fit_half, clip_half)
        mined = cut_concept_clips(files, halves, regions, names, network.clip_spec, config, unseen_targets, out)
        write_rows(out / DISCOVERED_CSV, DiscoveredRow, rows)
        write_rows(out / HEAD_IMPORTANCE_CSV, HeadImportanceRow, head_rows)
        completeness = _measure_completeness(source, network, scores, config.seed)
        write_rows(out / COMPLETENESS_CSV, CompletenessRow, completeness)
        _write_arrays(out, named, scores, source)
    distributed.wait_for_all()
    failures = {**passes.failures, **mined.failures}
    mined = replace(mined, failures=failures, notes=(*notes, *mined.notes))
    return DiscoveryReport(out, tuple(rows), mined, tuple(completeness), len(fit_half), len(clip_half))


def _read_report(out: Path, fit_half: Sequence[int], clip_half: Sequence[int]) -> DiscoveryReport:
    """Return the tables that another process has written."""
    rows, completeness = (
        read_rows(out / DISCOVERED_CSV, DiscoveredRow),
        read_rows(out / COMPLETENESS_CSV, CompletenessRow),
    )
    return DiscoveryReport(out, tuple(rows), empty_report(out), tuple(completeness), len(fit_half), len(clip_half))


def split_videos(source: Source, seed: int) -> tuple[list[int], list[int]]:
    """Split the items into two halves without a common source video; an error if there are too few videos."""
    names = [item.source_video for item in source.items]
    unique = sorted(set(names))
    if len(unique) < 2 * MIN_VIDEOS:
        raise ValueError(
            f"expected at least {2 * MIN_VIDEOS} source videos, half of them to fit the concepts and half to show them;"
            f" {source.spec} has {len(unique)}: pass more videos"
        )
    order = np.random.default_rng(seed).permutation(len(unique))
    first = {unique[i] for i in order[: len(unique) // 2]}
    items = np.random.default_rng([seed, 1]).permutation(len(names)).tolist()
    return [i for i in items if names[i] in first], [i for i in items if names[i] not in first]


def _state_folder(out: Path, key: str) -> Path:
    """Return the folder of the stored parts of this request, and delete those of others."""
    folder = out / STATE_FOLDER / key

    def prepare() -> None:
        for other in folder.parent.glob("*/"):
            if other.name != key:
                shutil.rmtree(other)
        folder.mkdir(parents=True, exist_ok=True)

    distributed.main_process_first(prepare)
    return folder


def _fit_stages(passes: VideoPasses, fit_half: Sequence[int]) -> tuple[dict[str, StageConcepts], str]:
    """Return the concepts of each stage, which the first process fits and stores, and the hash of their activations."""
    passes.store_tokens(fit_half)
    path = passes.folder / DICTIONARIES_FILE
    fitted_to = passes.tokens_hash(fit_half)

    def fit() -> None:
        samples = passes.read_tokens(fit_half)
        if not all(len(sample.now) > 1 for sample in samples.values()):
            name, reason = next(iter(passes.failures.items()))
            raise ValueError(f"fewer than two of {len(fit_half)} videos can be read; first, {name}: {reason}")
        if not is_fitted_to(path, fitted_to):
            write_dictionaries(path, _decompose(passes.config, samples), fitted_to)

    distributed.main_process_first(fit)
    return {
        stage: StageConcepts(dictionary, mean, ()) for stage, (dictionary, mean) in read_dictionaries(path).items()
    }, fitted_to


def _decompose(
    config: DiscoveryConfig, samples: Mapping[str, TokenSample]
) -> dict[str, tuple[Dictionary, Float[np.ndarray, "t h w c"]]]:
    """Return the dictionary of each stage, and the mean activation that it is relative to."""
    fitted = {}
    for (stage,) in progress(([stage] for stage in samples), len(samples), "stages to decompose"):
        tokens, held_out = samples[stage].centred()
        if config.num_concepts:
            dictionary = fit_dictionary(config.discovery, tokens, config.num_concepts, config.seed)
        else:
            dictionary = fit_smallest_sufficient(config.discovery, tokens, held_out, config.seed)
        fitted[stage] = jax.tree.map(np.asarray, dictionary), samples[stage].mean
    return fitted


def _video_numbers(source: Source, indices: Sequence[int]) -> dict[int, int]:
    numbers: dict[str, int] = {}
    return {i: numbers.setdefault(source.items[i].source_video, len(numbers)) for i in indices}


def _name_by_importance(
    fitted: Mapping[str, StageConcepts], importance: Mapping[str, ConceptImportance]
) -> dict[str, StageConcepts]:
    """Return the concepts with names `STAGE/NN`, numbered by importance; directions keep their order."""
    named = {}
    for stage, concepts in fitted.items():
        order = np.argsort(-importance[stage].by_head.sum(0).mean(0), kind="stable")
        rank = np.empty(len(order), int)
        rank[order] = np.arange(len(order))
        named[stage] = replace(concepts, names=tuple(f"{stage}/{n:02d}" for n in rank))
    return named


def _describe(
    passes: VideoPasses,
    named: Mapping[str, StageConcepts],
    scores: ClipScores,
    marks: Mapping[str, Mark],
    importance: Mapping[str, ConceptImportance],
    n_clips: Mapping[str, int],  # each from another video
) -> tuple[list[DiscoveredRow], list[HeadImportanceRow]]:
    config = passes.config
    videos = [passes.source.items[i].source_video for i in scores.items]
    all_p = adjust_p(np.concatenate([importance[stage].random_p for stage in named]))
    adjusted = dict(zip(named, np.split(all_p, np.cumsum([len(named[stage].names) for stage in named])), strict=False))
    rows, head_rows = [], []
    for stage, concepts in named.items():
        values, shares = np.stack(scores.values[stage]), scores.shares(stage)
        by_head, units = importance[stage].by_head, importance[stage].videos
        for j in np.argsort(concepts.names):
            name = concepts.names[j]
            total = mean_ci(by_head[:, :, j].sum(0), units=units)
            label = suggest_label(values[:, j], marks, videos, config.seed)
            clip_type = "motion" if config.motion_only else "all"
            rows.append(
                DiscoveredRow(
                    *(name, stage, config.discovery, clip_type, float(shares[1 + j])),
                    *(*total, float(adjusted[stage][j])),
                    *(label.label, label.auc, label.low, label.high),
                    n_videos=n_clips[name],
                )
            )
            for h, head in enumerate(passes.reader.network.heads):
                head_rows.append(HeadImportanceRow(name, head, *mean_ci(by_head[h, :, j], units=units), len(units)))
    return rows, head_rows


def _measure_completeness(source: Source, network: Network, scores: ClipScores, seed: int) -> list[CompletenessRow]:
    videos, predictions = [source.items[i].source_video for i in scores.items], np.stack(scores.predictions)
    rows = (
        prediction_share(np.stack(values), predictions[:, h], videos, stage=stage, head=head, seed=seed)
        for stage, values in scores.values.items()
        for h, head in enumerate(network.heads)
    )
    return [row for row in rows if row is not None]


def _write_arrays(out: Path, named: Mapping[str, StageConcepts], scores: ClipScores, source: Source) -> None:
    """Write the directions, and the scores of the concepts in each clip, as arrays by name of the concept."""
    directions = {
        name: np.asarray(concepts.dictionary.directions[j])
        for concepts in named.values()
        for j, name in enumerate(concepts.names)
    }
    clip_scores = {
        name: np.stack(scores.values[stage])[:, j]
        for stage, concepts in named.items()
        for j, name in enumerate(concepts.names)
    }
    for file_name, arrays in (
        (DIRECTIONS_NPZ, directions),
        (CLIP_SCORES_NPZ, {**clip_scores, "video": np.array([source.items[i].source_video for i in scores.items])}),
    ):
        with replacing(out / file_name) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **{name.replace("/", "|"): array for name, array in arrays.items()})
