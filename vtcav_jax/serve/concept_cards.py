"""Concept folders on the page: clips of mined and discovered concepts, page by page."""

import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vtcav_jax.concepts.concept_sets import OVERVIEW_FOLDER, read_hand_made_folder
from vtcav_jax.concepts.concept_table import (
    CONCEPT_COLUMNS,
    CONCEPTS_CSV,
    ConceptClip,
    hash_file,
    parse_clip,
    read_csv_rows,
    sort_key,
)
from vtcav_jax.concepts.config import folder_name
from vtcav_jax.concepts.crops import CONTROLS
from vtcav_jax.concepts.review.page import OVERVIEW_KINDS
from vtcav_jax.runs.discovery_rows import DISCOVERED_CSV, DiscoveredRow
from vtcav_jax.runs.tables import read_rows

PAGE_CARDS = 24


@dataclass(frozen=True)
class ConceptFolder:
    """A folder of concept clips; the clips are listed once, without reading their files."""

    name: str
    folder: Path
    _hash_lock: Any = field(default_factory=threading.Lock)
    _hashes: dict[str, str] = field(default_factory=dict)

    @cached_property
    def clips(self) -> dict[str, ConceptClip]:
        """Clips by file, in the order of the review page; controls share the verdict of their clip and are left out."""
        if (self.folder / CONCEPTS_CSV).is_file():
            clips = _listed_clips(self.folder)
        else:
            clips = read_hand_made_folder(self.folder)[0]
        shown = [clip for clip in clips if clip.clip_type not in CONTROLS or not clip.control_of]
        return {clip.file: clip for clip in sorted(shown, key=sort_key)}

    @cached_property
    def discovered(self) -> dict[str, DiscoveredRow]:
        """Discovered concepts by name; empty for other folders."""
        return {row.concept: row for row in read_rows(self.folder / DISCOVERED_CSV, DiscoveredRow)}

    @cached_property
    def overviews(self) -> dict[str, Path]:
        """Pictures of where a discovered concept is, or of a movement, by its name."""
        names = {clip.concept for clip in self.clips.values()}
        paths = [
            (name, self.folder / OVERVIEW_FOLDER / f"{folder_name(name)}{suffix}")
            for name in names
            for suffix in OVERVIEW_KINDS
        ]
        return {name: path for name, path in paths if path.is_file()}

    def sha256(self, file: str) -> str:
        """Return the hash of a clip's bytes: that of the table, else computed."""
        clip = self.clips[file]
        if clip.sha256:
            return clip.sha256
        with self._hash_lock:
            if file not in self._hashes:
                self._hashes[file] = hash_file(clip.path)
            return self._hashes[file]

    @cached_property
    def clips_by_concept(self) -> dict[str, list[ConceptClip]]:
        groups: dict[str, list[ConceptClip]] = {}
        for clip in self.clips.values():
            groups.setdefault(clip.concept, []).append(clip)
        return groups

    def concepts(self) -> list[dict[str, Any]]:
        """Return the concepts with their numbers of clips, and what was discovered about them."""
        return [
            {
                "concept": name,
                "clips": len(clips),
                "negative": clips[0].is_negative,
                "types": list(dict.fromkeys(clip.clip_type for clip in clips)),
                "overview": name in self.overviews,
                **({"discovered": _about(self.discovered[name])} if name in self.discovered else {}),
            }
            for name, clips in self.clips_by_concept.items()
        ]

    def page(self, concept: str, page: int) -> dict[str, Any]:
        """Return one page of the clips of a concept."""
        clips = self.clips_by_concept.get(concept, [])
        n_pages = max(1, -(-len(clips) // PAGE_CARDS))
        page = min(max(page, 0), n_pages - 1)
        return {
            "total": len(clips),
            "page": page,
            "pages": n_pages,
            "clips": [
                {
                    "file": clip.file,
                    "type": clip.clip_type,
                    "source": clip.source or clip.file,
                    "confidence": clip.confidence,
                    "label": clip.label,
                }
                for clip in clips[page * PAGE_CARDS : (page + 1) * PAGE_CARDS]
            ],
        }


def _about(row: DiscoveredRow) -> dict[str, Any]:
    return {
        "importance": row.importance,
        "low": row.importance_low,
        "high": row.importance_high,
        "p": row.importance_p,
        "label": row.label,
        "auc": row.label_auc,
        "stage": row.stage,
    }


def _listed_clips(folder: Path) -> list[ConceptClip]:
    """Return the clips of a table whose files exist within the folder; their bytes are not read."""
    root = folder.resolve()
    clips = []
    for _, row in read_csv_rows(folder / CONCEPTS_CSV, CONCEPT_COLUMNS[:3]):
        path = (folder / row["file"]).resolve()
        if row["file"] and path.is_relative_to(root) and path.is_file():
            clips.append(replace(parse_clip(row, path, row.get("sha256", "")), path=path))
    return clips
