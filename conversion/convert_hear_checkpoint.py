"""Converts checkpoints of the original code into folders that `from_pretrained` loads, and back.

    python conversion/convert_hear_checkpoint.py hear.pth my_hear --id2label labels.txt
    python conversion/convert_hear_checkpoint.py my_hear hear.pth --reverse

The authors publish pretrained weights in https://github.com/HarunoriKawano/HEAR (MIT): the acoustic model in
`models/acoustic_model_weight.pth`, and the tokenizer, here called quantizer, in `models/tokenizer_weight.pth`.
Download and convert both, then fine-tune the acoustic model on your own sounds, one folder per class:

    curl -LO https://github.com/HarunoriKawano/HEAR/raw/main/models/acoustic_model_weight.pth
    curl -LO https://github.com/HarunoriKawano/HEAR/raw/main/models/tokenizer_weight.pth
    python conversion/convert_hear_checkpoint.py acoustic_model_weight.pth hear_acoustic
    python conversion/convert_hear_checkpoint.py tokenizer_weight.pth hear_quantizer
    python examples/finetune.py --model_name_or_path hear_acoustic --acoustic_learning_rate_scale 0.1 --data_dir sounds

The quantizer serves to pretrain the acoustic model further, on recordings of your own (`--data_dir`):

    python examples/pretrain.py --model_name_or_path hear_acoustic --quantizer_name_or_path hear_quantizer

All five files of the original are read and written: the whole classifier, the acoustic model alone, the tokenizer
alone, and both training frameworks. That of masked pretraining holds two models, of which the quantizer goes into the
sub-folder `quantizer`. All sizes are read from the checkpoint; only the overlap of the windows is not in it. Nothing
in the checkpoint is executed, nothing is downloaded, and a folder is kept only if it loads again with equal tensors.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

from checkpoint_files import (
    StateDict,
    check_names,
    check_shapes,
    check_tensor,
    one_line,
    read_checkpoint,
    read_config,
    read_folder,
)
from conversion_report import ConversionReport, ModelReport
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARQuantizerConfig
from hear_hf.arguments import command_parser, option
from hear_hf.spectrogram_hear import HEARSpectrogram
from labels import label_values, read_labels
from original_layout import CLASSIFIER, FRONT_END, LEADING_AXIS, WINDOW, Kind, Layout, kind_of, n_fft_at, recognise
from output_files import check_output, put_in_place, quiet, write_checkpoint

Config = HEARConfig | HEARQuantizerConfig

DEFAULT_OVERLAP = 50
TABLE_TOLERANCE = 1e-5  # ours are equal to the bit; another version of torch may round otherwise
OUTPUT_TOLERANCE = 1e-5
MAX_TEST_FRAMES = 1500  # 30 s
SHARED = ("codebook_size", "num_mel_bins", "sampling_rate")  # by the models of one file


def convert(
    checkpoint: str | Path,
    output_dir: str | Path,
    *,
    window_overlap: int = DEFAULT_OVERLAP,
    id2label: dict[int, str] | None = None,
    force: bool = False,
) -> ConversionReport:
    """Converts a checkpoint of the original into a folder that `from_pretrained` loads.

    Args:
        checkpoint (`str` or `Path`): The file that the original saved.
        output_dir (`str` or `Path`): The folder to write.
        window_overlap (`int`, *optional*, defaults to 50): Frames that two neighbouring windows share.
        id2label (`dict[int, str]`, *optional*): Names of a classifier's labels.
        force (`bool`, *optional*, defaults to `False`): Whether to replace a folder that is not empty.

    Returns:
        [`ConversionReport`]: What was found, and how it was converted.

    Raises:
        `ValueError`: The file is none of the original's; something in it is missing, unknown, of another shape or
            dtype, or not finite; the labels do not fit; or the folder may not be written.
    """
    checkpoint, output_dir = Path(checkpoint).resolve(), Path(output_dir).resolve()
    check_output(output_dir, checkpoint, force)
    original = read_checkpoint(checkpoint)
    kind = recognise(original)
    check_contents(original, kind)
    with quiet(), torch.random.fork_rng(devices=[]):
        converted = [convert_model(original, layout, output_dir, window_overlap, id2label) for layout in kind.layouts]
        report = ConversionReport(
            kind=kind,
            models=[model_report for _, _, model_report in converted],
            sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            output_dir=output_dir,
        )
        check_shared([model.config for model in report.models])
        check_tables(original, report.main.config)
        write_verified(converted, report, checkpoint.name)
    return report


def convert_model(
    original: StateDict, layout: Layout, output_dir: Path, window_overlap: int, id2label: dict[int, str] | None
) -> tuple[PreTrainedModel, StateDict, ModelReport]:
    """Converts one of the models in a checkpoint, and returns it with the tensors to save."""
    sizes = read_sizes(original, layout)
    config, assumptions = make_config(layout, sizes, window_overlap, id2label)
    check_shapes(original, original_shapes(layout, config), sources(sizes))
    model = layout.architecture(config).eval()
    fresh = model.state_dict()
    state_dict = {name: fresh[name].clone() for name in layout.unsaved}
    for theirs, ours in layout.pairs(config.to_dict()):
        state_dict[ours] = original[theirs].detach().clone().contiguous().reshape(fresh[ours].shape)
    model.load_state_dict(state_dict, strict=layout.is_complete)
    report = ModelReport(
        layout=layout,
        config=config,
        sizes={name: value for name, (value, _) in sizes.items()},
        assumptions=assumptions,
        num_parameters=sum(state_dict[name].numel() for name, _ in model.named_parameters() if name in state_dict),
        output_dir=output_dir / layout.folder,
    )
    return model, state_dict, report


def revert(folder: str | Path, output_file: str | Path, *, force: bool = False) -> Kind:
    """Writes the checkpoint that the original would have saved: its keys in its order, bit for bit.

    Args:
        folder (`str` or `Path`): A folder that [`convert`] wrote, or one of a model of the same class. That of a
            [`HEARForPreTraining`] must hold its [`HEARQuantizer`] in the sub-folder `quantizer`.
        output_file (`str` or `Path`): The file to write.
        force (`bool`, *optional*, defaults to `False`): Whether to replace an existing file.

    Returns:
        Which of the original's files was written.

    Raises:
        `ValueError`: The folder holds no such model or one that the original cannot express, or the file may not be
            written.
    """
    folder, output_file = Path(folder).resolve(), Path(output_file).resolve()
    if output_file.is_dir() or (output_file.exists() and not force):
        found = "a folder" if output_file.is_dir() else "a file"
        raise ValueError(f"`{output_file}` must be new, found: {found}. Give another name, or --force for a file.")
    kind = kind_of(architecture_of(read_config(folder)))
    models = [revert_model(folder, layout, kind) for layout in kind.layouts]
    check_shared([config for config, _ in models])

    tables = front_end_tables(models[-1][0]) if kind.has_front_end else {}
    original = OrderedDict((theirs, tables[name]) for theirs, name in FRONT_END if name in tables)
    for _, tensors in models:
        original.update(tensors)
    write_checkpoint(original, output_file)
    return kind


def revert_model(folder: Path, layout: Layout, kind: Kind) -> tuple[Config, StateDict]:
    """Reads one of the models in a folder: its configuration, and its tensors as the original names them."""
    place, name = folder / layout.folder, layout.architecture.__name__
    if not place.is_dir():
        raise ValueError(
            f"`{folder}` must hold the {name} that is part of the {kind.name} in a sub-folder `{layout.folder}`, "
            "found: none. Copy that model's folder there."
        )
    config, ours = read_folder(place)
    if architecture_of(config) != name:
        raise ValueError(
            f"`{place}` must hold a {name}, found: {architecture_of(config)}. Load it by {name}, and save it again."
        )
    if kind is CLASSIFIER and config.classifier_proj_size is None:
        raise ValueError(
            f"`{place}` must have the original's head, with a hidden layer, found a linear one "
            "(classifier_proj_size=None), which the original does not know. Fine-tune it with the other head."
        )
    pairs = layout.pairs(config.to_dict())
    check_names(f"`{place.name}`, to become the {kind.name},", ours, [*(key for _, key in pairs), *layout.unsaved])
    for key, tensor in ours.items():
        check_tensor(key, tensor)
    expected = our_shapes(layout, config)
    check_shapes(ours, {key: expected.get(key) for key in ours}, "config.json says so.")
    shapes = original_shapes(layout, config)
    return config, {theirs: ours[key].reshape(shapes[theirs]) for theirs, key in pairs}


def architecture_of(config: Config) -> str | None:
    return next(iter(config.architectures or ()), None)


def check_contents(original: StateDict, kind: Kind) -> None:
    """Checks the keys and the values of a checkpoint."""
    tables = {theirs for theirs, _ in FRONT_END} if kind.has_front_end else set()
    pairs = [pair for layout in kind.layouts for pair in layout.pairs(layout.count_layers(original))]
    check_names(f"The {kind.name}", [key for key in original if key not in tables], [theirs for theirs, _ in pairs])
    for key, tensor in original.items():
        check_tensor(key, tensor)


def check_shared(configs: list[Config]) -> None:
    """Refuses the models of one file if they read other spectra or predict other codes than each other."""
    for name in SHARED:
        found = {config.model_type: getattr(config, name) for config in configs}
        if len(set(found.values())) > 1:
            raise ValueError(
                f"`{name}` must be the same in all models of a checkpoint, found: "
                f"{', '.join(f'{value} in {model_type}' for model_type, value in found.items())}."
            )


def read_sizes(original: StateDict, layout: Layout) -> dict[str, tuple[int, str]]:
    """Reads the sizes from the shapes: field of the configuration -> its value, and the key that shows it."""
    sizes = {name: (count, "the keys") for name, count in layout.count_layers(original).items()}
    for name, key, axis, value_of in layout.sizes:
        shape = tuple(original[key].shape)
        if axis >= len(shape) or 0 in shape:
            raise ValueError(f"`{key}` must show `{name}` in axis {axis} of its shape, found the shape: {shape}.")
        sizes[name] = (value_of(shape[axis]), f"`{key}`")
    if WINDOW in original:
        sizes["sampling_rate"] = (40 * original[WINDOW].numel(), f"`{WINDOW}`")  # the window lasts 25 ms
    return sizes


def sources(sizes: dict[str, tuple[int, str]]) -> str:
    return "Read: " + ", ".join(f"{name}={value} from {source}" for name, (value, source) in sizes.items()) + "."


def make_config(
    layout: Layout, sizes: dict[str, tuple[int, str]], window_overlap: int, id2label: dict[int, str] | None
) -> tuple[Config, list[str]]:
    """Makes the configuration, and lists what had to be assumed for it."""
    values: dict[str, Any] = {name: value for name, (value, _) in sizes.items()}
    values["window_overlap"] = window_overlap
    assumptions = [f"window_overlap={window_overlap}, which no checkpoint shows"]
    if "sampling_rate" not in values:
        values["sampling_rate"] = 16_000
        assumptions.append(f"sampling_rate=16000, as the checkpoint lacks `{WINDOW}`")
    for name, assume, why in layout.assumed:
        values[name] = assume(values)
        assumptions.append(f"{name}={values[name]}{why}")
    values |= label_values(id2label, values.pop("num_labels", None))
    config_class: Any = layout.architecture.config_class
    try:
        return config_class(**values), assumptions
    except StrictDataclassError as error:
        raise ValueError(f"The sizes must go together, found: {one_line(error)}. {sources(sizes)}") from error


def original_shapes(layout: Layout, config: Config) -> dict[str, tuple[int, ...]]:
    """Gives the shapes of the original's tensors in a model of these sizes."""
    shapes = our_shapes(layout, config)
    return {
        theirs: (1, *shapes[ours]) if theirs in LEADING_AXIS else shapes[ours]
        for theirs, ours in layout.pairs(config.to_dict())
    }


def our_shapes(layout: Layout, config: Config) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in layout.architecture(config).state_dict().items()}


def front_end_tables(config: Config) -> StateDict:
    """Computes all tables of the front end, also those that a quantizer does not read."""
    n_fft = n_fft_at({"sampling_rate": config.sampling_rate})  # no table shows it
    complete = HEARConfig(sampling_rate=config.sampling_rate, num_mel_bins=config.num_mel_bins, n_fft=n_fft)
    return HEARSpectrogram(complete).tables()


def check_tables(original: StateDict, config: Config) -> None:
    """Refuses other tables of the front end than those that we compute, since none are stored."""
    tables = front_end_tables(config)
    for theirs, name in FRONT_END:
        if theirs not in original:
            continue
        if name not in tables:
            raise ValueError(f"`{theirs}` must be absent at {config.sampling_rate} Hz, which needs no resampling.")
        check_shapes(original, {theirs: tuple(tables[name].shape)}, "It is a table of the front end.")
        difference = (original[theirs] - tables[name]).abs().max().item()
        if difference > TABLE_TOLERANCE:
            raise ValueError(
                f"`{theirs}` must be the front end's own table, found one that differs by {difference:.1e}: the model "
                "was trained on other spectra."
            )


def write_verified(
    converted: list[tuple[PreTrainedModel, StateDict, ModelReport]], report: ConversionReport, checkpoint: str
) -> None:
    """Writes the folder, and keeps it only if its models load again as they were."""
    with put_in_place(report.output_dir) as folder:
        for model, state_dict, model_report in converted:
            place = folder / model_report.layout.folder
            model.save_pretrained(place, state_dict=dict(state_dict))  # a copy, for it empties what it is given
            HEARFeatureExtractor(sampling_rate=model.config.sampling_rate).save_pretrained(place)
            model_report.max_difference = verify(model, state_dict, model_report.layout.outputs, place)
            (place / "README.md").write_text(report.model_card(model_report, checkpoint), encoding="utf-8")


def verify(model: PreTrainedModel, state_dict: StateDict, outputs: tuple[str, ...], folder: Path) -> float:
    """Loads the folder again and compares; returns the largest difference of the outputs."""
    reloaded = type(model).from_pretrained(folder, local_files_only=True)
    tensors = reloaded.state_dict()
    different = [key for key, tensor in state_dict.items() if not torch.equal(tensor, tensors[key])]
    if different:
        raise ValueError(f"The reloaded tensors must equal the converted ones, found others: {', '.join(different)}.")

    config = model.config
    num_frames = min(2 * config.window_length, MAX_TEST_FRAMES)
    generator = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(num_frames * config.inputs_to_logits_ratio, generator=generator)
    feature_extractor = HEARFeatureExtractor.from_pretrained(folder, local_files_only=True)
    inputs = feature_extractor(waveform, sampling_rate=config.sampling_rate, return_tensors="pt")
    with torch.no_grad():
        expected, found = model(**inputs), reloaded(**inputs)
    difference = max((expected[name] - found[name]).abs().max().item() for name in outputs)
    if not difference <= OUTPUT_TOLERANCE:
        raise ValueError(f"The reloaded model must give the same output, found a difference of {difference:.1e}.")
    return difference


@dataclass
class ConversionArguments:
    """What the checkpoint does not show, and in which direction to convert."""

    window_overlap: int | None = option(
        default=None, help="Frames that two neighbouring windows share, which no checkpoint shows. Without it, 50."
    )
    id2label: str | None = option(
        default=None, help="Read the names of a classifier's labels from this file: JSON, or text with one per line."
    )
    reverse: bool = option(default=False, help="Convert a folder to a checkpoint of the original.")
    force: bool = option(default=False, help="Replace what is already at the target.")


def main(argv: list[str] | None = None) -> None:
    parser = command_parser(ConversionArguments, __doc__)
    parser.add_argument("source", help="A checkpoint of the original; with --reverse, a converted folder.")
    parser.add_argument("target", help="The folder to write; with --reverse, the checkpoint to write.")
    args, paths = parser.parse_args_into_dataclasses(argv)
    if args.reverse and (args.window_overlap is not None or args.id2label is not None):
        parser.error("--window_overlap and --id2label must be left out with --reverse: the folder holds both.")
    try:
        if args.reverse:
            kind = revert(paths.source, paths.target, force=args.force)
            for name in kind.main.unsaved:
                print(f"Left out:  {name}, which the original does not save")
            print(f"Written:   {paths.target} ({kind.name} of the original); all tensors equal the folder's")
            return
        overlap = DEFAULT_OVERLAP if args.window_overlap is None else args.window_overlap
        id2label = None if args.id2label is None else read_labels(args.id2label)
        print(convert(paths.source, paths.target, window_overlap=overlap, id2label=id2label, force=args.force))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
