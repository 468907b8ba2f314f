"""What our Trainers share: a folder is one run's, and the way to the Hub is that of `push_to_hub.py`."""

import shlex
from pathlib import Path
from typing import Any, cast

from datasets import Dataset, IterableDataset
from transformers import Trainer
from transformers.trainer_utils import TrainOutput, get_last_checkpoint

from ..arguments import printable
from ..data.fingerprints import fingerprint
from ..sharing.models import CardArguments
from ..sharing.publication import publish_model
from ..sharing.temporary import temporary_folder
from ..sharing.upload import Destination, SharingError, login
from .records import CONTENT, are_made_here, check_same_run, described, in_use, write_record
from .runs import repository_of


class RunTrainer(Trainer):
    """
    A Trainer that resumes its own run alone, and publishes the finished run alone, without pickles.

    Its model card is the report's.
    """

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs) -> TrainOutput:
        """Trains as Trainer does; raises `ValueError` where the folder or the checkpoint is another run's."""
        if not self.is_world_process_zero():
            return super().train(resume_from_checkpoint, *args, **kwargs)
        folder = Path(str(self.args.output_dir))
        found = get_last_checkpoint(str(folder)) if resume_from_checkpoint is True else resume_from_checkpoint
        record = self.record()
        with in_use(folder):
            checkpoint = Path(str(found)) if found else None
            check_same_run(record, folder if checkpoint is None else checkpoint.parent, checkpoint)
            write_record(record, folder)
            return super().train(resume_from_checkpoint, *args, **kwargs)

    def record(self) -> dict[str, Any]:
        """What this run is: its kind and options, its labels, and how many and which clips it has."""
        config: Any = getattr(self.model, "config", None)
        clips: Any = self.train_dataset
        options = getattr(self.args, "record", None) or described(self.args)
        facts: dict[str, Any] = {"kind": type(self).__name__}
        if hasattr(config, "id2label"):
            facts["labels"] = [name for _, name in sorted(config.id2label.items())]
        if hasattr(clips, "__len__"):
            facts["clips"] = len(clips)
        clips = getattr(clips, "dataset", clips)
        if isinstance(clips, Dataset | IterableDataset) and not are_made_here(options):
            facts[CONTENT] = fingerprint(clips)
        return options | facts

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Checks before the training that it can be published; the repository is made when it is."""
        if self.is_world_process_zero():
            self.hub_model_id = cast(Any, repository_of(self.args))  # typed as `None` by Trainer

    def create_model_card(self, *args, **kwargs):
        """Leaves the card to the report: before each push Trainer would overwrite it with a draft."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves without the upload of the whole folder that Trainer appends."""
        super().save_model(output_dir, _internal_call=True)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Uploads nothing: a checkpoint holds pickles, and no card yet."""

    def publish(self) -> None:
        """Publishes the finished run where its arguments ask for it; what goes wrong there ends the command."""
        if not self.args.push_to_hub:
            return
        try:
            self.push_to_hub()
        except (SharingError, OSError) as error:
            folder, name = Path(str(self.args.output_dir)).resolve(), str(self.hub_model_id)
            command = ["python", "examples/push_to_hub.py", str(folder), name]
            command += ["--private"] * bool(self.args.hub_private_repo)
            command += ["--revision", self.args.hub_revision] if self.args.hub_revision else []
            raise SystemExit(
                f"{printable(str(error))}\nThe training is done: the model, its card and its plots are in {folder}. "
                f"To publish them: {shlex.join(command)}"
            ) from error

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs,
    ) -> Any:
        """
        Publishes the output folder as `push_to_hub.py` does.

        Args:
            commit_message (`str`, *optional*): Describes the commit.
            blocking (`bool`, *optional*): Without effect: the upload is checked before this returns.
            token (`str`, *optional*): A token with write access; the environment's or the saved login by default.
            revision (`str`, *optional*): The branch; that of the arguments by default.
            private (`bool`, *optional*): Whether a new repository is private; as the arguments say by default.
            **kwargs: Without effect: the card is the report's.

        Returns:
            `CommitInfo`: The commit, on the first process.

        Raises:
            `SharingError`: A check failed, or the upload was refused or interrupted.
        """
        if self.hub_model_id is None:
            self.init_hf_repo()
        self.save_model()
        if not self.is_world_process_zero():
            return None
        target = Destination(
            str(self.hub_model_id),
            private=bool(self.args.hub_private_repo if private is None else private),
            revision=revision or self.args.hub_revision,
            message=commit_message,
            token=token or login(),
        )
        with temporary_folder() as temporary:
            return publish_model(Path(str(self.args.output_dir)), target, CardArguments(), temporary)
