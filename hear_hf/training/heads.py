"""Training of a new head alone, before the whole model: linear probing, then fine-tuning (arXiv:2202.10054).

The first steps of a random head would spoil what a pretrained model knows. The frozen model reads each clip once, and
the head learns from these embeddings in seconds.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from .. import HEARForAudioFrameClassification
from ..frame_head_hear import binary_loss, pool_frame_logits
from .parts import in_parts

BATCH_SIZE = 32


@torch.no_grad()
def embed(model: PreTrainedModel, loader: DataLoader, autocast: Callable) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Reads all clips with the frozen model below the head.

    Args:
        model (`PreTrainedModel`): A classifier whose base model returns a `pooler_output`.
        loader (`DataLoader`): Batches of `collate_clips`.
        autocast (`Callable`): Gives the context in which the model runs.

    Returns:
        The embeddings `(num_clips, width)` in float32 and the labels, on the model's device.
    """
    base_model = model.base_model.eval()
    embeddings, labels = [], []
    for batch in tqdm(loader, desc="Reading clips for the head", leave=False):
        labels.append(batch["labels"].to(model.device))
        clips = [clip.to(model.device) for clip in batch["clips"]]
        with autocast():
            embeddings.append(in_parts(lambda **part: base_model(**part).pooler_output, clips).float())
    return torch.cat(embeddings), torch.cat(labels)


def fit_head(
    head: nn.Module,
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    loss_function: Callable,
    num_epochs: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
) -> float:
    """
    Trains a head in place, with AdamW and a rate that falls to 0 along a cosine.

    Args:
        head (`nn.Module`): Embeddings -> logits. Its batch norms end with the statistics of all embeddings.
        embeddings (`torch.Tensor` of shape `(num_clips, width)`): Of the frozen model.
        labels (`torch.Tensor`): Class indices `(num_clips,)`, or targets `(num_clips, num_labels)`.
        loss_function (`Callable`): As Trainer calls it, with outputs that hold `logits`, and labels.
        num_epochs (`int`): Passes over the embeddings.
        learning_rate (`float`): The first one.
        weight_decay (`float`): Of all the head's parameters.
        seed (`int`): Decides the order of the clips.

    Returns:
        `float`: The mean loss of the last pass.
    """
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(embeddings, labels), BATCH_SIZE, shuffle=True, generator=order)
    optimizer = torch.optim.AdamW(head.parameters(), learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_epochs * len(loader))
    head.train()
    for _ in range(num_epochs):
        total = 0.0
        for inputs, targets in loader:
            loss = loss_function({"logits": head(inputs)}, targets)
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.item() * len(inputs)
    torch.optim.swa_utils.update_bn([embeddings], head)
    return total / len(embeddings)


def fit_frame_head(
    model: HEARForAudioFrameClassification,
    loader: DataLoader,
    autocast: Callable,
    num_epochs: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
) -> float:
    """
    Trains the head of a model of frames alone, in place, as `fit_head` does; the frozen model reads each clip once.

    Args:
        model (`HEARForAudioFrameClassification`): The model.
        loader (`DataLoader`): Batches with `labels` of frames or of clips. What the model makes of them is kept in
            float16: 40 MB an hour for each 100 features.
        autocast (`Callable`): Gives the context in which the model runs.
        num_epochs (`int`): Passes over the clips.
        learning_rate (`float`): The first one.
        weight_decay (`float`): Of the head's weights.
        seed (`int`): Decides the order of the batches.

    Returns:
        `float`: The mean loss of the last pass.
    """
    base_model, batches = model.base_model.eval(), []
    for batch in tqdm(loader, desc="Reading clips for the head", leave=False):
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
        labels = inputs.pop("labels")
        with autocast(), torch.no_grad():
            outputs = base_model(**inputs)
        batches.append((outputs.last_hidden_state.half(), outputs.frame_mask, labels))
    head, order = model.frame_classifier, torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_epochs * len(batches))
    for _ in range(num_epochs):
        total = 0.0
        for index in torch.randperm(len(batches), generator=order).tolist():
            hidden_states, frame_mask, labels = batches[index]
            logits = head(hidden_states.to(head.weight.dtype))
            if labels.ndim == 2:
                logits = pool_frame_logits(logits, frame_mask, model.config.frame_pooling)
            loss = binary_loss(logits, labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.item()
    return total / len(batches)
