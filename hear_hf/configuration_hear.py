"""Configuration of HEAR (arXiv:2603.26098)."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

MEL_SAMPLING_RATE = 16_000  # Hz; the mel branch reads this rate, whatever the waveform's

# Every saved folder names every class, whichever of them saved it.
AUTO_MAP = {
    "AutoConfig": "configuration_hear.HEARConfig",
    "AutoFeatureExtractor": "feature_extraction_hear.HEARFeatureExtractor",
    "AutoModel": "modeling_hear.HEARModel",
    "AutoModelForAudioClassification": "modeling_hear.HEARForAudioClassification",
}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@strict
class HEARConfig(PreTrainedConfig):
    r"""
    Configuration of a [`HEARModel`]. The defaults give the published size: 15.1 M parameters with 50 labels.

    Args:
        hidden_size (`int`, *optional*, defaults to 384):
            Width of the acoustic model.
        num_hidden_layers (`int`, *optional*, defaults to 6):
            Layers of the acoustic model.
        num_attention_heads (`int`, *optional*, defaults to 4):
            Attention heads of the acoustic model. Must divide `hidden_size`.
        intermediate_size (`int`, *optional*, defaults to 1536):
            Width of the acoustic model's feed-forward layers.
        hidden_act (`str`, *optional*, defaults to `"silu"`):
            Activation of the acoustic model's feed-forward layers.
        hidden_dropout (`float`, *optional*, defaults to 0.1):
            Dropout after each feed-forward layer of the acoustic model.
        activation_dropout (`float`, *optional*, defaults to 0.1):
            Dropout after the activation inside these layers.
        attention_dropout (`float`, *optional*, defaults to 0.1):
            Dropout of the acoustic model's attention probabilities.
        window_length (`int`, *optional*, defaults to 300):
            Frames of 20 ms that the acoustic model sees at once (6 s).
        window_overlap (`int`, *optional*, defaults to 50):
            Frames that two neighbouring windows share. Must be below `window_length`.
        task_hidden_size (`int`, *optional*, defaults to 384):
            Width of the task model.
        task_num_attention_heads (`int`, *optional*, defaults to 4):
            Attention heads of the task model. Must divide `task_hidden_size`.
        task_intermediate_size (`int`, *optional*, defaults to 1536):
            Width of the task model's feed-forward layer.
        task_dropout (`float`, *optional*, defaults to 0.1):
            Dropout of the task model.
        max_position_embeddings (`int`, *optional*, defaults to 1500):
            Frames that the task model attends over at once (30 s); longer clips are read in segments of this length.
        classifier_proj_size (`int`, *optional*, defaults to 384):
            Width of the classification head.
        classifier_dropout (`float`, *optional*, defaults to 0.1):
            Dropout before the last layer of the classification head.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Rate of the waveform in Hz, and of the log-power branch. At least 16000 and a multiple of 200, so that
            25 ms and 10 ms are whole numbers of samples. The log-mel branch always reads 16 kHz.
        n_fft (`int`, *optional*, defaults to 1024):
            Size of the log-power branch's Fourier transform, in samples at `sampling_rate`.
        num_mel_bins (`int`, *optional*, defaults to 128):
            Mel bins of the log-mel branch.
        layer_norm_eps (`float`, *optional*, defaults to 1e-05):
            Epsilon of the layer norms.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the initial weights.
        apply_spec_augment (`bool`, *optional*, defaults to `False`):
            Whether to hide random spans of time and of features while training
            ([SpecAugment](https://huggingface.co/papers/1904.08779)). The next six act only then.
        mask_time_prob (`float`, *optional*, defaults to 0.05):
            Upper bound of the share of each clip's valid frames that is hidden.
        mask_time_length (`int`, *optional*, defaults to 10):
            Frames of each hidden span.
        mask_time_min_masks (`int`, *optional*, defaults to 2):
            Least number of hidden spans of time in each clip.
        mask_feature_prob (`float`, *optional*, defaults to 0.0):
            Upper bound of the share of `hidden_size` that is hidden.
        mask_feature_length (`int`, *optional*, defaults to 10):
            Features of each hidden span.
        mask_feature_min_masks (`int`, *optional*, defaults to 0):
            Least number of hidden spans of features in each clip.

    Example:

    ```python
    >>> from hear_hf import HEARConfig, HEARModel

    >>> model = HEARModel(HEARConfig())
    >>> model.config.window_length
    300
    ```
    """

    model_type = "hear"

    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    intermediate_size: int = 1536
    hidden_act: str = "silu"
    hidden_dropout: float | int = 0.1
    activation_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    window_length: int = 300
    window_overlap: int = 50
    task_hidden_size: int = 384
    task_num_attention_heads: int = 4
    task_intermediate_size: int = 1536
    task_dropout: float | int = 0.1
    max_position_embeddings: int = 1500
    classifier_proj_size: int = 384
    classifier_dropout: float | int = 0.1
    sampling_rate: int = 16_000
    n_fft: int = 1024
    num_mel_bins: int = 128
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    apply_spec_augment: bool = False
    mask_time_prob: float | int = 0.05
    mask_time_length: int = 10
    mask_time_min_masks: int = 2
    mask_feature_prob: float | int = 0.0
    mask_feature_length: int = 10
    mask_feature_min_masks: int = 0

    def __post_init__(self, **kwargs):
        kwargs["auto_map"] = AUTO_MAP | (kwargs.get("auto_map") or {})
        super().__post_init__(**kwargs)

    @property
    def hop_length(self) -> int:
        """Samples between two spectrogram frames: 10 ms at `sampling_rate`."""
        return self.sampling_rate // 100

    @property
    def win_length(self) -> int:
        """Samples under one spectrogram window: 25 ms at `sampling_rate`."""
        return self.sampling_rate // 40

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples per encoder frame: 20 ms at `sampling_rate`."""
        return 2 * self.hop_length

    def validate_architecture(self):
        """Part of `@strict`-powered validation: sizes that cannot go together are refused."""
        self._validate_sizes()
        self._validate_shares()

    def _validate_sizes(self):
        for name in _POSITIVE:
            _require(getattr(self, name) > 0, f"`{name}` must be positive, found: {getattr(self, name)}")
        for heads, width in (
            ("num_attention_heads", "hidden_size"),
            ("task_num_attention_heads", "task_hidden_size"),
        ):
            _require(
                getattr(self, width) % getattr(self, heads) == 0,
                f"`{heads}` must divide `{width}`, found: {heads}={getattr(self, heads)} and "
                f"{width}={getattr(self, width)}",
            )
        _require(
            0 <= self.window_overlap < self.window_length,
            "`window_overlap` must be at least 0 and below `window_length`, found: "
            f"window_overlap={self.window_overlap} and window_length={self.window_length}",
        )
        _require(
            self.sampling_rate >= MEL_SAMPLING_RATE and self.sampling_rate % 200 == 0,
            f"`sampling_rate` must be at least {MEL_SAMPLING_RATE} Hz and a multiple of 200 Hz, "
            f"found: {self.sampling_rate}",
        )
        _require(
            self.n_fft >= self.win_length,
            f"`n_fft` must hold a window of 25 ms, found: n_fft={self.n_fft} and sampling_rate={self.sampling_rate}, "
            f"where 25 ms are {self.win_length} samples",
        )

    def _validate_shares(self):
        for name in _SHARES:
            _require(0 <= getattr(self, name) <= 1, f"`{name}` must be between 0 and 1, found: {getattr(self, name)}")
        _require(
            self.mask_feature_length <= self.hidden_size,
            "`mask_feature_length` must not be above `hidden_size`, found: "
            f"mask_feature_length={self.mask_feature_length} and hidden_size={self.hidden_size}",
        )


_POSITIVE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "window_length",
    "task_hidden_size",
    "task_num_attention_heads",
    "task_intermediate_size",
    "max_position_embeddings",
    "classifier_proj_size",
    "n_fft",
    "num_mel_bins",
    "layer_norm_eps",
    "mask_time_length",
    "mask_feature_length",
)
_SHARES = (
    "hidden_dropout",
    "activation_dropout",
    "attention_dropout",
    "task_dropout",
    "classifier_dropout",
    "mask_time_prob",
    "mask_feature_prob",
)

__all__ = ["HEARConfig"]
