"""Clips and tiny teachers for the tests of distillation."""

import numpy as np
import pytest
import soundfile
import torch

from helpers import SOUND_LABELS
from teacher_models import (
    EfficientATConfig,
    EfficientATFeatureExtractor,
    EfficientATForAudioClassification,
    SpeechEmbeddingConfig,
    SpeechEmbeddingFeatureExtractor,
    SpeechEmbeddingModel,
)

SAMPLING_RATE = 16_000


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder of sixteen tones in noise, 0.3 to 0.9 s long."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for i in range(16):
        time = np.arange(SAMPLING_RATE * (6 + 12 * i // 15) // 20) / SAMPLING_RATE
        tone = 0.3 * np.sin(2 * np.pi * 200 * (1 + i % 4) * time) + 0.03 * rng.standard_normal(len(time))
        soundfile.write(folder / f"{i:02}.wav", tone, SAMPLING_RATE)
    return folder


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    """The folder of a tiny EfficientAT: 32 kHz, five labels, any number of them per clip."""
    folder = tmp_path_factory.mktemp("teachers") / "sounds"
    torch.manual_seed(1)
    config = EfficientATConfig(
        width_mult=0.1, num_mel_bins=32, id2label=SOUND_LABELS, label2id={name: i for i, name in SOUND_LABELS.items()}
    )
    config.problem_type = "multi_label_classification"
    model = EfficientATForAudioClassification(config)
    model.classifier.apply(
        lambda module: torch.nn.init.normal_(module.weight, std=0.3) if hasattr(module, "weight") else 0
    )
    model.save_pretrained(folder)
    EfficientATFeatureExtractor().save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n\n# Sounds\n")
    return folder


@pytest.fixture(scope="session")
def words(tmp_path_factory):
    """The folder of a tiny speech_embedding: 16 kHz, no labels, a vector per 80 ms from 0.39 s on."""
    folder = tmp_path_factory.mktemp("teachers") / "words"
    torch.manual_seed(2)
    SpeechEmbeddingModel(SpeechEmbeddingConfig(conv_dim=[4, 4, 8, 8, 8], hidden_size=12)).save_pretrained(folder)
    SpeechEmbeddingFeatureExtractor().save_pretrained(folder)
    return folder
