"""UCF-101 (Soomro et al., 2012, arXiv:1212.0402) and HMDB-51 (Kuehne et al., 2011): lists of the videos of a split."""

import re
from pathlib import Path

from vtcav_jax.data.annotations.annotated_videos import AnnotatedVideos, Annotation, inside_folder, sorted_classes
from vtcav_jax.data.annotations.text_files import check_faults, parse_index, parse_rows, read_lines

UCF_EXPECTED = "a list of UCF-101 such as trainlist01.txt, with lines CLASS/v_CLASS_g01_c01.avi"
UCF_CLASSES_FILE = "classInd.txt"
UCF_GROUP = re.compile(r"(?P<group>.+_g\d+)_c\d+")
HMDB_PARTS = {"train": "1", "test": "2", "unused": "0"}
HMDB_EXPECTED = "a list of HMDB-51 with lines NAME.avi 1 (train), 2 (test) or 0 (unused)"
# The tags of a file name: parts of the body, motion of the camera, number of people, viewpoint, quality
HMDB_TAGS = r"_[a-z]+_(?:cm|nm)_np\d+_(?:fr|ba|le|ri)_(?:goo|med|bad)_\d+"


def read_ucf101(text: str) -> AnnotatedVideos:
    """Read a list; the class is the folder of a video, and videos of one group are of one recording."""
    file = Path(text).expanduser()
    lines = read_lines(file, UCF_EXPECTED)
    class_file = file.parent / UCF_CLASSES_FILE
    names = _read_ucf_classes(class_file) if class_file.is_file() else ()

    def parse(line: str) -> Annotation:
        match = re.fullmatch(r"(?P<label>[^/]+)/(?P<video>[^/]+?)\.\w+(?:\s+(?P<index>\S+))?", line)
        if match is None or match["label"] == "..":
            raise ValueError(f"{line!r} is not CLASS/VIDEO.avi, with the number of the class in training lists")
        label, video = match["label"], match["video"]
        if names and label not in names:
            raise ValueError(f"the class {label} is not in {UCF_CLASSES_FILE}")
        if names and match["index"] and (other := parse_index(match["index"], names, "class", first=1)) != label:
            raise ValueError(f"class {match['index']} is {other} in {UCF_CLASSES_FILE}, not {label}")
        group = UCF_GROUP.fullmatch(video)
        return Annotation(
            f"{label}/{video}",
            {"label": label},
            inside_folder((f"{label}/{video}", f"UCF-101/{label}/{video}", video)),
            recording=group["group"] if group else "",
        )

    annotations = parse_rows(file, lines, parse)
    classes = {"label": names} if names else sorted_classes(annotations, ["label"])
    return AnnotatedVideos(file, classes, tuple(annotations), ".avi")


def _read_ucf_classes(file: Path) -> tuple[str, ...]:
    """Return the class names of `classInd.txt`, whose lines `INDEX NAME` count from 1."""
    pairs = [line.split(maxsplit=1) for _, line in read_lines(file, "a list of class names, one INDEX NAME per line")]
    if [pair[0] for pair in pairs] != [str(i) for i in range(1, len(pairs) + 1)] or any(len(p) < 2 for p in pairs):
        raise ValueError(f"{file.name} is not a list of class names, one INDEX NAME per line, with indices from 1 on")
    return tuple(name for _, name in pairs)


def read_hmdb51(text: str) -> AnnotatedVideos:
    """Read one part of a split from a folder of files CLASS_test_split1.txt: `SPLITS/1/test`.

    Clips that were cut from one film have its name before that of the class.
    """
    path = Path(text).expanduser()
    folder, split, part = path.parent.parent, path.parent.name, path.name
    if part not in HMDB_PARTS or not split.isdigit():
        raise ValueError(
            f"expected SPLITS/NUMBER/PART with PART one of {', '.join(HMDB_PARTS)}, such as"
            f" testTrainMulti_7030_splits/1/test, got {text}"
        )
    ending = f"_test_split{split}.txt"
    files = sorted(folder.glob(f"*{ending}"))
    if not files:
        raise ValueError(f"there is no file CLASS{ending} in {folder}; expected the folder of the splits of HMDB-51")
    annotations: list[Annotation] = []
    for file in files:
        annotations += _read_hmdb_list(file, file.name.removesuffix(ending), HMDB_PARTS[part])
    if not annotations:
        raise ValueError(f"the {len(files)} lists of split {split} in {folder} have no video of the part {part}")
    names = {"label": tuple(file.name.removesuffix(ending) for file in files)}
    return AnnotatedVideos(path, names, tuple(annotations), ".avi")


def _read_hmdb_list(file: Path, label: str, code: str) -> list[Annotation]:
    lines = read_lines(file, HMDB_EXPECTED)
    rows = [(number, re.fullmatch(r"(?P<video>[^/]+?)\.\w+\s+(?P<code>[012])", line)) for number, line in lines]
    faults = [
        f"line {number}: {line!r} is not NAME.avi 0, 1 or 2" for (number, line), (_, row) in zip(lines, rows) if not row
    ]
    check_faults(file, faults, len(rows))
    film = re.compile(rf"(?P<film>.+?)_{re.escape(label)}{HMDB_TAGS}")
    annotations = []
    for _, row in rows:
        if row and row["code"] == code:
            match = film.fullmatch(row["video"])
            places = (f"{label}/{row['video']}", f"{label}/{label}/{row['video']}", row["video"])
            recording = match["film"] if match else ""
            annotations.append(Annotation(f"{label}/{row['video']}", {"label": label}, places, recording=recording))
    return annotations
