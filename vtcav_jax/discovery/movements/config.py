"""Settings of the clustering of movements."""

from dataclasses import dataclass

from vtcav_jax.settings import check_settings, setting

SIDES = ("separate", "mirrored")


@dataclass(frozen=True)
class MovementConfig:
    """Settings of `mine_movements` beside those of mining; lengths are in lengths of the person's torso."""

    num_movements: int = setting(8, "clusters of movements (--movements)", minimum=1, maximum=1000)
    min_source_videos: int = setting(
        5, "minimum source videos of a movement; rarer clusters are dropped, and counted", minimum=1
    )
    min_movement: float = setting(
        0.1,
        "minimum movement of any joint in a clip (root mean square distance from its mean place, in torso lengths);"
        " people who move less count as still, and are used for random sets",
        minimum=0,
        maximum=10,
    )
    min_keypoint_confidence: float = setting(
        0.3, "minimum confidence of a keypoint; others count as invisible", minimum=0, maximum=1
    )
    movement_sides: str = setting(
        "separate",
        "separate: a movement of the person's left arm is another one than of the right; mirrored: both are one",
        choices=SIDES,
    )

    def __post_init__(self):
        check_settings(self)
