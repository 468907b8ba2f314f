"""How Trainer reads the clips of pretraining: in an order that follows from seed and epoch, or as a stream."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import DataLoader, Sampler

from ..data.clips import PretrainingClips, StreamedClips
from .run_trainer import RunTrainer


class EpochSampler(Sampler):
    """
    Draws all clips, or those that their balance gives, in an order that follows from their seed and epoch.

    The epoch is the data set's: accelerate calls `set_epoch` of the sampler or of the data set, whichever it finds
    first behind its own wrappers, and never both.
    """

    def __init__(self, clips: PretrainingClips):
        self.clips = clips

    def set_epoch(self, epoch: int) -> None:
        self.clips.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[int | tuple[int, int]]:
        rng = np.random.default_rng([self.clips.reader.seed, self.clips.epoch])
        if self.clips.balance is not None:
            return self.clips.balance.draw(rng)
        return iter(rng.permutation(len(self.clips)).tolist())


class ClipsTrainer(RunTrainer):
    """A Trainer whose training set is `PretrainingClips` or `StreamedClips`."""

    train_dataset: PretrainingClips | StreamedClips

    def _get_train_sampler(self, train_dataset=None) -> Sampler | None:
        clips = self.train_dataset if train_dataset is None else train_dataset
        return EpochSampler(clips) if isinstance(clips, PretrainingClips) else None

    def get_train_dataloader(self) -> DataLoader:
        if not isinstance(self.train_dataset, StreamedClips):
            return super().get_train_dataloader()
        # Unprepared: accelerate would read on one process for all, or split a second time.
        return DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
