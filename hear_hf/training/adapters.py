"""Low-rank adapters (LoRA, arXiv:2106.09685): a new head and small matrices learn, and the model stays as it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

from ..arguments import option
from ..extras import require

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass
class AdapterArguments:
    """Whether to train an adapter in place of the model's own weights."""

    lora_r: int | None = option(
        default=None,
        help="Train a low-rank adapter of this rank, for example 8, and a new head, and leave the model as it is "
        "(LoRA, arXiv:2106.09685). Needs the extra `peft`.",
    )
    lora_alpha: float = option(default=16.0, help="Multiply what the adapter adds by this over its rank.")
    lora_dropout: float = option(default=0.0, help="Dropout of what the adapter reads.")
    lora_target_modules: list[str] | None = option(
        default=None,
        help="Adapt the layers whose names end in one of these, for example `q_proj v_proj`; by default all linear "
        "layers below the head.",
    )
    merge_adapter: bool = option(default=False, help="End with a whole model, into which the adapter is merged.")

    def __post_init__(self):
        if self.lora_r is not None and self.lora_r < 1:
            raise ValueError(f"`lora_r` must be at least 1, found: {self.lora_r}")
        if self.merge_adapter and self.lora_r is None:
            raise ValueError("`merge_adapter` needs an adapter, found `lora_r` None: give --lora_r or leave it out.")


def add_adapter(model: PreTrainedModel, args: AdapterArguments, base: str | None, revision: str) -> "PeftModel":
    """
    Puts a new adapter on a classifier, whose head learns as a whole.

    Args:
        model (`PreTrainedModel`): The classifier; its layers are replaced in place.
        args (`AdapterArguments`): The adapter.
        base (`str`, *optional*): The name or folder that it was loaded from, which PEFT saves with the adapter.
        revision (`str`): Its branch, tag or commit; the commit is saved where it is known.

    Raises:
        `ImportError`: PEFT is not installed; the message gives the command that installs it.
        `ValueError`: The classifier has random weights.
    """
    require("--lora_r", "peft", "peft")
    from peft import LoraConfig, get_peft_model

    if base is None:
        raise ValueError(
            "`lora_r` needs a pretrained model to adapt, found random weights: give --model_name_or_path."
        )
    commit = getattr(model.config, "_commit_hash", None)
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=args.lora_target_modules or linear_layers(model),
        modules_to_save=[name for name, _ in model.named_children() if name != model.base_model_prefix],
        revision=None if Path(base).is_dir() else commit or revision,
    )
    return get_peft_model(model, config)


def linear_layers(model: PreTrainedModel) -> list[str]:
    """The names of all linear layers below the head."""
    modules = model.base_model.named_modules()
    return [f"{model.base_model_prefix}.{name}" for name, module in modules if isinstance(module, nn.Linear)]


def learning_head(model: PreTrainedModel) -> nn.Module:
    """A classifier's head, or the copy of it that learns with an adapter."""
    head: Any = model.classifier
    return head.modules_to_save[head.active_adapter] if hasattr(head, "modules_to_save") else head
