"""Questions about clips of synthetic worlds, and the masks of what causes each answer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EvalQuestion:
    """Question about one labelled factor of a world, answered by the classification head `head`.

    `cause_mask` names the mask of the cause, or several joined by +. `box_pair` names the boxes of the question's
    object and of a distracting one; `event_mask` the mask of a cause that is visible on a few frames only.
    `contrast_masks` are pairs of another head of the same network and a mask that should get less mass in maps for
    that head. `irrelevant_factor` changes neither the answer nor the place of the cause; all questions of a world share
    it, so that their maps share forward passes.
    """

    world: str
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
NESTED_ENTITIES = {
    "key_event": "key",
    "distractor_event": "distractor",
}  # inner entity: outer entity, which is removed with it
