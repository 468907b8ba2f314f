"""Hidden states of a frozen audio model of Transformers, as frames in time: to distil from, or to probe.

Any layer of any such model, from a clip of any rate and length:

    encoder = FrozenEncoder("facebook/wav2vec2-base", layer=6)
    states = encoder([clip], sampling_rate=44_100)[0]  # (num_frames, hidden_size)
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import soxr
import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    BatchFeature,
    ClapAudioConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

import hear_hf  # noqa: F401  (so that the Auto classes know HEAR)

# Older versions know CLAP's audio half only within the whole.
AutoConfig.register("clap_audio_model", ClapAudioConfig, exist_ok=True)

Chunk = tuple[int, int, int]  # position of a clip, and its samples from start to end


class Family:
    """How a kind of model reads clips. As here: whole, only clips of one length in a batch, and every frame counts."""

    any_lengths = False  # whether clips of different lengths in one batch leave each other's states alone
    padding: bool | str = True

    def __init__(self, config, feature_extractor):
        self.config, self.feature_extractor = config, feature_extractor
        self.sampling_rate = feature_extractor.sampling_rate
        self.min_samples = self.sampling_rate // 10
        self.chunk_samples: int | None = None  # the most that the model reads at once

    @staticmethod
    def encoder(model: PreTrainedModel) -> nn.Module:
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
    """Models that pad each chunk to one length: of their frames those within the clip count."""

    any_lengths = True

    def num_valid_frames(self, outputs, chunks, num_frames):
        # Rounded from the clip's start, so that the frames of joined chunks stay evenly spread.
        size = self.chunk_samples / num_frames
        return [max(round(end / size), 1) - round(start / size) for _, start, end in chunks]


class WhisperFamily(FixedLengthFamily):
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


FAMILIES: dict[str, type[Family]] = {
    **dict.fromkeys(["wav2vec2", "hubert", "wavlm"], Wav2Vec2Family),
    **dict.fromkeys(["hear", "hear_quantizer"], HEARFamily),
    "whisper": WhisperFamily,
    "audio-spectrogram-transformer": ASTFamily,
    **dict.fromkeys(["clap", "clap_audio_model"], CLAPFamily),
}


def model_class(config: PreTrainedConfig) -> type:
    """What loads the weights that a checkpoint of this configuration holds, and no random ones beside them."""
    architecture = (config.architectures or [""])[0]
    if config.model_type == "clap_audio_model":  # which no version's AutoModel knows
        return getattr(transformers, architecture)
    return AutoModelForPreTraining if architecture == "HEARForPreTraining" else AutoModel


class FrozenEncoder:
    """
    A frozen audio model: clips in, the hidden states of a layer out. A clip's states do not depend on its batch.

    Args:
        name_or_path (`str`):
            A checkpoint of the Hub or a folder: Wav2Vec2, HuBERT, WavLM, Whisper (its encoder), AST, CLAP (its audio
            half), HEAR and its quantizer, or another model whose feature extractor reads waveforms and whose
            `hidden_states` have shape `(batch_size, num_frames, width)`.
        layer (`int`, *optional*, defaults to -1):
            Index into `hidden_states`: 0 is what enters the first layer, -1 the output, behind the final norm if any.
        device (`str` or `torch.device`, *optional*): Where the model runs. Defaults to a GPU where there is one.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Of the weights; the states are float32.
        revision (`str`, *optional*, defaults to `"main"`): Branch, tag or commit on the Hub.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Whether to run code that the checkpoint brings.

    Attributes: `sampling_rate` in Hz, `hidden_size` (the width of the layer's states), `num_hidden_states`.

    Raises:
        `ValueError`: It is no audio model with hidden states, its weights are missing, or it has no such layer.
    """

    def __init__(self, name_or_path, layer=-1, device=None, dtype=None, revision="main", trust_remote_code=False):
        source = {"revision": revision, "trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(name_or_path, **source)
        try:
            feature_extractor = AutoFeatureExtractor.from_pretrained(name_or_path, **source)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{name_or_path} must be an audio model saved with its feature extractor, found none: {error}"
            ) from error
        model, info = model_class(config).from_pretrained(
            name_or_path, config=config, dtype=dtype or torch.float32, output_loading_info=True, **source
        )
        self._set_up(model, feature_extractor, layer, device, str(name_or_path), set(info["missing_keys"]))

    @classmethod
    def from_model(cls, model: PreTrainedModel, feature_extractor, layer=-1, device=None) -> "FrozenEncoder":
        """The same of a model at hand, which is frozen in place, and the feature extractor that belongs to it."""
        encoder = cls.__new__(cls)
        encoder._set_up(model, feature_extractor, layer, device, type(model).__name__)
        return encoder

    def _set_up(self, model, feature_extractor, layer, device, name, missing_keys=frozenset()):
        self.family = FAMILIES.get(model.config.model_type, Family)(model.config, feature_extractor)
        self.sampling_rate, self.layer = feature_extractor.sampling_rate, layer
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = self.family.encoder(model).to(self.device).eval().requires_grad_(False)
        _check_weights(model, self.model, missing_keys, name)
        try:
            outputs = self._forward([np.zeros(self.family.min_samples, dtype=np.float32)])
            num_layers = len(outputs.hidden_states)
            shapes = [tuple(self.family.frames(outputs, index).shape) for index in range(num_layers)]
        except (AttributeError, TypeError) as error:
            raise ValueError(
                f"{name} must return `hidden_states`, found that {type(self.model).__name__} does not: {error}"
            ) from error
        self.num_hidden_states = num_layers
        if not -num_layers <= layer < num_layers:
            raise ValueError(
                f"`layer` must be an index into the {num_layers} hidden states of {name}, from {-num_layers} to "
                f"{num_layers - 1}, found: {layer}."
            )
        if len(shapes[layer]) != 3:
            raise ValueError(
                f"The hidden states of {name} must have shape (batch_size, num_frames, width), found: {shapes[layer]}."
            )
        self.hidden_size = shapes[layer][-1]

    @torch.no_grad()
    def _forward(self, waveforms: list[np.ndarray]):
        inputs = self.family.inputs(waveforms, self.model.dtype).to(self.device)
        return self.model(**inputs, output_hidden_states=True)

    def __call__(self, waveforms: list[np.ndarray], sampling_rate: int) -> list[torch.Tensor]:
        """
        Reads clips.

        Args:
            waveforms (`list[np.ndarray]`): Mono clips of shape `(num_samples,)`, floats in [-1, 1], of any lengths.
            sampling_rate (`int`): Their rate in Hz; another than the model's is resampled.

        Returns:
            `list[torch.Tensor]`: Of each clip `(num_frames, hidden_size)`, float32 on the model's device and without
            gradient: frames evenly spread over the clip, at least one.

        Raises:
            `ValueError`: A clip is empty, not mono, not floating or not finite.
        """
        return [states for (states,) in self.hidden_states(waveforms, sampling_rate, [self.layer])]

    @torch.no_grad()
    def hidden_states(
        self, waveforms: list[np.ndarray], sampling_rate: int, layers: Sequence[int]
    ) -> list[list[torch.Tensor]]:
        """The same for several layers in one pass: of each clip a list, one tensor a layer."""
        clips = [self._prepare(clip, sampling_rate, position) for position, clip in enumerate(waveforms)]
        pieces = defaultdict(list)  # (clip, layer) -> the states of its chunks
        for batch in self._batches([len(clip) for clip in clips]):
            outputs = self._forward([clips[clip][start:end] for clip, start, end in batch])
            for layer in set(layers):
                index = range(self.num_hidden_states)[layer]
                states = self.family.frames(outputs, index).float()  # (B, n, D)
                counts = self.family.num_valid_frames(outputs, batch, states.shape[1])
                for (clip, *_), count, rows in zip(batch, counts, states, strict=True):
                    pieces[clip, layer].append(rows[:count])
        return [[torch.cat(pieces[clip, layer]) for layer in layers] for clip in range(len(clips))]

    def _prepare(self, clip: np.ndarray, sampling_rate: int, position: int) -> np.ndarray:
        """At the model's rate, and with silence up to the least that it reads."""
        clip = np.asarray(clip)
        if clip.ndim != 1 or clip.size == 0 or clip.dtype.kind != "f" or not np.isfinite(clip).all():
            raise ValueError(
                f"Clip {position} must hold finite floats of shape (num_samples,), found: shape {clip.shape}, dtype "
                f"{clip.dtype}, sum {clip.sum()}. Decode it with `decode_audio`."
            )
        if sampling_rate != self.sampling_rate:
            clip = soxr.resample(clip, sampling_rate, self.sampling_rate)
        return np.pad(clip.astype(np.float32), (0, max(self.family.min_samples - len(clip), 0)))

    def _batches(self, lengths: list[int]) -> Iterable[list[Chunk]]:
        size = self.family.chunk_samples or max(lengths, default=0)
        batches = defaultdict(list)
        for clip, length in enumerate(lengths):
            for start in range(0, length - self.family.min_samples + 1, size):
                end = min(start + size, length)
                batches[None if self.family.any_lengths else end - start].append((clip, start, end))
        return batches.values()


def _check_weights(model: PreTrainedModel, encoder: nn.Module, missing_keys: set[str], name: str) -> None:
    """Refuses an encoder most of whose weights were not in the checkpoint, and so are random."""
    used = {id(parameter) for parameter in encoder.parameters()}
    missing = [key for key, value in model.named_parameters() if key in missing_keys and id(value) in used]
    if 2 * len(missing) > len(used):
        raise ValueError(
            f"{name} must hold the weights of {type(model).__name__}, found {len(missing)} of {len(used)} missing, "
            f"first {missing[0]}. Save the model anew with `save_pretrained`."
        )
