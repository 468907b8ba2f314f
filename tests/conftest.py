"""Fixtures that several test files share. Nothing here needs the network or a GPU."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported

import numpy as np
import pytest
import torch

from golden import golden_model
from hear_hf import HEARConfig
from helpers import SMALL, small_model

torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(autouse=True)
def seeds():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def config():
    return HEARConfig(**SMALL)


@pytest.fixture
def model():
    return small_model()


@pytest.fixture(scope="session")
def full_model():
    """The published size with 50 labels. Shared: leave it as it is."""
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
