"""The supported data sets by name, and `open_annotations`, which opens `NAME:ANNOTATIONS:FOLDER`."""

from collections.abc import Callable
from pathlib import Path

from vtcav_jax.data.annotations import egtea, epic_kitchens, kinetics, something_something, split_lists
from vtcav_jax.data.annotations.annotated_videos import AnnotatedVideos, make_annotated_source
from vtcav_jax.data.source import FileSource

READERS: dict[str, Callable[[str], AnnotatedVideos]] = {
    "kinetics": kinetics.read_kinetics,
    "ucf101": split_lists.read_ucf101,
    "hmdb51": split_lists.read_hmdb51,
    "ssv2": something_something.read_something_something,
    "epic": epic_kitchens.read_epic_kitchens,
    "egtea": egtea.read_egtea,
}
ANNOTATION_KINDS = {
    "kinetics:CSV:FOLDER": "Kinetics-400, -600 or -700: label, youtube_id, time_start, time_end, split",
    "ucf101:LIST:FOLDER": "UCF-101: trainlist01.txt or testlist01.txt, with classInd.txt beside it",
    "hmdb51:SPLITS/1/test:FOLDER": "HMDB-51: SPLITS is the folder of CLASS_test_split1.txt; train, test or unused",
    "ssv2:JSON:FOLDER": "Something-Something v2: the JSON file of a split, with labels.json beside it",
    "epic:CSV:FOLDER": "EPIC-KITCHENS-100: segments of videos, with the heads verb and noun",
    "egtea:LIST:FOLDER": "EGTEA Gaze+: train_split1.txt, ..., with action_idx.txt, verb_idx.txt and noun_idx.txt",
}


def open_annotations(kind: str, rest: str, spec: str) -> FileSource:
    """Open the videos of a data set that an annotation file lists; `rest` is `ANNOTATIONS:FOLDER`.

    Videos that are missing stay items, whose reading fails; if all are, an error says where they were looked for.
    """
    form = next(form for form in ANNOTATION_KINDS if form.startswith(f"{kind}:"))
    pairs = [(rest[:i], Path(rest[i + 1 :]).expanduser()) for i, character in enumerate(rest) if character == ":"]
    if not pairs:
        raise ValueError(f"expected {form}, got {spec}; add the folder of the videos")
    annotations, folder = next((pair for pair in pairs if pair[1].is_dir()), pairs[0])  # names may have colons
    videos = READERS[kind](annotations)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; expected the folder of the videos, as in {form}")
    return make_annotated_source(spec, folder, videos)
