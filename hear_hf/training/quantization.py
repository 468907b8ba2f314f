"""Trains HEAR's quantizer, its acoustic tokenizer, on unlabelled audio: stage 1 of the pretraining (paper, 3.2).

On the embedded spoken digits, without a teacher, on a laptop in minutes:

    python examples/train_quantizer.py

On your own recordings, distilled from any audio model of the Hub:

    python examples/train_quantizer.py --data_dir my_recordings --teacher_name_or_path microsoft/wavlm-base \
        --teacher_layer 9 --output_dir runs/my_quantizer

Stage 2 is `pretrain.py --quantizer_name_or_path runs/my_quantizer`.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoConfig, AutoModelForPreTraining, TrainerCallback

from distillation import Teacher, TeacherArguments
from frozen_features import FrozenEncoder
from hear_hf import HEARFeatureExtractor, HEARQuantizerConfig, HEARQuantizerForPreTraining
from pretraining import PretrainingArguments, PretrainingCollator, PretrainingTrainer, load_clips, run, valid_frames
from pretraining_report import report
from scripting import parse_arguments, start
from unlabelled_audio import PretrainingDataArguments

DIVERSITY_LOSS_WEIGHT = 10.0  # of a new quantizer; by the paper's 0.1 most codes of a small data set stay unused
LOSSES = ("reconstruction_loss", "distillation_loss", "diversity_loss")


@dataclass
class QuantizerArguments:
    """Which quantizer to train."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A quantizer to train further. Without it HEAR's starts from scratch."}
    )
    model_revision: str = field(default="main", metadata={"help": "The branch, tag or commit of that checkpoint."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run the code that it brings along."})
    config_overrides: str | None = field(
        default=None,
        metadata={"help": "Fields of the config to change, for example `codebook_size=512,num_hidden_layers=3`."},
    )
    temperature_anneal_share: float = field(
        default=0.7,
        metadata={"help": "Share of the steps in which the temperature falls to its minimum; 0: the config's decay."},
    )


@dataclass
class QuantizerTrainingArguments(PretrainingArguments):
    """TrainingArguments whose defaults suit the quantizer."""

    output_dir: str = field(default="runs/quantizer", metadata={"help": "Where the model and its report go."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of AdamW."})
    num_train_epochs: float = field(default=5.0, metadata={"help": "Passes over the clips."})


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
        num_frames = self.scored_frames(inputs).sum(-1).tolist()
        states = self.teacher(inputs["input_values"], inputs["attention_mask"], num_frames)
        return inputs | {"teacher_hidden_states": states}

    def scored_frames(self, batch):
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


def load_teacher(args: TeacherArguments, clips, data_args: PretrainingDataArguments, sampling_rate: int, device):
    """The model that runs beside the quantizer; `None` where there is none, or where the clips bring its states."""
    if args.teacher_name_or_path is None or clips.teacher is not None:
        return None
    encoder = FrozenEncoder(
        args.teacher_name_or_path,
        layer=args.teacher_layer,
        device=device,
        revision=args.teacher_revision,
        trust_remote_code=args.teacher_trust_remote_code,
    )
    teacher = Teacher(encoder, sampling_rate)
    if data_args.standardize_teacher:
        teacher.standardize(clips, data_args.teacher_whitening)
    return teacher


def temperature_decay(config: HEARQuantizerConfig, num_steps: int, share: float) -> float:
    """The factor at each step that brings the temperature to its minimum in this share of the steps."""
    fall = config.gumbel_min_temperature / config.gumbel_temperature
    return min(1.0, math.exp(math.log(fall) / max(1, round(share * num_steps))))


def describe_teacher(args: TeacherArguments, clips) -> str:
    if clips.teacher is not None:
        return "It was distilled from precomputed hidden states of a teacher."
    if args.teacher_name_or_path is None:
        return "It had no teacher: it learned to reconstruct the spectrogram alone."
    name = (
        Path(args.teacher_name_or_path).name if Path(args.teacher_name_or_path).exists() else args.teacher_name_or_path
    )
    return f"It was distilled from layer {args.teacher_layer} of `{name}`."


def main(argv: list[str] | None = None) -> dict[str, float]:
    arguments = (QuantizerArguments, TeacherArguments, PretrainingDataArguments, QuantizerTrainingArguments)
    model_args, teacher_args, data_args, training_args = parse_arguments(arguments, argv)
    start(training_args)

    config = load_config(model_args)
    train, validation = load_clips(config, data_args, training_args)
    teacher = load_teacher(teacher_args, train, data_args, config.sampling_rate, training_args.device)
    source = teacher or train.teacher
    config.teacher_hidden_size = None if source is None else source.hidden_size
    if model_args.temperature_anneal_share > 0:
        num_steps = training_args.num_steps(train)
        config.gumbel_temperature_decay = temperature_decay(config, num_steps, model_args.temperature_anneal_share)

    model = load_model(model_args, config)
    feature_extractor = HEARFeatureExtractor(sampling_rate=config.sampling_rate)
    trainer = QuantizerTrainer(
        model,
        training_args,
        data_collator=PretrainingCollator(feature_extractor),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=feature_extractor,
        teacher=teacher,
    )
    return run(trainer, lambda metrics: report(trainer, metrics, data_args, 1, describe_teacher(teacher_args, train)))


if __name__ == "__main__":
    main()
