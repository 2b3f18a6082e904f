"""Verdicts and names: saved at once, merged with what others save, in the format of the review page."""

import csv
import threading

import pytest

from vtcav_jax.concepts import read_concepts
from vtcav_jax.runs.lock import exclusive_folders, lock_folder
from vtcav_jax.serve import review_store
from vtcav_jax.serve.concept_cards import ConceptFolder
from vtcav_jax.serve.review_store import ReviewChange, ReviewStore
from vtcav_jax.serve.workspace import open_workspace


@pytest.fixture
def store(made):
    return ReviewStore(ConceptFolder("concepts", made.concepts))


def verdicts(made):
    with (made.concepts / "review.csv").open(newline="") as file:
        return {row["file"]: (row["verdict"], row["name"]) for row in csv.DictReader(file)}


def test_what_is_saved_is_what_the_commands_read(made, store):
    files = [f"ball/dynamic/{i:03d}.mp4" for i in range(3)]
    changes = [ReviewChange(files[0], verdict="reject"), ReviewChange(files[1], verdict="keep")]
    state = store.save([*changes, ReviewChange(concept="bat", name="club"), ReviewChange(concept="=net", name="club")])
    sets = read_concepts(made.concepts)
    assert [clip.file for clip in sets.rejected] == [files[0]]
    assert set(sets.concepts) == {"ball", "club", "random_000"}
    assert len(sets.clips_of("club")) == 60
    assert state["reviews"][files[0]] == ["reject", ""] and state["concepts"]["ball"] == [1, 1, ""]
    assert state["concepts"]["=net"] == [0, 0, "club"]
    store.save([ReviewChange(concept="=net", name=""), ReviewChange(files[0], verdict="")])
    assert set(read_concepts(made.concepts).concepts) == {"ball", "club", "=net", "random_000"}
    assert not read_concepts(made.concepts).rejected


def test_a_rejected_concept_is_rejected_with_all_of_its_clips(made, store):
    store.save([ReviewChange(concept="bat", verdict="reject")])
    assert set(read_concepts(made.concepts).concepts) == {"ball", "=net", "random_000"}
    assert store.state()["concepts"]["bat"] == [0, 30, ""]


def test_each_change_is_applied_to_what_the_file_has_then(made, store):
    other = ReviewStore(ConceptFolder("again", made.concepts))
    store.save([ReviewChange("ball/dynamic/000.mp4", verdict="reject")])
    before = other.revision()
    other.save([ReviewChange("ball/dynamic/001.mp4", verdict="keep")])
    store.save([ReviewChange("ball/dynamic/001.mp4", name="globe")])
    assert verdicts(made) == {"ball/dynamic/000.mp4": ("reject", ""), "ball/dynamic/001.mp4": ("keep", "globe")}
    assert other.revision() != before and other.state() == store.state()


def test_concurrent_saves_lose_nothing(made):
    stores = [ReviewStore(ConceptFolder("s", made.concepts)) for _ in range(2)]
    errors = []

    def save(i):
        try:
            stores[i % 2].save([ReviewChange(f"ball/dynamic/{i:03d}.mp4", verdict="keep")])
        except ValueError as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(i,)) for i in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(verdicts(made)) == 30


def test_rows_of_other_clips_stay(made, store):
    path = made.concepts / "review.csv"
    path.write_text("file,sha256,verdict\ngone/a.mp4,,reject\nball/dynamic/002.mp4,0000,reject\n")
    assert store.state()["reviews"] == {}  # the one is missing, the other has changed
    store.save([ReviewChange("ball/dynamic/000.mp4", verdict="keep")])
    assert verdicts(made)["gone/a.mp4"] == ("reject", "") and len(verdicts(made)) == 3


def test_a_locked_folder_is_waited_for_and_then_reported(made, store, monkeypatch):
    monkeypatch.setattr(review_store, "LOCK_SECONDS", 0.2)
    with exclusive_folders():
        lock_folder(made.concepts)
        with pytest.raises(ValueError, match="another process is using"):
            store.save([ReviewChange("ball/dynamic/000.mp4", verdict="keep")])
    assert not (made.concepts / "review.csv").exists()
    store.save([ReviewChange("ball/dynamic/000.mp4", verdict="keep")])
    assert verdicts(made) == {"ball/dynamic/000.mp4": ("keep", "")}
    assert not (made.concepts / ".lock").exists()


def test_impossible_changes_are_refused_together_and_nothing_is_saved(made, store):
    changes = [
        ReviewChange("ball/dynamic/000.mp4", verdict="keep"),
        ReviewChange("ball/dynamic/000.mp4", verdict="maybe"),
        ReviewChange("ball/dynamic/999.mp4", verdict="keep"),
        ReviewChange("ball/dynamic/001.mp4", name="random things"),
        ReviewChange("random_000/dynamic/001.mp4", name="ball"),
        ReviewChange("ball/dynamic/002.mp4", name="a\nb"),
    ]
    with pytest.raises(ValueError, match="not a verdict") as error:
        store.save(changes)
    for part in ("is no clip of concepts", "marks negatives", "negative clip", "printable"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="no concept"):
        store.save([ReviewChange(concept="absent", verdict="keep")])
    assert not (made.concepts / "review.csv").exists()


def test_the_server_answers_with_the_new_state_or_that_nothing_changed(client, made):
    folder = made.concepts.name
    before = client.get("/api/reviews", params={"folder": folder}).json()
    assert before == {
        "revision": "",
        "reviews": {},
        "concepts": {c: [0, 0, ""] for c in ("=net", "ball", "bat", "random_000")},
    }
    changes = [{"file": "ball/dynamic/000.mp4", "verdict": "reject"}, {"concept": "bat", "name": "=1+1"}]
    after = client.post("/api/reviews", json={"folder": folder, "changes": changes}).json()
    assert after["concepts"]["bat"] == [0, 0, "=1+1"]
    assert "'=1+1" in (made.concepts / "review.csv").read_text()  # no formula for a spreadsheet
    query = {"folder": folder, "revision": after["revision"]}
    assert client.get("/api/reviews", params=query).json() == {"revision": after["revision"]}
    assert client.get("/api/reviews", params=query | {"revision": "old"}).json() == after


def test_clips_of_a_concept_come_in_pages(client, made):
    place = {"folder": made.concepts.name}
    concepts = {c["concept"]: c for c in client.get("/api/concepts", params=place).json()["concepts"]}
    assert list(concepts) == ["=net", "ball", "bat", "random_000"] and concepts["bat"]["clips"] == 30
    assert concepts["random_000"]["negative"] and not concepts["bat"]["negative"]
    pages = [client.get("/api/concept_clips", params=place | {"concept": "bat", "page": i}).json() for i in (0, 1)]
    assert [len(page["clips"]) for page in pages] == [24, 6]
    film = client.get("/api/concept_film", params=place | {"file": pages[1]["clips"][0]["file"]})
    assert film.status_code == 200 and '"frames": 6' in film.headers["x-film"]


def test_a_folder_made_by_hand_can_be_reviewed(tmp_path, made):
    for concept in ("ball", "bat"):
        (tmp_path / concept).mkdir()
        (tmp_path / concept / "a.mp4").write_bytes((made.concepts / concept / "dynamic" / "003.mp4").read_bytes())
    store = ReviewStore(ConceptFolder("hand", tmp_path))
    store.save([ReviewChange("ball/a.mp4", verdict="reject")])
    assert list(open_workspace([tmp_path]).reviews) == [tmp_path.name]
    assert [clip.file for clip in read_concepts(tmp_path).rejected] == ["ball/a.mp4"]
