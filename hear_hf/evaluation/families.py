"""How each kind of audio model reads clips: its inputs, how much it reads at once, and where its frames lie in time.

A model of a kind that `FAMILIES` does not list is read as a plain `Family`.
"""

from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, BatchFeature, ClapAudioConfig, PreTrainedConfig, PreTrainedModel

# Older versions know CLAP's audio half only within the whole.
AutoConfig.register("clap_audio_model", ClapAudioConfig, exist_ok=True)

Chunk = tuple[int, int, int]  # position of a clip, and its samples from start to end


class Family:
    """
    Reads whole clips, only clips of one length in a batch, and counts every frame.

    Args:
        config (`PreTrainedConfig`): Of the model.
        feature_extractor (`SequenceFeatureExtractor`): What makes the model's inputs of waveforms.
    """

    any_lengths = False  # whether clips of different lengths in one batch leave each other's states alone
    padding: bool | str = True

    def __init__(self, config: PreTrainedConfig, feature_extractor: Any):
        self.config, self.feature_extractor = config, feature_extractor
        self.sampling_rate: int = feature_extractor.sampling_rate
        self.min_samples = self.sampling_rate // 10
        self.chunk_samples: int | None = None  # the most that the model reads at once

    @staticmethod
    def encoder(model: PreTrainedModel) -> PreTrainedModel:
        """The part of a model that has the hidden states."""
        return model.get_encoder() if model.config.is_encoder_decoder else model

    def inputs(self, waveforms: list[np.ndarray], dtype: torch.dtype) -> BatchFeature:
        features = self.feature_extractor(
            waveforms, sampling_rate=self.sampling_rate, padding=self.padding, return_tensors="pt"
        )
        return features.to(dtype)

    def frames(self, outputs: Any, layer: int) -> torch.Tensor:
        """The states of the layer, counted from 0: (batch_size, num_frames, width)."""
        return outputs.hidden_states[layer]

    def num_valid_frames(self, outputs: Any, chunks: list[Chunk], num_frames: int) -> list[int]:
        """How many of the `num_frames` frames of each chunk lie within its clip."""
        return [num_frames] * len(chunks)


class Wav2Vec2Family(Family):
    """Convolutions over the waveform; trained with a mask only where each frame is normalised for itself."""

    def __init__(self, config, feature_extractor):
        super().__init__(config, feature_extractor)
        self.convolutions = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.min_samples = 1
        for kernel, stride in reversed(self.convolutions):
            self.min_samples = (self.min_samples - 1) * stride + kernel
        is_masked = config.feat_extract_norm == "layer" and feature_extractor.return_attention_mask
        # A batch norm before the positions makes something of the masked zeros.
        self.any_lengths = is_masked and not getattr(config, "conv_pos_batch_norm", False)

    def num_valid_frames(self, outputs, chunks, num_frames):
        lengths = np.array([end - start for _, start, end in chunks])
        for kernel, stride in self.convolutions:
            lengths = (lengths - kernel) // stride + 1
        return lengths.tolist()


class HEARFamily(Family):
    """HEAR and its quantizer: a mask says which frames count, and padding changes nothing."""

    any_lengths = True

    @staticmethod
    def encoder(model):
        return model.base_model  # of a pretraining checkpoint the front end and the acoustic model

    def __init__(self, config, feature_extractor):
        super().__init__(config, feature_extractor)
        self.min_samples = feature_extractor.min_num_samples

    def inputs(self, waveforms, dtype):
        return super().inputs(waveforms, torch.float32)  # its front end is exact in any dtype

    def num_valid_frames(self, outputs, chunks, num_frames):
        return outputs.frame_mask.sum(1).tolist()


class FixedLengthFamily(Family):
    """Pads each chunk to one length; the frames within the clip count."""

    any_lengths = True
    chunk_samples: int

    def num_valid_frames(self, outputs, chunks, num_frames):
        # Rounded from the clip's start, so that the frames of joined chunks stay evenly spread.
        size = self.chunk_samples / num_frames
        return [max(round(end / size), 1) - round(start / size) for _, start, end in chunks]


class WhisperFamily(FixedLengthFamily):
    """The encoder of Whisper, which reads 30 s at once unless its feature extractor says otherwise."""

    padding = "max_length"

    def __init__(self, config, feature_extractor):
        super().__init__(config, feature_extractor)
        self.min_samples, self.chunk_samples = 1, feature_extractor.n_samples


class ASTFamily(FixedLengthFamily):
    """Patches of a spectrogram of one frame each 10 ms, frequency-major, behind two class tokens."""

    def __init__(self, config, feature_extractor):
        super().__init__(config, feature_extractor)
        self.num_bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        num_steps = (config.max_length - config.patch_size) // config.time_stride + 1
        # What the patches' strides span: 10.1 s of AST's 10.24.
        self.min_samples = self.sampling_rate // 40
        self.chunk_samples = num_steps * config.time_stride * self.sampling_rate // 100

    def frames(self, outputs, layer):
        is_last = layer == len(outputs.hidden_states) - 1
        states = outputs.last_hidden_state if is_last else outputs.hidden_states[layer]  # behind the final norm
        return states[:, 2:].unflatten(1, (self.num_bands, -1)).mean(1)


class CLAPFamily(FixedLengthFamily):
    """HTSAT, a Swin transformer: the spectrogram is cut in time, and the pieces stacked to a square image."""

    def __init__(self, config, feature_extractor):
        super().__init__(config, feature_extractor)
        self.min_samples, self.chunk_samples = 1, feature_extractor.nb_max_samples
        audio_config = getattr(config, "audio_config", config)
        self.num_pieces = audio_config.spec_size // audio_config.num_mel_bins

    @staticmethod
    def encoder(model):
        return getattr(model, "audio_model", model)

    def inputs(self, waveforms, dtype):
        features = super().inputs(waveforms, dtype)
        # Where no clip is too long, the feature extractor draws one to call so.
        return BatchFeature({**features, "is_longer": torch.zeros(len(waveforms), 1, dtype=torch.bool)})

    def frames(self, outputs, layer):
        if layer == len(outputs.hidden_states) - 1:  # behind the final norm, and put together again
            return outputs.last_hidden_state.mean(2).transpose(1, 2)  # (B, D, frequency, time) -> (B, time, D)
        pieces = outputs.hidden_states[layer].unflatten(2, (self.num_pieces, -1))
        return pieces.mean(3).flatten(2).transpose(1, 2)  # (B, D, pieces, frequency, time) -> (B, pieces * time, D)


FAMILIES: dict[str, type[Family]] = {  # by model type
    **dict.fromkeys(["wav2vec2", "hubert", "wavlm"], Wav2Vec2Family),
    **dict.fromkeys(["hear", "hear_quantizer"], HEARFamily),
    "whisper": WhisperFamily,
    "audio-spectrogram-transformer": ASTFamily,
    **dict.fromkeys(["clap", "clap_audio_model"], CLAPFamily),
}


def family_of(config: PreTrainedConfig, feature_extractor: Any) -> Family:
    """How a model of this configuration reads clips."""
    return FAMILIES.get(config.model_type, Family)(config, feature_extractor)
