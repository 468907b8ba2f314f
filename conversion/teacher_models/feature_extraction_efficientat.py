"""Feature extractor of EfficientAT. The spectrogram is the model's own work."""

from .feature_extraction_waveforms import WaveformFeatureExtractor


class EfficientATFeatureExtractor(WaveformFeatureExtractor):
    """Checks and pads waveforms of 32 kHz. See [`WaveformFeatureExtractor`] for the arguments."""

    default_sampling_rate = 32_000
    default_min_num_samples = 402  # half a window of 25 ms and what pre-emphasis takes


__all__ = ["EfficientATFeatureExtractor"]
