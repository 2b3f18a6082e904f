"""Kinetics-400, -600 and -700 (Kay et al., 2017, arXiv:1705.06950): CSV files of YouTube videos and seconds."""

from itertools import product
from pathlib import Path

from vtcav_jax.data.annotations.annotated_videos import AnnotatedVideos, Annotation, inside_folder, sorted_classes
from vtcav_jax.data.annotations.text_files import parse_rows, parse_seconds, read_csv

COLUMNS = ("youtube_id", "time_start", "time_end")
EXPECTED = "a CSV file of Kinetics with the columns label, youtube_id, time_start, time_end, split"
REPLACEMENTS = "replacement/replacement_for_corrupted_k400"  # of the copy by CVDF, for damaged files of Kinetics-400
SPLIT_FOLDERS = {"validate": "val", "validation": "val", "val": "validate"}  # other names of a split's folder


def read_kinetics(text: str) -> AnnotatedVideos:
    """Read `train.csv`, `val.csv` or `test.csv`; a test file may lack labels.

    Videos are `ID_SSSSSS_EEEEEE.mp4`, in the folder, in one per class, per split, or both, as downloaders and CVDF
    write them.
    """
    file = Path(text).expanduser()
    annotations = parse_rows(file, read_csv(file, COLUMNS, EXPECTED), _parse_row)
    return AnnotatedVideos(file, sorted_classes(annotations, ["label"]), tuple(annotations), ".mp4")


def _parse_row(row: dict[str, str]) -> Annotation:
    video, label, split = row["youtube_id"], row.get("label", ""), row.get("split", "")
    if not video:
        raise ValueError("the youtube_id is empty")
    start, end = (int(parse_seconds(row[name], name)) for name in COLUMNS[1:])
    stem = f"{video}_{start:06d}_{end:06d}"
    class_folders = ["", label, label.replace(" ", "_")]
    split_folders = ["", split, SPLIT_FOLDERS.get(split, split)]
    folders = ("/".join(filter(None, pair)) for pair in product(split_folders, class_folders))
    places = inside_folder(f"{folder}/{stem}" if folder else stem for folder in folders)
    if "/" in video or not places:
        raise ValueError(f"{video!r} is not the name of a video")
    labels = {"label": label} if label else {}
    return Annotation(stem, labels, places, (f"{REPLACEMENTS}/{stem}",), recording=video)
