"""Hidden states of a frozen audio model of Transformers, as frames in time: to distil from, or to probe.

Any layer of any such model, from a clip of any rate and length:

    encoder = FrozenEncoder.from_pretrained("facebook/wav2vec2-base", layer=6)
    states = encoder([clip], sampling_rate=44_100)[0]  # (num_frames, hidden_size)
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
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
    PreTrainedConfig,
    PreTrainedModel,
)

from ..rates import check_rates
from .families import Chunk, family_of


class FrozenEncoder:
    """
    A frozen audio model: clips in, the hidden states of a layer out. A clip's states do not depend on its batch.

    Args:
        model (`PreTrainedModel`):
            Wav2Vec2, HuBERT, WavLM, Whisper (its encoder), AST, CLAP (its audio half), HEAR and its quantizer, or
            another model whose `hidden_states` have shape `(batch_size, num_frames, width)`. It is frozen in place.
        feature_extractor (`SequenceFeatureExtractor`): The one that belongs to the model; it must read waveforms.
        layer (`int`, *optional*, defaults to -1):
            Index into `hidden_states`: 0 is what enters the first layer, -1 the output, behind the final norm if any.
        device (`str` or `torch.device`, *optional*): Where the model runs. Defaults to a GPU where there is one.

    Attributes: `sampling_rate` in Hz, `hidden_size` (the width of the layer's states), `num_hidden_states`.

    Raises:
        `ValueError`: The model has no such hidden states, or no such layer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        feature_extractor: Any,
        layer: int = -1,
        device: str | torch.device | None = None,
    ):
        name = model.name_or_path or type(model).__name__
        check_rates(name, model.config, feature_extractor)
        self.family = family_of(model.config, feature_extractor)
        self.sampling_rate, self.layer = self.family.sampling_rate, layer
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        encoder: Any = self.family.encoder(model)
        self.model: PreTrainedModel = encoder.to(self.device).eval().requires_grad_(False)

        shapes = self._shapes(name)
        self.num_hidden_states = len(shapes)
        if not -len(shapes) <= layer < len(shapes):
            raise ValueError(
                f"`layer` must be an index into the {len(shapes)} hidden states of {name}, from {-len(shapes)} to "
                f"{len(shapes) - 1}, found: {layer}."
            )
        if len(shapes[layer]) != 3:
            raise ValueError(
                f"The hidden states of {name} must have shape (batch_size, num_frames, width), found: {shapes[layer]}."
            )
        self.hidden_size = shapes[layer][-1]

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | PathLike,
        layer: int = -1,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        revision: str = "main",
        trust_remote_code: bool = False,
    ) -> "FrozenEncoder":
        """
        Loads a checkpoint with its feature extractor.

        Args:
            name_or_path (`str` or `PathLike`): A checkpoint of the Hub or a folder.
            layer (`int`, *optional*, defaults to -1): Index into the model's `hidden_states`.
            device (`str` or `torch.device`, *optional*): Where it runs. Defaults to a GPU where there is one.
            dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Of the weights; the states are float32.
            revision (`str`, *optional*, defaults to `"main"`): Branch, tag or commit on the Hub.
            trust_remote_code (`bool`, *optional*, defaults to `False`): Whether to run code that the checkpoint
                brings.

        Raises:
            `ValueError`: It is no audio model with hidden states, its weights are missing, or it has no such layer.
        """
        source = {"revision": revision, "trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(name_or_path, **source)
        try:
            feature_extractor = AutoFeatureExtractor.from_pretrained(name_or_path, **source)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{name_or_path} must be an audio model saved with its feature extractor, found none: {error}"
            ) from error
        model, info = model_class(config).from_pretrained(
            name_or_path, config=config, dtype=dtype, output_loading_info=True, **source
        )
        encoder = cls(model, feature_extractor, layer, device)
        check_weights(model, encoder.model, set(info["missing_keys"]))
        return encoder

    def _shapes(self, name: str) -> list[tuple[int, ...]]:
        """The shape of each hidden state of the shortest clip."""
        try:
            outputs = self._forward([np.zeros(self.family.min_samples, dtype=np.float32)])
            return [tuple(self.family.frames(outputs, index).shape) for index in range(len(outputs.hidden_states))]
        except (AttributeError, TypeError) as error:
            raise ValueError(
                f"{name} must return `hidden_states`, found that {type(self.model).__name__} does not: {error}"
            ) from error

    @torch.no_grad()
    def _forward(self, waveforms: list[np.ndarray]):
        inputs = self.family.inputs(waveforms, self.model.dtype).to(self.device)
        return self.model(**inputs, output_hidden_states=True)

    def __call__(self, waveforms: list[np.ndarray], sampling_rate: int) -> list[torch.Tensor]:
        """
        Reads clips.

        Args:
            waveforms (`list[np.ndarray]`): Mono clips of shape `(num_samples,)`, floats in [-1, 1], of any lengths.
            sampling_rate (`int`): Their rate in Hz. Clips of another rate than the model's are resampled.

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
        """Reads clips as a call does, for several layers in one pass: a list per clip, with a tensor per layer."""
        pieces: dict[tuple[int, int], list[torch.Tensor]] = defaultdict(list)  # (clip, layer) -> of its chunks
        for batch, outputs in self.outputs(waveforms, sampling_rate):
            for layer in set(layers):
                for (clip, *_), rows in zip(batch, self.valid_frames(outputs, batch, layer), strict=True):
                    pieces[clip, layer].append(rows)
        return [[torch.cat(pieces[clip, layer]) for layer in layers] for clip in range(len(waveforms))]

    def outputs(self, waveforms: list[np.ndarray], sampling_rate: int) -> Iterator[tuple[list[Chunk], Any]]:
        """Yields the model's outputs for each batch of chunks that it can read together."""
        clips = [self._prepare(clip, sampling_rate, position) for position, clip in enumerate(waveforms)]
        for batch in self._batches([len(clip) for clip in clips]):
            yield batch, self._forward([clips[clip][start:end] for clip, start, end in batch])

    def valid_frames(self, outputs: Any, batch: list[Chunk], layer: int) -> list[torch.Tensor]:
        """Returns the states of a layer within each chunk, (num_frames, hidden_size), in float32."""
        states = self.family.frames(outputs, range(self.num_hidden_states)[layer]).float()  # (B, n, D)
        counts = self.family.num_valid_frames(outputs, batch, states.shape[1])
        return [rows[:count] for count, rows in zip(counts, states, strict=True)]

    def _prepare(self, clip: np.ndarray, sampling_rate: int, position: int) -> np.ndarray:
        """Checks a clip, brings it to the model's rate, and fills it with silence up to the least that it reads."""
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
        """Cuts clips into the chunks that the model reads, and joins to a batch what it can read together."""
        size = self.family.chunk_samples or max(lengths, default=0)
        batches: dict[int | None, list[Chunk]] = defaultdict(list)
        for clip, length in enumerate(lengths):
            for start in range(0, length - self.family.min_samples + 1, size):
                end = min(start + size, length)
                batches[None if self.family.any_lengths else end - start].append((clip, start, end))
        return batches.values()


def model_class(config: PreTrainedConfig) -> Any:
    """What loads the weights that a checkpoint of this configuration holds, and no random ones beside them."""
    architecture = (config.architectures or [""])[0]
    if config.model_type == "clap_audio_model":  # which no version's AutoModel knows
        return getattr(transformers, architecture)
    return AutoModelForPreTraining if architecture == "HEARForPreTraining" else AutoModel


def check_weights(model: PreTrainedModel, encoder: nn.Module, missing_keys: set[str], most: bool = True) -> None:
    """Refuses an encoder whose weights, most or else any of them, were not in the checkpoint, and so are random."""
    used = {id(parameter) for parameter in encoder.parameters()}
    missing = [key for key, value in model.named_parameters() if key in missing_keys and id(value) in used]
    if len(missing) > (len(used) / 2 if most else 0):
        raise ValueError(
            f"{model.name_or_path} must hold the weights of {type(model).__name__}, found {len(missing)} of "
            f"{len(used)} missing, first {missing[0]}. Save the model again with `save_pretrained`."
        )
