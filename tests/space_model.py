"""What the tests of `examples/space/` share: three kinds of sound, and a tiny classifier that tells them apart."""

import numpy as np
import torch

from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioClassification
from helpers import SMALL

RATE = 16_000
LABELS = ("low", "high", "noise")


def sound(label: str, seconds: float, seed: int = 0) -> np.ndarray:
    """A low tone, a high tone or noise, over faint noise, (num_samples,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    noise = rng.normal(size=len(time))
    frequency = rng.uniform(200, 400) if label == "low" else rng.uniform(3000, 5000)
    loud = 0.1 * noise if label == "noise" else 0.3 * np.sin(2 * np.pi * frequency * time)
    return (loud + 1e-3 * noise).astype(np.float32)


def training_batch(step: int):
    """Each label four times, at any place in a clip of 0.6 s, and the labels, (12,)."""
    rng = np.random.default_rng(step)
    clips = np.zeros((4 * len(LABELS), int(0.6 * RATE)), dtype=np.float32)
    labels = np.arange(len(clips)) % len(LABELS)
    for i, clip in enumerate(clips):
        part = sound(LABELS[labels[i]], rng.uniform(0.2, 0.6), seed=1000 * step + i)
        start = rng.integers(0, len(clip) - len(part) + 1)
        clip[start : start + len(part)] = part
    return torch.from_numpy(clips), torch.from_numpy(labels)


def save_trained_classifier(folder) -> None:
    """Trains for a few seconds, and saves the model and its feature extractor."""
    torch.manual_seed(0)
    dropouts = ("hidden_dropout", "activation_dropout", "attention_dropout", "task_dropout", "classifier_dropout")
    sizes = SMALL | {"num_labels": len(LABELS), "classifier_proj_size": 64}
    config = HEARConfig(
        **sizes | dict.fromkeys(dropouts, 0.0),
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
        problem_type="single_label_classification",
    )
    model = HEARForAudioClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(50):
        clips, labels = training_batch(step)
        model(input_values=clips, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    HEARFeatureExtractor().save_pretrained(folder)
