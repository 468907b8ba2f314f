"""Outputs of the HEAR models."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


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
            num_frames)`, or for clips of several windows a tuple of these, one for each window; last those of the task
            model, or for clips of several segments a tuple of these.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    acoustic_hidden_states: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class HEARFrameClassifierOutput(ModelOutput):
    """
    Output of [`HEARForAudioFrameClassification`]: Transformers' `TokenClassifierOutput`, and the result of the clip.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*, with `labels`):
            Binary cross entropy of the labels of frames or of clips.
        logits (`torch.FloatTensor` of shape `(batch_size, num_frames, num_labels)`):
            Scores of the labels of each frame of 20 ms, before the sigmoid.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, with `output_hidden_states=True`):
            As in [`HEARModelOutput`].
        attentions (`tuple(torch.FloatTensor)`, *optional*, with `output_attentions=True`):
            As in [`HEARModelOutput`].
        clip_logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`):
            Scores of the labels of each clip, pooled from its valid frames as `config.frame_pooling` says, in float32.
        frame_mask (`torch.BoolTensor` of shape `(batch_size, num_frames)`):
            True where a frame belongs to the clip, False where it is padding.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    clip_logits: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None


@dataclass
class HEARForPreTrainingOutput(ModelOutput):
    """
    Output of [`HEARForPreTraining`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*, with `labels`):
            Cross entropy of the codes of the masked frames.
        logits (`torch.FloatTensor` of shape `(batch_size, num_frames, codebook_size)`):
            Scores of the codes of each frame, before the softmax.
        masked_accuracy (`torch.FloatTensor` of shape `(1,)`, *optional*, with `labels`):
            Share of the masked frames whose code is scored highest.
        num_masked_frames (`torch.LongTensor` of shape `(1,)`, *optional*, with `labels`):
            Number of frames over which `loss` and `masked_accuracy` are means.
        acoustic_hidden_states (`torch.FloatTensor` of shape `(batch_size, num_frames, hidden_size)`):
            Output of the acoustic model.
        frame_mask (`torch.BoolTensor` of shape `(batch_size, num_frames)`):
            True where a frame belongs to the clip, False where it is padding.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, with `output_hidden_states=True`):
            Output of the feature encoder and of each layer of the acoustic model.
        attentions (`tuple(torch.FloatTensor)`, *optional*, with `output_attentions=True`):
            Attention probabilities of each layer, as in [`HEARModelOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    masked_accuracy: torch.Tensor | None = None
    num_masked_frames: torch.Tensor | None = None
    acoustic_hidden_states: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class HEARQuantizerOutput(ModelOutput):
    """
    Output of [`HEARQuantizer`].

    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, num_frames, codebook_size)`):
            Scores of the codes of each frame, before the softmax.
        codes (`torch.LongTensor` of shape `(batch_size, num_frames)`):
            Code of each frame of 20 ms; -100 in padding, so that they serve as `labels` of [`HEARForPreTraining`].
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_frames, hidden_size)`):
            Output of the encoder.
        frame_mask (`torch.BoolTensor` of shape `(batch_size, num_frames)`):
            True where a frame belongs to the clip, False where it is padding.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, with `output_hidden_states=True`):
            Output of the feature encoder and of each layer.
        attentions (`tuple(torch.FloatTensor)`, *optional*, with `output_attentions=True`):
            Attention probabilities of each layer, as in [`HEARModelOutput`].
    """

    logits: torch.Tensor | None = None
    codes: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class HEARQuantizerForPreTrainingOutput(ModelOutput):
    """
    Output of [`HEARQuantizerForPreTraining`]. The losses are means over the valid frames, before they are weighted.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`):
            Weighted sum of the three losses.
        reconstruction_loss (`torch.FloatTensor` of shape `(1,)`):
            Squared error of the normalised log-mel spectrogram.
        distillation_loss (`torch.FloatTensor` of shape `(1,)`, *optional*, with `teacher_hidden_states`):
            1 less the cosine between the predicted and the teacher's hidden states.
        diversity_loss (`torch.FloatTensor` of shape `(1,)`):
            Squared distance of the mean code probabilities from equal ones.
        logits (`torch.FloatTensor` of shape `(batch_size, num_frames, codebook_size)`):
            Scores of the codes of each frame, before the softmax.
        codes (`torch.LongTensor` of shape `(batch_size, num_frames)`):
            Highest-scored code of each frame; -100 in padding.
        code_perplexity (`torch.FloatTensor` of shape `(1,)`):
            Exponential of the entropy of `codes` over the batch: as many codes, equally frequent, would have it.
        code_usage (`torch.FloatTensor` of shape `(1,)`):
            Share of the codebook that occurs in `codes`.
        temperature (`torch.FloatTensor` of shape `(1,)`):
            Temperature of the Gumbel softmax.
        reconstruction (`torch.FloatTensor` of shape `(batch_size, 2 * num_frames, num_mel_bins)`):
            Reconstructed log-mel spectrogram.
        log_mel (`torch.FloatTensor` of shape `(batch_size, 2 * num_frames, num_mel_bins)`):
            The log-mel spectrogram to reconstruct.
        frame_mask (`torch.BoolTensor` of shape `(batch_size, num_frames)`):
            True where a frame belongs to the clip, False where it is padding.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, with `output_hidden_states=True`):
            Output of the quantizer's feature encoder and of each of its layers.
        attentions (`tuple(torch.FloatTensor)`, *optional*, with `output_attentions=True`):
            Attention probabilities of each of its layers, as in [`HEARModelOutput`].
    """

    loss: torch.Tensor | None = None
    reconstruction_loss: torch.Tensor | None = None
    distillation_loss: torch.Tensor | None = None
    diversity_loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    codes: torch.Tensor | None = None
    code_perplexity: torch.Tensor | None = None
    code_usage: torch.Tensor | None = None
    temperature: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    log_mel: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
