"""Configuration of Google's speech_embedding (arXiv:2002.01322)."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

NUM_STAGES = 5
MAX_SIZE = 2**14  # a config file from elsewhere must not reserve terabytes

# Every saved folder names every class, whichever of them saved it.
AUTO_MAP = {
    "AutoConfig": "configuration_speech_embedding.SpeechEmbeddingConfig",
    "AutoFeatureExtractor": "feature_extraction_speech_embedding.SpeechEmbeddingFeatureExtractor",
    "AutoModel": "modeling_speech_embedding.SpeechEmbeddingModel",
}


@strict
class SpeechEmbeddingConfig(PreTrainedConfig):
    r"""
    Configuration of a [`SpeechEmbeddingModel`]. The defaults give the published model, of 328,224 parameters.

    The shape of the network is fixed: its 20 convolutions see windows of 76 spectrogram frames and make of the 32 mel
    bins one.

    Args:
        conv_dim (`list[int]`, *optional*, defaults to `[24, 48, 72, 96, 96]`):
            Widths of the five stages.
        hidden_size (`int`, *optional*, defaults to 96):
            Width of the embedding.
    """

    model_type = "speech_embedding"

    conv_dim: list[int] | tuple[int, ...] = (24, 48, 72, 96, 96)
    hidden_size: int = 96

    sampling_rate = 16_000  # Hz
    num_mel_bins = 32
    n_fft = 512
    win_length = 400  # 25 ms
    hop_length = 160  # 10 ms
    window_frames = 76  # that one vector of the output sees
    time_stride = 8  # of three poolings
    min_num_samples = 400  # shorter than a window of the network, a clip is followed by silence

    def __post_init__(self, **kwargs):
        kwargs["auto_map"] = AUTO_MAP | (kwargs.get("auto_map") or {})
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Part of `@strict`-powered validation: sizes that cannot go together are refused."""
        sizes = [*self.conv_dim, self.hidden_size]
        if len(self.conv_dim) != NUM_STAGES or not all(0 < size <= MAX_SIZE for size in sizes):
            raise ValueError(
                f"`conv_dim` must hold {NUM_STAGES} widths, and each and `hidden_size` must be positive and at most "
                f"{MAX_SIZE}, found: conv_dim={self.conv_dim} and hidden_size={self.hidden_size}"
            )

    @property
    def window_samples(self) -> int:
        """Samples that one vector of the output sees, 0.78 s."""
        return (self.window_frames - 1) * self.hop_length + self.n_fft

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples between two vectors of the output, 80 ms."""
        return self.time_stride * self.hop_length

    @property
    def first_frame_center(self) -> int:
        """Sample at which the first vector of the output is centred, 0.39 s."""
        return self.window_samples // 2


__all__ = ["SpeechEmbeddingConfig"]
