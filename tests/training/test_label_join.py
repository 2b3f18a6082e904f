"""Join of the class names of networks and data sets."""

import pytest

from vtcav_jax import models
from vtcav_jax.training.label_join import UnmatchedClass, comparable_name, match_heads, nearest_names, unmatched_classes


def test_names_join_regardless_of_case_and_punctuation():
    network = {"label": ("playing tennis", "apply eye makeup", "brush hair", "High Jump")}
    source = {"label": ("ApplyEyeMakeup", "brush_hair", "playing-tennis", "swimming")}
    (join,) = match_heads(network, source)
    assert (join.head, join.source_head) == ("label", "label")
    assert join.source_index == (2, 0, 1, -1) and join.network_index == (1, 2, 0, -1)


def test_an_exact_name_has_precedence_and_ambiguous_ones_do_not_join():
    network = {"label": ("put on", "put-on", "Take")}
    (join,) = match_heads(network, {"label": ("put on", "take")})
    assert join.source_index == (0, -1, 1) and join.network_index == (0, 2)
    (join,) = match_heads({"label": ("a b", "c")}, {"label": ("A-B", "a_b", "c")})
    assert join.network_index == (-1, -1, 1)


def test_unmatched_classes_have_the_nearest_names():
    network, source = {"label": ("playing tennis", "diving")}, {"label": ("play tennis", "diving", "xyz")}
    unmatched = unmatched_classes(match_heads(network, source), network, source)
    assert unmatched == [
        UnmatchedClass("label", False, "play tennis", ("playing tennis",)),
        UnmatchedClass("label", False, "xyz", ()),
        UnmatchedClass("label", True, "playing tennis", ("play tennis",)),
    ]
    assert nearest_names("Riding_Scooter", ("riding a scooter", "abseiling")) == ("riding a scooter",)


def test_heads_join_by_name_or_by_their_classes():
    epic = {"verb": ("take", "put"), "noun": ("tap", "spoon")}
    joins = match_heads({"Noun": ("spoon", "tap"), "verb": ("put", "take")}, epic)
    assert [(join.head, join.source_head, join.source_index) for join in joins] == [
        ("Noun", "noun", (1, 0)),
        ("verb", "verb", (1, 0)),
    ]
    (join,) = match_heads({"label": ("spoon", "fork")}, epic)
    assert join.source_head == "noun" and join.source_index == (1, -1)
    (join,) = match_heads(epic, {"label": ("Put", "take", "drop")})  # folders of classes
    assert (join.head, join.source_head, join.network_index) == ("verb", "label", (1, 0, -1))


def test_nothing_in_common_is_an_error_that_names_both_sides():
    with pytest.raises(ValueError, match="the videos have no labels"):
        match_heads({"label": ("a",)}, {})
    with pytest.raises(ValueError, match="the network has the heads a, b, but the videos are labelled for label"):
        match_heads({"a": ("x",), "b": ("y",)}, {"label": ("z",)})
    with pytest.raises(ValueError, match=r"the videos have archery, golf, the network 0, 1; pass --labels=LIST"):
        match_heads({"label": ("0", "1")}, {"label": ("archery", "golf")})


@pytest.mark.parametrize("name", models.label_lists())
def test_the_shipped_lists_have_no_ambiguous_names(name):
    names = models.read_labels(name)
    assert len(set(map(comparable_name, names))) == len(names)
    (join,) = match_heads({"label": names}, {"label": tuple(n.upper().replace(" ", "_") for n in reversed(names))})
    assert join.source_index == tuple(reversed(range(len(names))))
