"""Pictures of discovered concepts and of movements on the page: both kinds, by name, with their content type."""

import pytest

from vtcav_jax.serve.concept_cards import ConceptFolder


@pytest.fixture
def overviews(tmp_path):
    for concept in ("right_wrist_up", "layers.1_00", "plain"):
        (tmp_path / concept / "dynamic").mkdir(parents=True)
        (tmp_path / concept / "dynamic" / "a.mp4").write_bytes(concept.encode())
    (tmp_path / "overviews").mkdir()
    (tmp_path / "overviews" / "right_wrist_up.svg").write_text("<svg/>")
    (tmp_path / "overviews" / "layers.1_00.jpg").write_bytes(b"jpg")
    return ConceptFolder("sets", tmp_path)


def test_a_folder_has_the_pictures_of_its_concepts(tmp_path, overviews):
    names = {name: path.name for name, path in overviews.overviews.items()}
    assert names == {"right_wrist_up": "right_wrist_up.svg", "layers.1_00": "layers.1_00.jpg"}
    by_name = {card["concept"]: card["overview"] for card in overviews.concepts()}
    assert by_name == {"right_wrist_up": True, "layers.1_00": True, "plain": False}


@pytest.mark.parametrize(("suffix", "kind"), [("svg", "image/svg+xml"), ("jpg", "image/jpeg")])
def test_pictures_are_sent_with_their_content_type(client, made, workspace, monkeypatch, suffix, kind):
    concepts = workspace.review(made.concepts.name).concepts
    path = made.concepts / f"picture.{suffix}"
    path.write_bytes(b"picture")
    monkeypatch.setitem(concepts.__dict__, "overviews", {"ball": path})
    try:
        answer = client.get("/api/overview", params={"folder": made.concepts.name, "concept": "ball"})
    finally:
        path.unlink()
    assert answer.status_code == 200 and answer.headers["content-type"] == kind and answer.content == b"picture"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
