"""EGTEA Gaze+ (Li et al., 2018, ECCV): lists of clips with the numbers of their action, verb and nouns."""

import re
from pathlib import Path

from vtcav_jax.data.annotations.annotated_videos import AnnotatedVideos, Annotation
from vtcav_jax.data.annotations.text_files import parse_index, parse_rows, read_lines

HEADS = ("action", "verb", "noun")
EXPECTED = "a list of EGTEA Gaze+ such as train_split1.txt, with lines CLIP ACTION VERB NOUN"
# SESSION-START-END-FRAME-FRAME, with start and end in milliseconds from the begin of the session
CLIP_NAME = re.compile(r"(?P<session>[\w-]+?)-(?P<start>\d+)-(?P<end>\d+)-F\d+-F\d+")


def read_egtea(text: str) -> AnnotatedVideos:
    """Read the list of a split; its numbers count from 1, and `action_idx.txt`, ... beside it have the names.

    Videos are the cropped clips, or those of whole sessions, of which only the clip's seconds are decoded. All clips of
    a session are of one recording.
    """
    file = Path(text).expanduser()
    lines = read_lines(file, EXPECTED)
    names = {head: _read_names(file.parent / f"{head}_idx.txt") for head in HEADS}

    def parse(line: str) -> Annotation:
        clip, *numbers = line.split()
        match = CLIP_NAME.fullmatch(clip)
        if match is None or len(numbers) < len(HEADS):
            raise ValueError(f"{line!r} is not CLIP ACTION VERB NOUN, with a name SESSION-START-END-FRAME-FRAME")
        session, start, end = match["session"], int(match["start"]) / 1000, int(match["end"]) / 1000
        if end <= start:
            raise ValueError(f"{clip} ends at {end:g} s, which is not after its begin at {start:g} s")
        labels = {head: parse_index(n, names[head], head, first=1) for head, n in zip(HEADS, numbers)}
        nouns = [parse_index(n, names["noun"], "noun", first=1) for n in numbers[2:]]
        return Annotation(
            clip,
            labels,
            (f"{session}/{clip}", f"cropped_clips/{session}/{clip}", clip),
            recording_places=(session, f"{session}/{session}", f"videos/{session}"),
            start=start,
            end=end,
            recording=session,
            further_labels={"noun": tuple(noun for noun in dict.fromkeys(nouns) if noun != labels["noun"])},
        )

    classes = {head: tuple(head_names) for head, head_names in names.items()}
    return AnnotatedVideos(file, classes, tuple(parse_rows(file, lines, parse)), ".mp4")


def _read_names(file: Path) -> list[str]:
    """Return the names of a list with lines NAME NUMBER, in the order of the numbers, which count from 1."""
    pairs = [line.rsplit(maxsplit=1) for _, line in read_lines(file, "a list of names, one NAME NUMBER per line")]
    numbers = [pair[-1] for pair in pairs]
    if any(len(pair) < 2 for pair in pairs) or sorted(numbers) != sorted(str(i + 1) for i in range(len(pairs))):
        raise ValueError(f"{file.name} is not a list of names, one NAME NUMBER per line, with numbers from 1 on")
    return [name for name, _ in sorted(pairs, key=lambda pair: int(pair[1]))]
