"""Small models and clips that several test files share."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from golden import golden_model
from hear_hf import HEARConfig, HEARForAudioClassification

# The small model of `fixtures/`. The sizes all differ, so that no two can be taken for one another.
SMALL = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "window_length": 30,
    "window_overlap": 6,
    "task_hidden_size": 56,
    "task_intermediate_size": 112,
    "max_position_embeddings": 150,
    "classifier_proj_size": 20,
    "num_labels": 7,
}

SOUND_LABELS = {i: f"sound {i}" for i in range(5)}  # of the teacher of sounds in the tests of distillation


def small_model(**changes) -> HEARForAudioClassification:
    return golden_model(**SMALL | changes)


def linear_model(**changes) -> HEARForAudioClassification:
    """The small model with a linear head, whose weights are drawn."""
    model = HEARForAudioClassification(HEARConfig(**SMALL | {"classifier_proj_size": None} | changes))
    model.hear.load_state_dict(small_model().hear.state_dict())
    head = model.classifier.out_proj
    head.weight.data = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0))
    return model.eval()


def noise(num_samples: int, seed: int = 0) -> torch.Tensor:
    """A clip of noise whose loudness drifts, (num_samples,)."""
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.linspace(0.02, 0.3, num_samples) * (1 + seed % 3)
    return torch.randn(num_samples, generator=generator) * loudness


def write_tone(path: Path, frequency: float, seconds: float = 0.3, seed: int = 0) -> None:
    """A file of a tone in a little noise, at 16 kHz."""
    time = np.arange(int(seconds * 16_000)) / 16_000
    hiss = np.random.default_rng(seed).normal(size=len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * time) + 0.01 * hiss, 16_000)


def samples_of(num_frames: int) -> int:
    """The fewest samples that make so many encoder frames at 16 kHz."""
    return 320 * num_frames - 160


def ragged_batch(clips: list[torch.Tensor], side: str = "right", fill: float | str = "noise"):
    """Pads clips to the longest, with huge noise or another `fill`: waveforms and mask, (batch_size, num_samples)."""
    length = max(len(clip) for clip in clips)
    generator = torch.Generator().manual_seed(1)
    waveform = 1e4 * torch.randn(len(clips), length, generator=generator)
    if fill != "noise":
        waveform.fill_(fill)
    mask = torch.zeros(len(clips), length, dtype=torch.long)
    for row, clip in enumerate(clips):
        place = slice(length - len(clip), length) if side == "left" else slice(0, len(clip))
        waveform[row, place], mask[row, place] = clip, 1
    return waveform, mask


def save_wav2vec2(folder: Path) -> None:
    """A small random Wav2Vec2 of 25 frames a second, 20 wide, with its feature extractor."""
    config = Wav2Vec2Config(
        hidden_size=20,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8, 8),
        conv_kernel=(10, 4),
        conv_stride=(40, 16),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
