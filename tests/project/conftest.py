"""The checkpoint that is part of the repository."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The folder of `hear-tiny`; an sdist, which has a PKG-INFO, goes without."""
    folder = ROOT / "checkpoints" / "hear-tiny"
    if not (folder / "model.safetensors").is_file():
        if (ROOT / "PKG-INFO").is_file():
            pytest.skip("the sdist holds no checkpoint")
        pytest.fail(f"{folder} must hold the shipped checkpoint, found no model.safetensors: check it out of git")
    return folder
