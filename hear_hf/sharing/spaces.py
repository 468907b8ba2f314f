"""A demo of a published model, staged as a Space of the Hub: an app, or a built page that runs in the browser."""

import shutil
from pathlib import Path

from huggingface_hub import ModelInfo, SpaceCard
from huggingface_hub.errors import RepositoryNotFoundError

from .checks import check_models, stage
from .links import check_link, check_links
from .upload import Destination, SharingError, explain

PAGE = "index.html"  # of a static Space
SPACE_MODEL = "model_id.txt"  # where the Space's app.py reads which model to serve
MODEL_FOLDER = "model"  # of the Space, where the model is not on the Hub
SOUNDS = "sounds"  # the example clips, beside the demo's folder
IGNORED = shutil.ignore_patterns(".*", "__pycache__")


def is_page(space: Path) -> bool:
    """Whether a demo is a built page, which has its model in it and runs in the visitor's browser."""
    return (space / PAGE).is_file()


def stage_space(space: Path, staged: Path, model: str | Path, trust_remote_code: bool = False) -> None:
    """
    Copies a demo and its example clips to a new folder, and names there the model that it serves.

    A built page has its model and clips in its own folder, so that only its card is completed.

    Args:
        space (`Path`): The demo's folder, with README.md and app.py, or a built page.
        staged (`Path`): The folder to create.
        model (`str` or `Path`): The model's repository, as `OWNER/NAME`, or its folder, which is copied too.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Whether the check may run code of that folder that
            is not the installed package's.

    Raises:
        `SharingError`: The demo lacks app.py or has a link that leads out of it, or the folder is no complete model.
    """
    if not is_page(space) and not (space / "app.py").is_file():
        raise SharingError(f"The demo's folder must hold app.py, found none in {space}. Give --space_dir.")
    check_links(space, space)
    shutil.copytree(space, staged, ignore=IGNORED)
    if not is_page(space):
        add_model(space, staged, model, trust_remote_code)
    card = SpaceCard.load(staged / "README.md")
    card.data["models"] = [] if isinstance(model, Path) else [model]
    card.save(staged / "README.md")


def add_model(space: Path, staged: Path, model: str | Path, trust_remote_code: bool) -> None:
    """Adds to a staged demo its example clips, its model where that is a folder, and the model's name."""
    if (sounds := space.parent / SOUNDS).is_dir():
        check_link(sounds, space.parent)
        check_links(sounds, sounds)
        shutil.copytree(sounds, staged / SOUNDS, ignore=IGNORED)
    if isinstance(model, Path):
        stage(model, staged / MODEL_FOLDER)
        check_models(staged / MODEL_FOLDER, trust_remote_code)
    name = MODEL_FOLDER if isinstance(model, Path) else model
    (staged / SPACE_MODEL).write_text(f"{name}\n", encoding="utf-8")


def pin_model(staged: Path, model: Destination) -> ModelInfo:
    """
    Names in a staged demo the model's present commit too, so that what is pushed to it later is not run unseen.

    Returns:
        What the Hub says of the model.

    Raises:
        `SharingError`: The model is not on the Hub.
    """
    try:
        info = model.api().model_info(model.name)
    except RepositoryNotFoundError as error:
        raise SharingError(
            f"The Space's model must be on the Hub, found no {model.name}: publish it first."
        ) from error
    except Exception as error:
        raise SharingError(explain(error, model)) from error
    (staged / SPACE_MODEL).write_text(f"{model.name}@{info.sha}\n", encoding="utf-8")
    return info
