"""Converts EfficientAT, a small CNN that names sounds, into a folder that `from_pretrained` loads.

    python conversion/convert_efficientat.py mn04_as_mAP_432.pt mn04 --labels class_labels_indices.csv

The checkpoints are assets of release v0.0.1 of https://github.com/fschmid56/EfficientAT, which also names AudioSet's
labels, in metadata/class_labels_indices.csv. Any width will do, mn01 to mn40, also one fine-tuned to other labels. The
folder brings its code along: load it with `trust_remote_code=True`. Nothing in the checkpoint is executed, nothing is
downloaded, and a folder is kept only if it loads again and computes what the original computes.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from checkpoint_files import StateDict, check_names, check_shapes, check_tensor, one_line, read_checkpoint
from efficientat_layout import original_names, original_outputs, read_sizes
from hear_hf.arguments import command_parser, option
from labels import label_values, read_labels
from output_files import check_output, put_in_place, quiet
from teacher_models import EfficientATConfig, EfficientATFeatureExtractor, EfficientATForAudioClassification
from teacher_report import EFFICIENTAT_CARD, TeacherReport, compare

NUM_MEL_BINS, HOP_LENGTH = EfficientATConfig.num_mel_bins, EfficientATConfig.hop_length


@dataclass
class ConversionArguments:
    """What the checkpoint does not show, and whether to replace a folder."""

    labels: str | None = option(
        default=None,
        help="Read the labels' names from a file: AudioSet's class_labels_indices.csv, JSON, or text, one per line.",
    )
    num_mel_bins: int = option(
        default=NUM_MEL_BINS,
        help="Mel bins of the spectrogram. Checkpoints with `mels` in their name have another number.",
    )
    hop_length: int = option(
        default=HOP_LENGTH,
        help="Samples between two of its frames: 32 per millisecond of the `hop` in a checkpoint's name.",
    )
    force: bool = option(default=False, help="Replace what is already at the target.")


def convert(
    checkpoint: str | Path,
    output_dir: str | Path,
    *,
    id2label: dict[int, str] | None = None,
    num_mel_bins: int = NUM_MEL_BINS,
    hop_length: int = HOP_LENGTH,
    force: bool = False,
) -> TeacherReport:
    """Converts a checkpoint of EfficientAT into a folder that `AutoModelForAudioClassification` loads.

    Args:
        checkpoint (`str` or `Path`): The file that the original saved.
        output_dir (`str` or `Path`): The folder to write.
        id2label (`dict[int, str]`, *optional*): Names of the labels.
        num_mel_bins (`int`, *optional*, defaults to 128): Mel bins of the spectrogram.
        hop_length (`int`, *optional*, defaults to 320): Samples between its frames.
        force (`bool`, *optional*, defaults to `False`): Whether to replace a folder that is not empty.

    Returns:
        [`TeacherReport`]: What was found, and how it was converted.

    Raises:
        `ValueError`: The file is no EfficientAT; something in it is missing, unknown, of another shape or dtype, or
            not finite; the labels do not fit; or the folder may not be written.
    """
    checkpoint, output_dir = Path(checkpoint).resolve(), Path(output_dir).resolve()
    check_output(output_dir, checkpoint, force)
    original = read_checkpoint(checkpoint)
    sizes = read_sizes(original)
    config = make_config(sizes, num_mel_bins, hop_length, id2label)
    state_dict = to_state_dict(original, config)
    report = TeacherReport(
        found=f"EfficientAT mn{round(10 * config.width_mult):02d}",
        architecture=EfficientATForAudioClassification.__name__,
        sizes=sizes,
        assumptions=[f"num_mel_bins={num_mel_bins} and hop_length={hop_length}, which no checkpoint shows"],
        num_parameters=sum(original[key].numel() for key in original if key.endswith(("weight", "bias"))),
        sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        output_dir=output_dir,
        command="python examples/predict.py {} clip.wav --trust_remote_code",
    )
    with quiet(), torch.random.fork_rng(devices=[]), put_in_place(output_dir) as folder:
        model = EfficientATForAudioClassification(config)
        model.load_state_dict(state_dict)
        model.save_pretrained(folder)
        EfficientATFeatureExtractor().save_pretrained(folder)
        report.max_difference = verify(original, folder)
        card = report.model_card(EFFICIENTAT_CARD, checkpoint.name, config)
        (folder / "README.md").write_text(card, encoding="utf-8")
    return report


def make_config(
    sizes: dict[str, Any], num_mel_bins: int, hop_length: int, id2label: dict[int, str] | None
) -> EfficientATConfig:
    try:
        return EfficientATConfig(
            width_mult=sizes["width_mult"],
            num_mel_bins=num_mel_bins,
            hop_length=hop_length,
            problem_type="multi_label_classification",
            architectures=[EfficientATForAudioClassification.__name__],
            **label_values(id2label, sizes["num_labels"]),
        )
    except StrictDataclassError as error:
        raise ValueError(f"The sizes must go together, found: {one_line(error)}") from error


def to_state_dict(original: StateDict, config: EfficientATConfig) -> StateDict:
    """Checks the tensors and gives them our names."""
    with torch.device("meta"):
        model = EfficientATForAudioClassification(config)
    names = original_names(model)
    check_names("The EfficientAT", original, list(names.values()))
    for key, tensor in original.items():
        check_tensor(key, tensor)
    shapes = {names[name]: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    check_shapes(original, shapes, f"Read: width_mult={config.width_mult} from the head.")
    return {ours: original[theirs].clone().contiguous() for ours, theirs in names.items()}


@torch.no_grad()
def verify(original: StateDict, folder: Path) -> float:
    """Loads the folder, compares it with the original's computation, and returns the largest relative difference."""
    model = EfficientATForAudioClassification.from_pretrained(folder, local_files_only=True).double().eval()
    feature_extractor = EfficientATFeatureExtractor.from_pretrained(folder, local_files_only=True)
    waveform = 0.1 * torch.randn(feature_extractor.sampling_rate, generator=torch.Generator().manual_seed(0))
    inputs = feature_extractor(waveform, sampling_rate=feature_extractor.sampling_rate, return_tensors="pt")
    log_mel, _ = model.efficientat.spectrogram(**inputs)
    embedding, logits = original_outputs({key: x.double() for key, x in original.items()}, log_mel.double())
    outputs = model(**inputs)
    return max(compare(outputs.pooler_output, embedding), compare(outputs.logits, logits))


def main(argv: list[str] | None = None) -> None:
    parser = command_parser(ConversionArguments, __doc__)
    parser.add_argument("checkpoint", help="The original's file, such as mn04_as_mAP_432.pt.")
    parser.add_argument("output_dir", help="The folder to write.")
    args, files = parser.parse_args_into_dataclasses(argv)
    try:
        report = convert(
            files.checkpoint,
            files.output_dir,
            id2label=None if args.labels is None else read_labels(args.labels),
            num_mel_bins=args.num_mel_bins,
            hop_length=args.hop_length,
            force=args.force,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(report)


if __name__ == "__main__":
    main()
