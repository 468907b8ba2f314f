"""HEAR as the HEAR 2021 benchmark reads models (https://hearbenchmark.com/hear-api.html):

hear-validator hear_hf.evaluation.hear21 --model checkpoints/hear-tiny
"""

import os
from os import PathLike

import torch

from .embeddings import EmbeddingModel

FIRST_FRAME_MILLISECONDS = 5.0  # a frame spans two windows that are centred at its start and 10 ms later


class HEAR2021Model(EmbeddingModel):
    """An [`EmbeddingModel`] with the attributes that the benchmark asks for."""

    @property
    def sample_rate(self) -> int:
        return self.sampling_rate

    @property
    def scene_embedding_size(self) -> int:
        return self.clip_size

    @property
    def timestamp_embedding_size(self) -> int:
        return self.frame_size


def load_model(model_file_path: str | PathLike = "") -> HEAR2021Model:
    """Loads a checkpoint: a folder or a name on the Hub, by default what the variable HEAR_MODEL names."""
    return HEAR2021Model.from_pretrained(checkpoint(model_file_path))


def checkpoint(name_or_path: str | PathLike = "") -> str | PathLike:
    """What to load, where a suite may give nothing; raises `ValueError` if there is nothing else either."""
    name = name_or_path or os.environ.get("HEAR_MODEL", "")
    if not name:
        raise ValueError("A checkpoint must be given, or named by the variable HEAR_MODEL, found neither. Set it.")
    return name


def get_scene_embeddings(audio: torch.Tensor, model: HEAR2021Model) -> torch.Tensor:
    """
    Embeds clips.

    Args:
        audio (`torch.Tensor` of shape `(n_sounds, n_samples)`): Mono, in [-1, 1], at `model.sample_rate`.
        model (`HEAR2021Model`): What `load_model` returned.

    Returns:
        `torch.Tensor` of shape `(n_sounds, scene_embedding_size)`, float32.
    """
    return model(audio).pooler_output


def get_timestamp_embeddings(audio: torch.Tensor, model: HEAR2021Model) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Embeds the frames of clips.

    Args:
        audio (`torch.Tensor` of shape `(n_sounds, n_samples)`): Mono, in [-1, 1], at `model.sample_rate`.
        model (`HEAR2021Model`): What `load_model` returned.

    Returns:
        `torch.Tensor` of shape `(n_sounds, n_timestamps, timestamp_embedding_size)`, float32, and `torch.Tensor` of
        shape `(n_sounds, n_timestamps)`: the centres of the frames in milliseconds, 20 ms apart.
    """
    embeddings = model(audio).last_hidden_state
    frames = torch.arange(embeddings.shape[1], device=embeddings.device)
    timestamps = FIRST_FRAME_MILLISECONDS + model.frame_milliseconds * frames
    return embeddings, timestamps.expand(len(embeddings), -1)
