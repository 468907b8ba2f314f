"""PyTorch HEAR model (arXiv:2603.26098).

Shapes: B batch, N samples, n encoder frames (20 ms), D width, H heads of size d, F bins of the log-power spectrum.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .acoustic_model_hear import FrameMasks, HEARAcousticModel, HEARAttention
from .configuration_hear import HEARConfig
from .masking_hear import span_mask
from .spectrogram_hear import HEARSpectrogram, num_encoder_frames

POOLING_EPS = 1e-8


@dataclass
class HEARModelOutput(ModelOutput):
    """
    Output of [`HEARModel`].

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_frames, task_hidden_size)`):
            Output of the task model, one vector per 20 ms.
        pooler_output (`torch.FloatTensor` of shape `(batch_size, 3 * task_hidden_size)`):
            Mean, maximum and standard deviation of `last_hidden_state` over each clip's valid frames.
        acoustic_hidden_states (`torch.FloatTensor` of shape `(batch_size, num_frames, hidden_size)`):
            Output of the acoustic model.
        frame_mask (`torch.BoolTensor` of shape `(batch_size, num_frames)`):
            True where a frame belongs to the clip, False where it is padding.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, with `output_hidden_states=True`):
            Output of the feature encoder, of each layer of the acoustic model, and of the task model.
        attentions (`tuple(torch.FloatTensor)`, *optional*, with `output_attentions=True`):
            Attention probabilities of each layer of the acoustic model, of shape `(batch_size, num_heads, num_frames,
            num_frames)`, or for clips of several windows a tuple of these, one a window; last those of the task model,
            or for clips of several segments a tuple of these.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    acoustic_hidden_states: torch.FloatTensor | None = None
    frame_mask: torch.BoolTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class HEARSpectrogramMixture(nn.Module):
    """Mixes the log-power spectrum, gated by the acoustic hidden states, into them (paper, section 3.3)."""

    def __init__(self, config: HEARConfig):
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, config.hidden_size)
        self.spectrum = nn.Linear(2 * (config.n_fft // 2 + 1), config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.output = nn.Linear(2 * config.hidden_size, config.task_hidden_size)

    def forward(self, hidden_states: torch.Tensor, log_power: torch.Tensor) -> torch.Tensor:
        pairs = log_power.unflatten(1, (-1, 2)).transpose(2, 3).flatten(2)  # (B, 2n, F) -> (B, n, 2F), bin-major
        spectrum = self.spectrum(pairs) * self.gate(hidden_states).sigmoid()
        spectrum = nn.functional.gelu(self.layer_norm(spectrum))
        return self.output(torch.cat([hidden_states, spectrum], dim=-1))


class HEARTaskModel(nn.Module):
    """One post-norm transformer layer over the clip, or over each segment of a longer one (paper, section 3.4)."""

    def __init__(self, config: HEARConfig):
        super().__init__()
        width = config.task_hidden_size
        self.num_heads = config.task_num_attention_heads
        self.dropout = config.task_dropout
        self.position_embeddings = nn.Parameter(torch.zeros(1, config.max_position_embeddings, width))
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.attention_layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.intermediate_dense = nn.Linear(width, config.task_intermediate_size)
        self.output_dense = nn.Linear(config.task_intermediate_size, width)
        self.final_layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(
        self, hidden_states: torch.Tensor, valid: torch.Tensor | None, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        hidden_states = hidden_states + self.position_embeddings[:, : hidden_states.shape[1]]
        attended, weights = self.attend(hidden_states, valid, output_attentions)
        hidden_states = self.attention_layer_norm(hidden_states + self.drop(attended))
        expanded = self.drop(nn.functional.relu(self.intermediate_dense(hidden_states)))
        return self.final_layer_norm(hidden_states + self.drop(self.output_dense(expanded))), weights

    def drop(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(hidden_states, p=self.dropout, training=self.training)

    def attend(self, hidden_states: torch.Tensor, valid: torch.Tensor | None, output_attentions: bool):
        qkv = self.qkv_proj(hidden_states).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, n, 3, H, d) -> 3 x (B, H, n, d)
        bias = None
        if valid is not None:
            bias = torch.zeros_like(valid, dtype=query.dtype).masked_fill(~valid, torch.finfo(query.dtype).min)
            bias = bias[:, None, None, :]
        if output_attentions:
            scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
            weights = (
                (scores if bias is None else scores + bias)
                .softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
                .to(value.dtype)
            )
            attended = self.drop(weights) @ value
        else:
            weights, dropout = None, self.dropout if self.training else 0.0
            attended = nn.functional.scaled_dot_product_attention(query, key, value, bias, dropout)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), weights


def pool_statistics(hidden_states: torch.Tensor, valid: torch.Tensor, segment_length: int) -> torch.Tensor:
    """Mean, maximum and standard deviation over the valid frames, in float32: (B, n, D) -> (B, 3D).

    Long clips are read in segments, whose moments are then joined, so that no copy of all their frames is made. These
    are filled in place: kept one by one between freed temporaries they would fragment the heap.
    """
    segments = zip(hidden_states.split(segment_length, dim=1), valid.split(segment_length, dim=1), strict=True)
    batch_size, num_frames, width = hidden_states.shape
    num_segments = -(-num_frames // segment_length)
    moments = hidden_states.new_empty(3, num_segments, batch_size, width, dtype=torch.float32)
    counts = hidden_states.new_empty(num_segments, batch_size, 1, dtype=torch.float32)
    for i, segment in enumerate(segments):
        counts[i], moments[0, i], moments[1, i], moments[2, i] = segment_statistics(*segment)
    means, maxima, squares = moments
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count.clamp(min=1)
    square = (squares + counts * (means - mean).square()).sum(0)
    deviation = (square / (count - 1).clamp(min=1) + POOLING_EPS).sqrt()
    return torch.cat([mean, maxima.amax(0), deviation], dim=-1)


def segment_statistics(hidden_states: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Count (B, 1), and (B, D) each: mean, maximum and sum of squares about the mean of the valid frames."""
    hidden_states, weights = hidden_states.float(), valid.unsqueeze(-1)
    count = weights.sum(1)
    mean = (hidden_states * weights).sum(1) / count.clamp(min=1)
    maximum = hidden_states.masked_fill(~weights, torch.finfo(hidden_states.dtype).min).amax(1)
    squares = ((hidden_states - mean.unsqueeze(1)).square() * weights).sum(1)
    return count, mean, maximum, squares


class HEARBatchNorm(nn.BatchNorm1d):
    """Batch norm that normalises a training batch of one clip, which has no variance, by its running statistics."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.training and hidden_states.shape[0] == 1:
            return nn.functional.batch_norm(
                hidden_states, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(hidden_states)


class HEARClassificationHead(nn.Module):
    """Pooled statistics -> logits; in float32 under autocast.

    What the batch norm reads lies far from zero (2 to 3 deviations from scratch, and rising with the learning rate):
    in bfloat16 a third of its deviation can be lost to rounding before the mean is taken off.
    """

    def __init__(self, config: HEARConfig):
        super().__init__()
        self.dense = nn.Linear(3 * config.task_hidden_size, config.classifier_proj_size)
        self.batch_norm = HEARBatchNorm(config.classifier_proj_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(config.classifier_proj_size, config.num_labels)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device_type=pooled.device.type, enabled=False):
            hidden_states = self.dense(pooled.to(self.dense.weight.dtype))
            hidden_states = nn.functional.relu(self.batch_norm(hidden_states))
            return self.out_proj(self.dropout(hidden_states))


class HEARPreTrainedModel(PreTrainedModel):
    """Weight initialisation, and downloading and loading of checkpoints.

    | part | initial values |
    |---|---|
    | feature encoder | normal, Kaiming fan-in |
    | linear layers, relative and absolute positions | normal, `initializer_range` |
    | biases, also the attention's | 0 |
    | norms | 1, 0 |
    """

    config_class = HEARConfig
    config: HEARConfig
    base_model_prefix = "hear"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the losses are means over the batch they are given
    _no_split_modules = ["HEARLayer"]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, HEARSpectrogram):
            for name, table in module.tables().items():
                init.copy_(getattr(module, name), table)
        elif isinstance(module, nn.Conv1d):
            init.kaiming_normal_(module.weight)
        elif isinstance(module, HEARAttention):
            init.zeros_(module.content_bias)
            init.zeros_(module.position_bias)
            init.normal_(module.relative_keys, std=std)
            init.normal_(module.relative_values, std=std)
        elif isinstance(module, HEARTaskModel):
            init.normal_(module.position_embeddings, std=std)

    def _get_feat_extract_output_lengths(self, input_lengths: torch.LongTensor | int):
        """Number of encoder frames of clips of `input_lengths` samples."""
        return num_encoder_frames(input_lengths, self.config.hop_length)


class HEARModel(HEARPreTrainedModel):
    """The bare HEAR model: front end, acoustic model, spectrogram mixture and task model, without a head.

    Args:
        config ([`HEARConfig`]): Sizes of the model.
    """

    def __init__(self, config: HEARConfig):
        super().__init__(config)
        self.spectrogram = HEARSpectrogram(config)
        self.acoustic_model = HEARAcousticModel(config)
        self.spectrogram_mixture = HEARSpectrogramMixture(config)
        self.task_model = HEARTaskModel(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        mask_time_indices: torch.BoolTensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> HEARModelOutput:
        r"""
        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`):
                Mono waveform in [-1, 1] at `config.sampling_rate`, of any length from 201 samples (at 16 kHz) on.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 = real sample, 0 = padding. Padding may hold anything, on either side of the clip.
            mask_time_indices (`torch.BoolTensor` of shape `(batch_size, num_frames)`, *optional*):
                True = frame hidden from the acoustic model.
            output_attentions (`bool`, *optional*): Whether to return the attention probabilities.
            output_hidden_states (`bool`, *optional*): Whether to return the hidden states of all layers.
            return_dict (`bool`, *optional*): Whether to return a [`HEARModelOutput`] rather than a tuple.

        Raises:
            `ValueError`: if the waveform has another shape than `(batch_size, num_samples)` or is too short, or the
                mask has another shape.
        """
        config = self.config
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        self.check_inputs(input_values, attention_mask)

        acoustic, log_power, valid = self.encode(
            input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states
        )
        integrated, attentions = self.integrate(acoustic.last_hidden_state, log_power, valid, output_attentions)
        if valid is None:
            valid = torch.ones(integrated.shape[:2], dtype=torch.bool, device=integrated.device)

        return HEARModelOutput(
            last_hidden_state=integrated,
            pooler_output=pool_statistics(integrated, valid, config.max_position_embeddings).to(integrated.dtype),
            acoustic_hidden_states=acoustic.last_hidden_state,
            frame_mask=valid,
            hidden_states=(*acoustic.hidden_states, integrated) if output_hidden_states else None,
            attentions=(*acoustic.attentions, attentions) if output_attentions else None,
        )

    def check_inputs(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None) -> None:
        if input_values.ndim != 2:
            raise ValueError(
                f"`input_values` must have shape (batch_size, num_samples), found: {tuple(input_values.shape)}. "
                "Average the channels, and give a single clip as `input_values[None]`."
            )
        minimum = self.config.win_length // 2 + 1
        if input_values.shape[1] < minimum:
            raise ValueError(
                f"`input_values` must hold at least {minimum} samples a clip, found: {input_values.shape[1]}."
            )
        if attention_mask is not None and attention_mask.shape != input_values.shape:
            raise ValueError(
                f"`attention_mask` must have the shape of `input_values`, {tuple(input_values.shape)}, found: "
                f"{tuple(attention_mask.shape)}. It marks samples, not frames."
            )

    def encode(self, input_values, attention_mask, hidden_time, output_attentions, output_hidden_states):
        """Front end and acoustic model: the acoustic outputs, the log-power still to be read, and the frame mask."""
        log_mel, log_power, valid = self.spectrogram(input_values, attention_mask)
        num_frames = log_mel.shape[1] // 2
        masks = self.frame_masks(valid, hidden_time, input_values.shape[0], num_frames)
        log_mel = log_mel[:, : 2 * num_frames].to(self.dtype)
        acoustic = self.acoustic_model(log_mel, masks, output_attentions, output_hidden_states)
        return acoustic, log_power, valid

    def frame_masks(
        self, valid: torch.Tensor | None, hidden_time: torch.Tensor | None, batch_size: int, num_frames: int
    ) -> FrameMasks:
        """The given masks, and those that SpecAugment draws while training."""
        config, hidden_features = self.config, None
        if self.training and config.apply_spec_augment:
            everything = torch.ones(batch_size, num_frames, dtype=torch.bool, device=self.device)
            if hidden_time is None and config.mask_time_prob > 0:
                hidden_time = span_mask(
                    everything if valid is None else valid,
                    config.mask_time_prob,
                    config.mask_time_length,
                    config.mask_time_min_masks,
                )
            if config.mask_feature_prob > 0:
                hidden_features = span_mask(
                    everything[:, :1].expand(-1, config.hidden_size),
                    config.mask_feature_prob,
                    config.mask_feature_length,
                    config.mask_feature_min_masks,
                )
        return FrameMasks(valid, hidden_time, hidden_features)

    def integrate(self, acoustic_hidden_states, log_power, valid, output_attentions):
        """Mixture and task model, segment by segment: (B, n, D) -> (B, n, task_hidden_size)."""
        num_frames, length = acoustic_hidden_states.shape[1], self.config.max_position_embeddings
        integrated, attentions = None, []
        for start in range(0, num_frames, length):
            frames = slice(start, min(start + length, num_frames))
            segment = acoustic_hidden_states[:, frames]
            spectrum = log_power[2 * frames.start : 2 * frames.stop].to(segment.dtype)
            segment_valid = None if valid is None else valid[:, frames]
            mixed = self.spectrogram_mixture(segment, spectrum)
            output, weights = self.task_model(mixed, segment_valid, output_attentions)
            if num_frames <= length:
                return output, weights
            if integrated is None:  # filled in place: a list to be joined would hold an hour twice
                integrated = output.new_empty(output.shape[0], num_frames, output.shape[2])
            integrated[:, frames] = output
            attentions.append(weights)
        return integrated, tuple(attentions)


class HEARForAudioClassification(HEARPreTrainedModel):
    """HEAR with a classification head on the pooled output, for single-label and multi-label tasks and regression.

    Args:
        config ([`HEARConfig`]): Sizes, labels (`id2label`) and `problem_type`.
    """

    def __init__(self, config: HEARConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.hear = HEARModel(config)
        self.classifier = HEARClassificationHead(config)
        self.post_init()

    def freeze_feature_encoder(self):
        """Stops the training of the convolution in front of the acoustic model."""
        self.hear.acoustic_model.feature_encoder.requires_grad_(False)

    def freeze_base_model(self):
        """Stops the training of everything but the classification head."""
        self.hear.requires_grad_(False)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput:
        r"""
        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`):
                Mono waveform in [-1, 1] at `config.sampling_rate`. See [`HEARFeatureExtractor`].
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 = real sample, 0 = padding.
            labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
                Class indices (cross entropy), a float 0 or 1 per label (binary cross entropy), or targets of a
                regression (mean squared error), as `config.problem_type` says or, where it is `None`, their type.
            output_attentions (`bool`, *optional*): Whether to return the attention probabilities.
            output_hidden_states (`bool`, *optional*): Whether to return the hidden states of all layers.
            return_dict (`bool`, *optional*): Whether to return a `SequenceClassifierOutput` rather than a tuple.
        """
        outputs = self.hear(
            input_values,
            attention_mask=attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits.float(), self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = ["HEARForAudioClassification", "HEARModel", "HEARPreTrainedModel"]
