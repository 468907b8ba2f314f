"""Fixtures that several test files share. Nothing here needs the network or a GPU."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # of a worker and of the processes that it starts; the others have cores too

import pytest

# The fixtures import what they need: without torch, the process that hands out the tests starts 4 s earlier.
# Tests whose names begin with these share what is costly to make, and so a worker of pytest-xdist.
TOGETHER = (
    "tests/commands/test_space_browser.py",
    "tests/commands/test_web_page.py",
    "tests/deployment/",
    "tests/model/test_parity.py::test_log_power_agrees_to_1e_5_where",
    "tests/model/test_remote_code.py",
    "tests/project/test_extras.py",
    "tests/sharing/test_hub_loading.py",
    "tests/training/test_faults.py",
    "tests/training/test_pretraining.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Spreads the other tests one by one. (`xdist_group` marks of pytest-xdist 3.8 do nothing in pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((start for start in TOGETHER if nodeid.startswith(start)), nodeid)

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def num_threads():
    import torch

    return min(2, torch.get_num_threads())


@pytest.fixture(autouse=True)
def fresh_state(num_threads):
    """Seeds, threads, which commands set for the whole process, and no sleep behind the streams of `datasets` 5."""
    import numpy as np
    import torch

    torch.manual_seed(0)
    np.random.seed(0)
    torch.set_num_threads(num_threads)
    if "datasets" in sys.modules:
        sys.modules["datasets"].config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0


@pytest.fixture
def config():
    from hear_hf import HEARConfig
    from helpers import SMALL

    return HEARConfig(**SMALL)


@pytest.fixture
def model():
    from helpers import small_model

    return small_model()


@pytest.fixture(scope="session")
def full_model():
    """The published size with 50 labels. Shared: leave it as it is."""
    from golden import golden_model

    return golden_model(num_labels=50)


@pytest.fixture(scope="session")
def golden_dir():
    folder = os.environ.get("HEAR_GOLDEN_DIR")
    if not folder:
        pytest.skip(
            "HEAR_GOLDEN_DIR is not set: it must name a folder with small.safetensors and full.safetensors, outputs "
            "of the original implementation (see tests/fixtures/README.md)"
        )
    return Path(folder)
