"""Pretrains HEAR's acoustic model by masked audio modelling: stage 2 of the pretraining (paper, 3.2).

On the embedded spoken digits, after `python examples/train_quantizer.py`, on a laptop in minutes:

    python examples/pretrain.py

On your own recordings, with a quantizer of your own:

    python examples/pretrain.py --data_dir my_recordings --quantizer_name_or_path runs/my_quantizer \
        --output_dir runs/my_pretrained

Stage 3 is `finetune.py --model_name_or_path runs/my_pretrained --acoustic_learning_rate_scale 0.1`.
"""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining

from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForPreTraining, HEARQuantizer, HEARQuantizerConfig
from pretraining import PretrainingArguments, PretrainingCollator, PretrainingTrainer, load_clips, run
from pretraining_report import report
from scripting import parse_arguments, start
from unlabelled_audio import PretrainingDataArguments


@dataclass
class PretrainingModelArguments:
    """Which model to train, by whose codes."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A checkpoint to train further. Without it HEAR starts from scratch."}
    )
    model_revision: str = field(default="main", metadata={"help": "The branch, tag or commit of that checkpoint."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run the code that it or the quantizer brings."})
    config_overrides: str | None = field(
        default=None, metadata={"help": "Fields of the config to change, for example `num_hidden_layers=3`."}
    )
    quantizer_name_or_path: str = field(
        default="runs/quantizer", metadata={"help": "The quantizer that train_quantizer.py made, or one of the Hub."}
    )
    quantizer_revision: str = field(default="main", metadata={"help": "The quantizer's branch, tag or commit."})
    precompute_codes: bool = field(
        default=False, metadata={"help": "Quantize each whole clip once, before the training, rather than each crop."}
    )
    mask_time_prob: float = field(default=0.4, metadata={"help": "Share of each clip's frames to hide."})
    mask_time_length: int = field(default=5, metadata={"help": "Frames of 20 ms of each hidden span; the paper's: 1."})


@dataclass
class MaskedModellingArguments(PretrainingArguments):
    """TrainingArguments whose defaults suit masked audio modelling."""

    output_dir: str = field(default="runs/pretrained", metadata={"help": "Where the model and its report go."})
    learning_rate: float = field(default=6e-4, metadata={"help": "Peak learning rate of AdamW."})
    num_train_epochs: float = field(default=5.0, metadata={"help": "Passes over the clips."})


class MaskedModellingTrainer(PretrainingTrainer):
    """Trains a [`HEARForPreTraining`] on the codes of a frozen quantizer, or on precomputed ones."""

    def __init__(self, *args, quantizer: HEARQuantizer | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.quantizer = None
        if quantizer is not None:
            self.quantizer = quantizer.to(self.args.device).eval().requires_grad_(False)

    def complete(self, inputs):
        if "labels" in inputs:
            return inputs
        # In float32 also under autocast: the codes must not depend on the training's precision.
        with torch.no_grad(), torch.autocast(self.args.device.type, enabled=False):
            codes = self.quantizer(inputs["input_values"], inputs["attention_mask"]).codes
        return inputs | {"labels": codes}

    def scored_frames(self, batch):
        return batch["mask_time_indices"]

    def logged(self, inputs, outputs):
        return {"masked_accuracy": outputs["masked_accuracy"]}, inputs["labels"]


def load_quantizer(args: PretrainingModelArguments) -> HEARQuantizer:
    source = {"revision": args.quantizer_revision, "trust_remote_code": args.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(args.quantizer_name_or_path, **source)
    except OSError as error:
        raise ValueError(
            f"`quantizer_name_or_path` must lead to a quantizer, found none at {args.quantizer_name_or_path!r}. "
            "Train one by `python examples/train_quantizer.py`."
        ) from error
    if config.model_type != HEARQuantizerConfig.model_type:
        raise ValueError(
            f"`quantizer_name_or_path` must hold a quantizer, found a model of type {config.model_type!r}. "
            "`train_quantizer.py` makes one."
        )
    return AutoModel.from_pretrained(args.quantizer_name_or_path, config=config, **source)


def load_model(args: PretrainingModelArguments, quantizer: HEARQuantizer) -> HEARForPreTraining:
    """The model to train, which must know the quantizer's codes and read the rate that it reads."""
    shared = {name: getattr(quantizer.config, name) for name in ("codebook_size", "sampling_rate")}
    if args.model_name_or_path is None:
        config = HEARConfig(**shared, n_fft=1024 * shared["sampling_rate"] // 16_000)
    else:
        source = {"revision": args.model_revision, "trust_remote_code": args.trust_remote_code}
        config = AutoConfig.from_pretrained(args.model_name_or_path, **source)
    if args.config_overrides:
        config.update_from_string(args.config_overrides)
        config.validate()
    for name, value in shared.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"The model's `{name}` must be the quantizer's, {value}, found: {getattr(config, name)}. "
                "Take another quantizer, or change the model by --config_overrides."
            )
    if args.model_name_or_path is None:
        return HEARForPreTraining(config)
    return AutoModelForPreTraining.from_pretrained(args.model_name_or_path, config=config, **source)


@torch.no_grad()
def add_codes(clips, quantizer: HEARQuantizer, device: torch.device):
    """The same clips with the column `codes`, those of each whole clip."""
    quantizer = quantizer.to(device).eval()
    feature_extractor = HEARFeatureExtractor(sampling_rate=quantizer.config.sampling_rate)

    def codes(waveform) -> list[int]:
        inputs = feature_extractor(waveform, sampling_rate=feature_extractor.sampling_rate, return_tensors="pt")
        return quantizer(inputs["input_values"].to(device)).codes[0].tolist()

    whole = (clips.whole(index) for index in tqdm(range(len(clips)), desc="Quantizing"))
    return clips.with_codes([None if waveform is None else codes(waveform) for waveform in whole])


def save_quantizer(quantizer: HEARQuantizer, feature_extractor: HEARFeatureExtractor, output_dir: Path) -> None:
    """Puts the quantizer beside the model, so that its codes can be made again."""
    for part in (quantizer, feature_extractor):
        part.save_pretrained(output_dir / "quantizer")
    for file in (output_dir / "quantizer").glob("*.py"):
        shutil.copyfile(file, output_dir / file.name)  # Transformers looks for a sub-folder's code in the root


def describe_masking(args: PretrainingModelArguments) -> str:
    spans = f"spans of {args.mask_time_length} frames" if args.mask_time_length > 1 else "single frames"
    return f"{args.mask_time_prob:.0%} of each clip's frames were hidden, in {spans}, and their codes predicted."


def main(argv: list[str] | None = None) -> dict[str, float]:
    arguments = (PretrainingModelArguments, PretrainingDataArguments, MaskedModellingArguments)
    model_args, data_args, training_args = parse_arguments(arguments, argv)
    start(training_args)

    quantizer = load_quantizer(model_args)
    model = load_model(model_args, quantizer)
    data_args = replace(data_args, teacher_column_name="", teacher_file=None)  # a teacher's states are for stage 1
    if model_args.precompute_codes and data_args.streaming:
        raise ValueError("`precompute_codes` must come without `streaming`: a stream is quantized as it is read.")
    train, validation = load_clips(model.config, data_args, training_args)
    if model_args.precompute_codes:
        train, validation = (
            None if clips is None else add_codes(clips, quantizer, training_args.device)
            for clips in (train, validation)
        )
    feature_extractor = HEARFeatureExtractor(sampling_rate=model.config.sampling_rate)
    trainer = MaskedModellingTrainer(
        model,
        training_args,
        data_collator=PretrainingCollator(feature_extractor, model_args.mask_time_prob, model_args.mask_time_length),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=feature_extractor,
        quantizer=quantizer,
    )
    if trainer.is_world_process_zero():
        save_quantizer(quantizer, feature_extractor, Path(training_args.output_dir))
    return run(trainer, lambda metrics: report(trainer, metrics, data_args, 2, describe_masking(model_args)))


if __name__ == "__main__":
    main()
