"""Which Auto class loads a saved classifier: one of clips, or one of frames."""

from typing import Any

from transformers import AutoConfig, AutoModelForAudioClassification, AutoModelForAudioFrameClassification


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
