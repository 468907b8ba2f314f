"""PyTorch HEAR model (arXiv:2603.26098).

Shapes: B batch, N samples, n encoder frames (20 ms), D width.
"""

import copy

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from .acoustic_model_hear import HEARAcousticModel  # noqa: F401  (Transformers 5.4 copies only files imported here)
from .attention_hear import HEARAttention  # noqa: F401  (as above)
from .base_hear import HEARAcousticEncoder, HEARPreTrainedModel
from .configuration_hear import HEARConfig
from .frame_head_hear import IGNORED_LABEL, binary_loss, pool_frame_logits
from .frames_hear import all_valid, at_least_float32, in_segments
from .graphs_hear import compiled_as, fits, integrate_in_one_batch
from .masking_hear import span_mask  # noqa: F401  (as above)
from .outputs_hear import HEARForPreTrainingOutput, HEARFrameClassifierOutput, HEARModelOutput
from .sentence_transformers_hear import FILES  # noqa: F401  (as above)
from .spectrogram_hear import HEARLogPower, HEARSpectrogram
from .task_model_hear import (
    HEARClassificationHead,
    HEARLinearHead,
    HEARSpectrogramMixture,
    HEARTaskModel,
    pool_statistics,
)
from .weight_files_hear import check_weight_files  # noqa: F401  (as above)

# A label is silent in most frames: a new head that began at a probability of a half would first drive all frames to
# one state (as in arXiv:1708.02002, section 4.1).
SILENT_LOGIT = -4.0  # a probability of 2 %


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
                1 = real sample, 0 = padding. Padding may hold anything, on either side of the clip. Between
                real samples it is silence.
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
        has_hidden_layer = config.classifier_proj_size is not None
        self.classifier = HEARClassificationHead(config) if has_hidden_layer else HEARLinearHead(config)
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


class HEARForAudioFrameClassification(HEARPreTrainedModel):
    """HEAR with a linear head on each frame of 20 ms, which may have any number of labels: what is heard when.

    It learns from labels of frames or of clips, for its frames are pooled to a result of the clip.

    Args:
        config ([`HEARConfig`]): Sizes, labels (`id2label`) and `frame_pooling`. The model's own is a copy with
            `problem_type="multi_label_classification"`.
    """

    config: HEARConfig

    def __init__(self, config: HEARConfig):
        config = copy.deepcopy(config)
        config.problem_type = "multi_label_classification"
        super().__init__(config)
        self.num_labels = config.num_labels
        self.hear = HEARModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.frame_classifier = nn.Linear(config.task_hidden_size, config.num_labels)  # type: ignore[arg-type]
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if module is self.frame_classifier:
            init.constant_(module.bias, SILENT_LOGIT)

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
    ) -> HEARFrameClassifierOutput:
        r"""
        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`):
                Mono waveform in [-1, 1] at `config.sampling_rate`. See [`HEARFeatureExtractor`].
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 = real sample, 0 = padding.
            labels (`torch.Tensor` of shape `(batch_size, num_frames, num_labels)` or `(batch_size, num_labels)`,
                *optional*):
                From 0 to 1 for each label of each frame, or of each clip: binary cross entropy of `logits` or of
                `clip_logits`. -100 = not scored; nor are frames of padding.
            output_attentions (`bool`, *optional*): Whether to return the attention probabilities.
            output_hidden_states (`bool`, *optional*): Whether to return the hidden states of all layers.
            return_dict (`bool`, *optional*): Whether to return a [`HEARFrameClassifierOutput`] rather than a tuple.

        Raises:
            `ValueError`: if `labels` have another shape.
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
        logits = self.frame_classifier(self.dropout(outputs.last_hidden_state))
        clip_logits = pool_frame_logits(logits, outputs.frame_mask, self.config.frame_pooling)
        loss = None
        if labels is not None and labels.ndim == 2:
            self._check_frames("labels", labels, *clip_logits.shape)
            loss = binary_loss(clip_logits, labels)
        elif labels is not None:
            self._check_frames("labels", labels, *logits.shape)
            loss = binary_loss(logits, labels.masked_fill(~outputs.frame_mask.unsqueeze(-1), IGNORED_LABEL))
        return HEARFrameClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            clip_logits=clip_logits,
            frame_mask=outputs.frame_mask,
        )


__all__ = [
    "HEARForAudioClassification",
    "HEARForAudioFrameClassification",
    "HEARForPreTraining",
    "HEARModel",
    "HEARPreTrainedModel",
]
