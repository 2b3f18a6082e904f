"""Films of clips: all frames that the network reads as one picture, decoded when a page asks for them.

A page of a film shows any of its frames without another request. Films are kept in memory up to a limit.
"""

import io
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts.concept_sets import load_frames
from vtcav_jax.concepts.concept_table import ConceptClip
from vtcav_jax.concepts.crops import letterbox
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.data.encode import encode_jpeg
from vtcav_jax.data.open import open_source
from vtcav_jax.data.source import Source
from vtcav_jax.serve.byte_cache import ByteCache

MAX_FILM_BYTES, MAX_CLIP_BYTES = 64 * 2**20, 256 * 2**20  # of encoded pictures, and of frames
MAX_FILM_FRAMES, MAX_FILM_SIDE = 64, 256  # in a picture; longer films leave frames out
THUMBNAIL_SIDE, CONCEPT_SIDE, MAX_CONCEPT_FRAMES = 96, 112, 16
LOSSLESS_BELOW = 96  # pixels; JPEG damages small frames


@dataclass(frozen=True, eq=False)
class FilmClip:
    """Frames that the network reads of a clip, with their times in seconds; `content` is that of the video's bytes."""

    frames: UInt8[np.ndarray, "t h w 3"]
    times: Float[np.ndarray, " t"]
    numbers: Int[np.ndarray, " t"]
    content: str = ""

    @property
    def n_bytes(self) -> int:
        return self.frames.nbytes


@dataclass(frozen=True)
class FilmPicture:
    """All frames of a clip, row by row in one picture."""

    data: bytes
    mime: str
    n_frames: int
    columns: int
    side: tuple[int, int]  # height and width of a frame in the picture
    times: tuple[float, ...]

    @property
    def n_bytes(self) -> int:
        return len(self.data) + 200


@dataclass(frozen=True)
class ClipSampling:
    """Sampling of a run's clips from its videos, and which of them this is."""

    clips_per_video: int = 1
    interval_seconds: float | None = None
    slides: bool = False
    start_frame: int | None = None  # of a clip that slides over the video


class FilmLibrary:
    """Clips of sources and of concept folders, as frames and as pictures."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[Source, dict[str, int]]] = {}
        self._source_lock = threading.Lock()
        self._clips = ByteCache[FilmClip](MAX_CLIP_BYTES, lambda clip: clip.n_bytes)
        self._pictures = ByteCache[FilmPicture](MAX_FILM_BYTES, lambda picture: picture.n_bytes)
        self.n_decoded = 0

    def find_item(self, spec: str, name: str) -> tuple[Source, int]:
        """Return a source and the index of the item with this name; raise ValueError if there is none."""
        with self._source_lock:
            if spec not in self._sources:
                try:
                    source = open_source(spec)
                except ValueError as error:
                    raise ValueError(
                        f"the videos cannot be opened from {Path.cwd()}: {error}; start the server where the run was"
                        " made"
                    ) from error
                self._sources[spec] = source, {item.name: i for i, item in enumerate(source.items)}
            source, index_of = self._sources[spec]
        if name not in index_of:
            raise ValueError(f"{spec} has no clip {name} any more; expected the videos of the run")
        return source, index_of[name]

    def clip(self, spec: str, name: str, part: int, clip_spec: ClipSpec, sampling: ClipSampling) -> FilmClip:
        """Return the frames of a clip, decoded if they are not in memory."""
        key = (spec, name, part, clip_spec, sampling)
        return self._clips.get_or_compute(key, lambda: self._read(spec, name, part, clip_spec, sampling))

    def _read(self, spec: str, name: str, part: int, clip_spec: ClipSpec, sampling: ClipSampling) -> FilmClip:
        source, i = self.find_item(spec, name)
        config = SamplingConfig(
            clips_per_video=sampling.clips_per_video, interval_seconds=sampling.interval_seconds, normalise=False
        )
        if sampling.slides:
            config, row = replace(config, clips_per_video=1, start=sampling.start_frame or 0), 0
        else:
            row = min(part, sampling.clips_per_video - 1)
        clip = source.read(i, clip_spec, config)
        self.n_decoded += 1
        video, times, numbers = (np.asarray(array[row]) for array in (clip.video, clip.times, clip.frames))
        return FilmClip(video, times, numbers, clip.content)

    def picture(self, key: tuple, read: Callable[[], FilmClip], side: int, max_frames: int) -> FilmPicture:
        """Return the picture of a film; `key` names the film."""
        return self._pictures.get_or_compute((key, side, max_frames), lambda: film_picture(read(), side, max_frames))

    def concept_clip(self, clip: ConceptClip) -> FilmClip:
        """Return the frames of a concept clip as a small square film."""
        frames = load_frames(clip)
        step = max(1, -(-len(frames) // MAX_CONCEPT_FRAMES))
        numbers = np.arange(0, len(frames), step)
        small = letterbox(frames[numbers], CONCEPT_SIDE, antialias=True)
        return FilmClip(small, numbers / 25.0, numbers)


def film_picture(clip: FilmClip, side: int, max_frames: int) -> FilmPicture:
    """Return the frames (evenly thinned to `max_frames`) as one picture, reduced to at most `side` pixels."""
    numbers = np.unique(np.linspace(0, len(clip.frames) - 1, min(max_frames, len(clip.frames))).round().astype(int))
    if max_frames == 1:
        numbers = np.array([len(clip.frames) // 2])
    frames = clip.frames[numbers]
    if max(frames.shape[1:3]) > side:
        frames = letterbox(frames, side, antialias=True)
    columns = math.ceil(math.sqrt(len(frames)))
    picture = tile_frames(frames, columns)
    is_lossless = max(frames.shape[1:3]) < LOSSLESS_BELOW
    data, mime = (encode_webp(picture), "image/webp") if is_lossless else (encode_jpeg(picture), "image/jpeg")
    times = tuple(float(time) for time in clip.times[numbers])
    return FilmPicture(data, mime, len(frames), columns, (frames.shape[1], frames.shape[2]), times)


def tile_frames(frames: UInt8[np.ndarray, "t h w c"], columns: int) -> UInt8[np.ndarray, "h2 w2 c"]:
    """Arrange frames row by row."""
    t, h, w, c = frames.shape
    rows = -(-t // columns)
    out = np.zeros((rows * h, columns * w, c), np.uint8)
    for i, frame in enumerate(frames):
        y, x = divmod(i, columns)
        out[y * h : (y + 1) * h, x * w : (x + 1) * w] = frame
    return out


def encode_webp(picture: UInt8[np.ndarray, "h w c"]) -> bytes:
    """Encode a picture with three or four channels without loss."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError("pictures of maps need Pillow; pip install pillow") from error
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", lossless=True, quality=20, method=1, exact=True)
    return file.getvalue()
