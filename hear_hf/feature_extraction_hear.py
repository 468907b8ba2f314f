"""Feature extractor of HEAR: checks and pads waveforms, and makes their mask. The model computes the spectra."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import PaddingStrategy, TensorType, is_torch_tensor, logging

from .configuration_hear import MAX_SIZES, MEL_SAMPLING_RATE
from .sentence_transformers_hear import FILES  # noqa: F401  (Transformers 5.4 copies only files imported here)

logger = logging.get_logger(__name__)

PCM_SCALE = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}
# No format of samples goes beyond, scaled or not; their power, of 1e38 at most, is still a float32.
MAX_PEAK = 2.0**31
MAX_CHANNELS = 8  # so few columns of many rows are channels, not samples


class HEARFeatureExtractor(SequenceFeatureExtractor):
    r"""
    Constructs a HEAR feature extractor.

    It inherits from [`~feature_extraction_sequence_utils.SequenceFeatureExtractor`], which holds most of the methods.

    Args:
        feature_size (`int`, *optional*, defaults to 1):
            Values per sample. HEAR reads mono waveforms, so 1.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Rate in Hz that the waveforms must have: that of the model, from 16000 to 768000.
        padding_value (`float`, *optional*, defaults to 0.0):
            Value that fills the padding. The model never reads it.
        return_attention_mask (`bool`, *optional*, defaults to `True`):
            Whether [`~HEARFeatureExtractor.__call__`] returns `attention_mask`.
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        return_attention_mask: bool = True,
        **kwargs,
    ):
        is_whole = isinstance(sampling_rate, int | np.integer)
        if not is_whole or not MEL_SAMPLING_RATE <= sampling_rate <= MAX_SIZES["sampling_rate"]:
            raise ValueError(
                f"`sampling_rate` must be from {MEL_SAMPLING_RATE} to {MAX_SIZES['sampling_rate']} Hz, found: "
                f"{sampling_rate!r}. Give the model's, `config.sampling_rate`."
            )
        super().__init__(
            feature_size=feature_size,
            sampling_rate=sampling_rate,
            padding_value=padding_value,
            return_attention_mask=return_attention_mask,
            **kwargs,
        )

    @property
    def min_num_samples(self) -> int:
        """Length of the shortest clip that can be mirrored at its ends: half a window of 25 ms and a sample."""
        return self.sampling_rate // 80 + 1  # 201 samples at 16 kHz

    def __call__(
        self,
        raw_speech: ArrayLike,
        padding: bool | str | PaddingStrategy = False,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | TensorType | None = None,
        sampling_rate: int | None = None,
        **kwargs,
    ) -> BatchFeature:
        """
        Checks one or several clips and prepares them for the model.

        Args:
            raw_speech (`np.ndarray`, `torch.Tensor`, `list[float]`, `dict`, or a list of these):
                One mono clip, or a batch: a list of clips or an array of shape `(batch_size, num_samples)`. The rows
                of an array are clips, never channels: average these first. Floats in [-1, 1]; int16 and int32 PCM is
                scaled to that range. A dictionary holds `array` (or `raw`) and its `sampling_rate`, as for a pipeline.
            padding (`bool`, `str` or [`~utils.PaddingStrategy`], *optional*, defaults to `False`):
                `True` or `"longest"` pads to the longest clip of the batch, `"max_length"` to `max_length`, `False`
                or `"do_not_pad"` not at all.
            max_length (`int`, *optional*):
                Length in samples to pad or truncate to.
            truncation (`bool`, *optional*, defaults to `False`):
                Whether to cut longer clips to `max_length`.
            pad_to_multiple_of (`int`, *optional*):
                Pads to a multiple of this many samples.
            return_attention_mask (`bool`, *optional*):
                Whether to return the mask (1 = real sample). Defaults to the extractor's own setting.
            return_tensors (`str` or [`~utils.TensorType`], *optional*):
                `"pt"` for `torch.Tensor`, `"np"` for `np.ndarray`.
            sampling_rate (`int`, *optional*):
                Rate in Hz of `raw_speech`. Pass it: a clip of another rate is then refused instead of misread.

        Returns:
            [`BatchFeature`] with `input_values` (float32) and `attention_mask` (int32), each of shape
            `(batch_size, num_samples)`.

        Raises:
            `ValueError`: for another sampling rate, an empty or too short clip, NaN, infinity or values beyond 2**31,
                several channels.
            `TypeError`: for values that are not samples (text, bytes, booleans, int64, ...), and a rate that is text.
        """
        if sampling_rate is not None:
            self._check_sampling_rate(sampling_rate)
        clips = []
        for position, clip in enumerate(_as_batch(raw_speech)):
            array, rate = _array_and_rate(clip, sampling_rate)
            self._check_sampling_rate(rate)
            clips.append(self._as_waveform(array, f"Clip {position}"))
        features = self.pad(
            BatchFeature({"input_values": clips}),
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=return_attention_mask,
        )
        return features if return_tensors is None else features.convert_to_tensors(return_tensors)

    def _check_sampling_rate(self, sampling_rate: int | str | None) -> None:
        if sampling_rate is None:
            logger.warning_once(
                f"It is strongly recommended to pass `sampling_rate` to `{self.__class__.__name__}()`: a clip of "
                f"another rate than {self.sampling_rate} Hz is then refused instead of misread."
            )
        elif isinstance(sampling_rate, str):
            raise TypeError(
                f"`sampling_rate` must be a number of Hz, found the text {sampling_rate!r}. Pass it through `int()`."
            )
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"`sampling_rate` must be {self.sampling_rate} Hz, the rate this model was trained with, found: "
                f"{sampling_rate} Hz. Resample with `soxr.resample(clip, {sampling_rate}, {self.sampling_rate})`, "
                f"or a whole dataset with `cast_column('audio', datasets.Audio(sampling_rate={self.sampling_rate}))`."
            )

    def _as_waveform(self, clip: Any, name: str) -> np.ndarray:
        if _is_bytes(clip):
            raise TypeError(
                f"{name} must be an array of numbers, found: {type(clip).__name__}. Say what they hold, for example "
                "with `np.frombuffer(block, dtype='<i2')` for int16 PCM."
            )
        try:
            clip = _to_numpy(clip)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} must be an array of numbers, found: {type(clip).__name__}.") from error
        if clip.ndim > 1:
            raise ValueError(
                f"{name} must be mono, of shape (num_samples,), found: {clip.shape}. Average its channels "
                "first, for example with `clip.mean(axis=channel_axis)`."
            )
        if clip.ndim == 0 or clip.size == 0:
            raise ValueError(f"{name} must hold samples, found: an empty array or a single number.")
        full_scale = PCM_SCALE.get(clip.dtype.newbyteorder("="))
        if full_scale is not None:
            clip = clip / np.float32(full_scale)
        elif not np.issubdtype(clip.dtype, np.floating):
            raise TypeError(
                f"{name} must hold floats in [-1, 1] or int16 or int32 PCM, found: {clip.dtype}. Convert it, "
                "for example with `clip.astype('float32') / full_scale`."
            )
        if clip.size < self.min_num_samples:
            raise ValueError(
                f"{name} must hold at least {self.min_num_samples} samples "
                f"({1000 * self.min_num_samples / self.sampling_rate:.1f} ms), found: {clip.size}. Drop it or join it "
                "with its neighbours; padding would be taken for silence."
            )
        if not np.isfinite(clip).all():
            raise ValueError(
                f"{name} must be finite, found: {np.count_nonzero(~np.isfinite(clip))} NaN or infinite of "
                f"{clip.size} samples. Decode it again or drop it."
            )
        if (peak := float(max(clip.max(), -clip.min()))) > MAX_PEAK:
            raise ValueError(
                f"{name} must hold floats in [-1, 1], found: a peak of {peak:.3g}, beyond any samples. Decode it "
                "again or drop it."
            )
        return clip.astype(np.float32, copy=False)


def _to_numpy(clip) -> np.ndarray:
    if not is_torch_tensor(clip):
        return np.asarray(clip)
    clip = clip.detach().cpu()
    return (clip.float() if clip.is_floating_point() else clip).numpy()  # NumPy has no bfloat16


def _is_bytes(clip: Any) -> bool:
    return isinstance(clip, bytes | bytearray) or (isinstance(clip, memoryview) and clip.format in ("B", "b", "c"))


def _array_and_rate(clip: Any, sampling_rate: int | None) -> tuple[Any, int | None]:
    """What a dictionary holds of a clip; of anything else itself, at the rate given for all clips."""
    if not isinstance(clip, Mapping):
        return clip, sampling_rate
    array = clip.get("array", clip.get("raw"))
    if array is None:
        raise TypeError(
            f"A clip must be an array of numbers, or a dictionary of `array` and `sampling_rate`, found a dict of: "
            f"{list(clip)}. Decode it first."
        )
    return array, clip.get("sampling_rate", sampling_rate)


def _as_batch(raw_speech) -> list:
    """Lists the clips: those given, or the only one. The rows of a two-dimensional array are clips."""
    if isinstance(raw_speech, np.ndarray) or is_torch_tensor(raw_speech):
        if raw_speech.ndim > 2:
            raise ValueError(
                f"`raw_speech` must be a mono clip or a batch of them, of shape (num_samples,) or (batch_size, "
                f"num_samples), found: {tuple(raw_speech.shape)}. Average the channels first."
            )
        if raw_speech.ndim == 2 and raw_speech.shape[1] <= MAX_CHANNELS < raw_speech.shape[0]:
            raise ValueError(
                f"The rows of `raw_speech` must be mono clips, of shape (batch_size, num_samples), found: "
                f"{tuple(raw_speech.shape)}, whose columns are channels. Average them first, with "
                "`raw_speech.mean(axis=1)`."
            )
        clips = list(raw_speech) if raw_speech.ndim == 2 else [raw_speech]
    elif isinstance(raw_speech, (list, tuple)):
        first = raw_speech[0] if len(raw_speech) else 0.0
        is_batched = isinstance(first, Mapping) or _is_bytes(first) or is_torch_tensor(first) or np.ndim(first) > 0
        clips = list(raw_speech) if is_batched else [raw_speech]
    elif isinstance(raw_speech, Mapping) or _is_bytes(raw_speech):
        clips = [raw_speech]
    else:
        raise TypeError(
            "`raw_speech` must be an array, a tensor, a list of floats or a list of these, found: "
            f"{type(raw_speech).__name__}."
        )
    if len(clips) == 0:
        raise ValueError("`raw_speech` must hold at least one clip, found: none.")
    return clips


__all__ = ["HEARFeatureExtractor"]
