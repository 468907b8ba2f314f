"""The Python in README.md and MODEL_CARD.md runs as it stands, and the shapes that its comments state are right."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
STATED = re.compile(
    r"^(outputs?\S*|inputs\S*|len\(\S+\)|model\.num_parameters\(\)) +# (\([\d, ]+\)|[\d,]+)", re.MULTILINE
)


def python_blocks(name):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("name", "num_statements"), [("README.md", 8), ("MODEL_CARD.md", 1)])
def test_every_block_runs_and_gives_what_its_comments_state(name, num_statements, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace, stated = {}, []
    for block in python_blocks(name):
        exec(compile(block, name, "exec"), namespace)
        for expression, value in STATED.findall(block):
            found = eval(expression, namespace)
            found = tuple(found) if isinstance(found, torch.Size) else found
            assert found == (eval(value) if "(" in value else int(value.replace(",", ""))), expression
            stated.append(expression)
    assert len(stated) == num_statements, stated
