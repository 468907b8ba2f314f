"""examples/notebooks: kept without outputs, and run from top to bottom."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 4 and cells[0]["cell_type"] == "markdown"
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert "google.colab" in "".join(code[0]["source"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("notebook", "expected"),
    [
        ("try_hear", ["Crowing, cock-a-doodle-doo", "Typing", "image/png", "audio"]),
        ("your_own_sounds", ["Cross-validated: Accuracy", "accuracy on unheard voices", "To upload:", "image/png"]),
    ],
)
def test_notebooks_run_from_top_to_bottom(notebook, expected, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    folder = tmp_path / "examples" / "notebooks"  # so that nothing is written into the repository
    folder.mkdir(parents=True)
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    for path in (*ROOT.glob("examples/*.py"), ROOT / "examples" / "sounds"):
        (tmp_path / "examples" / path.name).symlink_to(path)
    cells = nbformat.read(ROOT / "examples" / "notebooks" / f"{notebook}.ipynb", as_version=4)
    nbclient.NotebookClient(cells, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    shown = json.dumps([cell.get("outputs") for cell in cells.cells])
    for text in expected:
        assert text in shown
