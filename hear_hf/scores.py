"""Scores of labels from a classifier's logits."""

import torch


def scores_of(logits: torch.Tensor, problem_type: str | None) -> torch.Tensor:
    """
    Turns a classifier's logits into scores.

    Args:
        logits (`torch.Tensor` of shape `(..., num_labels)`): Logits of any audio classifier, in any dtype.
        problem_type (`str`, *optional*): The config's `problem_type`; `None` counts as a single label per clip.

    Returns:
        `torch.Tensor` of shape `(..., num_labels)`, float32: their softmax, their sigmoid where a clip has any number
        of labels, or the logits themselves of a regression.
    """
    logits = logits.float()
    if problem_type == "regression":
        return logits
    return logits.sigmoid() if problem_type == "multi_label_classification" else logits.softmax(-1)
