"""Feature extractor of speech_embedding. The spectrogram is the model's own work."""

from .feature_extraction_waveforms import WaveformFeatureExtractor


class SpeechEmbeddingFeatureExtractor(WaveformFeatureExtractor):
    """Checks and pads waveforms of 16 kHz. See [`WaveformFeatureExtractor`] for the arguments."""

    default_sampling_rate = 16_000
    default_min_num_samples = 400  # a window of 25 ms


__all__ = ["SpeechEmbeddingFeatureExtractor"]
