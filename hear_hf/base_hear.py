"""What every HEAR model is built on: loading, initial weights and checks of inputs, and the acoustic encoder.

Shapes: B batch, N samples, n encoder frames (20 ms), D width.
"""

from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from .acoustic_model_hear import FrameMasks, HEARAcousticModel
from .attention_hear import HEARAttention
from .configuration_hear import HEARConfig, HEARQuantizerConfig
from .frames_hear import all_valid, num_encoder_frames
from .masking_hear import span_mask
from .outputs_hear import HEARModelOutput
from .spectrogram_hear import HEARFrontEnd, HEARLogMel
from .task_model_hear import HEARTaskModel
from .weight_files_hear import check_weight_files


class HEARPreTrainedModel(PreTrainedModel):
    """Weight initialisation, and downloading and loading of checkpoints.

    | part | initial values |
    |---|---|
    | feature encoder | normal, Kaiming fan-in |
    | linear layers, relative and absolute positions | normal, `initializer_range` |
    | biases, also the attention's | 0; of labels of frames -4 |
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
        """Loads a model as Transformers does, and no weights that lie outside of its folder or repository."""
        if pretrained_model_name_or_path is not None:
            check_weight_files(str(pretrained_model_name_or_path), **kwargs)
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
        base: Any = self.base_model
        return base.acoustic_model.feature_encoder

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
                f"`forward` got unexpected arguments: {', '.join(names)}. The waveform is `input_values`, and its "
                "mask `attention_mask`: give them by name."
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
