"""Loads classifiers of clips or of frames for commands, which end with a message where there is none to load."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    PreTrainedModel,
)

from .arguments import printable


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Around what loads a classifier: whatever goes wrong there ends the command with one message."""
    try:
        yield
    except Exception as error:  # of a folder or repository of others: whatever its files bring about
        reason = str(error).strip() or type(error).__name__
        if not reason.startswith(f"{name} must"):
            reason = (
                f"{name} must be an audio classifier, a folder that save_pretrained wrote or a repository of the "
                f"Hub. Found: {reason}"
            )
        sys.exit(printable(reason))


def classifies_frames(config: Any) -> bool:
    """Whether a saved model says what is heard when, by its configuration."""
    return any(name.endswith("ForAudioFrameClassification") for name in getattr(config, "architectures", None) or [])


def load_any_classifier(name: str, **options: Any) -> Any:
    """
    Loads a classifier of clips or of frames, whichever was saved.

    Args:
        name (`str`): A folder, or a repository of the Hub.
        **options: Those of `from_pretrained`.
    """
    shared = {key: value for key, value in options.items() if key in ("revision", "subfolder", "trust_remote_code")}
    frames = classifies_frames(AutoConfig.from_pretrained(name, **shared))
    auto_class = AutoModelForAudioFrameClassification if frames else AutoModelForAudioClassification
    return auto_class.from_pretrained(name, **options)


def check_classifier(name: str, model: PreTrainedModel) -> None:
    """
    Refuses a model of another kind, and one whose head was not loaded but drawn: its answers would be random.

    Args:
        name (`str`): What to call the model.
        model (`PreTrainedModel`): What was loaded.

    Raises:
        `ValueError`: It is no audio classifier, was saved as another class, or is configured to return tuples.
    """
    if type(model.config) not in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING:
        raise ValueError(f"a {type(model).__name__}.")
    saved = model.config.architectures or []
    if saved and type(model).__name__ not in saved:
        raise ValueError(f"weights of {saved[0]} without those of a classifier. Fine-tune {name} first.")
    if not getattr(model.config, "return_dict", True):
        raise ValueError("a configuration with `return_dict` false. Set it to true: outputs are read by their names.")
