"""Configuration of HEAR (arXiv:2603.26098)."""

import inspect

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .sentence_transformers_hear import describe_embedding

MEL_SAMPLING_RATE = 16_000  # Hz; the mel branch reads this rate, whatever the waveform's

# A config file from elsewhere must not reserve terabytes or build layers for hours before its weights are read.
MAX_SIZE = 2**24
MAX_LABELS = 2**16
MAX_PARAMETERS = 2**28  # 1 GiB in float32, 18 times the published model
MAX_SIZES = {
    "num_hidden_layers": 1024,
    "decoder_num_hidden_layers": 1024,
    "num_mel_bins": 1024,
    "n_fft": 2**16,
    "sampling_rate": 768_000,
    "event_median_frames": 2**10,
}
MAX_WINDOWS_PER_FFT = 8  # a transform takes its time for each frame of 10 ms
# Fields with the type of a size or of a share that are neither. Some have a check of their own.
NEITHER_SIZE_NOR_SHARE = {
    "window_overlap",
    "initializer_range",
    "mask_time_min_masks",
    "mask_feature_min_masks",
    "reconstruction_loss_weight",
    "distillation_loss_weight",
    "diversity_loss_weight",
    "gumbel_temperature",
    "gumbel_min_temperature",
}

FRAME_POOLINGS = ("max", "mean", "linear_softmax")
WITHOUT_EMBEDDING = ("HEARForPreTraining",)  # it saves no task model

# Every saved folder names every class of its model type, whichever of them saved it.
AUTO_MAP = {
    "AutoConfig": "configuration_hear.HEARConfig",
    "AutoFeatureExtractor": "feature_extraction_hear.HEARFeatureExtractor",
    "AutoModel": "modeling_hear.HEARModel",
    "AutoModelForAudioClassification": "modeling_hear.HEARForAudioClassification",
    "AutoModelForAudioFrameClassification": "modeling_hear.HEARForAudioFrameClassification",
    "AutoModelForPreTraining": "modeling_hear.HEARForPreTraining",
}
QUANTIZER_AUTO_MAP = {
    "AutoConfig": "configuration_hear.HEARQuantizerConfig",
    "AutoFeatureExtractor": "feature_extraction_hear.HEARFeatureExtractor",
    "AutoModel": "modeling_hear_quantizer.HEARQuantizer",
    "AutoModelForAudioTokenization": "modeling_hear_quantizer.HEARQuantizer",
    "AutoModelForPreTraining": "modeling_hear_quantizer.HEARQuantizerForPreTraining",
}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


class HEARFrameGrid:
    """The 10 ms and 20 ms grids of a configuration with a `sampling_rate`, in samples."""

    sampling_rate: int

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


@strict
class HEARConfig(HEARFrameGrid, PreTrainedConfig):
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
            Frames that the task model attends to at once (30 s); longer clips are read in segments of this length.
        classifier_proj_size (`int`, *optional*, defaults to 384):
            Width of the classification head's hidden layer; `None` for a linear head, which has none.
        classifier_dropout (`float`, *optional*, defaults to 0.1):
            Dropout before the last layer of the classification head, or before that on each frame.
        frame_pooling (`str`, *optional*, defaults to `"linear_softmax"`):
            How [`HEARForAudioFrameClassification`] pools the probabilities of frames to those of the clip: "max",
            "mean", or "linear_softmax", the mean in which each frame weighs as much as its own probability.
        event_thresholds (`list[float]`, *optional*):
            For each label the probability from which on a frame is part of an event; 0.5 by default.
        event_median_frames (`int`, *optional*, defaults to 1):
            Frames of the median filter over the probabilities, in front of these thresholds; odd, at most 1023.
        false_alarm_rate (`float`, *optional*):
            Share of clips of none of the labels on which a label's score, a sigmoid, reaches 0.5: the biases hold
            thresholds that were chosen for it. `None` where none were chosen.
        codebook_size (`int`, *optional*, defaults to 1024):
            Codes that [`HEARForPreTraining`] predicts: those of its quantizer.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Rate of the waveform in Hz, and of the log-power branch. At least 16000 and a multiple of 200, so that
            25 ms and 10 ms are whole numbers of samples. The log-mel branch always reads 16 kHz.
        n_fft (`int`, *optional*, defaults to 1024):
            Size of the log-power branch's Fourier transform, in samples at `sampling_rate`: 25 to 200 ms.
        num_mel_bins (`int`, *optional*, defaults to 128):
            Mel bins of the log-mel branch.
        layer_norm_eps (`float`, *optional*, defaults to 1e-05):
            Epsilon of the layer norms.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the initial weights.
        apply_spec_augment (`bool`, *optional*, defaults to `False`):
            Whether to mask random spans of frames and of features in training
            ([SpecAugment](https://huggingface.co/papers/1904.08779)). The next six act only then.
        mask_time_prob (`float`, *optional*, defaults to 0.05):
            Upper bound of the share of each clip's valid frames that is masked.
        mask_time_length (`int`, *optional*, defaults to 10):
            Frames of each masked span.
        mask_time_min_masks (`int`, *optional*, defaults to 2):
            Least number of masked spans of frames in each clip.
        mask_feature_prob (`float`, *optional*, defaults to 0.0):
            Upper bound of the share of the `hidden_size` features that is masked.
        mask_feature_length (`int`, *optional*, defaults to 10):
            Features of each masked span.
        mask_feature_min_masks (`int`, *optional*, defaults to 0):
            Least number of masked spans of features in each clip.

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
    classifier_proj_size: int | None = 384
    classifier_dropout: float | int = 0.1
    frame_pooling: str = "linear_softmax"
    event_thresholds: list[float] | None = None
    event_median_frames: int = 1
    false_alarm_rate: float | None = None
    codebook_size: int = 1024
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
        _require_few_labels(kwargs.get("num_labels"))
        super().__post_init__(**kwargs)

    def update_from_string(self, update_str: str) -> None:
        """Changes fields as Transformers does, and also `classifier_proj_size`, which may be `None`."""
        values = dict(pair.split("=") for pair in update_str.split(","))
        if (size := values.pop("classifier_proj_size", None)) is not None:
            self.classifier_proj_size = None if size == "None" else int(size)
        if values:
            super().update_from_string(",".join(f"{name}={value}" for name, value in values.items()))

    @property
    def projection_dim(self) -> int:
        """Width of `pooler_output`, by the name under which sentence-transformers looks for it."""
        return 3 * self.task_hidden_size

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """Saves as Transformers does and, of a model that embeds clips, says how for sentence-transformers."""
        super().save_pretrained(save_directory, push_to_hub, **kwargs)
        if self.architectures and self.architectures[0] not in WITHOUT_EMBEDDING:
            describe_embedding(save_directory)

    def validate_architecture(self) -> None:
        """Part of `@strict`-powered validation: sizes that cannot go together are refused."""
        _require_sizes_and_shares(self, HEARConfig)
        _require_few_labels(self.num_labels)
        names = self.id2label or {}
        _require(
            sorted(names) == list(range(len(names))) and all(_is_text(name) for name in names.values()),
            f"`id2label` must name the labels from 0 on in text, found: {str(names)[:100]}",
        )
        if self.false_alarm_rate is not None:
            _require_share(self, "false_alarm_rate")
        has_hidden_layer = self.classifier_proj_size is not None
        if has_hidden_layer:
            _require_positive(self, "classifier_proj_size")
        _require_divisor(self, "num_attention_heads", "hidden_size")
        _require_divisor(self, "task_num_attention_heads", "task_hidden_size")
        _require_windows_and_rate(self)
        _require(
            self.win_length <= self.n_fft <= MAX_WINDOWS_PER_FFT * self.win_length,
            f"`n_fft` must hold a window of 25 ms, and at most {MAX_WINDOWS_PER_FFT} of them, found: "
            f"n_fft={self.n_fft} and sampling_rate={self.sampling_rate}, where 25 ms are {self.win_length} samples",
        )
        _require(
            self.mask_feature_length <= self.hidden_size,
            "`mask_feature_length` must not be above `hidden_size`, found: "
            f"mask_feature_length={self.mask_feature_length} and hidden_size={self.hidden_size}",
        )
        _require_events(self)
        _require_matrices(
            self,
            *_layer_matrices(self.num_hidden_layers, "hidden_size", "intermediate_size"),
            (2, "num_mel_bins", "hidden_size"),
            (1, "n_fft", "hidden_size"),
            (1, "hidden_size", "hidden_size"),
            (2, "hidden_size", "task_hidden_size"),
            (1, "max_position_embeddings", "task_hidden_size"),
            (4, "task_hidden_size", "task_hidden_size"),
            (2, "task_hidden_size", "task_intermediate_size"),
            (3, "task_hidden_size", "classifier_proj_size" if has_hidden_layer else "num_labels"),
            *([(1, "classifier_proj_size", "num_labels")] if has_hidden_layer else []),
            (1, "hidden_size", "codebook_size"),
        )
        _require_few_outputs(self, "codebook_size")


@strict
class HEARQuantizerConfig(HEARFrameGrid, PreTrainedConfig):
    r"""
    Configuration of a [`HEARQuantizer`], HEAR's acoustic tokenizer, and of its training. The defaults are the
    published ones.

    Args:
        hidden_size (`int`, *optional*, defaults to 128):
            Width of the encoder.
        num_hidden_layers (`int`, *optional*, defaults to 6):
            Layers of the encoder.
        num_attention_heads (`int`, *optional*, defaults to 4):
            Attention heads of the encoder. Must divide `hidden_size`.
        intermediate_size (`int`, *optional*, defaults to 512):
            Width of the encoder's feed-forward layers.
        hidden_act (`str`, *optional*, defaults to `"silu"`):
            Activation of the feed-forward layers, also of the decoder's.
        hidden_dropout (`float`, *optional*, defaults to 0.1):
            Dropout after each feed-forward layer, also of the decoder's.
        activation_dropout (`float`, *optional*, defaults to 0.1):
            Dropout after the activation inside these layers.
        attention_dropout (`float`, *optional*, defaults to 0.1):
            Dropout of the attention probabilities, also of the decoder's.
        window_length (`int`, *optional*, defaults to 300):
            Frames of 20 ms that encoder and decoder see at once (6 s).
        window_overlap (`int`, *optional*, defaults to 50):
            Frames that two neighbouring windows share. Must be below `window_length`.
        codebook_size (`int`, *optional*, defaults to 1024):
            Number of codes.
        codebook_dim (`int`, *optional*, defaults to 32):
            Width of a code's vector.
        decoder_hidden_size (`int`, *optional*, defaults to 128):
            Width of the decoder, which only training needs.
        decoder_num_hidden_layers (`int`, *optional*, defaults to 2):
            Layers of the decoder.
        decoder_num_attention_heads (`int`, *optional*, defaults to 4):
            Attention heads of the decoder. Must divide `decoder_hidden_size`.
        decoder_intermediate_size (`int`, *optional*, defaults to 512):
            Width of the decoder's feed-forward layers.
        teacher_hidden_size (`int`, *optional*, defaults to 768):
            Width of the hidden states of the teacher that the decoder predicts; `None` without a teacher.
        reconstruction_loss_weight (`float`, *optional*, defaults to 0.3):
            Weight of the squared error of the log-mel spectrogram.
        distillation_loss_weight (`float`, *optional*, defaults to 0.7):
            Weight of 1 less the cosine between prediction and teacher.
        diversity_loss_weight (`float`, *optional*, defaults to 0.1):
            Weight of the squared distance of the batch's mean code probabilities from equal ones.
        gumbel_temperature (`float`, *optional*, defaults to 2.0):
            Temperature of the Gumbel softmax at the start.
        gumbel_temperature_decay (`float`, *optional*, defaults to 0.999995):
            Factor on the temperature at each step.
        gumbel_min_temperature (`float`, *optional*, defaults to 0.5):
            Lowest temperature.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Rate of the waveform in Hz. At least 16000 and a multiple of 200. The log-mel spectrogram is one of 16 kHz.
        num_mel_bins (`int`, *optional*, defaults to 128):
            Bins of the log-mel spectrogram.
        layer_norm_eps (`float`, *optional*, defaults to 1e-05):
            Epsilon of the layer norms.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the initial weights.

    Example:

    ```python
    >>> from hear_hf import HEARQuantizer, HEARQuantizerConfig

    >>> quantizer = HEARQuantizer(HEARQuantizerConfig())
    >>> quantizer.config.codebook_size
    1024
    ```
    """

    model_type = "hear_quantizer"

    hidden_size: int = 128
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    intermediate_size: int = 512
    hidden_act: str = "silu"
    hidden_dropout: float | int = 0.1
    activation_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    window_length: int = 300
    window_overlap: int = 50
    codebook_size: int = 1024
    codebook_dim: int = 32
    decoder_hidden_size: int = 128
    decoder_num_hidden_layers: int = 2
    decoder_num_attention_heads: int = 4
    decoder_intermediate_size: int = 512
    teacher_hidden_size: int | None = 768
    reconstruction_loss_weight: float | int = 0.3
    distillation_loss_weight: float | int = 0.7
    diversity_loss_weight: float | int = 0.1
    gumbel_temperature: float | int = 2.0
    gumbel_temperature_decay: float | int = 0.999995
    gumbel_min_temperature: float | int = 0.5
    sampling_rate: int = 16_000
    num_mel_bins: int = 128
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        kwargs["auto_map"] = QUANTIZER_AUTO_MAP | (kwargs.get("auto_map") or {})
        _require_few_labels(kwargs.get("num_labels"))
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Part of `@strict`-powered validation: sizes that cannot go together are refused."""
        _require_sizes_and_shares(self, HEARQuantizerConfig)
        for name in ("gumbel_temperature", "gumbel_temperature_decay", "gumbel_min_temperature"):
            _require_positive(self, name)
        _require_divisor(self, "num_attention_heads", "hidden_size")
        _require_divisor(self, "decoder_num_attention_heads", "decoder_hidden_size")
        _require_windows_and_rate(self)
        _require(
            self.teacher_hidden_size is None or self.teacher_hidden_size > 0,
            f"`teacher_hidden_size` must be positive, or None without a teacher, found: {self.teacher_hidden_size}",
        )
        _require_matrices(
            self,
            *_layer_matrices(self.num_hidden_layers, "hidden_size", "intermediate_size"),
            *_layer_matrices(self.decoder_num_hidden_layers, "decoder_hidden_size", "decoder_intermediate_size"),
            (2, "num_mel_bins", "hidden_size"),
            (1, "hidden_size", "codebook_size"),
            (1, "codebook_size", "codebook_dim"),
            (1, "codebook_dim", "decoder_hidden_size"),
            (2, "num_mel_bins", "decoder_hidden_size"),
            *([(1, "teacher_hidden_size", "decoder_hidden_size")] if self.teacher_hidden_size else []),
        )
        _require_few_outputs(self, "codebook_size", "teacher_hidden_size")


def _require_sizes_and_shares(config: PreTrainedConfig, config_class: type) -> None:
    """Refuses sizes (`int` or `float`) that are not positive, and shares (`float | int`) outside [0, 1]."""
    for name, annotation in inspect.get_annotations(config_class).items():
        if name in NEITHER_SIZE_NOR_SHARE:
            continue
        if annotation in (int, float):
            _require_positive(config, name)
        elif annotation == float | int:
            _require_share(config, name)


def _require_positive(config: PreTrainedConfig, name: str) -> None:
    value, largest = getattr(config, name), MAX_SIZES.get(name, MAX_SIZE)
    _require(0 < value <= largest, f"`{name}` must be positive and at most {largest}, found: {value}")


def _require_share(config: PreTrainedConfig, name: str) -> None:
    _require(0 <= getattr(config, name) <= 1, f"`{name}` must be between 0 and 1, found: {getattr(config, name)}")


def _require_divisor(config: PreTrainedConfig, heads: str, width: str) -> None:
    _require(
        getattr(config, width) % getattr(config, heads) == 0,
        f"`{heads}` must divide `{width}`, found: {heads}={getattr(config, heads)} and "
        f"{width}={getattr(config, width)}",
    )


def _require_windows_and_rate(config: PreTrainedConfig) -> None:
    _require(
        0 <= config.window_overlap < config.window_length,
        "`window_overlap` must be at least 0 and below `window_length`, found: "
        f"window_overlap={config.window_overlap} and window_length={config.window_length}",
    )
    _require(
        config.sampling_rate >= MEL_SAMPLING_RATE and config.sampling_rate % 200 == 0,
        f"`sampling_rate` must be at least {MEL_SAMPLING_RATE} Hz and a multiple of 200 Hz, "
        f"found: {config.sampling_rate}",
    )


def _require_events(config: PreTrainedConfig) -> None:
    _require(
        config.frame_pooling in FRAME_POOLINGS,
        f"`frame_pooling` must be one of {', '.join(FRAME_POOLINGS)}, found: {config.frame_pooling!r}",
    )
    _require(
        config.event_median_frames % 2 == 1, f"`event_median_frames` must be odd, found: {config.event_median_frames}"
    )
    thresholds = config.event_thresholds or []
    _require(
        all(0 <= threshold <= 1 for threshold in thresholds),
        f"`event_thresholds` must be probabilities from 0 to 1, found: {thresholds}",
    )


def _is_text(name: object) -> bool:
    """Whether it can be written: JSON may hold halves of letters too."""
    return isinstance(name, str) and name == name.encode(errors="ignore").decode()


def _require_few_labels(num_labels: int | None) -> None:
    is_whole = num_labels is None or isinstance(num_labels, int)
    _require(is_whole, f"`num_labels` must be a whole number, found: {num_labels!r}")
    _require(
        num_labels is None or num_labels <= MAX_LABELS,
        f"`num_labels` must be at most {MAX_LABELS}, found: {num_labels}",
    )


def _require_few_outputs(config: PreTrainedConfig, *names: str) -> None:
    """Refuses what would make too many numbers of each frame of 20 ms, however narrow the layer before it."""
    for name in names:
        size = getattr(config, name) or 0
        _require(size <= MAX_LABELS, f"`{name}` must be at most {MAX_LABELS}, found: {name}={size}")


def _layer_matrices(num_layers: int, width: str, inner: str) -> list[tuple[int, str, str]]:
    """The matrices of acoustic layers, as [`_require_matrices`] takes them."""
    return [(4 * num_layers, width, width), (2 * num_layers, width, inner), (num_layers, "window_length", width)]


def _require_matrices(config: PreTrainedConfig, *matrices: tuple[int, str, str]) -> None:
    """Refuses a model of too many parameters: number of matrices of each kind, and the names of their two sizes."""
    total = 0
    for count, rows, columns in matrices:
        size = getattr(config, rows) * getattr(config, columns)
        _require(
            size <= MAX_SIZE,
            f"`{rows}` times `{columns}` must be at most {MAX_SIZE}, found: {rows}={getattr(config, rows)} and "
            f"{columns}={getattr(config, columns)}",
        )
        total += count * size
    sizes = ", ".join(f"{name}={getattr(config, name)}" for name in ("num_hidden_layers", "hidden_size"))
    _require(
        total <= MAX_PARAMETERS, f"A model must have at most {MAX_PARAMETERS} parameters, found: {total}, {sizes}"
    )


__all__ = ["HEARConfig", "HEARQuantizerConfig"]
