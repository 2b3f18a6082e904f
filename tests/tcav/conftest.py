"""Fixtures of experiments: clips, created once per module, and a finished run on them."""

from dataclasses import replace

import pytest

from tests.support.planted_experiment import QUICK, run_experiment, write_clip_folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return write_clip_folder(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def finished(clip_folder, tmp_path_factory):
    return run_experiment(clip_folder, tmp_path_factory.mktemp("runs") / "one", replace(QUICK, export_vectors=True))
