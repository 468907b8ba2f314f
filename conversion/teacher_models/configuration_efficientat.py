"""Configuration of EfficientAT (arXiv:2211.04772)."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

TIME_STRIDE = 32  # five convolutions of stride 2
MAX_WIDTH_MULT = 16  # a config file from elsewhere must not reserve terabytes
MAX_MEL_BINS = 1024

# Every saved folder names every class, whichever of them saved it.
AUTO_MAP = {
    "AutoConfig": "configuration_efficientat.EfficientATConfig",
    "AutoFeatureExtractor": "feature_extraction_efficientat.EfficientATFeatureExtractor",
    "AutoModel": "modeling_efficientat.EfficientATModel",
    "AutoModelForAudioClassification": "modeling_efficientat.EfficientATForAudioClassification",
}


def round_to_eight(width: float) -> int:
    """The nearest multiple of 8 that is at least 8 and not more than a tenth below `width`, as in all MobileNets."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


@strict
class EfficientATConfig(PreTrainedConfig):
    r"""
    Configuration of an [`EfficientATModel`]. The defaults give mn10, of 4.9 M parameters with AudioSet's 527 labels.

    Args:
        width_mult (`float`, *optional*, defaults to 1.0):
            Factor on the widths of MobileNetV3-Large, each then rounded to a multiple of 8: 0.4 in mn04, 4.0 in mn40.
        sampling_rate (`int`, *optional*, defaults to 32000):
            Rate of the waveform in Hz.
        num_mel_bins (`int`, *optional*, defaults to 128):
            Bins of the log-mel spectrogram.
        n_fft (`int`, *optional*, defaults to 1024):
            Size of its Fourier transform in samples.
        win_length (`int`, *optional*, defaults to 800):
            Length of its window in samples, 25 ms.
        hop_length (`int`, *optional*, defaults to 320):
            Samples between two of its frames, 10 ms.
        max_frequency (`int`, *optional*, defaults to 15000):
            Upper end of its last mel bin in Hz.
        classifier_dropout (`float`, *optional*, defaults to 0.2):
            Dropout before the last layer of the classification head.
        batch_norm_eps (`float`, *optional*, defaults to 0.001):
            Epsilon of the batch norms.
        batch_norm_momentum (`float`, *optional*, defaults to 0.01):
            Weight of a training batch in their running statistics.
        initializer_range (`float`, *optional*, defaults to 0.01):
            Standard deviation of the initial weights of linear layers.
    """

    model_type = "efficientat"
    keys_to_ignore_at_inference = ["last_hidden_state", "pooler_output", "frame_mask", "hidden_states"]

    width_mult: float | int = 1.0
    sampling_rate: int = 32_000
    num_mel_bins: int = 128
    n_fft: int = 1024
    win_length: int = 800
    hop_length: int = 320
    max_frequency: int = 15_000
    classifier_dropout: float | int = 0.2
    batch_norm_eps: float = 1e-3
    batch_norm_momentum: float | int = 0.01
    initializer_range: float = 0.01

    def __post_init__(self, **kwargs):
        kwargs["auto_map"] = AUTO_MAP | (kwargs.get("auto_map") or {})
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Part of `@strict`-powered validation: sizes that cannot go together are refused."""
        if not 0 < self.width_mult <= MAX_WIDTH_MULT or not 0 < self.num_mel_bins <= MAX_MEL_BINS:
            raise ValueError(
                f"`width_mult` must be positive and at most {MAX_WIDTH_MULT}, `num_mel_bins` at most {MAX_MEL_BINS}, "
                f"found: width_mult={self.width_mult} and num_mel_bins={self.num_mel_bins}"
            )
        if not 0 < self.hop_length <= self.win_length <= self.n_fft <= 2**16:
            raise ValueError(
                "`hop_length`, `win_length` and `n_fft` must be positive and ascend, found: "
                f"{self.hop_length}, {self.win_length} and {self.n_fft}"
            )

    @property
    def hidden_size(self) -> int:
        """Width of the embedding."""
        return 6 * round_to_eight(160 * self.width_mult)

    @property
    def classifier_proj_size(self) -> int:
        """Width of the classification head."""
        return round_to_eight(1280 * self.width_mult)

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples between two frames of the output, 0.32 s."""
        return TIME_STRIDE * self.hop_length

    @property
    def first_frame_center(self) -> int:
        """Sample at which the first frame of the output is centred."""
        return 0

    @property
    def min_num_samples(self) -> int:
        """The shortest clip that can be mirrored at its ends: half a window and what pre-emphasis takes."""
        return self.win_length // 2 + 2


__all__ = ["EfficientATConfig"]
