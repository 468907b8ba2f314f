"""The lines of docs/deployment.md that run on the runtimes of phones, which only some environments have."""

import re
from pathlib import Path

import pytest
import torch

from hear_hf import HEARForAudioClassification

ROOT = Path(__file__).parents[2]


def lines_that_import(module: str) -> str:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if f" {module}" in block)
    return block


@pytest.fixture(autouse=True)
def shipped(tmp_path, monkeypatch) -> Path:
    """hear-tiny in the folder where the lines run."""
    if not (ROOT / "checkpoints" / "hear-tiny" / "model.safetensors").is_file():
        pytest.skip("the sdist holds no checkpoint")
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)


@torch.no_grad()
def expected_logits(clip: torch.Tensor) -> torch.Tensor:
    return HEARForAudioClassification.from_pretrained("checkpoints/hear-tiny")(clip).logits


def test_a_program_of_executorch_gives_the_logits():
    pytest.importorskip("executorch", reason="it needs `pip install hear_hf[executorch]`")
    import export_executorch

    export_executorch.main(["checkpoints/hear-tiny", "runs/tiny_pte", "--seconds", "1"])
    namespace = {}
    exec(lines_that_import("executorch"), namespace)
    torch.testing.assert_close(namespace["logits"], expected_logits(namespace["clip"]), rtol=1e-3, atol=1e-3)


def test_a_model_of_litert_gives_the_logits():
    pytest.importorskip("litert_torch", reason="it needs the package litert-torch")
    namespace = {}
    exec(lines_that_import("litert_torch"), namespace)
    logits = torch.from_numpy(namespace["logits"])
    torch.testing.assert_close(logits, expected_logits(namespace["clip"]), rtol=1e-3, atol=1e-3)
