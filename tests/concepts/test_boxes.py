"""Tables of boxes, tracks of boxes, and clips and controls of tracks, with pixels that encode their origin."""

import numpy as np
import pytest

from vtcav_jax.concepts import crops
from vtcav_jax.concepts.boxes import Box, iou, read_boxes, to_pixels, write_boxes
from vtcav_jax.concepts.tracks import build_tracks, colour_histogram, find_cuts


def addressed(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Make frames whose pixels encode their x, y and frame number; none is black."""
    y, x = np.indices((height, width))
    return np.stack([x + 1, y + 1, np.full_like(x, number + 1)], -1).astype(np.uint8)


def test_boxes_round_trip_through_a_table(tmp_path):
    boxes = {
        "a, b.mp4": (Box(0, 3, "sports ball", 1.25, 2, 3.5, 4, 0.75), Box(2, None, 'a "b"', 0, 0, 9, 9)),
        "c.mp4": (Box(7, 0, "ring", 0, 1, 2, 3),),
    }
    write_boxes(tmp_path / "boxes.csv", boxes)
    assert read_boxes(tmp_path / "boxes.csv") == boxes


def test_file_and_confidence_columns_are_optional_for_one_video(tmp_path):
    (tmp_path / "boxes.csv").write_text("frame,track,label,x1,y1,x2,y2\n3,1,ball,0,0,2,2\n\n4,,ball,0,0,2,2\n")
    assert read_boxes(tmp_path / "boxes.csv") == {"": (Box(3, 1, "ball", 0, 0, 2, 2), Box(4, None, "ball", 0, 0, 2, 2))}


def test_one_error_lists_all_faulty_rows(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("frame,label,x1,y1,x2,y2\n0,a,0,0,2,2\nx,a,0,0,2,2\n1,a,5,0,2,2\n-1,a,0,0,2,2\n1,,0,0,1,1\n1,a,0\n")
    with pytest.raises(ValueError, match="5 faulty rows of 6") as error:
        read_boxes(path)
    assert all(f"line {line}: " in str(error.value) for line in (3, 4, 5, 6, 7))
    path.write_text("frame,lable,x1,y1,x2,y2\n")
    with pytest.raises(ValueError, match="did you mean label"):
        read_boxes(path)
    path.write_text("frame,label,x1,y1\n")
    with pytest.raises(ValueError, match="no column x2, y2"):
        read_boxes(path)
    with pytest.raises(ValueError, match="there is no file"):
        read_boxes(tmp_path / "other.csv")


def test_pixels_and_overlap():
    assert to_pixels((-3.5, 1.2, 4.1, 99), 48, 64) == (0, 1, 5, 48)
    assert to_pixels((64, 0, 70, 5), 48, 64) is None
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert iou((0, 0, 2, 2), (2, 0, 3, 2)) == 0


def followed(frames, number=1, label="ball", confidence=1.0):
    return [Box(f, number, label, f, 0, f + 10, 10, confidence) for f in frames]


def test_gaps_of_two_frames_are_interpolated_and_longer_ones_end_a_track():
    first, second = build_tracks(followed([0, 1, 4, 5, 9, 10]))
    assert list(first.frames) == [0, 1, 2, 3, 4, 5] and list(second.frames) == [9, 10]
    np.testing.assert_allclose(first.boxes[:, 0], np.arange(6))
    assert [len(track.boxes) for track in build_tracks(followed([0, 1, 4, 5]), max_gap=1)] == [2, 2]


def test_a_cut_ends_a_track_also_within_a_gap():
    assert [list(t.frames) for t in build_tracks(followed(range(6)), cuts=(3,))] == [[0, 1, 2], [3, 4, 5]]
    assert [list(t.frames) for t in build_tracks(followed([0, 1, 4, 5]), cuts=(3,))] == [[0, 1], [4, 5]]


def test_an_object_in_pieces_ends_its_track():
    torn = [Box(2, 1, "ball", 60, 0, 64, 10), Box(2, 1, "ball", 0, 0, 6, 10)]
    assert [list(t.frames) for t in build_tracks(followed([0, 1]) + torn + followed([3, 4]))] == [[0, 1], [3, 4]]


def test_alternating_labels_lower_the_confidence():
    boxes = followed([0, 2, 4], label="ball", confidence=0.9) + followed([1, 3], label="frisbee", confidence=0.5)
    (track,) = build_tracks(boxes)
    assert track.label == "ball"
    np.testing.assert_allclose(track.confidence, [0.9, 0, 0.9, 0, 0.9])
    assert build_tracks([Box(0, None, "ball", 0, 0, 1, 1)]) == []


def test_cuts_are_detected_but_motion_is_not():
    random = np.random.default_rng(0)
    shots = [random.integers(0, 120, (40, 60, 3)), random.integers(130, 250, (40, 60, 3))]

    def seen(i):  # an image that moves by ten pixels per frame, with a cut at frame 7
        return np.roll(shots[i >= 7], 10 * i, axis=1).astype(np.uint8)

    assert find_cuts(np.stack([colour_histogram(seen(i)) for i in range(14)])) == (7,)
    flicker = [np.full((20, 20, 3), 250 * (i % 2), np.uint8) for i in range(14)]
    assert find_cuts(np.stack([colour_histogram(frame) for frame in flicker])) == ()
    assert find_cuts(colour_histogram(shots[0].astype(np.uint8))[None]) == ()


BOXES = [(5, 6, 15, 20), (7, 6, 19, 22), (10, 8, 20, 20), (12, 5, 23, 21), (15, 9, 24, 24)]
FRAMES = [addressed(i) for i in range(5)]
CLIP = crops.dynamic_clip(FRAMES, BOXES)


def rectangle(picture: np.ndarray) -> tuple[int, ...]:
    rows, columns = np.nonzero(picture.any(-1))
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_a_static_clip_is_one_crop():
    clip = crops.static_clip(FRAMES[2], BOXES[2], 4)
    assert clip.shape == (4, 12, 10, 3) and (clip == clip[0]).all()
    np.testing.assert_array_equal(clip[0], FRAMES[2][8:20, 10:20])


def test_a_dynamic_clip_centres_each_crop_unscaled_on_the_largest_box():
    assert CLIP.shape == (5, 16, 12, 3)
    for picture, frame, (x1, y1, x2, y2) in zip(CLIP, FRAMES, BOXES):
        left, top, right, bottom = rectangle(picture)
        assert (right - left, bottom - top) == (x2 - x1, y2 - y1)
        assert abs(left - (12 - right)) <= 1 and abs(top - (16 - bottom)) <= 1
        np.testing.assert_array_equal(picture[top:bottom, left:right], frame[y1:y2, x1:x2])


def test_the_frozen_control_has_no_motion():
    clip = crops.freeze_middle_frame(CLIP)
    assert clip.shape == CLIP.shape and not np.diff(clip.astype(int), axis=0).any()
    np.testing.assert_array_equal(clip[0], CLIP[2])


def test_reversed_and_shuffled_controls_permute_the_frames():
    np.testing.assert_array_equal(crops.reverse_frames(CLIP), np.stack([CLIP[i] for i in (4, 3, 2, 1, 0)]))
    for seed in range(50):
        for t in (2, 3, 5):
            order = crops.derangement(t, seed)
            assert sorted(order) == list(range(t)) and list(order) != list(range(t))
            assert t == 2 or list(order) != list(range(t))[::-1]
    assert sorted(p[0, 0].tobytes() for p in crops.shuffle_frames(CLIP, 3)) == sorted(p[0, 0].tobytes() for p in CLIP)


def test_the_jitter_control_is_one_crop_with_the_padding_of_the_boxes():
    clip = crops.jitter_clip(FRAMES[2], BOXES)
    assert clip.shape == CLIP.shape
    np.testing.assert_array_equal(clip[2], CLIP[2])
    for picture, dynamic, (dx, dy) in zip(clip, CLIP, crops.path_jitter(BOXES)):
        assert rectangle(picture) == rectangle(dynamic)
        inside = picture[picture.any(-1)]
        assert set(inside[:, 2]) == {3}  # entirely from frame 2
        y, x = np.nonzero(picture.any(-1))
        np.testing.assert_array_equal(inside[:, 0] - 1 - x, 10 - 1 - dx)  # the shift of the whole crop
        np.testing.assert_array_equal(inside[:, 1] - 1 - y, 8 - 2 - dy)


def test_uniform_motion_has_no_jitter():
    assert set(crops.path_jitter([(2 * i, i, 2 * i + 8, i + 8) for i in range(9)])) == {(0, 0)}
    shaken = [(2 * i + 3 * (i % 2), i, 2 * i + 3 * (i % 2) + 8, i + 8) for i in range(9)]
    wobble = crops.path_jitter(shaken)
    assert wobble[4] == (0, 0) and {abs(dx) for dx, _ in wobble[1::2]} <= {2} and not any(dy for _, dy in wobble)


def test_jitter_at_the_border_is_black_outside_the_frame():
    boxes = [(0, 0, 6, 6), (0, 0, 10, 12), (0, 0, 6, 6), (0, 0, 10, 12), (0, 0, 6, 6)]
    clip = crops.jitter_clip(FRAMES[0], boxes)
    assert clip.shape == (5, 12, 10, 3)
    np.testing.assert_array_equal(clip[2], crops.dynamic_clip(FRAMES, boxes)[2] & [255, 255, 1] | clip[2] & [0, 0, 255])
    assert not clip[1, 0].any()  # reaches above the frame


def test_letterbox_keeps_the_whole_frame():
    tall = np.full((2, 40, 10, 3), 200, np.uint8)
    square = crops.letterbox(tall, 20)
    assert square.shape == (2, 20, 20, 3) and square.dtype == np.uint8
    assert (square[:, :, 8:12] == 200).all() and not square[:, :, :7].any() and not square[:, :, 13:].any()
    wide = crops.letterbox(np.full((1, 7, 7, 3), 9, np.uint8), 20)
    assert (wide == 9).all()
