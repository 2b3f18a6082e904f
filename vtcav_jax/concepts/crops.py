"""Static and dynamic concept clips made from frames and boxes, and the matched controls of a dynamic clip.

Clips that follow their boxes are those of Saha et al., *Exploring Explainability in Video Action Recognition* (2024,
arXiv:2404.09067): a static clip repeats one crop; a dynamic clip follows an object box by box, each crop centred
without rescaling on a black canvas as large as the largest box. The controls are ours: such dynamic clips differ from
static clips also in padding, jitter and resolution, so only clips that share these isolate motion.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax.concepts.boxes import Outline, Pixels
from vtcav_jax.data.resize import resize

CONTROLS = ("frozen", "shuffled", "reversed", "jitter")
CLIP_TYPES = ("static", "dynamic", *CONTROLS)
GREY = 128


def crop_box(frame: UInt8[np.ndarray, "h w 3"], box: Pixels) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Crop a frame; pixels of the box outside the frame are black."""
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = box
    out = np.zeros((y2 - y1, x2 - x1, 3), np.uint8)
    inside = (slice(max(y1, 0), max(min(y2, height), 0)), slice(max(x1, 0), max(min(x2, width), 0)))
    part = frame[inside]
    top, left = max(-y1, 0), max(-x1, 0)
    out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return out


def grey_surroundings(frame: UInt8[np.ndarray, "h w 3"], outline: Outline) -> UInt8[np.ndarray, "h w 3"]:
    """Return the frame with grey outside of the outline."""
    from PIL import Image, ImageDraw

    mask = Image.new("1", (frame.shape[1], frame.shape[0]))
    ImageDraw.Draw(mask).polygon(list(zip(outline[::2], outline[1::2])), fill=1)
    return np.where(np.asarray(mask)[..., None], frame, np.uint8(GREY))


def static_clip(frame: UInt8[np.ndarray, "h w 3"], box: Pixels, n_frames: int) -> UInt8[np.ndarray, "t h2 w2 3"]:
    """Repeat one crop `n_frames` times."""
    return np.repeat(crop_box(frame, box)[None], n_frames, axis=0)


def dynamic_clip(
    frames: Sequence[UInt8[np.ndarray, "h w 3"]], boxes: Sequence[Pixels]
) -> UInt8[np.ndarray, "t h2 w2 3"]:
    """Centre the crop of each frame on a canvas as large as the largest box."""
    return center_on_canvas([crop_box(frame, box) for frame, box in zip(frames, boxes, strict=True)])


def center_on_canvas(crops: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> UInt8[np.ndarray, "t h2 w2 3"]:
    """Centre the crops on black canvases that have the maximum height and the maximum width of all crops."""
    shape = (max(crop.shape[0] for crop in crops), max(crop.shape[1] for crop in crops))
    return np.stack([_place_on_canvas(crop, shape) for crop in crops])


def canvas_size(boxes: Sequence[Pixels]) -> tuple[int, int]:
    """Return the maximum height and the maximum width of the boxes."""
    return max(y2 - y1 for _, y1, _, y2 in boxes), max(x2 - x1 for x1, _, x2, _ in boxes)


def _place_on_canvas(crop: UInt8[np.ndarray, "h w 3"], shape: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    out = np.zeros((*shape, 3), np.uint8)
    top, left = ((whole - part) // 2 for whole, part in zip(shape, crop.shape))
    out[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return out


def freeze_middle_frame(clip: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h w 3"]:
    """Return the frozen control: the middle frame, repeated for the length of the clip."""
    return np.repeat(clip[middle_index(len(clip))][None], len(clip), axis=0)


def shuffle_frames(clip: UInt8[np.ndarray, "t h w 3"], seed: int) -> UInt8[np.ndarray, "t h w 3"]:
    """Return the shuffled control: the same frames in random order."""
    return clip[derangement(len(clip), seed)]


def derangement(n_frames: int, seed: int) -> np.ndarray:
    """Return a permutation that is neither the identity nor its reverse; for up to 2 frames, the reverse."""
    random = np.random.default_rng(seed)
    order = np.arange(n_frames)
    while n_frames > 2 and (
        np.array_equal(order, np.arange(n_frames)) or np.array_equal(order[::-1], np.arange(n_frames))
    ):
        order = random.permutation(n_frames)
    return order if n_frames > 2 else order[::-1]


def reverse_frames(clip: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h w 3"]:
    """Return the reversed control: the frames in reverse order."""
    return clip[::-1]


def jitter_clip(frame: UInt8[np.ndarray, "h w 3"], boxes: Sequence[Pixels]) -> UInt8[np.ndarray, "t h2 w2 3"]:
    """Return the jitter control: the middle frame alone, cropped and padded like the boxes, to isolate tracking jitter.

    Each frame has the padding of the dynamic clip. Its content is always the middle frame, shifted by `path_jitter`; a
    shift or a larger box uncovers the surroundings in that frame.
    """
    height, width = canvas_size(boxes)
    x1, y1, x2, y2 = boxes[middle_index(len(boxes))]
    # Position of the canvas in the frame if the middle box is centred on it, rounded as in `_place_on_canvas`.
    left, top = x1 - (width - (x2 - x1)) // 2, y1 - (height - (y2 - y1)) // 2
    out = []
    for box, (dx, dy) in zip(boxes, path_jitter(boxes)):
        x, y = left - dx, top - dy
        shifted = crop_box(frame, (x, y, x + width, y + height))
        box_mask = _place_on_canvas(np.ones((box[3] - box[1], box[2] - box[0], 3), np.uint8), (height, width))
        out.append(shifted * box_mask)
    return np.stack(out)


def path_jitter(boxes: Sequence[Pixels]) -> list[tuple[int, int]]:
    """Return the deviation (x, y) of each box's centre from uniform motion, in whole pixels; 0 for the middle frame.

    Uniform motion is a straight line at constant speed, fitted to the centres; it is removed because a canvas that
    follows the box hides it too. Deviations are clipped to a quarter of the canvas, so that the crop stays on it.
    """
    corners = np.array(boxes, float)
    middles = (corners[:, :2] + corners[:, 2:]) / 2
    t = np.arange(len(boxes)) - (len(boxes) - 1) / 2
    slope: Float[np.ndarray, " 2"] = (t[:, None] * middles).sum(0) / max((t**2).sum(), 1)
    deviation = middles - slope * t[:, None]
    deviation = np.trunc(deviation - deviation[middle_index(len(boxes))]).astype(int)
    height, width = canvas_size(boxes)
    limit = np.array([width // 4, height // 4])
    return [(int(x), int(y)) for x, y in np.clip(deviation, -limit, limit)]


def middle_index(n_frames: int) -> int:
    return n_frames // 2


def letterbox(
    video: UInt8[np.ndarray, "t h w 3"], size: int, *, antialias: bool = False
) -> UInt8[np.ndarray, "t size size 3"]:
    """Pad to a black square, then resize; a centre crop would cut off parts of elongated objects."""
    side = max(video.shape[1:3])
    return np.stack(
        [resize(_place_on_canvas(frame, (side, side)), (size, size), antialias=antialias) for frame in video]
    )
