"""The joints of a person: a part of COCO's keypoints, without eyes and ears, whose movements the nose shows.

Left and right are the person's own, as in COCO.
"""

from vtcav_jax.concepts.boxes import KEYPOINT_COUNT

KEYPOINT_INDICES = (0, *range(5, KEYPOINT_COUNT))  # of the joints among COCO's keypoints
_LIMBS = (
    *(("shoulder", "elbow"), ("elbow", "wrist")),
    *(("shoulder", "hip"), ("hip", "knee"), ("knee", "ankle")),
)
_PAIRS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
JOINTS = ("nose", *(f"{side} {name}" for name in _PAIRS for side in ("left", "right")))
JOINT_INDEX = {name: i for i, name in enumerate(JOINTS)}
HIPS = (JOINT_INDEX["left hip"], JOINT_INDEX["right hip"])
SHOULDERS = (JOINT_INDEX["left shoulder"], JOINT_INDEX["right shoulder"])
# Joints of each side that an arm or a leg moves
LEFT, RIGHT = (
    tuple(JOINT_INDEX[f"{side} {name}"] for name in ("elbow", "wrist", "knee", "ankle")) for side in ("left", "right")
)
MIRROR = tuple(
    JOINT_INDEX[name.replace("left", "right") if "left" in name else name.replace("right", "left")] for name in JOINTS
)
BONES = (
    *((JOINT_INDEX[f"{side} {a}"], JOINT_INDEX[f"{side} {b}"]) for side in ("left", "right") for a, b in _LIMBS),
    *(SHOULDERS, HIPS),
)
