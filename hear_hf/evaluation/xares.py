"""HEAR as X-ARES reads encoders (https://github.com/jimbozhang/xares), from the checkpoint that HEAR_MODEL names:

    HEAR_MODEL=checkpoints/hear-tiny python -m xares.run hear_hf/evaluation/xares.py src/tasks/esc50_task.py

It looks for the one name in here that ends in "Encoder".
"""

import torch
from torch import nn

from . import embeddings
from .hear21 import checkpoint


class HEAREncoder(nn.Module):
    """
    Embeds the frames of clips.

    Args:
        name_or_path (`str`, *optional*): A folder or a name on the Hub, by default what HEAR_MODEL names.

    Attributes: `sampling_rate` in Hz, `output_dim` (the width of a frame) and `hop_size_in_ms`.
    """

    def __init__(self, name_or_path: str = ""):
        super().__init__()
        self.model = embeddings.EmbeddingModel.from_pretrained(checkpoint(name_or_path))
        self.sampling_rate, self.output_dim = self.model.sampling_rate, self.model.frame_size
        self.hop_size_in_ms = self.model.frame_milliseconds

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """Embeds clips of shape `(batch_size, num_samples)`, or one of `(num_samples,)`, as `(batch_size, n, D)`."""
        return self.model(torch.atleast_2d(audio)).last_hidden_state
