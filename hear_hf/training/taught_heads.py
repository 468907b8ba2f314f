"""Linear heads made part of a HEAR: as its whole head, or beside the labels that it has."""

import copy
from typing import Any

import torch
from torch import nn

from .. import HEARForAudioClassification
from ..evaluation.logistic import Head
from ..sharing.cards import label_names

MULTI_LABEL = "multi_label_classification"


@torch.no_grad()
def with_linear_head(
    model: HEARForAudioClassification, head: Head, names: list[str], problem_type: str
) -> HEARForAudioClassification:
    """
    Makes a classifier of a model below its head and of a linear head.

    Args:
        model (`HEARForAudioClassification`): It stays as it is.
        head (`Head`): Reads the pooled output.
        names (`list[str]`): The labels, one for each logit.
        problem_type (`str`): As the configuration has it.
    """
    config = labelled(model.config, names, problem_type)
    config.classifier_proj_size = None
    taught = type(model)(config)
    taught.hear.load_state_dict(model.hear.state_dict())
    taught.classifier.out_proj.weight.copy_(torch.from_numpy(head.weight))
    taught.classifier.out_proj.bias.copy_(torch.from_numpy(head.bias))
    return taught.eval()


@torch.no_grad()
def with_more_labels(model: HEARForAudioClassification, head: Head, names: list[str]) -> HEARForAudioClassification:
    """
    Adds labels to a classifier, whose own keep their logits.

    A linear head gets a row for each label. One with a hidden layer gets two units for each: z = relu(z) - relu(-z)
    lets a linear function of the pooled output through it, and the other labels do not read them.

    Args:
        model (`HEARForAudioClassification`): Any number of labels a clip. It stays as it is.
        head (`Head`): Reads the pooled output.
        names (`list[str]`): The labels to add, one for each logit.
    """
    config = labelled(model.config, [*label_names(model.config), *names], MULTI_LABEL)
    weight, bias = torch.from_numpy(head.weight).float(), torch.from_numpy(head.bias).float()
    if config.classifier_proj_size is not None:
        config.classifier_proj_size += 2 * len(names)
    taught: Any = type(model)(config)
    old: Any = model
    taught.hear.load_state_dict(model.hear.state_dict())
    if config.classifier_proj_size is None:
        extend(taught.classifier.out_proj, old.classifier.out_proj, weight, bias)
        return taught.eval()
    extend(taught.classifier.dense, old.classifier.dense, torch.cat([weight, -weight]), torch.cat([bias, -bias]))
    norm, old_norm = taught.classifier.batch_norm, old.classifier.batch_norm
    for name, tensor in norm.state_dict().items():
        if tensor.ndim:  # not the number of batches
            tensor[: old_norm.num_features] = old_norm.state_dict()[name]
    norm.running_var[old_norm.num_features :] = 1 - norm.eps  # with a mean of 0, these units pass as they are
    identity = torch.eye(len(names))
    difference = torch.cat([torch.zeros(len(names), old_norm.num_features), identity, -identity], dim=1)
    output = taught.classifier.out_proj
    output.weight.zero_()
    output.weight[: old.classifier.out_proj.out_features, : old_norm.num_features] = old.classifier.out_proj.weight
    output.weight[-len(names) :] = difference
    output.bias.copy_(torch.cat([old.classifier.out_proj.bias, torch.zeros(len(names))]))
    return taught.eval()


def extend(new: nn.Linear, old: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Fills a layer with the rows of another one, and further ones."""
    new.weight.copy_(torch.cat([old.weight, weight.to(old.weight)]))
    new.bias.copy_(torch.cat([old.bias, bias.to(old.bias)]))


def labelled(config: Any, names: list[str], problem_type: str) -> Any:
    """A copy of a configuration with other labels."""
    config = copy.deepcopy(config)
    config.id2label, config.label2id = dict(enumerate(names)), {name: index for index, name in enumerate(names)}
    config.problem_type, config.false_alarm_rate = problem_type, None
    return config
