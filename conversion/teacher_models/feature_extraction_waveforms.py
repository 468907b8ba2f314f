"""Feature extractor of models that read waveforms: checks and pads clips, and makes their mask."""

import numpy as np
from transformers import BatchFeature, Wav2Vec2FeatureExtractor
from transformers.utils import is_torch_tensor

PCM_SCALE = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}


class WaveformFeatureExtractor(Wav2Vec2FeatureExtractor):
    """
    Wav2Vec2's without normalisation, and with checks of what it is given.

    Args:
        feature_size (`int`, *optional*, defaults to 1): Values per sample.
        sampling_rate (`int`, *optional*): Rate in Hz that the waveforms must have. Defaults to the model's.
        padding_value (`float`, *optional*, defaults to 0.0): Value that fills the padding. The model never reads it.
        return_attention_mask (`bool`, *optional*, defaults to `True`): Whether to return `attention_mask`.
        do_normalize (`bool`, *optional*, defaults to `False`): Whether to bring clips to mean 0 and deviation 1.
        min_num_samples (`int`, *optional*): The shortest clip that the model reads. Defaults to the model's.
    """

    default_sampling_rate: int
    default_min_num_samples: int

    def __init__(
        self,
        feature_size=1,
        sampling_rate=None,
        padding_value=0.0,
        return_attention_mask=True,
        do_normalize=False,
        min_num_samples=None,
        **kwargs,
    ):
        super().__init__(
            feature_size=feature_size,
            sampling_rate=sampling_rate or self.default_sampling_rate,
            padding_value=padding_value,
            return_attention_mask=return_attention_mask,
            do_normalize=do_normalize,
            **kwargs,
        )
        self.min_num_samples = min_num_samples or self.default_min_num_samples

    def __call__(self, raw_speech, *args, **kwargs) -> BatchFeature:
        """
        Checks one or several clips and prepares them for the model.

        Args:
            raw_speech (`np.ndarray`, `torch.Tensor`, `list[float]`, or a list of these):
                One mono clip, or a batch: a list of clips or an array of shape `(batch_size, num_samples)`. Floats in
                [-1, 1]; int16 and int32 PCM is scaled to that range.
            **kwargs: As those of [`Wav2Vec2FeatureExtractor`]: `sampling_rate`, `padding`, `return_tensors`, ...

        Returns:
            [`BatchFeature`] with `input_values` (float32) and `attention_mask` (int32), each of shape
            `(batch_size, num_samples)`.

        Raises:
            `ValueError`: A clip has another sampling rate, several channels, too few samples, or NaN or infinity.
            `TypeError`: The values are no samples.
        """
        clips = [self._as_waveform(clip, position) for position, clip in enumerate(_as_batch(raw_speech))]
        return super().__call__(clips, *args, **kwargs)

    def _as_waveform(self, clip, position: int) -> np.ndarray:
        clip = _to_numpy(clip)
        if clip.ndim != 1 or clip.size < self.min_num_samples:
            raise ValueError(
                f"Clip {position} must be mono, of shape (num_samples,) with at least {self.min_num_samples} samples, "
                f"found the shape: {clip.shape}. Average its channels, and drop clips that are too short."
            )
        if clip.dtype in PCM_SCALE:
            clip = clip / np.float32(PCM_SCALE[clip.dtype])
        elif not np.issubdtype(clip.dtype, np.floating):
            raise TypeError(
                f"Clip {position} must hold floats in [-1, 1] or int16 or int32 PCM, found: {clip.dtype}. Convert it, "
                "for example with `clip.astype('float32') / full_scale`."
            )
        num_bad = np.count_nonzero(~np.isfinite(clip))
        if num_bad:
            raise ValueError(
                f"Clip {position} must be finite, found: {num_bad} NaN or infinite of {clip.size} samples. Decode it "
                "again or drop it."
            )
        return clip.astype(np.float32, copy=False)


def _to_numpy(clip) -> np.ndarray:
    return clip.detach().cpu().numpy() if is_torch_tensor(clip) else np.asarray(clip)


def _as_batch(raw_speech) -> list:
    """A list of clips: as given, or the one clip in a list. The rows of a two-dimensional array are clips."""
    if isinstance(raw_speech, (list, tuple)) and len(raw_speech) > 0 and np.ndim(raw_speech[0]) > 0:
        return list(raw_speech)
    samples = _to_numpy(raw_speech)
    return list(samples) if samples.ndim == 2 else [samples]
