"""What the embedding of a clip and of a frame is, for all who take one.

model = EmbeddingModel.from_pretrained("checkpoints/hear-tiny")
outputs = model(torch.zeros(1, 16_000))  # one second
outputs.pooler_output  # of clips: (1, clip_size)
outputs.last_hidden_state  # of frames of 20 ms: (1, 50, frame_size)
"""

import hashlib
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, PreTrainedModel

from .. import HEARModel
from ..configuration_hear import WITHOUT_EMBEDDING
from ..outputs_hear import HEARModelOutput
from ..rates import check_rates
from ..scores import scores_of
from .frozen_encoders import check_weights


class EmbeddingModel(nn.Module):
    """
    A frozen HEAR that embeds clips and frames, whatever head it has.

    The embedding of a clip is `pooler_output`: mean, maximum and standard deviation, over the clip's frames, of the
    task model's output. That of a frame is the output itself, `last_hidden_state`, one vector per 20 ms. Neither
    depends on the other clips of a batch.

    Args:
        model (`PreTrainedModel`): A [`HEARModel`], or a model that is built on one. It is frozen in place.
        feature_extractor ([`HEARFeatureExtractor`]): The one that belongs to the model.

    Attributes: `sampling_rate` in Hz, `clip_size` and `frame_size` (widths), `frame_milliseconds` (from one frame to
    the next), `labels` (names, none without a classification head), `name` and `revision` (of the Hub, else `None`).

    Raises:
        `ValueError`: The model is none that embeds clips, or reads another rate than the feature extractor.
    """

    def __init__(self, model: PreTrainedModel, feature_extractor: Any):
        super().__init__()
        config: Any = model.config
        self.name = model.name_or_path or type(model).__name__
        if type(model.base_model).__name__ != HEARModel.__name__:
            raise ValueError(
                f"{self.name} must be a HEAR with a task model, found: {type(model).__name__}. Fine-tune it."
            )
        check_rates(self.name, config, feature_extractor)
        self.model, self.feature_extractor = model.eval().requires_grad_(False), feature_extractor
        self.revision: str | None = getattr(config, "_commit_hash", None)
        self.sampling_rate: int = config.sampling_rate
        self.clip_size, self.frame_size = 3 * config.task_hidden_size, config.task_hidden_size
        self.frame_milliseconds = 1000 * config.inputs_to_logits_ratio / config.sampling_rate
        self.labels = [config.id2label[i] for i in range(config.num_labels)] if hasattr(model, "classifier") else []

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | PathLike, revision: str = "main", trust_remote_code: bool = False
    ) -> Self:
        """
        Loads a checkpoint with its feature extractor, in float32.

        Args:
            name_or_path (`str` or `PathLike`): A checkpoint of the Hub or a folder.
            revision (`str`, *optional*, defaults to `"main"`): Branch, tag or commit on the Hub.
            trust_remote_code (`bool`, *optional*, defaults to `False`): Whether to run code that it brings.

        Raises:
            `ValueError`: It is no HEAR, or lacks weights that the embeddings depend on.
        """
        source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(name_or_path, **source)
        architecture = (config.architectures or [""])[0]
        if config.model_type != "hear":
            raise ValueError(f"{name_or_path} must be a HEAR, which embeds clips, found: {config.model_type}.")
        if architecture in WITHOUT_EMBEDDING:
            raise ValueError(
                f"{name_or_path} must have a task model, which pretraining leaves out, found: {architecture}. "
                "Fine-tune it."
            )
        auto_class = AutoModelForAudioClassification if architecture.endswith("ForAudioClassification") else AutoModel
        model, info = auto_class.from_pretrained(name_or_path, dtype=torch.float32, output_loading_info=True, **source)
        check_weights(model, model.base_model, set(info["missing_keys"]), most=False)
        return cls(model, AutoFeatureExtractor.from_pretrained(name_or_path, **source))

    @torch.no_grad()
    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None) -> HEARModelOutput:
        """Embeds clips, (batch_size, num_samples) at `sampling_rate`; the mask says which samples are real."""
        return self.model.base_model(input_values.float(), attention_mask, return_dict=True)

    def read(self, clips: list[np.ndarray]) -> HEARModelOutput:
        """Embeds clips of any lengths, each of shape `(num_samples,)` at `sampling_rate`."""
        inputs = self.feature_extractor(clips, sampling_rate=self.sampling_rate, padding=True, return_tensors="pt")
        return self(**inputs.to(next(self.parameters()).device))

    @torch.no_grad()
    def scores(self, outputs: HEARModelOutput) -> torch.Tensor:
        """Scores the `labels` of clips from their outputs, (batch_size, num_labels), where there is such a head."""
        head: Any = self.model.classifier
        return scores_of(head(outputs.pooler_output), self.model.config.problem_type)

    def digest(self) -> str:
        """Tells checkpoints apart by the weights that the embeddings depend on, whatever file they come from."""
        return _digest(self.model.base_model)

    def head_digest(self) -> str:
        """Tells heads apart by their weights; only with a classification head."""
        return _digest(self.model.classifier)


def _digest(module: nn.Module) -> str:
    found = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        found.update(key.encode() + value.cpu().numpy().tobytes())
    return found.hexdigest()[:16]
