"""What is asked of the worlds' clips, and where, by whom and when each question is answered in them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """`core` names the mask of the cause, or several with a +; the others say what a map that knows the question must
    tell apart.

    `who` are the boxes of what the question is about and of what looks and moves just like it. `event` is the mask of
    what is to be seen for a moment only. `unlike` are pairs of another question of the same network and a mask: a map
    for that question has less of its mass in this mask. `irrelevant` is a factor that has nothing to do with the answer
    and leaves the cause where it is: the same for all questions of a world, so that maps of them share their passes.
    """

    world: str  # of the generator, which has this question among others
    head: str
    core: str
    dynamic: bool
    irrelevant: str
    who: tuple[str, str] | None = None
    event: str | None = None
    unlike: tuple[tuple[str, str], ...] = ()


KEY, OTHER = "key_box", "dis_box"
SMALL, EVENTS = "small", "events"

QUESTIONS: dict[str, Question] = {
    "W1": Question(SMALL, "shape", KEY, False, "dis_flash", (KEY, OTHER), unlike=(("scene", KEY),)),
    "W2": Question(SMALL, "direction", KEY, True, "dis_flash", (KEY, OTHER), unlike=(("scene", KEY),)),
    "W3": Question(
        SMALL,
        "flash",
        "key_event",
        False,
        "dis_flash",
        (KEY, OTHER),
        "key_event",
        (("scene", KEY), ("shape", "key_event")),
    ),
    "W4": Question(
        SMALL,
        "scene",
        "scene",
        False,
        "dis_flash",
        unlike=(("shape", "scene"), ("direction", "scene"), ("flash", "scene")),
    ),
    "W5": Question(
        *(EVENTS, "order", "key_event", True, "dis_pair", (KEY, OTHER), "key_event"),
        unlike=(("either", "key_event"),),
    ),
    "W6": Question("dots", "form", "key", True, "direction"),
    "W7": Question("shortcut", "direction", "marker", False, "dis_flash", ("marker", KEY)),
    "W8 either": Question(EVENTS, "either", f"{KEY}+{OTHER}", False, "dis_pair", unlike=(("colours", OTHER),)),
    "W8 both": Question(EVENTS, "both", f"{KEY}+{OTHER}", False, "dis_pair", unlike=(("colours", OTHER),)),
}
AREAS = {
    "key": KEY,
    "distractor": OTHER,
    "key_event": "key_event",
    "distractor_event": "dis_event",
    "marker": "marker",
}
WITHIN = {"key_event": "key", "distractor_event": "distractor"}  # goes with the other when that is removed
