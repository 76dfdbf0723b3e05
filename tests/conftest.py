"""Every test runs on one thread, finds the project's files wherever pytest is started, and never
reaches for the network.
"""
import os
import sys
from pathlib import Path

# one thread in the processes that tests start, too: two for two busy cores stall each other
os.environ.update(
    HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="",
    OMP_NUM_THREADS="1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    """A command that a test ran with --threads has set it for all tests behind it."""
    yield
    torch.set_num_threads(1)


@pytest.fixture
def make_policy(tmp_path):
    """make_policy(kind="tied", lr=1e-3, **fields of the config) -> (a Policy around a fake model,
    its Config).
    """
    import fakes

    def make(kind="tied", lr=1e-3, **changes):
        return fakes.make_policy(tmp_path, kind, lr, **changes)

    return make
