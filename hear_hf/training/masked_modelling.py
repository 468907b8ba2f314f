"""Stage 2 of the pretraining: masked audio modelling of the acoustic model (paper, 3.2)."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining

from .. import HEARConfig, HEARFeatureExtractor, HEARForPreTraining, HEARQuantizer, HEARQuantizerConfig
from ..arguments import option
from ..data.clips import PretrainingClips, StreamedClips
from .pretraining import PretrainingArguments, PretrainingTrainer


@dataclass
class PretrainingModelArguments:
    """Which model to train, and which quantizer's codes to predict."""

    model_name_or_path: str | None = option(
        default=None, help="A checkpoint to train further; without it, HEAR is trained from scratch."
    )
    model_revision: str = option(default="main", help="The branch, tag or commit of that checkpoint.")
    trust_remote_code: bool = option(
        default=False, help="Run the code that the checkpoint or the quantizer brings along."
    )
    config_overrides: str | None = option(
        default=None, help="Fields of the config to change, for example `num_hidden_layers=3`."
    )
    quantizer_name_or_path: str = option(
        default="runs/quantizer", help="The quantizer that train_quantizer.py made, or one of the Hub."
    )
    quantizer_revision: str = option(default="main", help="The quantizer's branch, tag or commit.")
    precompute_codes: bool = option(
        default=False, help="Quantize each whole clip once, before the training, rather than each crop."
    )
    mask_time_prob: float = option(default=0.4, help="Mask this share of each clip's frames.")
    mask_time_length: int = option(
        default=5, help="Mask spans of this many frames of 20 ms; the paper masks single frames."
    )


@dataclass
class MaskedModellingArguments(PretrainingArguments):
    """TrainingArguments whose defaults suit masked audio modelling."""

    output_dir: str = option(default="runs/pretrained", help="The folder for the model and its report.")
    learning_rate: float = option(default=6e-4, help="Peak learning rate of AdamW.")
    num_train_epochs: float = option(default=5.0, help="Passes over the clips.")


class MaskedModellingTrainer(PretrainingTrainer):
    """Trains a [`HEARForPreTraining`] on the codes of a frozen quantizer, or on precomputed ones."""

    def __init__(self, *args, quantizer: HEARQuantizer | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.quantizer = quantizer
        if quantizer is not None:
            quantizer.eval().requires_grad_(False)
            quantizer.to(self.args.device)  # type: ignore[arg-type]  # as Transformers wraps `to`, mypy sees no `self`

    def complete(self, inputs):
        if self.quantizer is None or "labels" in inputs:
            return inputs
        # In float32 also under autocast: the codes must not depend on the training's precision.
        with torch.no_grad(), torch.autocast(self.args.device.type, enabled=False):
            codes = self.quantizer(inputs["input_values"], inputs["attention_mask"]).codes
        return inputs | {"labels": codes}

    def scored(self, batch):
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
            "Train one with `python examples/train_quantizer.py`."
        ) from error
    if config.model_type != HEARQuantizerConfig.model_type:
        raise ValueError(
            f"`quantizer_name_or_path` must hold a quantizer, found a model of type {config.model_type!r}. "
            "`train_quantizer.py` makes one."
        )
    return AutoModel.from_pretrained(args.quantizer_name_or_path, config=config, **source)


def load_model(args: PretrainingModelArguments, quantizer: HEARQuantizer) -> HEARForPreTraining:
    """Loads the model to train, which must have the quantizer's codes and sampling rate."""
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
def add_codes(
    clips: PretrainingClips | StreamedClips | None, quantizer: HEARQuantizer, device: torch.device
) -> PretrainingClips | None:
    """Adds the column `codes`, those of each whole clip; to no clips, none."""
    if clips is None:
        return None
    if isinstance(clips, StreamedClips):
        raise ValueError("`precompute_codes` must come without `streaming`: a stream is quantized as it is read.")
    quantizer.eval().to(device)
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
    return f"{args.mask_time_prob:.0%} of each clip's frames were masked, in {spans}, and their codes predicted."
