"""Who may read and change what: token, host, origin, and nothing but the files of the run."""

import re

import pytest
from starlette.testclient import TestClient

from vtcav_jax.serve.access import AccessRules
from vtcav_jax.serve.routes import GET_HANDLERS, POST_HANDLERS
from vtcav_jax.serve.server import make_app

URL = "http://127.0.0.1:8123"


@pytest.fixture
def stranger(workspace, rules):
    return TestClient(make_app(workspace, rules), base_url=URL)


def test_nothing_is_answered_without_the_token(stranger, rules):
    addresses = ["/", "/assets/page.js", *(f"/api/{name}" for name in GET_HANDLERS)]
    assert {stranger.get(address).status_code for address in addresses} == {403}
    assert {stranger.post(f"/api/{name}", json={}).status_code for name in POST_HANDLERS} == {403}
    for wrong in ("", "x", rules.token[:-1], rules.token + "x", "é"):
        assert stranger.get("/", params={"token": wrong}).status_code == 403
    assert stranger.get("/api/workspace", params={"token": rules.token}).status_code == 403  # only the page takes it
    assert "token" in stranger.get("/").text and rules.token not in stranger.get("/").text


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(stranger, rules):
    answer = stranger.get("/", params={"token": rules.token, "run": "a b"}, follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"] == "/?run=a+b"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie
    assert stranger.get("/api/workspace").status_code == 200
    assert rules.token not in stranger.get("/").text


def test_tokens_differ_between_servers():
    first, second = AccessRules(1), AccessRules(1)
    assert first.token != second.token and len(first.token) >= 32 and first.token not in repr(first)


def test_the_token_can_be_a_header(stranger, rules):
    assert stranger.get("/api/workspace", headers={"X-Vtcav-Token": rules.token}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8123", "127.0.0.1", "127.0.0.1:8124", "127.0.0.1.evil:8123"]
)
def test_other_host_names_are_refused(client, host):
    answer = client.get("/api/workspace", headers={"Host": host})
    assert answer.status_code == 421 and "127.0.0.1:8123" in answer.text


def test_localhost_is_this_machine(client, rules):
    headers = {"Host": "localhost:8123", "X-Vtcav-Token": rules.token}
    assert client.get("/api/workspace", headers=headers).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9000", "https://127.0.0.1:8123", "null"])
def test_changes_from_other_origins_are_refused(client, made, origin):
    body = {"folder": made.concepts.name, "changes": [{"concept": "bat", "verdict": "reject"}]}
    answer = client.post("/api/reviews", json=body, headers={"Origin": origin})
    assert answer.status_code == 403 and not (made.concepts / "review.csv").exists()
    assert client.post("/api/reviews", json=body, headers={"Origin": URL}).status_code == 200


def test_forms_of_other_sites_cannot_change_anything(client, made):
    for content in (
        {"data": {"folder": made.concepts.name}},
        {"content": "{}", "headers": {"Content-Type": "text/plain"}},
    ):
        assert client.post("/api/reviews", **content).status_code == 415


def test_pages_allow_no_foreign_and_no_inline_scripts(client):
    for address in ("/", "/assets/page.js", "/api/workspace", "/nowhere"):
        policy = client.get(address).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert client.get(address).headers["x-content-type-options"] == "nosniff"
    text = client.get("/").text
    assert text.count("<script") == 1 and "style=" not in text and not re.search(r"\son\w+=", text)


@pytest.mark.parametrize(
    "name", ["../server.py", "..%2Fserver.py", "page.html", "%2Fetc%2Fpasswd", "../../runs/lock.py", "", "page.js%00"]
)
def test_only_the_assets_of_the_page_are_files(client, name):
    assert client.get(f"/assets/{name}").status_code in (404, 405)


TRAVERSALS = ["../run.json", "/etc/passwd", "..", "run.json", "small_5_000000/../../run.json", "small_5_000000\0"]


@pytest.mark.parametrize("name", TRAVERSALS)
def test_names_in_requests_are_no_paths(client, made, name):
    place = {"run": "run", "task": "tcav", "clip": "small_5_000000"}
    for address, query in (
        ("film", place | {"clip": name}),
        ("film", place | {"run": name}),
        ("overlay", place | {"mapTarget": name, "map": name}),
        ("concept_film", {"folder": made.concepts.name, "file": name}),
        ("concept_film", {"folder": name, "file": "ball/dynamic/000.mp4"}),
        ("overview", {"folder": made.concepts.name, "concept": name}),
        ("clips", {"run": name, "task": "tcav"}),
        ("reviews", {"folder": name}),
    ):
        answer = client.get(f"/api/{address}", params=query)
        assert answer.status_code in (400, 404) and "error" in answer.json(), (address, query)
    body = {"folder": made.concepts.name, "changes": [{"file": name, "verdict": "reject"}]}
    assert client.post("/api/reviews", json=body).status_code == 400
    assert not (made.concepts / "review.csv").exists()


def test_a_table_cannot_name_files_outside_of_its_folder(tmp_path, made):
    from vtcav_jax.serve.concept_cards import ConceptFolder

    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    folder = tmp_path / "concepts"
    (folder / "ball").mkdir(parents=True)
    (folder / "ball" / "in.mp4").write_bytes(b"inside")
    (folder / "ball" / "link.mp4").symlink_to(secret)
    names = ["ball/in.mp4", "ball/link.mp4", "../secret.mp4", str(secret)]
    lines = ["concept,clip_type,file", *(f"ball,dynamic,{name}" for name in names)]
    (folder / "concepts.csv").write_text("\n".join(lines) + "\n")
    assert list(ConceptFolder("x", folder).clips) == ["ball/in.mp4"]


@pytest.mark.parametrize(
    ("address", "query", "message"),
    [
        ("clips", {"run": "runn", "task": "tcav"}, "no run named 'runn' (did you mean run?)"),
        ("clips", {"run": "run", "task": "pyramid"}, "expected task as one of tcav, attribute"),
        ("clips", {"run": "run", "task": "tcav", "page": "-1"}, "expected page as a whole number"),
        ("clips", {"run": "run", "task": "tcav", "min": "nan"}, "expected min as a number"),
        ("clips", {"run": "run", "task": "tcav", "text": "x" * 3000}, "at most 2000 characters"),
        ("film", {"run": "run", "task": "tcav", "clip": "small_5_999999"}, "choose one of its list"),
        ("job", {"job": "x"}, "ask for the map again"),
    ],
)
def test_bad_requests_get_one_sentence(client, address, query, message):
    answer = client.get(f"/api/{address}", params=query)
    assert answer.status_code in (400, 404) and message in answer.json()["error"]


def test_bodies_are_bounded_and_must_be_objects(client):
    for content in (b"[" * 9_000_000, b"[]", b"no json", b'{"folder": 3}'):
        answer = client.post("/api/reviews", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400 and answer.json()["error"]
