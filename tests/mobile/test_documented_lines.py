"""The lines of docs/deployment.md that run on the runtimes of phones, which only some environments have."""

import re
from pathlib import Path

import pytest
import torch

from helpers import small_model

ROOT = Path(__file__).parents[2]


def lines_that_import(module: str) -> str:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if f" {module}" in block)
    return block


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A small model in the place of hear-tiny, in the folder where the lines run."""
    model = small_model(num_hidden_layers=1, id2label={i: f"sound {i}" for i in range(7)})
    model.save_pretrained(tmp_path / "checkpoints" / "hear-tiny")
    monkeypatch.chdir(tmp_path)
    return model


@torch.no_grad()
def test_a_program_of_executorch_gives_the_logits(model):
    pytest.importorskip("executorch", reason="it needs `pip install hear_hf[executorch]`")
    import export_executorch

    export_executorch.main(["checkpoints/hear-tiny", "runs/tiny_pte", "--seconds", "1"])
    namespace = {}
    exec(lines_that_import("executorch"), namespace)
    torch.testing.assert_close(namespace["logits"], model(namespace["clip"]).logits, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_model_of_litert_gives_the_logits(model):
    pytest.importorskip("litert_torch", reason="it needs the package litert-torch")
    namespace = {}
    exec(lines_that_import("litert_torch"), namespace)
    logits = torch.from_numpy(namespace["logits"])
    torch.testing.assert_close(logits, model(namespace["clip"]).logits, rtol=1e-3, atol=1e-3)
