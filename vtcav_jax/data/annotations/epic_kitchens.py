"""EPIC-KITCHENS-100 (Damen et al., 2022, arXiv:2006.13256): CSV files of segments with a verb and a noun."""

import re
from importlib.resources import files
from pathlib import Path

from vtcav_jax.data.annotations.annotated_videos import AnnotatedVideos, Annotation, inside_folder
from vtcav_jax.data.annotations.text_files import parse_index, parse_rows, parse_seconds, read_csv

COLUMNS = ("narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp")
EXPECTED = f"a CSV file of EPIC-KITCHENS-100 with the columns {', '.join(COLUMNS)}, verb_class, noun_class"


def read_epic_kitchens(text: str) -> AnnotatedVideos:
    """Read the segments of a split; a test file has no classes.

    Videos are `P01/P01_01.MP4` or `P01/videos/P01_01.MP4`, of which only the segment is decoded, or files that were cut
    to the segment, `P01_01_0.mp4`. All segments of a video are of one recording.
    """
    file = Path(text).expanduser()
    rows = read_csv(file, COLUMNS, EXPECTED)
    has_labels = {"verb_class", "noun_class"} <= set(rows[0][1])
    names = {head: _class_names(file, head) for head in ("verb", "noun")} if has_labels else {}

    def parse(row: dict[str, str]) -> Annotation:
        person, video, segment = row["participant_id"], row["video_id"], row["narration_id"]
        start, end = (parse_seconds(row[name], name) for name in COLUMNS[3:])
        if end <= start:
            raise ValueError(f"stop_timestamp {row['stop_timestamp']} must be after {row['start_timestamp']}")
        labels = {head: parse_index(row[f"{head}_class"], names[head], f"{head}_class") for head in names}
        recording_places = inside_folder((f"{person}/{video}", f"{person}/videos/{video}", video, f"videos/{video}"))
        if not re.fullmatch(r"[\w-]+", segment) or not recording_places:
            raise ValueError(f"{segment!r} and {video!r} are not the names of a segment and a video")
        return Annotation(
            segment,
            labels,
            inside_folder((segment, f"{person}/{segment}", f"{video}/{segment}", f"{person}/{video}/{segment}")),
            recording_places=recording_places,
            start=start,
            end=end,
            recording=video,
            further_labels={"noun": _further_nouns(row, names["noun"], labels["noun"])} if names else {},
        )

    return AnnotatedVideos(file, names, tuple(parse_rows(file, rows, parse)), ".MP4")


def _further_nouns(row: dict[str, str], names: tuple[str, ...], noun: str) -> tuple[str, ...]:
    """Return the nouns of the narration other than the first."""
    numbers = re.findall(r"\d+", row.get("all_noun_classes", ""))
    nouns = (parse_index(number, names, "all_noun_classes") for number in numbers)
    return tuple(name for name in dict.fromkeys(nouns) if name != noun)


def _class_names(file: Path, head: str) -> tuple[str, ...]:
    """Return the class names in `EPIC_100_verb_classes.csv` beside the file, or else the shipped ones."""
    table = file.parent / f"EPIC_100_{head}_classes.csv"
    if not table.is_file():
        shipped = files("vtcav_jax").joinpath("models", "labels", f"epic_kitchens_{head}s.txt")
        return tuple(shipped.read_text(encoding="utf-8").splitlines())
    rows = [row for _, row in read_csv(table, ("id", "key"), "the classes of EPIC-KITCHENS-100 with id and key")]
    if [row["id"] for row in rows] != [str(i) for i in range(len(rows))]:
        raise ValueError(f"{table.name} does not number its classes from 0 to {len(rows) - 1} in this order")
    return tuple(row["key"] for row in rows)
