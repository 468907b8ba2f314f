"""What all training runs share around their Trainer: the logs, when to save, and where to resume."""

import json
import logging
from pathlib import Path

import transformers
from transformers import TrainerCallback, TrainingArguments, set_seed

logger = logging.getLogger(__name__)


def start(training_args: TrainingArguments) -> None:
    """Sets the level of the logs and the seed."""
    logging.basicConfig(level=training_args.get_process_log_level(), format="%(message)s")
    transformers.utils.logging.set_verbosity(training_args.get_process_log_level())
    set_seed(training_args.seed)


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
