"""Sources of official annotation files: small files in the published formats, and folders as they are downloaded."""

import csv
import io
import json
import pickle
from pathlib import Path

import pytest

from tests.data.test_decode import number_in, write
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import SamplingConfig, VideoError, failure_table, open_source, prepare_dataset, stream
from vtcav_jax.data import decode as decode_module
from vtcav_jax.data.source import FileSource, item_content

CLIP = ClipSpec(frames=4, size=32)
RAW = SamplingConfig(normalise=False)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Write a video of 100 numbered frames, 25 per second."""
    return write(tmp_path_factory.mktemp("video") / "video.mp4", "libx264", total=100)


def opened(spec: str) -> FileSource:
    source = open_source(spec)
    assert isinstance(source, FileSource)
    return source


def place(video: Path, folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(video)
    return folder


def table(file: Path, *rows: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(rows) + "\n")
    return file


def labels(source, head="label"):
    return [source.heads[head][item.labels[head]] if head in item.labels else "" for item in source.items]


def existing(source):
    return [item.path.is_file() for item in source.items]


KINETICS_ROWS = (
    "label,youtube_id,time_start,time_end,split",
    "testifying,---QUuC4vJs,84,94,val",
    "eating spaghetti,--3ouPhoy2A,20,30,val",
    '"passing American football (in game)",--4-0ihtnBU,58,68,val',
    "eating spaghetti,---QUuC4vJs,200,210,val",
)


@pytest.mark.parametrize(
    "form",
    ["{stem}.mp4", "val/{stem}.mp4", "{label}/{stem}.mkv", "val/{label}/{stem}.webm", "val/{label_}/{stem}.mp4"],
)
def test_kinetics_in_the_layouts_of_its_downloaders(video, tmp_path, form):
    file = table(tmp_path / "val.csv", *KINETICS_ROWS)
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    for row in rows[:3]:
        stem = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}"
        name = form.format(stem=stem, label=row["label"], label_=row["label"].replace(" ", "_"))
        place(video, tmp_path / "k400", name)
    source = opened(f"kinetics:{file}:{tmp_path / 'k400'}")
    assert source.heads == {"label": ("eating spaghetti", "passing American football (in game)", "testifying")}
    assert [item.name for item in source.items] == [
        "---QUuC4vJs_000084_000094",
        "--3ouPhoy2A_000020_000030",
        "--4-0ihtnBU_000058_000068",
        "---QUuC4vJs_000200_000210",
    ]
    assert labels(source) == [row["label"] for row in rows]
    assert existing(source) == [True, True, True, False]
    assert [item.source_video for item in source.items] == [row["youtube_id"] for row in rows]
    assert [item.recording for item in source.items] == [row["youtube_id"] for row in rows]
    assert all(item.start is None and item.end is None for item in source.items)
    (note,) = source.notes
    assert "1 of the 4 videos of val.csv is not in" in note and "---QUuC4vJs_000200_000210" in note
    assert pickle.loads(pickle.dumps(source)) == source


def test_missing_videos_are_counted_by_the_loader(video, tmp_path):
    file = table(tmp_path / "val.csv", *KINETICS_ROWS)
    place(video, tmp_path / "k400", "--3ouPhoy2A_000020_000030.mp4")
    reads = list(stream(open_source(f"kinetics:{file}:{tmp_path / 'k400'}"), CLIP, RAW, num_workers=0))
    assert [read.clip is None for read in reads] == [True, False, True, True]
    text = failure_table(reads)
    assert text.splitlines()[0] == "3 files could not be read:" and "3  there is no file; expected a video" in text
    assert "---QUuC4vJs_000084_000094" in text


def test_the_replacement_of_a_damaged_kinetics_video_is_preferred(video, tmp_path):
    file = table(tmp_path / "val.csv", *KINETICS_ROWS[:2])
    folder = place(video, tmp_path / "k400", "val/---QUuC4vJs_000084_000094.mp4")
    repaired = "replacement/replacement_for_corrupted_k400/---QUuC4vJs_000084_000094.mp4"
    place(video, folder, repaired)
    (item,) = open_source(f"kinetics:{file}:{folder}").items
    assert item.path == folder / repaired


def test_a_kinetics_test_file_without_labels(video, tmp_path):
    file = table(tmp_path / "test.csv", "youtube_id,time_start,time_end,split", "---0dWlqevI,19,29,test")
    folder = place(video, tmp_path / "k400", "test/---0dWlqevI_000019_000029.mp4")
    source = opened(f"kinetics:{file}:{folder}")
    assert source.heads == {} and source.items[0].labels == {} and source.notes == ()


UCF_CLASSES = ("1 ApplyEyeMakeup", "2 ApplyLipstick", "3 Archery")


def test_ucf101_lists_with_and_without_numbers(video, tmp_path):
    lists = tmp_path / "ucfTrainTestlist"
    table(lists / "classInd.txt", *UCF_CLASSES)
    train = table(
        lists / "trainlist01.txt",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi 1",
        "Archery/v_Archery_g08_c01.avi 3",
    )
    test = table(lists / "testlist01.txt", "Archery/v_Archery_g01_c01.avi", "ApplyLipstick/v_ApplyLipstick_g01_c01.avi")
    folder = tmp_path / "UCF-101"
    place(video, folder, *(line.split()[0] for line in train.read_text().splitlines()))
    place(video, folder, "Archery/v_Archery_g01_c01.mp4")
    source = open_source(f"ucf101:{train}:{folder}")
    assert source.heads == {"label": ("ApplyEyeMakeup", "ApplyLipstick", "Archery")}
    assert labels(source) == ["ApplyEyeMakeup", "ApplyEyeMakeup", "Archery"] and all(existing(source))
    groups = [item.source_video for item in source.items]
    assert groups == ["v_ApplyEyeMakeup_g08", "v_ApplyEyeMakeup_g08", "v_Archery_g08"]
    tested = open_source(f"ucf101:{test}:{folder}")
    assert labels(tested) == ["Archery", "ApplyLipstick"] and existing(tested) == [True, False]
    assert tested.items[0].name == "Archery/v_Archery_g01_c01" and str(tested.items[1].path).endswith("_c01.avi")


def test_ucf101_faults_are_listed_together(video, tmp_path):
    table(tmp_path / "classInd.txt", *UCF_CLASSES)
    lines = ("Archery/v_Archery_g08_c01.avi 1", "v_Archery.avi 3", "Jump/v_Jump_g01_c01.avi 1", "Archery/v.avi 9")
    file = table(tmp_path / "trainlist01.txt", *lines, "Archery/v_Archery_g08_c02.avi 3")
    with pytest.raises(ValueError, match="4 faulty rows of 5") as error:
        open_source(f"ucf101:{file}:{tmp_path}")
    for text in ("class 1 is ApplyEyeMakeup", "'v_Archery.avi 3' is not", "class Jump is not in", "from 1 to 3"):
        assert text in str(error.value)


def test_hmdb51_split_files(video, tmp_path):
    splits = tmp_path / "testTrainMulti_7030_splits"
    film = "April_09_brush_hair_u_nm_np1_ba_goo_{}.avi"
    table(
        splits / "brush_hair_test_split1.txt",
        *(f"{film.format(i)} {code} " for i, code in enumerate((0, 1, 2, 2))),  # published with a space at the end
        "Blonde_being_brushed_brush_hair_f_nm_np2_ri_med_0.avi 2 ",
    )
    table(splits / "kick_test_split1.txt", "Veoh_Alpha_Dog_1_kick_u_cm_np1_ba_med_11.avi 2 ")
    table(splits / "kick_test_split2.txt", "Veoh_Alpha_Dog_1_kick_u_cm_np1_ba_med_11.avi 1 ")
    folder = place(video, tmp_path / "hmdb51", f"brush_hair/{film.format(2)}", f"brush_hair/{film.format(1)}")
    place(video, folder, "kick/Veoh_Alpha_Dog_1_kick_u_cm_np1_ba_med_11.avi")
    source = open_source(f"hmdb51:{splits}/1/test:{folder}")
    assert source.heads == {"label": ("brush_hair", "kick")}
    assert labels(source) == ["brush_hair"] * 3 + ["kick"] and existing(source) == [True, False, False, True]
    films = ["April_09", "April_09", "Blonde_being_brushed", "Veoh_Alpha_Dog_1"]
    assert [item.source_video for item in source.items] == films
    assert len(open_source(f"hmdb51:{splits}/1/train:{folder}").items) == 1
    with pytest.raises(ValueError, match=r"expected SPLITS/NUMBER/PART with PART one of train, test, unused"):
        open_source(f"hmdb51:{splits}/1/validation:{folder}")
    with pytest.raises(ValueError, match=r"no file CLASS_test_split3.txt"):
        open_source(f"hmdb51:{splits}/3/test:{folder}")


SSV2_ROWS = [
    {
        "id": "74225",
        "label": "spinning cube that quickly stops spinning",
        "template": "Spinning [something] that quickly stops spinning",
        "placeholders": ["cube"],
    },
    {
        "id": "116154",
        "label": "showing that pen is inside cup",
        "template": "Showing that [something] is inside [something]",
        "placeholders": ["pen", "cup"],
    },
]


@pytest.mark.parametrize("label_file", ["labels.json", "something-something-v2-labels.json", None])
def test_something_something(video, tmp_path, label_file):
    file = tmp_path / "something-something-v2-validation.json"
    file.write_text(json.dumps(SSV2_ROWS))
    names = ["Showing that something is inside something", "Spinning something that quickly stops spinning"]
    if label_file:
        (tmp_path / label_file).write_text(json.dumps({names[1]: "0", names[0]: "1"}))
        names = names[::-1]
    folder = place(video, tmp_path / "20bn-something-something-v2", "74225.webm")
    source = open_source(f"ssv2:{file}:{folder}")
    assert source.heads == {"label": tuple(names)}
    assert labels(source)[0] == "Spinning something that quickly stops spinning"
    assert [item.name for item in source.items] == ["74225", "116154"] and existing(source) == [True, False]
    assert [item.source_video for item in source.items] == ["74225", "116154"]


def test_something_something_without_templates_and_with_unknown_ones(video, tmp_path):
    file = tmp_path / "something-something-v2-test.json"
    file.write_text(json.dumps([{"id": "1420"}]))
    source = open_source(f"ssv2:{file}:{place(video, tmp_path / 'videos', '1420.webm')}")
    assert source.heads == {} and source.items[0].labels == {}
    file.write_text(json.dumps(SSV2_ROWS))
    (tmp_path / "labels.json").write_text(json.dumps({"Spinning something that quickly stops spinning": "0"}))
    with pytest.raises(ValueError, match=r"1 faulty row of 2.*\n.*line 2: video 116154: the class 'Showing that"):
        open_source(f"ssv2:{file}:{tmp_path / 'videos'}")
    file.write_text("{}")
    with pytest.raises(ValueError, match="not a JSON list of objects; expected a JSON file of Something-Something"):
        open_source(f"ssv2:{file}:{tmp_path / 'videos'}")


EPIC_ROWS = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes",
    "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.40,00:00:01.20,8,202,open door,open,3,door,3,['door'],[3]",
    "P01_01_1,P01,P01_01,00:00:02.629,00:00:02.00,00:00:03.10,262,370,turn on light,turn-on,6,light,114,['light'],"
    "[114]",
    "P02_102_0,P02,P02_102,00:00:01.100,00:01:00.54,00:01:02.23,27,111,take knife and plate,take,0,knife,4,"
    "\"['knife', 'plate']\",\"[4, 2]\"",
)


@pytest.mark.parametrize("form", ["P01/P01_01.MP4", "P01/videos/P01_01.MP4", "P01_01.mp4"])
def test_epic_kitchens_segments(video, tmp_path, form):
    file = table(tmp_path / "EPIC_100_validation.csv", *EPIC_ROWS)
    folder = place(video, tmp_path / "EPIC-KITCHENS", form)
    source = open_source(f"epic:{file}:{folder}")
    assert {head: len(names) for head, names in source.heads.items()} == {"verb": 97, "noun": 300}
    assert labels(source, "verb") == ["open", "turn-on", "take"] and labels(source, "noun")[2] == "knife"
    further = source.items[2].further_labels["noun"]
    assert [source.heads["noun"][i] for i in further] == ["plate"] and source.items[0].further_labels == {}
    assert [item.source_video for item in source.items] == ["P01_01", "P01_01", "P02_102"]
    assert [(item.start, item.end) for item in source.items[:2]] == [(0.4, 1.2), (2.0, 3.1)]
    assert existing(source) == [True, True, False]
    for i, (first, last) in enumerate([(10, 30), (50, 78)]):
        clip = source.read(i, CLIP, RAW)
        numbers = [number_in(picture) for picture in clip.video[0]]
        assert first <= numbers[0] <= numbers[-1] < last and numbers == clip.frames[0].tolist()


def test_epic_kitchens_cut_segments_and_a_table_of_classes(video, tmp_path):
    file = table(tmp_path / "EPIC_100_train.csv", *EPIC_ROWS[:2])
    names = [f"{i},key{i},['key{i}'],category" for i in range(4)]
    for head in ("verb", "noun"):
        table(tmp_path / f"EPIC_100_{head}_classes.csv", "id,key,instances,category", *names)
    folder = place(video, tmp_path / "clips", "P01/P01_01_0.mp4", "P01/P01_01.MP4")
    source = open_source(f"epic:{file}:{folder}")
    (item,) = source.items
    assert (item.path, item.start, item.end) == (folder / "P01/P01_01_0.mp4", None, None)
    assert labels(source, "verb") == ["key3"]
    table(file, *EPIC_ROWS)
    with pytest.raises(ValueError, match=r"2 faulty rows of 3.*\n.*verb_class '6' is not a number from 0 to 3"):
        open_source(f"epic:{file}:{folder}")


def test_the_file_of_many_segments_is_indexed_and_hashed_once(video, tmp_path, monkeypatch):
    file = table(tmp_path / "EPIC_100_validation.csv", *EPIC_ROWS[:3])
    (tmp_path / "P01_01.mp4").write_bytes(video.read_bytes())
    source = open_source(f"epic:{file}:{tmp_path}")
    opened = []
    monkeypatch.setattr("vtcav_jax.data.clip.probe", lambda *a, **k: opened.append(a) or decode_module.probe(*a, **k))
    clips = [source.read(i, CLIP, RAW) for i in (0, 1, 0)]
    assert len(opened) == 1 and clips[0].identity == clips[2].identity != clips[1].identity
    assert item_content(source, 0) == clips[0].content == clips[1].content
    write(tmp_path / "P01_01.mp4", "libx264", total=90, numbers=lambda i: 90 - i)  # the file changes
    assert source.read(0, CLIP, RAW).content == item_content(source, 0) != clips[0].content
    (tmp_path / "P01_01.mp4").unlink()
    with pytest.raises(VideoError, match="there is no file"):
        source.read(0, CLIP, RAW)


EGTEA_CLIPS = (
    "OP01-R01-PastaSalad-400-1200-F000010-F000030 21 2 1",
    "OP01-R01-PastaSalad-2000-3100-F000050-F000078 1 1 2 3",
    "P03-R02-TurkeySandwich-102320-105110-F002449-F002529 2 2 2",
)


@pytest.fixture
def egtea_list(tmp_path):
    folder = tmp_path / "action_annotation"
    actions = ["Inspect/Read recipe 1", "Open fridge_drawer 2", *(f"Action number {i} {i}" for i in range(3, 22))]
    table(folder / "action_idx.txt", *actions)
    table(folder / "verb_idx.txt", "Inspect/Read 1", "Open 2")
    table(folder / "noun_idx.txt", "eating_utensil 1", "recipe 2", "bread_container 3")
    return table(folder / "test_split1.txt", *EGTEA_CLIPS)


def test_egtea_cropped_clips(video, tmp_path, egtea_list):
    clip = EGTEA_CLIPS[0].split()[0]
    folder = place(video, tmp_path / "egtea", f"cropped_clips/OP01-R01-PastaSalad/{clip}.mp4")
    source = open_source(f"egtea:{egtea_list}:{folder}")
    assert list(source.heads) == ["action", "verb", "noun"]
    assert labels(source, "action") == ["Action number 21", "Inspect/Read recipe", "Open fridge_drawer"]
    assert labels(source, "verb") == ["Open", "Inspect/Read", "Open"]
    assert labels(source, "noun") == ["eating_utensil", "recipe", "recipe"]
    assert [item.further_labels for item in source.items] == [{}, {"noun": (2,)}, {}]
    sessions = ["OP01-R01-PastaSalad", "OP01-R01-PastaSalad", "P03-R02-TurkeySandwich"]
    assert [item.source_video for item in source.items] == sessions
    assert existing(source) == [True, False, False] and source.items[0].start is None


def test_egtea_sessions_are_decoded_in_part(video, tmp_path, egtea_list):
    source = open_source(f"egtea:{egtea_list}:{place(video, tmp_path / 'full', 'OP01-R01-PastaSalad.mp4')}")
    assert [(item.start, item.end) for item in source.items[:2]] == [(0.4, 1.2), (2.0, 3.1)]
    frames = source.read(1, CLIP, RAW).frames
    assert 50 <= frames.min() <= frames.max() < 78


def test_all_missing_is_an_error_that_names_a_path(tmp_path):
    file = table(tmp_path / "val.csv", *KINETICS_ROWS)
    (tmp_path / "k400").mkdir()
    with pytest.raises(ValueError, match=r"none of the 4 videos of val.csv is in .*k400; looked for") as error:
        open_source(f"kinetics:{file}:{tmp_path / 'k400'}")
    assert f"{tmp_path}/k400/---QUuC4vJs_000084_000094.mp4" in str(error.value)
    assert f"{tmp_path}/k400/testifying/---QUuC4vJs_000084_000094.mp4" in str(error.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ("label,url", "a,b"),
            "has no column youtube_id, time_start, time_end, only label, url; expected a CSV file of",
        ),
        (KINETICS_ROWS[:1], "has no rows"),
        ((KINETICS_ROWS[0], "a,b,c,4,val", "a,,1,4,val", "a,b"), "line 4: 2 cells for 5 columns"),
        ((KINETICS_ROWS[0], "a,b,c,4,val", "a,,1,4,val", "a,../x,1,2,val"), "3 faulty rows of 3"),
        ((KINETICS_ROWS[0], 'a,"b,c,4,val'), "is not a CSV file"),
        ((), "is empty"),
    ],
)
def test_a_faulty_annotation_file(tmp_path, rows, message):
    file = table(tmp_path / "val.csv", *rows)
    with pytest.raises(ValueError, match=message):
        open_source(f"kinetics:{file}:{tmp_path}")


def test_names_with_colons_and_missing_parts(video, tmp_path):
    file = table(tmp_path / "a:b" / "val.csv", *KINETICS_ROWS[:2])
    folder = place(video, tmp_path / "c:d", "---QUuC4vJs_000084_000094.mp4")
    assert len(open_source(f"kinetics:{file}:{folder}").items) == 1
    with pytest.raises(ValueError, match=r"expected kinetics:CSV:FOLDER, got kinetics:x.csv"):
        open_source("kinetics:x.csv")
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere; expected the folder of the videos"):
        open_source(f"kinetics:{table(tmp_path / 'val.csv', *KINETICS_ROWS)}:{tmp_path / 'nowhere'}")


def test_a_prepared_dataset_keeps_labels_and_recordings(video, tmp_path, egtea_list):
    source = open_source(f"egtea:{egtea_list}:{place(video, tmp_path / 'full', 'OP01-R01-PastaSalad.mp4')}")
    failed = prepare_dataset(source, CLIP, RAW, tmp_path / "prepared", num_workers=0)
    prepared = open_source(tmp_path / "prepared")
    assert [read.item.name for read in failed] == [source.items[2].name] and prepared.heads == source.heads
    for item, original in zip(prepared.items, source.items[:2], strict=True):
        assert (item.labels, item.further_labels) == (original.labels, original.further_labels)
        assert item.source_video == original.source_video
