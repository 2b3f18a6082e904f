"""Verdicts and names of concept clips, saved to `review.csv` at once.

Several pages may be open, and other programs may write the file: each change is applied to what the file has at that
moment, under the lock of the folder, and the last change of a clip counts.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from vtcav_jax.concepts.concept_sets import REVIEW_COLUMNS, REVIEW_CSV
from vtcav_jax.concepts.concept_table import REVIEW_VERDICTS, read_csv_rows
from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.runs.lock import exclusive_folders, lock_folder
from vtcav_jax.runs.tables import write_table
from vtcav_jax.serve.concept_cards import ConceptFolder

LOCK_SECONDS = 3.0  # how long a save waits for another program
MAX_CHANGES, MAX_NAME = 100_000, 200


@dataclass(frozen=True)
class ReviewChange:
    """A new verdict or name of a clip, or of all clips of a concept; None leaves it as it is."""

    file: str = ""
    concept: str = ""
    verdict: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class ReviewStore:
    """The review of a concept folder."""

    concepts: ConceptFolder
    _lock: Any = field(default_factory=threading.Lock)

    @property
    def path(self) -> Path:
        return self.concepts.folder / REVIEW_CSV

    def state(self) -> dict[str, Any]:
        """Return the verdict and name of each clip that has one, and a revision that changes with the file.

        The table of the concepts may have verdicts too; those of the review count. `concepts` has the numbers of kept
        and of rejected clips of each concept, and its new name.
        """
        rows = self._rows()
        reviews = {clip.file: [clip.review, ""] for clip in self.concepts.clips.values() if clip.review}
        for file, row in rows.items():
            if file in self.concepts.clips and row["sha256"] in ("", self.concepts.sha256(file)):
                reviews[file] = [row["verdict"], row["name"]]
        concepts = {}
        for concept, clips in self.concepts.clips_by_concept.items():
            known = [reviews[clip.file] for clip in clips if clip.file in reviews]
            verdicts = [verdict for verdict, _ in known]
            name = next((name for _, name in known if name), "")
            concepts[concept] = [verdicts.count("keep"), verdicts.count("reject"), name]
        return {"revision": self.revision(), "reviews": reviews, "concepts": concepts}

    def revision(self) -> str:
        try:
            return sha256(self.path.read_bytes()).hexdigest()[:16]
        except FileNotFoundError:
            return ""

    def save(self, changes: Sequence[ReviewChange]) -> dict[str, Any]:
        """Apply changes and write the file; return the new state. One error lists all changes that are not possible."""
        changes = [single for change in changes for single in self._expand(change)]
        if faults := [fault for change in changes if (fault := self._fault(change))]:
            more = f"; and {len(faults) - 10} more" if len(faults) > 10 else ""
            raise ValueError("; ".join(faults[:10]) + more)
        if len(changes) > MAX_CHANGES:
            raise ValueError(f"expected at most {MAX_CHANGES} changes at once, got {len(changes)}")
        with self._lock, exclusive_folders():
            _wait_for_lock(self.concepts.folder)
            rows = self._rows()
            for change in changes:
                row = rows.get(change.file)
                if row is None:
                    review = self.concepts.clips[change.file].review
                    row = rows[change.file] = {"file": change.file, "verdict": review, "name": ""}
                row["sha256"] = self.concepts.sha256(change.file)
                row["verdict"] = row["verdict"] if change.verdict is None else change.verdict
                row["name"] = row["name"] if change.name is None else change.name.strip()
            columns = (*REVIEW_COLUMNS, "name")
            write_table(self.path, columns, ([row.get(name, "") for name in columns] for row in rows.values()))
        return self.state()

    def _rows(self) -> dict[str, dict[str, str]]:
        """Return the rows of the file, also of clips that the folder no longer has."""
        if not self.path.exists():
            return {}
        return {
            row["file"]: {name: row.get(name) or "" for name in (*REVIEW_COLUMNS, "name")}
            for _, row in read_csv_rows(self.path, ("file", "verdict"))
        }

    def _expand(self, change: ReviewChange) -> list[ReviewChange]:
        """Return the changes of single clips; negative clips have no name to change."""
        if not change.concept:
            return [change]
        clips = self.concepts.clips_by_concept.get(change.concept)
        if clips is None:
            raise ValueError(f"{change.concept!r} is no concept of {self.concepts.name}")
        return [replace(change, file=clip.file, concept="") for clip in clips]

    def _fault(self, change: ReviewChange) -> str:
        clip = self.concepts.clips.get(change.file)
        if clip is None:
            return f"{change.file!r} is no clip of {self.concepts.name}"
        if change.verdict not in (None, "", *REVIEW_VERDICTS):
            return f"{change.verdict!r} is not a verdict; expected keep, reject or nothing"
        if change.name is None:
            return ""
        if clip.is_negative and change.name.strip():
            return f"{change.file} is a negative clip, which has no name"
        if change.name.strip().lower().startswith(NEGATIVE_PREFIX):
            return f"{change.name!r} begins with {NEGATIVE_PREFIX}, which marks negatives; use another name"
        if len(change.name) > MAX_NAME or not change.name.isprintable():
            return f"expected a name of at most {MAX_NAME} printable characters"
        return ""


def _wait_for_lock(folder: Path) -> None:
    """Lock a folder, and wait a little if another program is writing it."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return lock_folder(folder)
        except ValueError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)
