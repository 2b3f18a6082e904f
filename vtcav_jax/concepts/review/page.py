"""`review.html`: one self-contained page that displays all clips of a concept set and rejects clips by key press.

Names from files are inserted as data only, and the content security policy allows no script but the page's own.
Controls are not displayed; they share the verdict of their dynamic clip.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from markupsafe import escape

from vtcav_jax.assets import read_asset
from vtcav_jax.atomic import write_text
from vtcav_jax.concepts.concept_sets import OVERVIEW_FOLDER, load_frames, read_concepts, read_names
from vtcav_jax.concepts.concept_table import ConceptClip
from vtcav_jax.concepts.crops import CONTROLS, letterbox
from vtcav_jax.console import progress
from vtcav_jax.data.decode import VideoError
from vtcav_jax.data.encode import encode_jpeg, encode_webm
from vtcav_jax.names import escape_control_chars

REVIEW_PREVIEW_SIZE = 112  # pixels
MAX_REVIEW_FRAMES = 16  # per preview
REVIEW_FPS = 12
# Kind of picture, and its caption, by suffix
OVERVIEW_KINDS = {
    ".jpg": (
        "image/jpeg",
        "Its strongest clips as a whole, grey where it is absent; below, the parts that were cut out.",
    ),
    ".svg": (
        "image/svg+xml",
        "The mean of its people over time, relative to the hips; dashed: the ways of hands and feet. Below, its clips.",
    ),
}


def review_sets(folder: str | Path) -> tuple[Path, dict[str, str]]:
    """Write the review page of an existing concept set; return its path and the clips that failed, with reasons."""
    sets = read_concepts(folder)
    return write_review(sets.folder, [*sets.clips, *sets.rejected])


def write_review(folder: Path, clips: Iterable[ConceptClip]) -> tuple[Path, dict[str, str]]:
    page_clips = [clip for clip in clips if clip.clip_type not in CONTROLS or not clip.control_of]
    page_clips.sort(
        key=lambda clip: (clip.is_negative, clip.concept, clip.clip_type != "static", clip.clip_type, clip.file)
    )
    cards, failures, names, overviews = [], {}, read_names(folder), _read_overviews(folder)

    def make_card(clip: ConceptClip) -> dict | str:
        """Return the card of a clip, or the reason if it cannot be decoded."""
        try:
            return _card(clip, names.get(clip.file, ""))
        except VideoError as error:
            return str(error)

    # Decoding and encoding release the interpreter's lock
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = zip(page_clips, pool.map(make_card, page_clips), strict=True)
        for clip, card in progress(results, len(page_clips), "previews", size=lambda _: 1):
            if isinstance(card, str):
                failures[clip.file] = card
            else:  # only the first clip of a concept has the overview
                overview = overviews.pop(Path(clip.file).parts[0], "")
                cards.append(card | {"overview": overview, "overviewCaption": _caption(overview)})
    path = folder / "review.html"
    write_text(path, render_review_page(cards, escape_control_chars(folder.resolve().name)))
    return path, failures


def render_review_page(cards: Sequence[dict], name: str) -> str:
    # A `<` in the data could end the script element or begin a comment.
    data = json.dumps(cards, separators=(",", ":")).replace("<", "\\u003c")
    template, style, script = (
        read_asset("vtcav_jax.concepts.review", f"review.{kind}") for kind in ("html", "css", "js")
    )
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {"@script": script, "@style": style, "@allowed": script_hash, "@name": str(escape(name)), "@data": data}
    # One pass: inserted text is not scanned again.
    return re.sub("|".join(parts), lambda mark: parts[mark[0]], template)


def _read_overviews(folder: Path) -> dict[str, str]:
    """Return the overviews of discovered concepts and movements as data, by the names of the concepts' folders."""
    return {
        path.stem: _as_url(path.read_bytes(), mime)
        for suffix, (mime, _) in OVERVIEW_KINDS.items()
        for path in (folder / OVERVIEW_FOLDER).glob(f"*{suffix}")
    }


def _caption(overview: str) -> str:
    return next((text for mime, text in OVERVIEW_KINDS.values() if overview.startswith(f"data:{mime};")), "")


def _as_url(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _card(clip: ConceptClip, name: str) -> dict:
    video = load_frames(clip)
    is_static = bool((video == video[0]).all())
    step = len(video) if is_static else -(-len(video) // MAX_REVIEW_FRAMES)
    small = letterbox(video[::step], REVIEW_PREVIEW_SIZE, antialias=True)
    data, mime = (encode_jpeg(small[0]), "image/jpeg") if is_static else (encode_webm(small), "video/webm")
    first, last = (clip.frames[0], clip.frames[-1]) if clip.frames else (0, len(video) - 1)
    return {
        "file": clip.file,
        "sha256": clip.sha256,
        "concept": clip.concept,
        "newName": name,
        "negative": clip.is_negative,
        "kind": clip.clip_type,
        "source": clip.source,
        "label": clip.label,
        "frames": str(first) if first == last else f"{first} to {last}",
        "size": f"{video.shape[2]} x {video.shape[1]}",
        "confidence": None if clip.confidence is None else round(clip.confidence, 4),
        "verdict": clip.review,
        "preview": _as_url(data, mime),
    }
