"""The server as a process: its address, many requests at once, ports, signals."""

import http.client
import json
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest

from tests.serve.serve_process import ServeProcess
from tests.support.cli_runner import run_cli
from tests.support.served_runs import STRONGEST, make_run, vector

CHOICE = {"target": STRONGEST[0], "stage": STRONGEST[1], "vector": vector(STRONGEST[2])}


@pytest.fixture(scope="module")
def server(made):
    with ServeProcess(f"--run={made.folder}", "--port=0") as process:
        yield process


def fetch(server, name, query, body=None):
    """Return status and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"X-Vtcav-Token": server.address.partition("token=")[2], "Content-Type": "application/json"}
    try:
        if body is None:
            connection.request("GET", f"/api/{name}?{urlencode(query)}", headers=headers)
        else:
            connection.request("POST", f"/api/{name}", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_address_is_printed_on_one_line(server):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32,}", server.address)
    assert sum("token" in line for line in server.lines) == 1


@pytest.mark.slow
def test_a_hundred_requests_at_once_are_all_answered_alike(server, made):
    place = {"run": "run", "task": "tcav"}
    requests = [
        kind
        for i in range(20)
        for clip in [made.clips[i]]
        for kind in (
            ("film", place | {"clip": clip}, None),
            ("overlay", place | {"clip": clip, "mapTarget": STRONGEST[0], "map": "saliency@video"}, None),
            ("curves", place | CHOICE | {"clip": clip, "map": "gradcam@convs.2"}, None),
            ("clips", place | CHOICE | {"page": i % 3}, None),
            ("steer", {}, place | CHOICE | {"clip": clip, "steps": [1]}),
        )
    ]
    assert len(requests) == 100
    with ThreadPoolExecutor(100) as pool:
        together = list(pool.map(lambda request: fetch(server, *request), requests))
    assert [status for status, _ in together].count(503) <= 20  # steering beyond the length of the queue
    for request, (status, body) in zip(requests, together):
        if status != 503:
            assert status == 200, body
        if request[0] != "steer" or status == 503:
            status, again = fetch(server, *request)
            assert status == 200 and (request[0] == "steer" or again == body)


def test_only_this_machine_is_listened_to(server):
    with socket.socket() as other:
        other.settimeout(5)
        with pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", server.port))


def test_a_port_in_use_is_named(server, made):
    code, _, err = run_cli("serve", f"--run={made.folder}", f"--port={server.port}")
    assert code == 1 and f"--port: port {server.port} cannot be used (Address already in use)" in err


def test_bad_runs_are_refused_before_anything_starts(tmp_path, made):
    code, _, err = run_cli("serve", f"--run={tmp_path}/none,{made.folder}")
    assert code == 1 and "--run:" in err and "none is no run folder" in err
    assert "names a run twice" in run_cli("serve", f"--run={made.folder},{made.folder}")[2]
    assert "--port: expected at least 0 and at most 65535, got 70000" in run_cli("serve", "--run=x", "--port=70000")[2]


def test_without_its_packages_the_extra_is_named(made):
    program = "import sys; sys.modules['uvicorn'] = None; main.start()"
    code, _, err = run_cli("serve", f"--run={made.folder}", program=program)
    assert code == 1 and "serve needs uvicorn; pip install 'vtcav-jax[serve]'" in err


@pytest.mark.slow
def test_ctrl_c_ends_it_with_the_code_of_an_interruption(made, interruptible):
    with ServeProcess(f"--run={made.folder}", "--port=0") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 130


@pytest.mark.slow
def test_two_runs_and_a_concept_folder_have_one_page(tmp_path, made):
    other = make_run(tmp_path / "other", 5, seed=1, concept_clips=1)
    with ServeProcess(f"--run={made.folder},{other.folder},{made.concepts}", "--port=0") as server:
        status, body = fetch(server, "workspace", {})
    described = json.loads(body)
    assert status == 200 and [run["name"] for run in described["runs"]] == ["run", "other"]
    paths = {folder.name: str(folder.resolve()) for folder in (made.concepts, other.concepts)}
    assert {folder["name"]: folder["path"] for folder in described["concepts"]} == paths
    assert described["command"] == f"vtcav serve --run={made.folder},{other.folder},{made.concepts}"
