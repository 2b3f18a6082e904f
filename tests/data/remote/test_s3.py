"""Objects of S3, on a local server of moto."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("s3fs", reason="S3 needs s3fs (pip install 'vtcav-jax[urls]')")
pytest.importorskip("moto", reason="a local S3 needs moto (pip install 'moto[server]')")

from tests.data.test_decode import write

PROGRAM = """
import os, pathlib, sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
os.environ["FSSPEC_S3_ENDPOINT_URL"] = "http://%s:%s" % server.get_host_and_port()

import fsspec
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import SamplingConfig, open_source, stream
from vtcav_jax.data.source import is_unchanged

first, second = (pathlib.Path(path).read_bytes() for path in sys.argv[1:])
spec, sampling = ClipSpec(frames=4, size=32, interval=2), SamplingConfig(normalise=False)
file_system = fsspec.filesystem("s3")
file_system.mkdir("bucket")
for name, data in {"set/a/1.mp4": first, "set/b/2 #?.mp4": second, "set/b/": b""}.items():
    file_system.pipe_file("bucket/" + name, data)
file_system.pipe_file("bucket/set/list.csv", b"path,label\\na/1.mp4,x\\nb/2 #?.mp4,y\\nb/gone.mp4,y\\n")

source = open_source("s3://bucket/set")
assert source.heads == {"label": ("a", "b")}, source.heads
assert [item.name for item in source.items] == ["a/1.mp4", "b/2 #?.mp4"], source.items
reads = list(stream(source, spec, sampling, num_workers=1))
assert all(read.clip is not None and read.clip.content.startswith("object:") for read in reads), reads
reads = list(stream(open_source("s3://bucket/set/list.csv"), spec, sampling, num_workers=0))
assert [read.failure for read in reads] == [
    *(None, None, "there is no object s3://bucket/set/b/gone.mp4; check the address"),
], reads
content = reads[0].clip.content
assert is_unchanged(source, 0, content)
file_system.pipe_file("bucket/set/a/1.mp4", second)
assert not is_unchanged(source, 0, content)
for address in ("s3://bucket/none", "s3://none/v.mp4"):
    try:
        raise AssertionError(open_source(address))
    except ValueError as error:
        assert str(error) == f"there is no object {address}; check the address", error
server.stop()
print("all checks passed")
"""


def test_folders_manifests_and_replaced_objects(tmp_path):
    """In a program of its own, since the server's packages warn."""
    videos = [
        write(tmp_path / f"{first}.mp4", "libx264", total=12, numbers=lambda i, first=first: i + first)
        for first in (0, 50)
    ]
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    environment = os.environ | keys | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", PROGRAM, *map(str, videos)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0 and "all checks passed" in run.stdout, run.stderr[-3000:]
