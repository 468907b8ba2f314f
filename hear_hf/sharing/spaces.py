"""A demo of a published model, staged as a Space of the Hub."""

import shutil
from pathlib import Path

from huggingface_hub import SpaceCard
from huggingface_hub.errors import RepositoryNotFoundError

from .upload import Destination, SharingError, explain

SPACE_MODEL = "model_id.txt"  # where the Space's app.py reads which model to serve


def stage_space(space: Path, staged: Path, model: str) -> None:
    """
    Copies a demo to a new folder, and names there the model that it serves.

    Args:
        space (`Path`): The demo's folder, with app.py and README.md.
        staged (`Path`): The folder to create.
        model (`str`): The model's repository, as `OWNER/NAME`.

    Raises:
        `SharingError`: The demo lacks app.py.
    """
    if not (space / "app.py").is_file():
        raise SharingError(f"The demo's folder must hold app.py, found none in {space}. Give --space_dir.")
    shutil.copytree(space, staged, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    (staged / SPACE_MODEL).write_text(f"{model}\n", encoding="utf-8")
    card = SpaceCard.load(staged / "README.md")
    card.data["models"] = [model]
    card.save(staged / "README.md")


def is_private(model: Destination) -> bool:
    """Whether a model of the Hub is private; raises `SharingError` if there is none."""
    try:
        return bool(model.api().model_info(model.name).private)
    except RepositoryNotFoundError as error:
        raise SharingError(
            f"The Space's model must be on the Hub, found no {model.name}: publish it first."
        ) from error
    except Exception as error:
        raise SharingError(explain(error, model)) from error
