"""The models that are compared, with random weights, and how each reads a batch of clips.

Each is what a user of Transformers gets: the published base size, 50 labels, its own feature extractor and the
attention that the library chooses, with all defaults.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    HubertConfig,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    PreTrainedConfig,
    SequenceFeatureExtractor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
)

from hear_hf import (
    HEARConfig,
    HEARFeatureExtractor,
    HEARForAudioClassification,
    HEARForPreTraining,
    HEARQuantizer,
    HEARQuantizerConfig,
    share_mask,
)
from original import FrontEnd, OriginalHEAR, OriginalPretraining

SAMPLING_RATE = 16_000
NUM_LABELS = 50
MASK_PROB = 0.4


@dataclass
class Contestant:
    """
    Args:
        model (`nn.Module`): Gives logits, an output that has `logits`, or in pretraining the loss.
        extract (`Callable`): Clips -> the model's inputs on the CPU.
        reads_waveform (`bool`): Whether the inputs stay in float32, because the front end is a part of the model.
    """

    model: nn.Module
    extract: Callable[[list[np.ndarray]], dict[str, torch.Tensor]]
    reads_waveform: bool = True

    def to(self, device: str, dtype: torch.dtype) -> "Contestant":
        self.model.to(device, dtype)
        for module in self.model.modules():
            if isinstance(module, FrontEnd):
                module.float()
        return self

    def inputs(self, clips: list[np.ndarray], device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """What the model reads, on its device."""
        inputs = {name: tensor.to(device) for name, tensor in self.extract(clips).items()}
        if self.reads_waveform:
            return inputs
        return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}


def extraction(feature_extractor: SequenceFeatureExtractor):
    """Feature extraction with the extractor's defaults, and padding where clips differ in length."""

    def extract(clips: list[np.ndarray]) -> dict[str, torch.Tensor]:
        padding = {"padding": True} if len({len(clip) for clip in clips}) > 1 else {}
        rate = feature_extractor.sampling_rate
        return dict(feature_extractor(clips, sampling_rate=rate, return_tensors="pt", **padding))

    return extract


def padded(clips: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """The original's inputs: waveforms padded by zeros, and their lengths."""
    waveforms = [torch.from_numpy(clip) for clip in clips]
    return {
        "waveform": nn.utils.rnn.pad_sequence(waveforms, batch_first=True),
        "num_samples": torch.tensor([len(waveform) for waveform in waveforms]),
    }


class HEARPretraining(nn.Module):
    """Masked audio modelling, as `examples/pretrain.py` does it: waveforms -> loss."""

    def __init__(self, config: HEARConfig, quantizer_config: HEARQuantizerConfig):
        super().__init__()
        self.quantizer = HEARQuantizer(quantizer_config).requires_grad_(False)
        self.model = HEARForPreTraining(config)

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        self.quantizer.eval()
        with torch.no_grad(), torch.autocast(input_values.device.type, enabled=False):
            codes = self.quantizer(input_values, attention_mask).codes
        masked = share_mask(codes >= 0, MASK_PROB)
        return self.model(input_values, attention_mask, mask_time_indices=masked, labels=codes).loss


class LogMelCNN(nn.Module):
    """MobileNetV2 on a log-mel image of HEAR's front end, a stand-in for EfficientAT's mn10, which is as large."""

    def __init__(self, config: MobileNetV2Config):
        super().__init__()
        self.front_end, self.cnn = FrontEnd(), MobileNetV2ForImageClassification(config)

    def forward(self, waveform: torch.Tensor, num_samples: torch.Tensor) -> torch.Tensor:
        return self.cnn(self.front_end.log_mel(waveform)[:, None].to(self.cnn.dtype)).logits


def peer(config: PreTrainedConfig, feature_extractor: SequenceFeatureExtractor) -> Contestant:
    """A classifier of Transformers whose features are made outside of the model."""
    model = AutoModelForAudioClassification.from_config(config)
    return Contestant(model, extraction(feature_extractor), reads_waveform=False)


def efficientat(folder: Path) -> Contestant:
    """What conversion/convert_efficientat.py wrote: its own weights and labels, its rate of twice the others'."""
    model = AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True)
    extract = extraction(AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True))
    return Contestant(model, lambda clips: extract([np.repeat(clip, 2) for clip in clips]))


def hear() -> Contestant:
    model = HEARForAudioClassification(HEARConfig(num_labels=NUM_LABELS))
    return Contestant(model, extraction(HEARFeatureExtractor()))


def hear_pretraining() -> Contestant:
    return Contestant(HEARPretraining(HEARConfig(), HEARQuantizerConfig()), extraction(HEARFeatureExtractor()))


def original_pretraining() -> Contestant:
    model = OriginalPretraining(HEARConfig(), HEARQuantizerConfig(), MASK_PROB)
    return Contestant(model, padded)


# By name: what it is called in a table, and what builds it.
CLASSIFIERS = {
    "original": ("HEAR, original", lambda: Contestant(OriginalHEAR(HEARConfig(num_labels=NUM_LABELS)), padded)),
    "hear": ("HEAR, hear_hf", hear),
    "cnn": (
        "MobileNetV2 on log-mel",
        lambda: Contestant(LogMelCNN(MobileNetV2Config(num_channels=1, num_labels=NUM_LABELS)), padded),
    ),
    "ast": ("AST-base", lambda: peer(ASTConfig(num_labels=NUM_LABELS), ASTFeatureExtractor())),
    "wav2vec2": ("Wav2Vec2-base", lambda: peer(Wav2Vec2Config(num_labels=NUM_LABELS), Wav2Vec2FeatureExtractor())),
    "hubert": ("HuBERT-base", lambda: peer(HubertConfig(num_labels=NUM_LABELS), Wav2Vec2FeatureExtractor())),
    "wavlm": ("WavLM-base", lambda: peer(WavLMConfig(num_labels=NUM_LABELS), Wav2Vec2FeatureExtractor())),
}
PRETRAINERS = {
    "original": ("HEAR, original", original_pretraining),
    "hear": ("HEAR, hear_hf", hear_pretraining),
}
