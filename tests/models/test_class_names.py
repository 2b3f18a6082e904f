"""Class names: the shipped lists, files, and names of networks with one head and with several."""

from dataclasses import replace

import jax
import pytest

from vtcav_jax import models
from vtcav_jax.clip_spec import ClipSpec

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


TREE = """# groups of the worlds
vertical
  direction:up
  direction:down
horizontal
\tdirection:left
\tdirection:right
shapes
    round
        shape:ring
    shape:x
"""


def tree_network(tmp_path, text):
    """Return a network with two heads and the label tree in `text`."""
    heads = {"shape": ("plus", "ring", "x"), "direction": ("left", "right", "up", "down")}
    network = models.Network(jax.tree_util.Partial(print), ClipSpec(frames=2, size=8), heads)
    file = tmp_path / "tree.txt"
    file.write_text(text)
    return replace(network, groups=models.read_label_tree(file, network))


def test_label_trees_give_groups_and_siblings(tmp_path):
    network = tree_network(tmp_path, TREE)
    assert network.groups == {
        "": ("vertical", "horizontal", "shapes"),
        "vertical": ("direction:up", "direction:down"),
        "horizontal": ("direction:left", "direction:right"),
        "shapes": ("round", "shape:x"),
        "round": ("shape:ring",),
    }
    assert network.group_labels("shapes") == ("shape:ring", "shape:x")
    assert network.siblings("vertical") == ("horizontal",)  # shapes are of another head
    assert (
        network.siblings("round") == ("shape:x",) and network.siblings("shape:ring") == network.siblings("shapes") == ()
    )
    assert tuple(network.expand_classes(["shapes", "direction:up"])) == ("shape:ring", "shape:x", "direction:up")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n  shape:rinng", r"line 2: no class named 'shape:rinng' \(did you mean shape:ring or"),
        ("a\n  shape:x\nb\n  shape:x\n", "line 4: shape:x is also in line 2; each name has one place"),
        ("a\n    shape:x\n  shape:ring", "line 3: shape:ring is indented by 2, but a line above it by 4"),
        ("shape:x\n  shape:ring", "line 1: shape:x is a class of the network and has lines below it"),
        ("shape\n  shape:ring", "line 1: shape is a head of the network"),
        ("a\n  shape:ring\n  direction:up", r"the group a has classes of several heads \(direction, shape\)"),
        ("# nothing\n", "no class"),
    ],
)
def test_faults_of_label_trees_are_named_with_their_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"tree.txt is not a label tree: .*{message}"):
        tree_network(tmp_path, text)


def test_a_label_tree_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"missing.txt cannot be read .*one class or group per line"):
        models.read_label_tree(tmp_path / "missing.txt", tree_network(tmp_path, TREE))
