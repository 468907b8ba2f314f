"""What exports to other runtimes share: the classifier, its labels, and how long a run takes."""

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoConfig

from .classifiers import classifies_frames
from .modeling_hear import HEARForAudioClassification, HEARForAudioFrameClassification

Classifier = HEARForAudioClassification | HEARForAudioFrameClassification


def load_classifier(name: str) -> Classifier:
    """
    Loads a classifier in float32 and evaluation mode.

    Args:
        name (`str`): A folder, or a repository of the Hub.

    Raises:
        `ValueError`: It is another model, or a HEAR without the weights of a classifier.
    """
    config = AutoConfig.from_pretrained(name)
    if config.model_type != "hear":
        raise ValueError(
            f"{name} must be a HEAR classifier, found model type {config.model_type!r}: name another model."
        )
    model_class: Any = HEARForAudioFrameClassification if classifies_frames(config) else HEARForAudioClassification
    loaded = model_class.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    model, loading = loaded
    if loading["missing_keys"]:
        missing = ", ".join(sorted({key.split(".")[0] for key in loading["missing_keys"]}))
        raise ValueError(f"{name} must be a HEAR classifier, found weights without {missing}: fine-tune it first.")
    return model.eval()


def label_names(model: Classifier) -> list[str]:
    """The model's labels in the order of its logits."""
    return [name for _, name in sorted((model.config.id2label or {}).items())]


def milliseconds(function: Callable[[], object], repetitions: int = 5) -> float:
    """The shortest time that a call takes."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)
