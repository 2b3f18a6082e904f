"""Class names: the shipped lists, files, and names of networks with one head and with several."""

import pytest

from vtcav_jax import models

COUNTS = {
    "epic_kitchens_nouns": 300,
    "epic_kitchens_verbs": 97,
    "hmdb51": 51,
    "kinetics400": 400,
    "kinetics600": 600,
    "kinetics700": 700,
    "something_something_v2": 174,
    "ucf101": 101,
}
HEADS = {"verb": tuple(map(str, range(97))), "noun": tuple(map(str, range(300)))}


def test_shipped_lists():
    assert models.label_lists() == sorted(COUNTS)
    for name, count in COUNTS.items():
        names = models.read_labels(name)
        models.validate_labels(names, count, name)
        assert all(text == text.strip() for text in names)


@pytest.mark.parametrize("name", ["kinetics400", "kinetics600", "kinetics700", "hmdb51"])
def test_alphabetical_order(name):
    names = models.read_labels(name)
    assert names == sorted(names)
    assert names == sorted(names, key=lambda text: text.replace(" ", "_"))  # as folders are named


def test_orders_that_are_not_those_of_sorted():
    ucf101 = models.read_labels("ucf101")
    assert ucf101 == sorted(ucf101, key=str.lower) != sorted(ucf101)
    assert [ucf101.index(name) for name in ("Hammering", "HammerThrow", "JumpingJack", "JumpRope")] == [34, 35, 46, 47]
    verbs, nouns = (models.read_labels(f"epic_kitchens_{part}") for part in ("verbs", "nouns"))
    assert (verbs[:3], verbs[79], nouns[:3], nouns[222]) == (
        ["take", "put", "wash"], "let-go", ["tap", "spoon", "plate"], "label",
    )  # fmt: skip


def test_kinetics_versions_differ_as_published():
    smaller, larger = (set(models.read_labels(f"kinetics{size}")) for size in (600, 700))
    assert smaller - larger == {
        "bull fighting", "chopping vegetables", "passing american football (not in game)", "picking fruit",
    }  # fmt: skip


def test_presets_without_known_order_have_no_names():
    for name, preset in models.PRESETS.items():
        assert preset.labels is None or len(preset.labels) == preset.num_classes
        if preset.num_classes in (600, 700):
            assert preset.labels is None, name


def test_names_of_heads(tmp_path):
    heads = models.relabel(HEADS, "noun:epic_kitchens_nouns,verb:epic_kitchens_verbs")
    assert list(heads) == ["verb", "noun"]
    assert (heads["verb"][6], heads["noun"][18]) == ("turn-on", "board:chopping")
    (tmp_path / "verbs.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(f"v{i}" for i in range(97)).encode())
    heads = models.relabel(HEADS, f"verb:{tmp_path / 'verbs.txt'}")
    assert (heads["verb"][0], heads["verb"][96], heads["noun"]) == ("v0", "v96", HEADS["noun"])
    assert models.relabel({"label": tuple(map(str, range(51)))}, "hmdb51")["label"][50] == "wave"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epic_kitchens_verbs", "one list of class names per head, as in verb:FILE,noun:FILE; got epic_kitchens_verbs"),
        ("verb:epic_kitchens_verbs,noun:", "got verb:epic_kitchens_verbs,noun:"),
        ("verb:hmdb51,verb:ucf101", "one list of class names per head"),
        ("action:ucf101", "no head named 'action'; available: verb, noun"),
        ("verb:ucf101", "ucf101: 101 names for 97 classes"),
        (
            "verb:ucf-101",
            r"no file ucf-101 and no list of class names named 'ucf-101' \(did you mean ucf101.*kinetics700",
        ),
    ],
)
def test_errors(text, message):
    with pytest.raises(ValueError, match=message):
        models.relabel(HEADS, text)


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        models.read_labels(tmp_path / "labels.txt")
