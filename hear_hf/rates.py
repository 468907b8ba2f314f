"""The rate of a model and that of its feature extractor, which a folder states twice."""

from typing import Any


def check_rates(name: str, config: Any, feature_extractor: Any) -> None:
    """
    Refuses a feature extractor of another rate than its model's, which would mishear every clip.

    Args:
        name (`str`): What to call the model.
        config (`PreTrainedConfig`): Its configuration; one without a `sampling_rate` is taken as it is.
        feature_extractor (`SequenceFeatureExtractor`): What was loaded beside it.

    Raises:
        `ValueError`: The two rates differ.
    """
    rate, other = (getattr(one, "sampling_rate", None) for one in (config, feature_extractor))
    if rate is not None and rate != other:
        raise ValueError(
            f"The `sampling_rate` of {name} must be the same in its config.json and preprocessor_config.json, found: "
            f"{rate} and {other} Hz. Correct the one that is wrong."
        )
