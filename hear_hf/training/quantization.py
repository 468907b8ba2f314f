"""Stage 1 of the pretraining: a quantizer, HEAR's acoustic tokenizer, distilled on unlabelled audio (paper, 3.2)."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForPreTraining, TrainerCallback

from .. import HEARQuantizerConfig, HEARQuantizerForPreTraining
from ..arguments import option
from ..data.clips import PretrainingClips, StreamedClips
from ..data.teacher_states import NUM_STATISTICS_CLIPS, TeacherStatesArguments
from .pretraining import PretrainingArguments, PretrainingTrainer, valid_frames
from .teachers import Teacher, TeacherArguments, load_encoder

DIVERSITY_LOSS_WEIGHT = 10.0  # of a new quantizer; by the paper's 0.1 most codes of a small data set stay unused
LOSSES = ("reconstruction_loss", "distillation_loss", "diversity_loss")


@dataclass
class QuantizerArguments:
    """Which quantizer to train."""

    model_name_or_path: str | None = option(
        default=None, help="A quantizer to train further; without it, HEAR's is trained from scratch."
    )
    model_revision: str = option(default="main", help="The branch, tag or commit of that checkpoint.")
    trust_remote_code: bool = option(default=False, help="Run the code that the checkpoint brings along.")
    config_overrides: str | None = option(
        default=None, help="Fields of the config to change, for example `codebook_size=512,num_hidden_layers=3`."
    )
    temperature_anneal_share: float = option(
        default=0.7,
        help="Let the temperature fall to its minimum in this share of the steps; 0 takes the decay of the config.",
    )


@dataclass
class QuantizerTrainingArguments(PretrainingArguments):
    """TrainingArguments whose defaults suit the quantizer."""

    output_dir: str = option(default="runs/quantizer", help="The folder for the model and its report.")
    learning_rate: float = option(default=1e-3, help="Peak learning rate of AdamW.")
    num_train_epochs: float = option(default=5.0, help="Passes over the clips.")


class TemperatureAnnealing(TrainerCallback):
    """Lets the Gumbel temperature fall after each optimizer step, however many batches it took."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        model.anneal_temperature()


class QuantizerTrainer(PretrainingTrainer):
    """Trains a [`HEARQuantizerForPreTraining`], with a teacher that runs beside it, or precomputed states, or none."""

    def __init__(self, *args, teacher: Teacher | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher = teacher
        self.add_callback(TemperatureAnnealing())

    def complete(self, inputs):
        if self.teacher is None or "teacher_hidden_states" in inputs:
            return inputs
        num_frames = self.scored(inputs).sum(-1).tolist()
        states = self.teacher(inputs["input_values"], inputs["attention_mask"], num_frames)
        return inputs | {"teacher_hidden_states": states}

    def scored(self, batch):
        return valid_frames(batch, self.model.config.hop_length)

    def logged(self, inputs, outputs):
        return {name: outputs[name] for name in (*LOSSES, "temperature") if name in outputs}, outputs["codes"]


def load_config(args: QuantizerArguments) -> HEARQuantizerConfig:
    config = HEARQuantizerConfig(diversity_loss_weight=DIVERSITY_LOSS_WEIGHT)
    if args.model_name_or_path is not None:
        source = {"revision": args.model_revision, "trust_remote_code": args.trust_remote_code}
        config = AutoConfig.from_pretrained(args.model_name_or_path, **source)
    if config.model_type != HEARQuantizerConfig.model_type:
        raise ValueError(f"`model_name_or_path` must hold a quantizer, found a model of type {config.model_type!r}.")
    if args.config_overrides:
        config.update_from_string(args.config_overrides)
        config.validate()
    return config


def load_model(args: QuantizerArguments, config: HEARQuantizerConfig) -> HEARQuantizerForPreTraining:
    if args.model_name_or_path is None:
        return HEARQuantizerForPreTraining(config)
    return AutoModelForPreTraining.from_pretrained(
        args.model_name_or_path,
        config=config,
        revision=args.model_revision,
        trust_remote_code=args.trust_remote_code,
        ignore_mismatched_sizes=True,  # another teacher may be wider
    )


def load_teacher(
    args: TeacherArguments,
    states_args: TeacherStatesArguments,
    clips: PretrainingClips | StreamedClips,
    sampling_rate: int,
    device: torch.device,
) -> Teacher | None:
    """Loads the model that runs beside the quantizer; `None` without one, or where the clips bring its states."""
    if args.teacher_name_or_path is None or clips.teacher is not None:
        return None
    teacher = Teacher(load_encoder(args, device), sampling_rate)
    if states_args.standardize_teacher:
        teacher.standardize(clips.sample(NUM_STATISTICS_CLIPS), states_args.teacher_whitening)
    return teacher


def temperature_decay(config: HEARQuantizerConfig, num_steps: int, share: float) -> float:
    """Computes the factor per step that brings the temperature to its minimum in this share of the steps."""
    fall = config.gumbel_min_temperature / config.gumbel_temperature
    return min(1.0, math.exp(math.log(fall) / max(1, round(share * num_steps))))


def describe_teacher(args: TeacherArguments, clips: PretrainingClips | StreamedClips) -> str:
    if clips.teacher is not None:
        return "It was distilled from precomputed hidden states of a teacher."
    if args.teacher_name_or_path is None:
        return "It had no teacher: it learned to reconstruct the spectrogram alone."
    path = Path(args.teacher_name_or_path)
    name = path.name if path.exists() else args.teacher_name_or_path
    return f"It was distilled from layer {args.teacher_layer} of `{name}`."
