"""PyTorch HEAR quantizer, the paper's acoustic tokenizer, and its training by distillation (arXiv:2603.26098, 3.2).

Shapes: B batch, N samples, n encoder frames (20 ms), K codes, T = 2n spectrogram frames (10 ms).
"""

import math

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils.generic import can_return_tuple

from .acoustic_model_hear import FrameMasks, HEARAcousticModel, HEARWindowedLayers
from .attention_hear import HEARAttention  # noqa: F401  (Transformers 5.4 copies only files that this one imports)
from .base_hear import HEARPreTrainedModel
from .configuration_hear import HEARQuantizerConfig
from .frames_hear import all_valid, at_least_float32
from .graphs_hear import fits  # noqa: F401  (as above)
from .masking_hear import share_mask  # noqa: F401  (as above)
from .outputs_hear import HEARQuantizerForPreTrainingOutput, HEARQuantizerOutput
from .sentence_transformers_hear import FILES  # noqa: F401  (as above)
from .spectrogram_hear import HEARLogMel
from .task_model_hear import HEARTaskModel  # noqa: F401  (as above)
from .weight_files_hear import check_weight_files  # noqa: F401  (as above)


class HEARGumbelVectorQuantizer(nn.Module):
    """Logits -> code vectors: the best code's, or in training one drawn by the Gumbel softmax (arXiv:1611.01144).

    The temperature falls exponentially with the number of updates, which is saved with the weights.
    """

    num_updates: torch.Tensor

    def __init__(self, config: HEARQuantizerConfig):
        super().__init__()
        self.initial_temperature, self.min_temperature = config.gumbel_temperature, config.gumbel_min_temperature
        self.log_decay = math.log(config.gumbel_temperature_decay)
        self.codebook = nn.Parameter(torch.randn(config.codebook_size, config.codebook_dim))
        self.projection = nn.Linear(config.codebook_dim, config.decoder_hidden_size)
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))  # an integer, which no cast rounds

    @property
    def temperature(self) -> torch.Tensor:
        decayed = self.initial_temperature * (self.log_decay * self.num_updates.float()).exp()
        return decayed.clamp(min=self.min_temperature)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        if self.training:
            # `tau` may be a tensor, whose value the CPU need not wait for.
            chosen = nn.functional.gumbel_softmax(logits.float(), tau=self.temperature, hard=True)  # type: ignore[arg-type]
        else:
            chosen = nn.functional.one_hot(logits.argmax(-1), logits.shape[-1])
        return self.projection(chosen.to(self.codebook.dtype) @ self.codebook)


class HEARQuantizerDecoder(nn.Module):
    """Code vectors -> log-mel frames and the teacher's hidden states."""

    def __init__(self, config: HEARQuantizerConfig):
        super().__init__()
        width = config.decoder_hidden_size
        self.num_mel_bins = config.num_mel_bins
        self.transformer = HEARWindowedLayers(decoder_layers_config(config))
        self.dense = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mel_head = nn.Linear(width, 2 * config.num_mel_bins)
        self.teacher_head = None
        if config.teacher_hidden_size is not None:
            self.teacher_head = nn.Linear(width, config.teacher_hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, frame_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        hidden_states = self.transformer(hidden_states, FrameMasks(frame_mask)).last_hidden_state
        hidden_states = self.layer_norm(nn.functional.gelu(self.dense(hidden_states)))
        log_mel = self.mel_head(hidden_states).unflatten(-1, (2, self.num_mel_bins)).flatten(1, 2)  # (B, T, mel)
        return log_mel, None if self.teacher_head is None else self.teacher_head(hidden_states)


def decoder_layers_config(config: HEARQuantizerConfig) -> HEARQuantizerConfig:
    """Configuration of the decoder's layers."""
    return type(config)(
        hidden_size=config.decoder_hidden_size,
        num_hidden_layers=config.decoder_num_hidden_layers,
        num_attention_heads=config.decoder_num_attention_heads,
        intermediate_size=config.decoder_intermediate_size,
        hidden_act=config.hidden_act,
        hidden_dropout=config.hidden_dropout,
        activation_dropout=config.activation_dropout,
        attention_dropout=config.attention_dropout,
        window_length=config.window_length,
        window_overlap=config.window_overlap,
        layer_norm_eps=config.layer_norm_eps,
    )


class HEARQuantizerPreTrainedModel(HEARPreTrainedModel):
    """Weight initialisation as in [`HEARPreTrainedModel`]; the codebook is drawn from a standard normal."""

    config_class = HEARQuantizerConfig
    config: HEARQuantizerConfig
    base_model_prefix = "quantizer"

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, HEARGumbelVectorQuantizer):
            init.normal_(module.codebook)
            init.zeros_(module.num_updates)


class HEARQuantizer(HEARQuantizerPreTrainedModel):
    """HEAR's acoustic tokenizer: one code for each 20 ms of sound.

    Args:
        config ([`HEARQuantizerConfig`]): Sizes of the model.
    """

    _keys_to_ignore_on_load_unexpected = [r"^decoder\.", r"^vector_quantizer\."]  # which only training needs

    def __init__(self, config: HEARQuantizerConfig):
        super().__init__(config)
        self.spectrogram = HEARLogMel(config)
        self.acoustic_model = HEARAcousticModel(config)
        self.code_head = nn.Linear(config.hidden_size, config.codebook_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> HEARQuantizerOutput:
        r"""
        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`):
                Mono waveform in [-1, 1] at `config.sampling_rate`, of any length. See [`HEARFeatureExtractor`].
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 = real sample, 0 = padding. Padding may hold anything, on either side of the clip. Between
                real samples it is silence.
            output_attentions (`bool`, *optional*): Whether to return the attention probabilities.
            output_hidden_states (`bool`, *optional*): Whether to return the hidden states of all layers.
            return_dict (`bool`, *optional*): Whether to return a [`HEARQuantizerOutput`] rather than a tuple.

        Raises:
            `ValueError`: if the waveform has another shape than `(batch_size, num_samples)` or is too short, or the
                mask has another shape.
        """
        self._check_inputs(input_values, attention_mask)
        log_mel, frame_mask = self.spectrogram(input_values, attention_mask)
        return self.quantize(log_mel, frame_mask, *self._outputs_wanted(output_attentions, output_hidden_states))

    def quantize(
        self,
        log_mel: torch.Tensor,
        frame_mask: torch.Tensor | None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> HEARQuantizerOutput:
        """Quantizes normalised log-mel frames, (B, T, num_mel_bins); an odd last frame is dropped."""
        log_mel = log_mel[:, : log_mel.shape[1] // 2 * 2].to(self.dtype)
        encoded = self.acoustic_model(log_mel, FrameMasks(frame_mask), output_attentions, output_hidden_states)
        logits = self.code_head(encoded.last_hidden_state)
        frame_mask = all_valid(logits) if frame_mask is None else frame_mask
        return HEARQuantizerOutput(
            logits=logits,
            codes=logits.argmax(-1).masked_fill(~frame_mask, -100),
            last_hidden_state=encoded.last_hidden_state,
            frame_mask=frame_mask,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class HEARQuantizerForPreTraining(HEARQuantizerPreTrainedModel):
    """[`HEARQuantizer`] with the codebook and the decoder by which it is trained (paper, section 3.2).

    The decoder reconstructs the log-mel spectrogram from the codes, and predicts the hidden states of a teacher.
    Call [`~HEARQuantizerForPreTraining.anneal_temperature`] after each optimizer step.

    Args:
        config ([`HEARQuantizerConfig`]): Sizes and weights of the losses.
    """

    def __init__(self, config: HEARQuantizerConfig):
        super().__init__(config)
        self.quantizer = HEARQuantizer(config)
        self.vector_quantizer = HEARGumbelVectorQuantizer(config)
        self.decoder = HEARQuantizerDecoder(config)
        self.post_init()

    def anneal_temperature(self) -> None:
        """Lowers the temperature of the Gumbel softmax by one step."""
        self.vector_quantizer.num_updates += 1

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        teacher_hidden_states: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> HEARQuantizerForPreTrainingOutput:
        r"""
        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`):
                Mono waveform in [-1, 1] at `config.sampling_rate`. See [`HEARFeatureExtractor`].
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 = real sample, 0 = padding.
            teacher_hidden_states (`torch.FloatTensor`, *optional*):
                The teacher's hidden state of each frame of 20 ms, of shape `(batch_size, num_frames,
                teacher_hidden_size)`. Padding may hold anything.
            output_attentions (`bool`, *optional*): Whether to return the quantizer's attention probabilities.
            output_hidden_states (`bool`, *optional*): Whether to return the hidden states of all its layers.
            return_dict (`bool`, *optional*):
                Whether to return a [`HEARQuantizerForPreTrainingOutput`] rather than a tuple.

        Raises:
            `ValueError`: if something has another shape, or teacher states are given to a model without
                `config.teacher_hidden_size`.
        """
        self._check_inputs(input_values, attention_mask)
        log_mel, frame_mask = self.quantizer.spectrogram(input_values, attention_mask)
        quantized = self.quantizer.quantize(
            log_mel, frame_mask, *self._outputs_wanted(output_attentions, output_hidden_states)
        )
        assert quantized.logits is not None and quantized.codes is not None and quantized.frame_mask is not None
        self._check_teacher(teacher_hidden_states, quantized.codes)
        log_mel, frame_mask = log_mel[:, : 2 * quantized.codes.shape[1]], quantized.frame_mask
        reconstruction, prediction = self.decoder(self.vector_quantizer(quantized.logits), frame_mask)

        losses = {"reconstruction_loss": reconstruction_loss(reconstruction, log_mel, frame_mask)}
        if teacher_hidden_states is not None:
            losses["distillation_loss"] = distillation_loss(prediction, teacher_hidden_states, frame_mask)
        losses["diversity_loss"] = diversity_loss(quantized.logits, frame_mask)
        perplexity, usage = code_statistics(count_codes(quantized.codes, self.config.codebook_size))
        return HEARQuantizerForPreTrainingOutput(
            loss=sum(getattr(self.config, f"{name}_weight") * loss for name, loss in losses.items()),
            **losses,
            logits=quantized.logits,
            codes=quantized.codes,
            code_perplexity=perplexity,
            code_usage=usage,
            temperature=self.vector_quantizer.temperature,
            reconstruction=reconstruction,
            log_mel=log_mel,
            frame_mask=frame_mask,
            hidden_states=quantized.hidden_states,
            attentions=quantized.attentions,
        )

    def _check_teacher(self, teacher_hidden_states: torch.Tensor | None, codes: torch.Tensor) -> None:
        if teacher_hidden_states is None:
            return
        width = self.config.teacher_hidden_size
        if width is None:
            raise ValueError(
                "`teacher_hidden_states` need a model whose `config.teacher_hidden_size` is their width, found: None."
            )
        self._check_frames("teacher_hidden_states", teacher_hidden_states, *codes.shape, width)


def reconstruction_loss(reconstruction: torch.Tensor, log_mel: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
    """Squared error of the log-mel frames, two of which belong to each encoder frame."""
    errors = (at_least_float32(reconstruction) - log_mel).square().mean(-1)
    return valid_mean(errors, frame_mask.repeat_interleave(2, dim=1))


def distillation_loss(
    prediction: torch.Tensor, teacher_hidden_states: torch.Tensor, frame_mask: torch.Tensor
) -> torch.Tensor:
    """1 less the cosine between the predicted and the teacher's hidden states."""
    teacher = at_least_float32(teacher_hidden_states)
    teacher = teacher.masked_fill(~frame_mask.unsqueeze(-1), 0.0)  # NaN has NaN gradients
    return valid_mean(1 - nn.functional.cosine_similarity(at_least_float32(prediction), teacher, dim=-1), frame_mask)


def diversity_loss(logits: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
    """Squared distance of the mean code probabilities over the valid frames from equal ones."""
    probs = at_least_float32(logits).softmax(-1) * frame_mask.unsqueeze(-1)
    mean_probs = probs.sum((0, 1)) / frame_mask.sum()
    return (mean_probs - 1 / logits.shape[-1]).square().sum()


def valid_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum()


def count_codes(codes: torch.Tensor, codebook_size: int) -> torch.Tensor:
    """Counts how often each code occurs, (codebook_size,), without -100."""
    # The last count is that of -100. `bincount` would make the CPU wait for a GPU.
    counts = torch.zeros(codebook_size + 1, device=codes.device)
    indices = torch.where(codes < 0, codebook_size, codes).flatten()
    return counts.scatter_add(0, indices, torch.ones_like(indices, dtype=counts.dtype))[:codebook_size]


def code_statistics(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Perplexity of codes with these counts, and the share of the codebook in use."""
    shares = counts / counts.sum().clamp(min=1)
    return torch.special.entr(shares).sum().exp(), (counts > 0).float().mean()


__all__ = ["HEARQuantizer", "HEARQuantizerForPreTraining", "HEARQuantizerPreTrainedModel"]
