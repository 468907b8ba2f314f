"""What serves a published classifier on Inference Endpoints: a handler, the code that reads audio, and packages."""

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from ..scores import scores_of
from .checks import ENDPOINT, PACKAGE, Checked, compare
from .isolated import HANDLER
from .upload import SharingError

TEMPLATES = Path(__file__).with_name("templates") / "endpoint"
READERS = ("containers.py", "decoding.py", "visitors.py")


def add_endpoint(staged: Path, classifier: Checked) -> Checked:
    """
    Adds a handler to a staged classifier, and checks that it serves the classifier's scores where `hear_hf` is absent.

    Args:
        staged (`Path`): The folder that will be uploaded.
        classifier (`Checked`): The model in it.

    Returns:
        `Checked`: The handler, for `compare` with that of another place.

    Raises:
        `SharingError`: The model is none that an endpoint serves, or the handler does not.
    """
    if not classifier.is_classifier or classifier.base is not None:
        found = "an adapter" if classifier.base is not None else type(classifier.model).__name__
        raise SharingError(
            f"An endpoint must serve a whole model that classifies clips, found: {found}. Leave out --endpoint; an "
            "adapter becomes a whole model by finetune.py --merge_adapter."
        )
    if taken := [name for name in ENDPOINT if (staged / name).exists()]:
        raise SharingError(f"The model's code must leave {taken[0]} to the endpoint: rename it, and save it again.")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(TEMPLATES, staged, dirs_exist_ok=True, ignore=ignored)
    for name in READERS:
        shutil.copyfile(PACKAGE / "data" / name, staged / "audio" / name)
    scores = scores_of(torch.tensor(classifier.outputs[0]), classifier.model.config.problem_type)
    handler = replace(classifier, auto_class=HANDLER, outputs=scores.numpy())
    compare([handler], str(staged))
    return handler
