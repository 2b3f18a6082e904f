"""`review.html`: all clips of a concept set on one page that needs nothing else, to be looked at and rejected by a key.

The page keeps no secrets and trusts nothing: names from outside reach it as data, and its policy lets no script run but
its own. Controls are not on it; they go with the dynamic clip that they were made of.
"""

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.concepts.concept_sets import ConceptClip, pictures, read_sets
from vtcav_jax.concepts.crops import CONTROLS, letterbox
from vtcav_jax.concepts.review_page import PAGE, SCRIPT, STYLE
from vtcav_jax.console import progress
from vtcav_jax.data.decode import VideoError
from vtcav_jax.names import printable
from vtcav_jax.runs.directory import write_text

SIZE = 112  # of a preview, in pixels
MOST = 32  # frames of a preview
RATE = 12  # frames per second


def review_sets(folder: str | Path) -> tuple[Path, dict[str, str]]:
    """The page of a set that is there, made by hand or mined; returns its path, and why clips are not on it."""
    sets = read_sets(folder)
    return write_review(sets.folder, [*sets.clips, *sets.rejected])


def write_review(folder: Path, clips: Iterable[ConceptClip]) -> tuple[Path, dict[str, str]]:
    shown = [clip for clip in clips if clip.kind not in CONTROLS or not clip.twin]
    shown.sort(key=lambda clip: (clip.negative, clip.concept, clip.kind != "static", clip.kind, clip.file))
    cards, failures = [], {}
    for (clip,) in progress(([clip] for clip in shown), len(shown), "previews"):
        try:
            cards.append(_card(clip))
        except VideoError as error:
            failures[clip.file] = str(error)
    path = folder / "review.html"
    write_text(path, page(cards, printable(folder.resolve().name)))
    return path, failures


def page(cards: Sequence[dict], name: str) -> str:
    # No `<` in the data: it could end the element that it stands in, or begin a comment.
    data = json.dumps(cards, separators=(",", ":")).replace("<", "\\u003c")
    allowed = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    parts = {"@script": SCRIPT, "@style": STYLE, "@allowed": allowed, "@name": escape(name), "@data": data}
    return re.sub("|".join(parts), lambda mark: parts[mark[0]], PAGE)  # at once: what is put in is not looked at again


def _card(clip: ConceptClip) -> dict:
    video = pictures(clip)
    small = letterbox(video[:: -(-len(video) // MOST)], SIZE, antialias=True)
    still = bool((video == video[0]).all())
    data, mime = (jpeg(small[0]), "image/jpeg") if still else (webm(small), "video/webm")
    first, last = (clip.frames[0], clip.frames[-1]) if clip.frames else (0, len(video) - 1)
    return {
        "file": clip.file,
        "sha256": clip.sha256,
        "concept": clip.concept,
        "kind": clip.kind,
        "source": clip.source,
        "label": clip.label,
        "frames": str(first) if first == last else f"{first} to {last}",
        "size": f"{video.shape[2]} x {video.shape[1]}",
        "confidence": None if clip.confidence is None else round(clip.confidence, 4),
        "verdict": clip.review,
        "preview": f"data:{mime};base64,{base64.b64encode(data).decode()}",
    }


def jpeg(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    return compressed(picture[None], "image2pipe", "mjpeg", "yuvj420p", {"qmin": "3", "qmax": "3"})


def webm(video: UInt8[np.ndarray, "t h w 3"]) -> bytes:
    """VP8, which every browser plays, without what differs from one time to the next.

    The speed is negative, which means fixed: with a positive one the encoder does less where the machine is busy.
    """
    options = {"deadline": "realtime", "cpu-used": "-4", "threads": "1", "crf": "12", "b": "400k"}
    return compressed(video, "webm", "libvpx", "yuv420p", options)


def compressed(
    video: np.ndarray, container: str, codec: str, pixels: str, options: dict[str, str], rate: int = RATE
) -> bytes:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container, options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream(codec, rate=rate, options=options | {"flags": "+bitexact"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = pixels
        for frame in video:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        output.mux(stream.encode(None))
    return file.getvalue()
