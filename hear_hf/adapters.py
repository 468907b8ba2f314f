"""Classifiers whose folder holds an adapter of PEFT beside the name of its base model. Needs the extra `peft`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoConfig, AutoModelForAudioClassification, PreTrainedModel

from .extras import require
from .weight_files_hear import ADAPTER_CONFIG, check_ranks, check_weight_files

if TYPE_CHECKING:
    from peft import PeftModel


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model."""
    return Path(folder, ADAPTER_CONFIG).is_file()


def load_adapter(folder: str | Path, trust_remote_code: bool = False, base_revision: str | None = None) -> "PeftModel":
    """
    Loads an adapter on the base model that it names; `merge_and_unload()` makes one plain model of both.

    Args:
        folder (`str` or `Path`): What `finetune.py --lora_r` wrote: the adapter, and the config with its labels.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Whether to run the code of the base model's
            repository.
        base_revision (`str`, *optional*): The branch, tag or commit of the base model; by default the one that the
            adapter names, or main.

    Raises:
        `ImportError`: PEFT is not installed; the message gives the command that installs it.
        `ValueError`: Its rank is absurd, or the base model, of whatever class, names weights outside of its folder or
            repository.
    """
    require("An adapter", "peft", "peft")
    from peft import PeftConfig, PeftModel

    check_ranks(json.loads(Path(folder, ADAPTER_CONFIG).read_text(encoding="utf-8")))
    adapter = PeftConfig.from_pretrained(str(folder))
    revision = base_revision or adapter.revision or "main"
    check_weight_files(str(adapter.base_model_name_or_path), revision=revision)
    source = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    base = AutoModelForAudioClassification.from_pretrained(
        adapter.base_model_name_or_path, config=config, ignore_mismatched_sizes=True, **source
    )
    return PeftModel.from_pretrained(base, str(folder)).eval()


def plain_model(model) -> PreTrainedModel:
    """The model of Transformers within an adapter's, or the given one if it is such a model."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
