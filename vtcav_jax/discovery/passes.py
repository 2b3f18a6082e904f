"""The two passes over videos, each of which stores its results in parts and continues from them after a kill."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from vtcav_jax import distributed
from vtcav_jax.atomic import replacing
from vtcav_jax.attribution.videos.clip_windows import VideoResult, Window, map_windows_in_batches
from vtcav_jax.attribution.videos.finite_check import non_finite_message
from vtcav_jax.attribution.videos.stored_results import note_recomputed, read_about
from vtcav_jax.checksums import file_sha256, json_sha256
from vtcav_jax.console import progress
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.source import Source, is_unchanged
from vtcav_jax.discovery.activation_grids import GridReader, read_grids
from vtcav_jax.discovery.clip_scores import ClipScores, State
from vtcav_jax.discovery.config import DiscoveryConfig
from vtcav_jax.discovery.dictionaries import Dictionary, encode_tokens, explained_share
from vtcav_jax.discovery.strongest_clips import StrongestClips
from vtcav_jax.discovery.token_sample import TokenSample
from vtcav_jax.names import abridged_list

BLOCK_VIDEOS = 64  # of a stored part
SPARES = 3  # clips that are kept per clip of a concept: another concept may take the same
AddClip = Callable[[Window, Any, int], None]
GetState = Callable[[], Mapping[str, State]]


@dataclass(frozen=True)
class VideoPasses:
    """Videos of a source, the network that reads them, and the folder of the stored parts.

    A part has the results of a block of videos. Parts are added in their order, so that results have the same bits
    after a kill and for any number of processes, which share the blocks.
    """

    source: Source
    reader: GridReader
    config: DiscoveryConfig
    sampling: SamplingConfig
    folder: Path
    failures: dict[str, str] = field(default_factory=dict)

    def sample_tokens(self, indices: Sequence[int]) -> dict[str, TokenSample]:
        """Return a sample of the activations of these videos, by stage."""
        self.store_tokens(indices)
        return self.read_tokens(indices)

    def store_tokens(self, indices: Sequence[int]) -> None:
        """Store samples of the activations of these videos; with several processes, of this process's share."""

        def make_part() -> tuple[AddClip, GetState]:
            samples = self._empty_samples(indices)

            def add(window: Window, grids: dict[str, np.ndarray], row: int) -> None:
                for stage, sample in samples.items():
                    number = window.read.index * self.sampling.clips_per_video + window.clip_index
                    sample.add(number, grids[stage][row])

            return add, lambda: {stage: sample.state() for stage, sample in samples.items()}

        self._store_parts("tokens", indices, self.reader, make_part, "fit")

    def read_tokens(self, indices: Sequence[int]) -> dict[str, TokenSample]:
        """Return the stored sample of the activations of these videos, by stage."""
        samples = self._empty_samples(indices)
        for state in self._read_parts("tokens", indices):
            for stage, sample in samples.items():
                sample.merge(state[stage])
        return samples

    def tokens_hash(self, indices: Sequence[int]) -> str:
        """Return a hash of the stored sample of the activations of these videos."""
        return json_sha256([file_sha256(self._part_path("tokens", n)) for n in range(len(self._blocks(indices)))])

    def score_clips(
        self,
        indices: Sequence[int],
        video_numbers: Mapping[int, int],
        dictionaries: Mapping[str, Dictionary],
        means: Mapping[str, Float[np.ndarray, "t h w c"]],
        fitted_to: str = "",
    ) -> ClipScores:
        """Score the concepts in these videos, and keep the clips with the highest scores.

        `fitted_to` is the hash of what the dictionaries were fitted to: only parts with the same one are used again.
        """
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

        def make_part() -> tuple[AddClip, GetState]:
            scores = self._empty_scores(dictionaries, means)

            def add(window: Window, result: tuple[np.ndarray, dict[str, tuple[np.ndarray, ...]]], row: int) -> None:
                scores.predictions.append(np.array([result[0][row, head].argmax() for head in heads]))
                scores.add(window, video_numbers[window.read.index], result[1], row)

            return add, scores.state

        self._store_parts("scores", indices, run, make_part, "score", fitted_to)
        scores = self._empty_scores(dictionaries, means)
        for state in self._read_parts("scores", indices):
            scores.merge(state)
        return scores

    def _empty_samples(self, indices: Sequence[int]) -> dict[str, TokenSample]:
        per_clip = -(-self.config.max_tokens // max(len(indices) * self.sampling.clips_per_video, 1))
        shapes = self.reader.shapes()
        return {stage: TokenSample.empty(shape, per_clip, self.config.seed) for stage, shape in shapes.items()}

    def _empty_scores(self, dictionaries: Mapping[str, Dictionary], means: Mapping[str, np.ndarray]) -> ClipScores:
        n_frames, count = self.reader.network.clip_spec.frames, SPARES * self.config.clips_per_concept
        return ClipScores(
            {
                stage: StrongestClips.empty(len(dictionary.directions), count, n_frames, means[stage].shape[:3])
                for stage, dictionary in dictionaries.items()
            }
        )

    def _store_parts(
        self,
        kind: str,
        indices: Sequence[int],
        compute: Callable[[UInt8[np.ndarray, "b t h w 3"]], Any],
        make_part: Callable[[], tuple[AddClip, GetState]],
        purpose: str,
        fitted_to: str = "",
    ) -> None:
        """Store the part of each block of videos that has none."""
        blocks = self._blocks(indices)

        def missing() -> list[int]:
            return [n for n in range(len(blocks)) if not self._is_valid(self._part_path(kind, n), fitted_to)]

        def is_stored(n: int) -> bool:
            return self._part_path(kind, n).exists()

        for numbers in distributed.work_rounds(missing, is_stored):
            positions = [i for n in numbers for i in blocks[n]]
            block_of = {i: n for n in numbers for i in blocks[n]}
            results = map_windows_in_batches(
                self.source,
                self.reader.network.clip_spec,
                self.sampling,
                compute,
                batch_size=self.batch_size,
                multiple_of=self.reader.runtime.mesh.devices.size,
                num_workers=self.reader.runtime.num_workers,
                indices=positions,
            )
            parts: dict[int, _OpenPart] = {}
            for result in progress(results, len(positions), f"videos to {purpose}", size=lambda _: 1):
                read = result if isinstance(result, ReadResult) else result.windows[0].read
                n = block_of[read.index]
                part = parts.setdefault(n, _OpenPart(*make_part()))
                part.add(result)
                if part.n_videos == len(blocks[n]):
                    self._save(self._part_path(kind, n), parts.pop(n), fitted_to)

    def _blocks(self, indices: Sequence[int]) -> list[Sequence[int]]:
        return [indices[start : start + BLOCK_VIDEOS] for start in range(0, len(indices), BLOCK_VIDEOS)]

    def _part_path(self, kind: str, n: int) -> Path:
        return self.folder / f"{kind}_{n:06d}.npz"

    @property
    def batch_size(self) -> int:
        """Clips per forward pass, at most those of the source, rounded up to a multiple of the number of devices."""
        devices = self.reader.runtime.mesh.devices.size
        n_clips = len(self.source.items) * self.sampling.clips_per_video
        return -(-min(self.config.batch_size, n_clips) // devices) * devices

    def _save(self, path: Path, part: "_OpenPart", fitted_to: str) -> None:
        arrays = {f"{group}|{name}": value for group, state in part.state().items() for name, value in state.items()}
        about = json.dumps({"failures": part.failures, "contents": part.contents, "fitted_to": fitted_to})
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, about=np.array(about), **arrays)

    def _read_parts(self, kind: str, indices: Sequence[int]) -> Iterator[dict[str, State]]:
        """Yield the stored parts in order, and note the videos that could not be read."""
        for n in range(len(self._blocks(indices))):
            with np.load(self._part_path(kind, n), allow_pickle=False) as stored:
                parts: dict[str, State] = {}
                for key in stored.files:
                    if key != "about":
                        group, name = key.rsplit("|", 1)
                        parts.setdefault(group, {})[name] = stored[key]
                self.failures.update(json.loads(str(stored["about"]))["failures"])
            yield parts

    def _is_valid(self, path: Path, fitted_to: str) -> bool:
        """Return whether a part can be used; a note names one that is damaged or of videos that have changed."""
        if not path.exists():
            return False
        try:
            about = read_about(path)
            changed = [i for i, content in about["contents"].items() if not is_unchanged(self.source, int(i), content)]
            is_current = about["fitted_to"] == fitted_to
        except Exception:  # a damaged file can raise anything
            note_recomputed([path], "damaged")
            return self._drop(path)
        if changed:
            names = abridged_list([self.source.items[int(i)].name for i in changed])
            note_recomputed([path], f"of videos whose files have changed since ({names})")
        return (not changed and is_current) or self._drop(path)

    @staticmethod
    def _drop(path: Path) -> bool:
        path.unlink()
        return False


@dataclass
class _OpenPart:
    """Results of a block of videos, until it is complete."""

    add_clip: AddClip
    state: GetState
    n_videos: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)  # by position in the source

    def add(self, result: VideoResult[Any] | ReadResult) -> None:
        """Add the clips of a video, or the reason why there are none."""
        self.n_videos += 1
        if isinstance(result, ReadResult):
            self.failures[result.item.name] = result.failure or ""
            return
        first = result.windows[0]
        if stage := _non_finite_stage(result):
            name = first.read.item.name
            self.failures[name] = non_finite_message(name, f"the activations at {stage}")
            return
        self.contents[str(first.read.index)] = first.clip.content
        for window, (output, row) in zip(result.windows, result.results, strict=True):
            self.add_clip(window, output, row)


def _non_finite_stage(result: VideoResult[Any]) -> str:
    """Return a stage with NaN or infinite activations or scores in any clip of a video; empty if there is none."""
    for output, row in result.results:
        grids = {stage: values[0] for stage, values in output[1].items()} if isinstance(output, tuple) else output
        for stage, values in grids.items():
            if not np.isfinite(values[row]).all():
                return stage
    return ""


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
