"""What both stages of pretraining share: the collator, and a Trainer whose losses are means over frames.

A step's loss is a mean over the frames of all its batches, on all its devices, so that neither gradient accumulation
nor the number of processes changes it.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from .. import HEARFeatureExtractor
from ..arguments import option
from ..data.clips import PretrainingClips, StreamedClips
from ..data.pretraining_clips import load_pretraining_clips
from ..data.teacher_outputs import OUTPUTS_COLUMN, collate_outputs
from ..data.teacher_states import TeacherStatesArguments
from ..data.unlabelled import PretrainingDataArguments
from ..masking_hear import share_mask
from ..modeling_hear_quantizer import code_statistics, count_codes
from ..spectrogram_hear import frame_mask, num_encoder_frames
from .loading import ClipsTrainer
from .optimization import build_optimizer
from .runs import RunArguments

logger = logging.getLogger(__name__)


@dataclass
class PretrainingArguments(RunArguments):
    """TrainingArguments whose defaults suit both stages."""

    weight_decay: float = option(default=0.01, help="Weight decay of the matrices.")
    lr_scheduler_type: str = option(default="cosine", help="How the learning rate falls.")
    warmup_steps: float = option(default=0.1, help="Steps of warm-up, or below 1 their share of all steps.")
    per_device_train_batch_size: int = option(default=32, help="Clips per device and step.")
    per_device_eval_batch_size: int = option(default=32, help="Clips per device in evaluation.")
    eval_strategy: str = option(default="steps", help="When to evaluate.")
    eval_steps: float | None = option(
        default=0.1, help="Steps between evaluations, or below 1 their share of all steps."
    )
    save_strategy: str = option(default="steps", help="When to save a checkpoint.")
    save_steps: float = option(default=0.1, help="Steps between checkpoints, or below 1 their share of all steps.")
    save_total_limit: int | None = option(default=2, help="Keep this many checkpoints.")
    logging_steps: float = option(default=10, help="Steps between two logged losses.")
    dataloader_pin_memory: bool = option(
        default=torch.cuda.is_available(), help="Hand batches to the GPU through pinned memory."
    )

    def check_length(self, clips: PretrainingClips | StreamedClips) -> None:
        """Refuses a run without end."""
        if isinstance(clips, StreamedClips) and self.max_steps <= 0:
            raise ValueError("A stream has no end: `max_steps` must be given, found: -1.")

    def num_steps(self, clips: PretrainingClips | StreamedClips) -> int:
        """Counts the optimizer steps of the whole run."""
        if self.max_steps > 0 or isinstance(clips, StreamedClips):
            return self.max_steps
        num_batches = math.ceil(len(clips) / (self.train_batch_size * self.world_size))
        return math.ceil(self.num_train_epochs * max(num_batches // self.gradient_accumulation_steps, 1))


@dataclass
class PretrainingCollator:
    """
    Pads clips of any lengths to a batch, and draws the mask for masked audio modelling.

    Args:
        feature_extractor (`HEARFeatureExtractor`): Checks and pads the waveforms.
        mask_time_prob (`float`, *optional*): Share of each clip's frames to mask; without it no mask is drawn.
        mask_time_length (`int`, *optional*, defaults to 1): Frames of each masked span.

    Returns:
        `input_values` and `attention_mask` of shape `(batch_size, num_samples)`, and by frames of 20 ms
        `mask_time_indices` where a mask is drawn, and `teacher_hidden_states` and `labels` where the items of the
        batch hold `teacher_hidden_states` and `codes`; `label_ids` of shape `(batch_size, max_labels)`, padded by -1,
        where they hold `labels`; and `teacher_outputs`, as `collate_outputs` gives them.
    """

    feature_extractor: HEARFeatureExtractor
    mask_time_prob: float | None = None
    mask_time_length: int = 1

    def __call__(self, items: list[dict]) -> dict[str, Any]:
        waveforms = [np.asarray(item["input_values"], dtype=np.float32) for item in items]
        sampling_rate = self.feature_extractor.sampling_rate
        batch = dict(self.feature_extractor(waveforms, sampling_rate=sampling_rate, padding=True, return_tensors="pt"))
        num_frames = [num_encoder_frames(len(waveform), sampling_rate // 100) for waveform in waveforms]
        if self.mask_time_prob is not None:
            share, length = self.mask_time_prob, self.mask_time_length
            masks = [clip_mask(n, share, length, item["seed"]) for n, item in zip(num_frames, items, strict=True)]
            batch["mask_time_indices"] = torch.nn.utils.rnn.pad_sequence(masks, batch_first=True)
        columns = (("teacher_hidden_states",) * 2 + (0.0,), ("codes", "labels", -100), ("labels", "label_ids", -1))
        for key, name, padding in columns:
            if key in items[0]:
                rows = [torch.tensor(item[key]) for item in items]
                batch[name] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
        if OUTPUTS_COLUMN in items[0]:
            batch[OUTPUTS_COLUMN] = collate_outputs([item[OUTPUTS_COLUMN] for item in items])
        return batch


def clip_mask(num_frames: int, share: float, span_length: int, seed: int) -> torch.Tensor:
    """Draws the mask of one clip, (num_frames,), the same whatever its batch, process or worker."""
    generator = torch.Generator().manual_seed(seed)
    return share_mask(torch.ones(1, num_frames, dtype=torch.bool), share, span_length, generator)[0]


class RunningMeans:
    """Keeps means over the batches since the last reset, weighted by their frames or clips, and counts of their codes.

    A `codebook_size` of 0 counts no codes. All sums stay on the device until they are read, once for all processes.
    """

    def __init__(self, codebook_size: int, device: torch.device):
        self.codebook_size, self.device = codebook_size, device
        self.reset()

    def reset(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.weight = torch.zeros((), device=self.device)
        self.code_counts = torch.zeros(self.codebook_size, device=self.device)
        self.num_samples = torch.zeros((), device=self.device)
        self.started = time.perf_counter()

    def add(
        self, values: dict[str, torch.Tensor], weight: torch.Tensor, codes: torch.Tensor | None, num_samples
    ) -> None:
        for name, value in values.items():
            value = value.detach().float() * weight
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.weight = self.weight + weight
        self.num_samples = self.num_samples + num_samples
        if codes is not None:
            self.code_counts = self.code_counts + count_codes(codes, self.codebook_size)

    def read(self, gather) -> dict[str, float]:
        """Returns means, `num_samples` and, of codes, `code_perplexity` and `code_usage`, joined over processes."""
        names = sorted(self.sums)
        scalars = torch.stack([*(self.sums[name] for name in names), self.weight, self.num_samples])
        totals = gather(torch.cat([scalars, self.code_counts])[None]).sum(0).cpu()
        *sums, weight, num_samples = totals[: len(scalars)].tolist()
        values = {name: value / max(weight, 1) for name, value in zip(names, sums, strict=True)}
        if self.codebook_size > 0:
            self.code_counts = totals[len(scalars) :].to(self.device)
            perplexity, usage = code_statistics(self.code_counts)
            values |= {"code_perplexity": perplexity.item(), "code_usage": usage.item()}
        return values | {"num_samples": num_samples}


class PretrainingTrainer(ClipsTrainer):
    """A Trainer for unlabelled clips, whose losses are means over frames or clips, and whose logs show their parts.

    Subclasses say which inputs the model still lacks, what a batch's loss is a mean over, and what to log.
    """

    args: PretrainingArguments
    model: PreTrainedModel
    eval_dataset: PretrainingClips | None
    processing_class: HEARFeatureExtractor

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"Each GPU must have a process of its own, found one process for {self.args.n_gpu}. "
                "Start the command by `accelerate launch`, or show it one GPU by CUDA_VISIBLE_DEVICES."
            )
        self.model_accepts_loss_kwargs = True  # the loss below is scaled for gradient accumulation
        self.accelerator.gradient_accumulation_steps = 1  # Transformers 5.4 lets accelerate divide it once more
        if self.args.uses_muon and self.optimizer is None:
            self.optimizer = build_optimizer(self.model, self.args)
        codebook_size = self.num_codes()
        self.train_means = RunningMeans(codebook_size, self.args.device)
        self.eval_means = RunningMeans(codebook_size, self.args.device)

    def num_codes(self) -> int:
        """Returns how many codes there are to count."""
        return self.model.config.codebook_size

    def complete(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Adds what is made on the device: a teacher's states, or codes."""
        return inputs

    def scored(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Marks what the batch's loss is a mean over: frames, or clips."""
        raise NotImplementedError

    def logged(self, inputs: dict, outputs) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns what to log by name, each a mean over what is scored, and the codes to count, if any."""
        raise NotImplementedError

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        num_scored = torch.stack([self.scored(batch).sum() for batch in batches]).sum().to(device)
        return batches, self.accelerator.gather(num_scored[None]).sum()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = self.complete(inputs)
        outputs = model(**inputs)
        num_scored = self.scored(inputs).sum()
        means = self.train_means if model.training else self.eval_means
        values, codes = self.logged(inputs, outputs)
        loss = outputs["loss"]
        if not model.training:  # Trainer's own would be a mean over batches
            values = values | {"loss": loss}
        means.add(values, num_scored, codes, inputs["attention_mask"].sum())
        if num_items_in_batch is not None:  # DistributedDataParallel divides by the number of processes
            loss = loss * num_scored / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Returns the loss alone: the logits of all frames would fill the memory."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            means, seconds = self.train_means, time.perf_counter() - self.train_means.started
            values = means.read(self.accelerator.gather)
            hours = values.pop("num_samples") / self.processing_class.sampling_rate / 3600
            logs |= values | {"audio_hours_per_second": hours / seconds}
            means.reset()
        super().log(logs, start_time)

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ):
        self.eval_means.reset()
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        values = self.eval_means.read(self.accelerator.gather)
        del values["num_samples"]
        values = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        return output._replace(metrics=(output.metrics or {}) | values)


def valid_frames(batch: dict[str, torch.Tensor], hop_length: int) -> torch.Tensor:
    """Marks the frames of 20 ms that belong to a clip: (batch_size, num_frames)."""
    lengths = num_encoder_frames(batch["attention_mask"].sum(-1), hop_length)
    return frame_mask(lengths, num_encoder_frames(batch["attention_mask"].shape[1], hop_length))


def load_clips(
    config,
    data_args: PretrainingDataArguments,
    training_args: PretrainingArguments,
    teacher_args: TeacherStatesArguments | None = None,
    random_speed: float = 0.0,
) -> tuple[PretrainingClips | StreamedClips, PretrainingClips | None]:
    """Loads training and validation clips for a model of this configuration; of a stream, those of this process."""
    with training_args.main_process_first(desc="loading the clips"):
        train, validation = load_pretraining_clips(
            data_args,
            config.sampling_rate,
            config.window_length * config.inputs_to_logits_ratio / config.sampling_rate,
            training_args.seed,
            training_args.process_index,
            training_args.world_size,
            teacher_args,
            random_speed,
        )
    training_args.check_length(train)
    if validation is None:
        training_args.eval_strategy = "no"
    return train, validation


def run(trainer: PretrainingTrainer, report: Callable[[dict[str, float]], None]) -> dict[str, float]:
    """Trains, from the checkpoint that its arguments name, evaluates, and leaves the model and its report."""
    result = trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", result.metrics)
    metrics = {} if trainer.eval_dataset is None else trainer.evaluate()
    trainer.save_metrics("eval", metrics)
    trainer.save_state()
    if trainer.train_dataset.num_skipped > 0:
        logger.warning(f"{trainer.train_dataset.num_skipped} unusable clips were skipped.")
    if trainer.is_world_process_zero():
        report(metrics)
    trainer.publish()
    return metrics
