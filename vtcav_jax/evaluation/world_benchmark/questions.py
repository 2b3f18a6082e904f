"""What is asked of the worlds' clips, and where, by whom and when each question is answered in them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EvalQuestion:
    """`core` names the mask of the cause, or several with a +; the others say what a map that knows the question must
    tell apart.

    `who` are the boxes of what the question is about and of what looks and moves just like it. `event` is the mask of
    what is to be seen for a moment only. `unlike` are pairs of another question of the same network and a mask: a map
    for that question has less of its mass in this mask. `irrelevant` is a factor that has nothing to do with the answer
    and leaves the cause where it is: the same for all questions of a world, so that maps of them share their passes.
    """

    world: str  # of the generator, which has this question among others
    head: str
    cause_mask: str
    needs_motion: bool
    irrelevant_factor: str
    box_pair: tuple[str, str] | None = None
    event_mask: str | None = None
    contrast_masks: tuple[tuple[str, str], ...] = ()


KEY_BOX, DISTRACTOR_BOX = "key_box", "dis_box"
SMALL_WORLD, EVENTS_WORLD = "small", "events"

EVAL_QUESTIONS: dict[str, EvalQuestion] = {
    "W1": EvalQuestion(
        SMALL_WORLD,
        "shape",
        KEY_BOX,
        False,
        "dis_flash",
        (KEY_BOX, DISTRACTOR_BOX),
        contrast_masks=(("scene", KEY_BOX),),
    ),
    "W2": EvalQuestion(
        SMALL_WORLD,
        "direction",
        KEY_BOX,
        True,
        "dis_flash",
        (KEY_BOX, DISTRACTOR_BOX),
        contrast_masks=(("scene", KEY_BOX),),
    ),
    "W3": EvalQuestion(
        SMALL_WORLD,
        "flash",
        "key_event",
        False,
        "dis_flash",
        (KEY_BOX, DISTRACTOR_BOX),
        "key_event",
        (("scene", KEY_BOX), ("shape", "key_event")),
    ),
    "W4": EvalQuestion(
        SMALL_WORLD,
        "scene",
        "scene",
        False,
        "dis_flash",
        contrast_masks=(("shape", "scene"), ("direction", "scene"), ("flash", "scene")),
    ),
    "W5": EvalQuestion(
        *(EVENTS_WORLD, "order", "key_event", True, "dis_pair", (KEY_BOX, DISTRACTOR_BOX), "key_event"),
        contrast_masks=(("either", "key_event"),),
    ),
    "W6": EvalQuestion("dots", "form", "key", True, "direction"),
    "W7": EvalQuestion("shortcut", "direction", "marker", False, "dis_flash", ("marker", KEY_BOX)),
    "W8 either": EvalQuestion(
        EVENTS_WORLD,
        "either",
        f"{KEY_BOX}+{DISTRACTOR_BOX}",
        False,
        "dis_pair",
        contrast_masks=(("colours", DISTRACTOR_BOX),),
    ),
    "W8 both": EvalQuestion(
        EVENTS_WORLD,
        "both",
        f"{KEY_BOX}+{DISTRACTOR_BOX}",
        False,
        "dis_pair",
        contrast_masks=(("colours", DISTRACTOR_BOX),),
    ),
}
ENTITY_MASKS = {
    "key": KEY_BOX,
    "distractor": DISTRACTOR_BOX,
    "key_event": "key_event",
    "distractor_event": "dis_event",
    "marker": "marker",
}
NESTED_ENTITIES = {"key_event": "key", "distractor_event": "distractor"}  # goes with the other when that is removed
