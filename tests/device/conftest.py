"""The pretended device; tests/test_device.py starts a process for each file here."""

import os
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[1]
if "SO3K_PRETEND" not in os.environ:
    collect_ignore_glob = ["test_*"]
sys.path += [str(TESTS), str(TESTS / "engines")]


@pytest.fixture(scope="session", autouse=True)
def device() -> torch.device:
    import pretend

    pretend.load_device()
    return torch.device("pretend")
