"""The two passes over videos, each of which stores its state regularly and continues from it after a kill."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from vtcav_jax.atomic import replacing
from vtcav_jax.attribution.videos.clip_windows import VideoResult, Window, map_windows_in_batches
from vtcav_jax.attribution.videos.finite_check import non_finite_message
from vtcav_jax.attribution.videos.stored_results import note_recomputed, read_about
from vtcav_jax.console import progress
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.source import Source, is_unchanged
from vtcav_jax.discovery.activation_grids import GridReader, read_grids
from vtcav_jax.discovery.config import DiscoveryConfig
from vtcav_jax.discovery.dictionaries import Dictionary, encode_tokens, explained_share
from vtcav_jax.discovery.strongest_clips import StrongestClips
from vtcav_jax.discovery.token_sample import TokenSample
from vtcav_jax.names import abridged_list

SAVE_EVERY = 64  # videos
SPARES = 3  # clips that are kept per clip of a concept: another concept may take the same
State = dict[str, np.ndarray]


@dataclass(frozen=True)
class VideoPasses:
    """Videos of a source, the network that reads them, and the folder of the stored states."""

    source: Source
    reader: GridReader
    config: DiscoveryConfig
    sampling: SamplingConfig
    folder: Path
    failures: dict[str, str] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)  # of the videos in the states, by position in the source

    def sample_tokens(self, indices: Sequence[int]) -> dict[str, TokenSample]:
        """Return a sample of the activations of these videos, by stage."""
        per_clip = -(-self.config.max_tokens // max(len(indices) * self.sampling.clips_per_video, 1))
        samples = {
            stage: TokenSample.empty(shape, per_clip, self.config.seed) for stage, shape in self.reader.shapes().items()
        }
        path = self.folder / "tokens.npz"
        done = self._load(path, {stage: sample.restore for stage, sample in samples.items()})

        def add(window: Window, grids: dict[str, np.ndarray], row: int) -> None:
            for stage, sample in samples.items():
                sample.add(window.read.index * self.sampling.clips_per_video + window.clip_index, grids[stage][row])

        self._run(
            indices, done, self.reader, add, path, lambda: {s: sample.state() for s, sample in samples.items()}, "fit"
        )
        return samples

    def score_clips(
        self,
        indices: Sequence[int],
        video_numbers: Mapping[int, int],
        dictionaries: Mapping[str, Dictionary],
        means: Mapping[str, Float[np.ndarray, "t h w c"]],
    ) -> "ClipScores":
        """Score the concepts in these videos, and keep the clips with the highest scores."""
        n_frames = self.reader.network.clip_spec.frames
        scores = ClipScores(
            {
                stage: StrongestClips.empty(
                    len(d.directions), SPARES * self.config.clips_per_concept, n_frames, means[stage].shape[:3]
                )
                for stage, d in dictionaries.items()
            }
        )
        path = self.folder / "scores.npz"
        done = self._load(path, scores.restorers())
        placed = jax.device_put((dict(dictionaries), {stage: jnp.asarray(mean) for stage, mean in means.items()}))
        compute = partial(
            _score_batch,
            self.reader.network.model,
            *placed,
            method=self.config.discovery,
            motion_only=self.config.motion_only,
        )

        def run(frames: UInt8[np.ndarray, "b t h w 3"]) -> Any:
            return jax.tree.map(np.asarray, compute(self.reader.place(frames)))

        heads = self.reader.network.head_slices.values()

        def add(window: Window, result: tuple[np.ndarray, dict[str, tuple[np.ndarray, ...]]], row: int) -> None:
            scores.predictions.append(np.array([result[0][row, head].argmax() for head in heads]))
            scores.add(window, video_numbers[window.read.index], result[1], row)

        self._run(indices, done, run, add, path, scores.state, "score")
        return scores

    def _run(
        self,
        indices: Sequence[int],
        done: int,
        compute: Callable[[UInt8[np.ndarray, "b t h w 3"]], Any],
        add: Callable[[Window, Any, int], None],
        path: Path,
        state: Callable[[], Mapping[str, State]],
        purpose: str,
    ) -> None:
        results = map_windows_in_batches(
            self.source,
            self.reader.network.clip_spec,
            self.sampling,
            compute,
            batch_size=self.batch_size,
            multiple_of=self.reader.runtime.mesh.devices.size,
            num_workers=self.reader.runtime.num_workers,
            indices=indices[done:],
        )
        position = done
        for result in progress(results, len(indices) - done, f"videos to {purpose}", size=lambda _: 1):
            if isinstance(result, ReadResult):
                self.failures[result.item.name] = result.failure or ""
            elif stage := _non_finite_stage(result):
                item = result.windows[0].read.item
                self.failures[item.name] = non_finite_message(item.name, f"the activations at {stage}")
            else:
                self._add_video(result, add)
            position += 1
            if position % SAVE_EVERY == 0 or position == len(indices):
                self._save(path, position, state())

    def _add_video(self, result: VideoResult[Any], add: Callable[[Window, Any, int], None]) -> None:
        first = result.windows[0]
        self.contents[str(first.read.index)] = first.clip.content
        for window, (output, row) in zip(result.windows, result.results, strict=True):
            add(window, output, row)

    @property
    def batch_size(self) -> int:
        """Clips per forward pass, at most those of the source, rounded up to a multiple of the number of devices."""
        devices = self.reader.runtime.mesh.devices.size
        n_clips = len(self.source.items) * self.sampling.clips_per_video
        return -(-min(self.config.batch_size, n_clips) // devices) * devices

    def _save(self, path: Path, position: int, state: Mapping[str, State]) -> None:
        arrays = {f"{group}|{name}": value for group, part in state.items() for name, value in part.items()}
        about = json.dumps({"position": position, "failures": self.failures, "contents": self.contents})
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, about=np.array(about), **arrays)

    def _load(self, path: Path, restorers: Mapping[str, Callable[[State], None]]) -> int:
        """Restore a stored state and return the number of videos it contains; 0 without a valid one."""
        if (about := self._read_about(path)) is None:
            return 0
        with np.load(path, allow_pickle=False) as stored:
            parts: dict[str, State] = {}
            for key in stored.files:
                if key != "about":
                    group, name = key.rsplit("|", 1)
                    parts.setdefault(group, {})[name] = stored[key]
        for group, restore in restorers.items():
            restore(parts.get(group, {}))
        self.failures.update(about["failures"])
        self.contents.update(about["contents"])
        return int(about["position"])

    def _read_about(self, path: Path) -> dict[str, Any] | None:
        """Return what a stored state contains, or None, with a note, if it is damaged or a video has changed."""
        if not path.exists():
            return None
        try:
            about = read_about(path)
            changed = [i for i, content in about["contents"].items() if not is_unchanged(self.source, int(i), content)]
        except Exception:  # a damaged file can raise anything
            note_recomputed([path], "damaged")
            return None
        if changed:
            names = abridged_list([self.source.items[int(i)].name for i in changed])
            note_recomputed([path], f"of videos whose files have changed since ({names})")
        return None if changed else about


def _non_finite_stage(result: VideoResult[Any]) -> str:
    """Return a stage with NaN or infinite activations or scores in any clip of a video; empty if there is none."""
    for output, row in result.results:
        grids = {stage: values[0] for stage, values in output[1].items()} if isinstance(output, tuple) else output
        for stage, values in grids.items():
            if not np.isfinite(values[row]).all():
                return stage
    return ""


@dataclass
class ClipScores:
    """Scores of all concepts in the scored clips, their strongest clips, and the explained shares, by stage."""

    strongest: dict[str, StrongestClips]
    items: list[int] = field(default_factory=list)  # position in the source of each clip
    extents: list[tuple[int, int]] = field(default_factory=list)  # first and last frame of each clip
    predictions: list[np.ndarray] = field(default_factory=list)  # of each clip, the class of each head
    values: dict[str, list[np.ndarray]] = field(default_factory=dict)  # one row per clip
    sums: dict[str, np.ndarray] = field(default_factory=dict)  # explained shares, summed over clips

    def add(self, window: Window, video: int, result: Mapping[str, tuple[np.ndarray, ...]], row: int) -> None:
        self.items.append(window.read.index)
        frames = window.clip.frames[0]
        self.extents.append((int(frames.min()), int(frames.max())))
        for stage, (scores, maps, shares) in result.items():
            self.values.setdefault(stage, []).append(scores[row])
            self.sums[stage] = self.sums.get(stage, 0) + shares[row]
            self.strongest[stage].offer(scores[row], maps[row], window.read.index, video, frames)

    def shares(self, stage: str) -> Float[np.ndarray, " shares"]:
        """Return the mean explained share of all concepts, then of each."""
        return self.sums[stage] / max(len(self.items), 1)

    def state(self) -> dict[str, State]:
        parts = {f"strongest {stage}": clips.state() for stage, clips in self.strongest.items()}
        for stage, rows in self.values.items():
            parts[f"values {stage}"] = {"scores": np.stack(rows), "sums": self.sums[stage]}
        names = ("items", "extents", "predictions")
        return {**parts, "clips": {name: np.array(getattr(self, name), np.int64) for name in names}}

    def restorers(self) -> dict[str, Callable[[State], None]]:
        def restore_strongest(stage: str, state: State) -> None:
            self.strongest[stage] = StrongestClips.restored(state)

        def restore_values(stage: str, state: State) -> None:
            if state:
                self.values[stage], self.sums[stage] = list(state["scores"]), state["sums"]

        def restore_clips(state: State) -> None:
            self.items, self.predictions = state["items"].tolist(), list(state["predictions"])
            self.extents = [(first, last) for first, last in state["extents"].tolist()]

        return {
            **{f"strongest {stage}": partial(restore_strongest, stage) for stage in self.strongest},
            **{f"values {stage}": partial(restore_values, stage) for stage in self.strongest},
            "clips": restore_clips,
        }


@partial(jax.jit, static_argnames=("method", "motion_only"))
def _score_batch(
    model: Any,
    dictionaries: Mapping[str, Dictionary],
    means: Mapping[str, Array],
    video: Float[Array, "b t h w 3"],
    method: str,
    motion_only: bool,
) -> tuple[Array, dict[str, tuple[Array, Array, Array]]]:
    """Return the logits and, by stage, scores `(b, k)`, maps `(b, t, h, w, k)` and explained shares `(b, 1 + k)`."""
    logits, grids = read_grids(model, video, tuple(dictionaries), motion_only)
    result = {}
    for stage, dictionary in dictionaries.items():
        x = grids[stage] - means[stage][None]
        codes = encode_tokens(method, dictionary, x)
        total, added = jax.vmap(explained_share, (0, 0, None))(codes, x, dictionary.directions)
        shares = jnp.concatenate([total[:, None], added], 1)
        result[stage] = codes.mean((1, 2, 3)), codes.astype(jnp.float16), shares
    return logits, result
