"""PyTorch HEAR model (arXiv:2603.26098).

Shapes: B batch, N samples, n encoder frames (20 ms), D width.
"""

import os
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from .acoustic_model_hear import FrameMasks, HEARAcousticModel
from .attention_hear import HEARAttention
from .configuration_hear import HEARConfig, HEARQuantizerConfig
from .frames_hear import all_valid, at_least_float32, in_segments, num_encoder_frames
from .graphs_hear import compiled_as, fits, integrate_in_one_batch
from .masking_hear import span_mask
from .outputs_hear import HEARForPreTrainingOutput, HEARModelOutput
from .spectrogram_hear import HEARFrontEnd, HEARLogMel, HEARLogPower, HEARSpectrogram
from .task_model_hear import HEARClassificationHead, HEARSpectrogramMixture, HEARTaskModel, pool_statistics
from .weight_files_hear import check_weight_files


class HEARPreTrainedModel(PreTrainedModel):
    """Weight initialisation, and downloading and loading of checkpoints.

    | part | initial values |
    |---|---|
    | feature encoder | normal, Kaiming fan-in |
    | linear layers, relative and absolute positions | normal, `initializer_range` |
    | biases, also the attention's | 0 |
    | norms | 1, 0 |
    """

    config_class: type[PreTrainedConfig] = HEARConfig
    config: HEARConfig | HEARQuantizerConfig
    base_model_prefix = "hear"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the losses are means over the batch they are given
    _no_split_modules = ["HEARLayer"]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs) -> Self:
        """Loads a model as Transformers does, and no weights that lie outside of its folder."""
        if pretrained_model_name_or_path is not None and os.path.isdir(pretrained_model_name_or_path):
            check_weight_files(Path(pretrained_model_name_or_path, kwargs.get("subfolder") or ""))
        return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, HEARFrontEnd):
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

    def get_input_embeddings(self) -> nn.Module:
        """The layer that reads the log-mel frames: quantisers and PEFT ask for the first one."""
        return self.base_model.acoustic_model.feature_encoder

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args, **kwargs) -> str:
        if attn_implementation not in (None, "eager"):
            raise ValueError(
                f"`attn_implementation` must be eager or left out, found: {attn_implementation}. The acoustic model's "
                "relative positions need the attention probabilities, which fused attention does not return; the task "
                "model, which does not need them, calls it by itself."
            )
        return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)

    def _get_feat_extract_output_lengths(self, input_lengths: torch.Tensor | int):
        """Number of encoder frames of clips of `input_lengths` samples."""
        return num_encoder_frames(input_lengths, self.config.hop_length)

    def _check_inputs(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None) -> None:
        if input_values.ndim != 2:
            raise ValueError(
                f"`input_values` must have shape (batch_size, num_samples), found: {tuple(input_values.shape)}. "
                "Average the channels, and give a single clip as `input_values[None]`."
            )
        if input_values.shape[0] == 0:
            raise ValueError("`input_values` must hold at least one clip, found: none. Leave empty batches out.")
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

    def _check_unused(self, others: dict[str, Any]) -> None:
        """Refuses arguments that are not `forward`'s. PEFT gives some, such as `input_ids`, as `None`."""
        if names := [name for name, value in others.items() if value is not None]:
            raise TypeError(
                f"`forward` got unexpected arguments: {', '.join(names)}. The waveform is `input_values`, its mask "
                "`attention_mask`: give them by name."
            )

    def _check_frames(self, name: str, values: torch.Tensor | None, *expected: int) -> None:
        """Refuses `values` of another shape than `expected`, with one row for each frame."""
        if values is not None and values.shape != expected:
            raise ValueError(
                f"`{name}` must have shape {expected}, one row for each frame of 20 ms, found: {tuple(values.shape)}. "
                "`_get_feat_extract_output_lengths` gives the number of frames."
            )

    def _outputs_wanted(self, output_attentions: bool | None, output_hidden_states: bool | None) -> tuple[bool, bool]:
        """Which outputs are asked for, by the call or else by the configuration."""
        config = self.config
        return (
            bool(config.output_attentions if output_attentions is None else output_attentions),
            bool(config.output_hidden_states if output_hidden_states is None else output_hidden_states),
        )


class HEARAcousticEncoder(HEARPreTrainedModel):
    """Front end and acoustic model: what masked audio modelling trains, and what [`HEARModel`] builds on.

    Args:
        config ([`HEARConfig`]): Sizes of the model.
        spectrogram ([`HEARFrontEnd`], *optional*): The front end, by default the log-mel spectrogram alone.
    """

    config: HEARConfig

    def __init__(self, config: HEARConfig, spectrogram: HEARFrontEnd | None = None):
        super().__init__(config)
        self.spectrogram = HEARLogMel(config) if spectrogram is None else spectrogram
        self.acoustic_model = HEARAcousticModel(config)

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        mask_time_indices: torch.Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> HEARModelOutput:
        """Computes what [`HEARModel`] does up to the acoustic hidden states."""
        self._check_inputs(input_values, attention_mask)
        log_mel, frame_mask = self.spectrogram(input_values, attention_mask)
        acoustic = self.encode(log_mel, frame_mask, mask_time_indices, output_attentions, output_hidden_states)
        return HEARModelOutput(
            acoustic_hidden_states=acoustic.last_hidden_state,
            frame_mask=all_valid(acoustic.last_hidden_state) if frame_mask is None else frame_mask,
            hidden_states=acoustic.hidden_states,
            attentions=acoustic.attentions,
        )

    def encode(
        self,
        log_mel: torch.Tensor,
        frame_mask: torch.Tensor | None,
        mask_time_indices: torch.Tensor | None,
        output_attentions: bool,
        output_hidden_states: bool,
    ):
        """The acoustic model's outputs for normalised log-mel frames."""
        batch_size, num_frames = log_mel.shape[0], log_mel.shape[1] // 2
        self._check_frames("mask_time_indices", mask_time_indices, batch_size, num_frames)
        masks = self.frame_masks(frame_mask, mask_time_indices, batch_size, num_frames)
        log_mel = log_mel[:, : 2 * num_frames].to(self.dtype)
        return self.acoustic_model(log_mel, masks, output_attentions, output_hidden_states)

    def frame_masks(
        self,
        frame_mask: torch.Tensor | None,
        mask_time_indices: torch.Tensor | None,
        batch_size: int,
        num_frames: int,
    ) -> FrameMasks:
        """The given masks, and those that SpecAugment draws in training."""
        config, mask_feature_indices = self.config, None
        if self.training and config.apply_spec_augment:
            everything = torch.ones(batch_size, num_frames, dtype=torch.bool, device=self.device)
            if mask_time_indices is None and config.mask_time_prob > 0:
                mask_time_indices = span_mask(
                    everything if frame_mask is None else frame_mask,
                    config.mask_time_prob,
                    config.mask_time_length,
                    config.mask_time_min_masks,
                )
            if config.mask_feature_prob > 0:
                mask_feature_indices = span_mask(
                    everything[:, :1].expand(-1, config.hidden_size),
                    config.mask_feature_prob,
                    config.mask_feature_length,
                    config.mask_feature_min_masks,
                )
        return FrameMasks(frame_mask, mask_time_indices, mask_feature_indices)


class HEARModel(HEARAcousticEncoder):
    """The bare HEAR model: front end, acoustic model, spectrogram mixture and task model, without a head.

    Args:
        config ([`HEARConfig`]): Sizes of the model.
    """

    def __init__(self, config: HEARConfig):
        super().__init__(config, HEARSpectrogram(config))
        self.spectrogram_mixture = HEARSpectrogramMixture(config)
        self.task_model = HEARTaskModel(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        mask_time_indices: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        _in_place: bool = False,
        **kwargs,
    ) -> HEARModelOutput:
        r"""
        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`):
                Mono waveform in [-1, 1] at `config.sampling_rate`, of any length from 201 samples (at 16 kHz) on.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 = real sample, 0 = padding. Padding may hold anything, on either side of the clip. On a
                CPU, samples that are 0 between others are silence.
            mask_time_indices (`torch.BoolTensor` of shape `(batch_size, num_frames)`, *optional*):
                True = frame that is masked in front of the acoustic model's layers.
            output_attentions (`bool`, *optional*): Whether to return the attention probabilities.
            output_hidden_states (`bool`, *optional*): Whether to return the hidden states of all layers.
            return_dict (`bool`, *optional*): Whether to return a [`HEARModelOutput`] rather than a tuple.

        Raises:
            `ValueError`: if the waveform has another shape than `(batch_size, num_samples)` or is too short, or a
                mask has another shape.
        """
        self._check_unused(kwargs)
        output_attentions, output_hidden_states = self._outputs_wanted(output_attentions, output_hidden_states)
        self._check_inputs(input_values, attention_mask)

        acoustic, log_power, frame_mask = self.encode_waveform(
            input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states
        )
        # Private to the classifier, which needs no acoustic hidden states: overwriting those of an hour saves 276 MB.
        in_place = _in_place and not (output_hidden_states or torch.is_grad_enabled())
        integrated, attentions = self.integrate(
            acoustic.last_hidden_state, log_power, frame_mask, output_attentions, in_place
        )
        frame_mask = all_valid(integrated) if frame_mask is None else frame_mask
        pooled = pool_statistics(integrated, frame_mask, self.config.max_position_embeddings)

        return HEARModelOutput(
            last_hidden_state=integrated,
            pooler_output=pooled.to(integrated.dtype),
            acoustic_hidden_states=None if _in_place else acoustic.last_hidden_state,
            frame_mask=frame_mask,
            hidden_states=(*acoustic.hidden_states, integrated) if output_hidden_states else None,
            attentions=(*acoustic.attentions, attentions) if output_attentions else None,
        )

    def encode_waveform(self, input_values, attention_mask, *options):
        """The acoustic model's outputs, log-power and frame mask; on return an hour's log-mel of 184 MB is freed."""
        log_mel, log_power, frame_mask = self.spectrogram(input_values, attention_mask)
        return self.encode(log_mel, frame_mask, *options), log_power, frame_mask

    def integrate(
        self,
        acoustic_hidden_states: torch.Tensor,
        log_power: HEARLogPower,
        frame_mask: torch.Tensor | None,
        output_attentions: bool,
        in_place: bool,
    ):
        """Mixture and task model: (B, n, D) -> (B, n, task_hidden_size), and attention probabilities."""
        num_frames = acoustic_hidden_states.shape[1]
        if fits(num_frames, self.config.max_position_embeddings):
            power = log_power.frames(0, 2 * num_frames)
            return self.integrate_segment(acoustic_hidden_states, power, frame_mask, output_attentions)
        return self.integrate_segments(acoustic_hidden_states, log_power, frame_mask, output_attentions, in_place)

    def integrate_segment(self, acoustic_hidden_states, log_power, frame_mask, output_attentions):
        mixed = self.spectrogram_mixture(acoustic_hidden_states, log_power.to(acoustic_hidden_states.dtype))
        return self.task_model(mixed, frame_mask, output_attentions)

    @compiled_as(integrate_in_one_batch)
    def integrate_segments(self, acoustic_hidden_states, log_power, frame_mask, output_attentions, in_place):
        attentions = []

        def compute(start: int, stop: int) -> tuple[torch.Tensor]:
            segment_mask = None if frame_mask is None else frame_mask[:, start:stop]
            segment, power = acoustic_hidden_states[:, start:stop], log_power.frames(2 * start, 2 * stop)
            output, weights = self.integrate_segment(segment, power, segment_mask, output_attentions)
            attentions.append(weights)
            return (output,)

        num_frames, width = acoustic_hidden_states.shape[1:]
        out = (acoustic_hidden_states,) if in_place and width == self.config.task_hidden_size else ()
        (integrated,) = in_segments(compute, num_frames, self.config.max_position_embeddings, out)
        return integrated, tuple(attentions)


class HEARForPreTraining(HEARPreTrainedModel):
    """HEAR's acoustic model with a head that predicts the codes of masked frames: masked audio modelling (paper, 3.2).

    The codes come from a [`HEARQuantizer`]. Mixture and task model have no part in this stage: a classifier that is
    loaded from such a checkpoint starts with new ones.

    Args:
        config ([`HEARConfig`]): Sizes, among them the quantizer's `codebook_size`.
    """

    config: HEARConfig

    def __init__(self, config: HEARConfig):
        super().__init__(config)
        self.hear = HEARAcousticEncoder(config)
        self.code_head = nn.Linear(config.hidden_size, config.codebook_size)
        self.post_init()

    def freeze_feature_encoder(self) -> None:
        """Freezes the convolution in front of the acoustic model."""
        self.hear.acoustic_model.feature_encoder.requires_grad_(False)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        mask_time_indices: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> HEARForPreTrainingOutput:
        r"""
        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`):
                Mono waveform in [-1, 1] at `config.sampling_rate`. See [`HEARFeatureExtractor`].
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 = real sample, 0 = padding.
            mask_time_indices (`torch.BoolTensor` of shape `(batch_size, num_frames)`, *optional*):
                True = frame masked and scored. In padding it has no effect.
            labels (`torch.LongTensor` of shape `(batch_size, num_frames)`, *optional*):
                The quantizer's codes, in `[0, config.codebook_size - 1]`; -100 = not scored. Needs
                `mask_time_indices`.
            output_attentions (`bool`, *optional*): Whether to return the attention probabilities.
            output_hidden_states (`bool`, *optional*): Whether to return the hidden states of all layers.
            return_dict (`bool`, *optional*): Whether to return a [`HEARForPreTrainingOutput`] rather than a tuple.

        Raises:
            `ValueError`: if `labels` come without `mask_time_indices`, or something has another shape.
        """
        if labels is not None and mask_time_indices is None:
            raise ValueError(
                "`labels` must come with `mask_time_indices`, which mark the frames to score, found: None. "
                "`hear_hf.share_mask` draws them."
            )
        outputs = self.hear(
            input_values,
            attention_mask,
            mask_time_indices,
            *self._outputs_wanted(output_attentions, output_hidden_states),
        )
        logits = self.code_head(outputs.acoustic_hidden_states)
        self._check_frames("labels", labels, *logits.shape[:2])
        loss = accuracy = num_masked = None
        if labels is not None:
            masked = outputs.frame_mask.logical_and(mask_time_indices)
            loss, accuracy, num_masked = masked_prediction_scores(logits, labels, masked)
        return HEARForPreTrainingOutput(
            loss=loss,
            logits=logits,
            masked_accuracy=accuracy,
            num_masked_frames=num_masked,
            acoustic_hidden_states=outputs.acoustic_hidden_states,
            frame_mask=outputs.frame_mask,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def masked_prediction_scores(
    logits: torch.Tensor, labels: torch.Tensor, masked: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean cross entropy and accuracy over the masked frames, and their number; all 0 where there are none."""
    labels = labels.masked_fill(~masked, -100)
    num_masked = (labels != -100).sum()
    total = nn.functional.cross_entropy(at_least_float32(logits).flatten(0, 1), labels.flatten(), reduction="sum")
    num_correct = (logits.argmax(-1) == labels).sum()
    return total / num_masked.clamp(min=1), num_correct / num_masked.clamp(min=1), num_masked


class HEARForAudioClassification(HEARPreTrainedModel):
    """HEAR with a classification head on the pooled output, for single-label and multi-label tasks and regression.

    Args:
        config ([`HEARConfig`]): Sizes, labels (`id2label`) and `problem_type`.
    """

    config: HEARConfig

    def __init__(self, config: HEARConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.hear = HEARModel(config)
        self.classifier = HEARClassificationHead(config)
        self.post_init()

    def freeze_feature_encoder(self) -> None:
        """Freezes the convolution in front of the acoustic model."""
        self.hear.acoustic_model.feature_encoder.requires_grad_(False)

    def freeze_base_model(self) -> None:
        """Freezes everything but the classification head."""
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
        **kwargs,
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
        self._check_unused(kwargs)
        outputs = self.hear(
            input_values,
            attention_mask=attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            _in_place=True,
        )
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else self.loss_function(labels, at_least_float32(logits), self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = ["HEARForAudioClassification", "HEARForPreTraining", "HEARModel", "HEARPreTrainedModel"]
