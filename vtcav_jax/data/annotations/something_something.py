"""Something-Something v2 (Goyal et al., 2017, arXiv:1706.04261): JSON files of video numbers and templates."""

import re
from pathlib import Path
from typing import Any

from vtcav_jax.data.annotations.annotated_videos import AnnotatedVideos, Annotation, inside_folder, sorted_classes
from vtcav_jax.data.annotations.text_files import parse_rows, read_json_object, read_json_rows

EXPECTED = "a JSON file of Something-Something v2, whose objects have id and template"
LABEL_FILES = ("something-something-v2-labels.json", "labels.json")
VIDEO_FOLDERS = ("", "20bn-something-something-v2", "videos")


def read_something_something(text: str) -> AnnotatedVideos:
    """Read the file of a split; the class is the template, without its brackets. A test file has no templates."""
    file = Path(text).expanduser()
    rows = read_json_rows(file, EXPECTED)
    label_file = next((path for name in LABEL_FILES if (path := file.parent / name).is_file()), None)
    names = _read_label_file(label_file) if label_file else ()

    def parse(row: dict[str, Any]) -> Annotation:
        video, template = str(row.get("id", "")), row.get("template", "")
        if not re.fullmatch(r"\w+", video) or not isinstance(template, str):
            raise ValueError(f"expected an id and a template, got id {video!r}")
        label = re.sub(r"\[(.*?)\]", r"\1", template)
        if label_file and label and label not in names:
            raise ValueError(f"video {video}: the class {label!r} is not in {label_file.name}")
        places = inside_folder(f"{folder}/{video}" if folder else video for folder in VIDEO_FOLDERS)
        return Annotation(video, {"label": label} if label else {}, places)

    annotations = parse_rows(file, enumerate(rows, start=1), parse)
    classes = {"label": names} if names else sorted_classes(annotations, ["label"])
    return AnnotatedVideos(file, classes, tuple(annotations), ".webm")


def _read_label_file(file: Path) -> tuple[str, ...]:
    """Return the class names in the order of their numbers."""
    numbers = read_json_object(file, "class names with their numbers")
    if sorted(map(str, numbers.values())) != sorted(map(str, range(len(numbers)))):
        raise ValueError(f"{file.name} does not number its {len(numbers)} classes from 0 to {len(numbers) - 1}")
    return tuple(sorted(numbers, key=lambda name: int(numbers[name])))
