"""What all training runs share around their Trainer: arguments, the logs, when to save, and where to resume."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.utils import is_torch_bf16_gpu_available, is_torch_xla_available

from ..arguments import option, printable
from ..sharing.upload import SharingError, full_name
from .records import check_same_run, described

logger = logging.getLogger(__name__)


MUON = "muon"


@dataclass
class RunArguments(TrainingArguments):
    """TrainingArguments with Muon among the optimizers, and bfloat16 on a CPU without a further option."""

    optim: str = option(
        default=str(getattr(TrainingArguments.optim, "value", TrainingArguments.optim)),
        help="The optimizer, by one of Transformers' names; or `muon`: Muon for the matrices inside the layers, AdamW "
        "for the rest.",
    )
    hub_token: str | None = option(
        default=None, help="Refused: Trainer saves its arguments. Set HF_TOKEN or run `hf auth login`."
    )
    hub_strategy: str = option(default="end", help="Keep `end`: the finished run alone is published.")
    remove_unused_columns: bool = option(default=False, help="Keep False: clips are decoded on the fly.")

    def __post_init__(self):
        if self.hub_token is not None:
            raise ValueError(
                "`hub_token` must not be given, as Trainer saves its arguments and a command line is no secret: set "
                "HF_TOKEN or run `hf auth login`."
            )
        if self.hub_strategy != "end":
            raise ValueError(
                f"`hub_strategy` must be end, found: {self.hub_strategy}. The finished run alone passes the checks."
            )
        if self.remove_unused_columns:
            raise ValueError(
                "`remove_unused_columns` must be False, found: True. Leave it out: clips are decoded on the fly, from "
                "columns that the model does not take."
            )
        self.record: dict[str, Any] = {}
        self.uses_muon = self.optim == MUON
        if self.uses_muon:
            self.optim = "adamw_torch"  # for the rest; Transformers knows no Muon
        if (self.bf16 or self.bf16_full_eval) and not has_accelerator():
            self.use_cpu = True  # which Trainer would ask for
        super().__post_init__()

    def __getstate__(self):
        """What Trainer pickles beside each model: without a token, however it came here."""
        return self.__dict__ | {"hub_token": None}


def has_accelerator() -> bool:
    return torch.cuda.is_available() or is_torch_bf16_gpu_available() or is_torch_xla_available()


def start(training_args: RunArguments, *options: Any) -> None:
    """
    Sets the level of the logs and the seed, and finds the checkpoint that the run resumes from.

    Args:
        training_args (`RunArguments`): Get the checkpoint, and what the run is, for no other run to resume it.
        *options: The run's other options.

    Raises:
        `ValueError`: The checkpoint is missing, or that of another run.
        `SystemExit`: The run is to be published, and cannot be.
    """
    logging.basicConfig(level=training_args.get_process_log_level(), format="%(message)s")
    transformers.utils.logging.set_verbosity(training_args.get_process_log_level())
    set_seed(training_args.seed)
    training_args.record = described(training_args, *options)
    training_args.resume_from_checkpoint = checkpoint = last_checkpoint(training_args)
    folder, found = Path(str(training_args.output_dir)), None if checkpoint is None else Path(checkpoint)
    # Labels and clips are compared when they are known.
    check_same_run(training_args.record, folder if found is None else found.parent, found)
    if training_args.push_to_hub and training_args.process_index == 0:
        try:
            repository_of(training_args)
        except SharingError as error:
            raise SystemExit(printable(str(error))) from error


def repository_of(training_args: TrainingArguments) -> str:
    """The repository of a run that is published, with its owner; raises `SharingError` without a valid login."""
    return full_name(training_args.hub_model_id or Path(str(training_args.output_dir)).resolve().name)


def last_checkpoint(training_args: TrainingArguments) -> str | None:
    """Finds the checkpoint to resume from: the one asked for, or the last that an interrupted run left complete."""
    asked = training_args.resume_from_checkpoint
    if asked and str(asked).lower() not in ("true", "1", "yes"):
        return asked
    folders = Path(str(training_args.output_dir)).glob("checkpoint-*[0-9]")
    for folder in sorted(folders, key=lambda folder: int(folder.name.rpartition("-")[2]), reverse=True):
        if is_complete(folder):
            logger.warning(f"Resuming from {folder}. To start over, give another --output_dir or delete that folder.")
            return str(folder)
        logger.warning(f"Skipping {folder}: the run ended while it was being written.")
    if asked:
        raise ValueError(
            f"`--resume_from_checkpoint` needs a checkpoint in {training_args.output_dir}, found none. Leave it "
            "out to train from the start."
        )
    return None


def is_complete(checkpoint: Path) -> bool:
    """Whether all of a checkpoint was written; the Trainer writes its own state last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


class SaveAtEpochEnd(TrainerCallback):
    """Delays a save that is due at the last step of an epoch until the epoch's evaluation and calibration are done.

    A run resumed from a checkpoint of that step would go on with the next epoch, and never do them.
    """

    def __init__(self):
        self.is_due = False

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_save and (control.should_training_stop or state.epoch == int(state.epoch)):
            control.should_save, self.is_due = False, True

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.is_due:
            control.should_save, self.is_due = True, False
