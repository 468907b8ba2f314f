"""Converts the original's checkpoints into folders that `from_pretrained` loads, and back.

    python conversion/convert_hear_checkpoint.py hear.pth my_hear --id2label labels.txt
    python conversion/convert_hear_checkpoint.py my_hear hear.pth --reverse

Reads and writes all five files of the original: the whole classifier, the acoustic model alone, the tokenizer alone
(our quantizer), and both training frameworks, of which that of masked pretraining holds two models: the quantizer goes
into a sub-folder `quantizer`. All sizes come from the checkpoint; only the overlap of the windows is not in it.
Nothing in the checkpoint is executed, nothing is downloaded, and nothing is kept that was not loaded again and found
equal.
"""

import argparse
import hashlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel
from transformers.utils import logging

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
from hear_hf.spectrogram_hear import HEARSpectrogram
from labels import label_values, read_labels
from original_layout import FRONT_END, LEADING_AXIS, WINDOW, Kind, Layout, kind_of, n_fft_at, recognise

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
    """Converts one of the original's checkpoints into a folder that `from_pretrained` loads.

    Args:
        checkpoint (`str` or `Path`): The file that the original saved.
        output_dir (`str` or `Path`): The folder to write.
        window_overlap (`int`, *optional*, defaults to 50): Frames that two neighbouring windows share.
        id2label (`dict[int, str]`, *optional*): Names of a classifier's labels.
        force (`bool`, *optional*, defaults to `False`): Whether to replace a folder that is not empty.

    Returns:
        [`ConversionReport`]: what was found, and what became of it.

    Raises:
        `ValueError`: if the file is none of the original's; if something in it is missing, unknown, of another shape
            or dtype, or not finite; if the labels do not fit; if the folder may not be written.
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
    """One of the models in a checkpoint, and those of its tensors that are to be saved."""
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
        `ValueError`: if the folder holds no such model or one that the original cannot express, or if the file may
            not be written.
    """
    folder, output_file = Path(folder).resolve(), Path(output_file).resolve()
    if output_file.is_dir() or (output_file.exists() and not force):
        raise ValueError(f"`{output_file}` must be new. Give another name, or --force to replace a file.")
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
    """Configuration and original tensors of one of the models in a folder."""
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


def check_output(output_dir: Path, checkpoint: Path, force: bool) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"`{output_dir}` must be a folder, found: a file.")
    if output_dir in checkpoint.parents:
        raise ValueError(f"`{output_dir}` must not hold the checkpoint: it would be replaced with the folder.")
    if output_dir.is_dir() and any(output_dir.iterdir()) and not force:
        raise ValueError(f"`{output_dir}` must be new or empty. Give another name, or --force to replace it.")


def check_contents(original: StateDict, kind: Kind) -> None:
    """Checks the keys and the values."""
    tables = {theirs for theirs, _ in FRONT_END} if kind.has_front_end else set()
    pairs = [pair for layout in kind.layouts for pair in layout.pairs(layout.count_layers(original))]
    check_names(f"The {kind.name}", [key for key in original if key not in tables], [theirs for theirs, _ in pairs])
    for key, tensor in original.items():
        check_tensor(key, tensor)


def check_shared(configs: list[Config]) -> None:
    """The models of one file read the same spectra and speak of the same codes."""
    for name in SHARED:
        found = {config.model_type: getattr(config, name) for config in configs}
        if len(set(found.values())) > 1:
            raise ValueError(
                f"`{name}` must be the same in all models of a checkpoint, found: "
                f"{', '.join(f'{value} in {model_type}' for model_type, value in found.items())}."
            )


def read_sizes(original: StateDict, layout: Layout) -> dict[str, tuple[int, str]]:
    """The sizes that the shapes show: field of the configuration -> its value, and the key that shows it."""
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
    """The configuration, and what had to be assumed for it."""
    values = {name: value for name, (value, _) in sizes.items()} | {"window_overlap": window_overlap}
    assumptions = [f"window_overlap={window_overlap}, which no checkpoint shows"]
    if "sampling_rate" not in values:
        values["sampling_rate"] = 16_000
        assumptions.append(f"sampling_rate=16000, as the checkpoint lacks `{WINDOW}`")
    for name, assume, why in layout.assumed:
        values[name] = assume(values)
        assumptions.append(f"{name}={values[name]}{why}")
    values |= label_values(id2label, values.pop("num_labels", None))
    try:
        return layout.architecture.config_class(**values), assumptions
    except StrictDataclassError as error:
        raise ValueError(f"The sizes must go together, found: {one_line(error)}. {sources(sizes)}") from error


def original_shapes(layout: Layout, config: Config) -> dict[str, tuple[int, ...]]:
    """The shapes that the original's tensors have in a model of these sizes."""
    shapes = our_shapes(layout, config)
    return {
        theirs: (1, *shapes[ours]) if theirs in LEADING_AXIS else shapes[ours]
        for theirs, ours in layout.pairs(config.to_dict())
    }


def our_shapes(layout: Layout, config: Config) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in layout.architecture(config).state_dict().items()}


def front_end_tables(config: Config) -> StateDict:
    """All tables of the front end, also those that a quantizer does not read."""
    n_fft = n_fft_at({"sampling_rate": config.sampling_rate})  # no table shows it
    sizes = {"sampling_rate": config.sampling_rate, "num_mel_bins": config.num_mel_bins, "n_fft": n_fft}
    return HEARSpectrogram(HEARConfig(**sizes)).tables()


def check_tables(original: StateDict, config: Config) -> None:
    """The front end's tables are not stored, so they must be those that we compute."""
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
    """Writes the folder and checks it."""
    with put_in_place(report.output_dir) as folder:
        for model, state_dict, model_report in converted:
            place = folder / model_report.layout.folder
            model.save_pretrained(place, state_dict=dict(state_dict))  # a copy, for it empties what it is given
            HEARFeatureExtractor(sampling_rate=model.config.sampling_rate).save_pretrained(place)
            model_report.max_difference = verify(model, state_dict, model_report.layout.outputs, place)
            (place / "README.md").write_text(report.model_card(model_report, checkpoint), encoding="utf-8")


@contextmanager
def put_in_place(output_dir: Path) -> Iterator[Path]:
    """A folder beside `output_dir` that takes its place once all went well."""
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir.parent, prefix=f".{output_dir.name}-") as scratch:
        folder, replaced = Path(scratch) / output_dir.name, Path(scratch) / "replaced"
        folder.mkdir()
        yield folder
        if output_dir.exists():
            os.replace(output_dir, replaced)
        try:
            os.replace(folder, output_dir)
        except OSError:
            if replaced.exists():
                os.replace(replaced, output_dir)
            raise


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


def write_checkpoint(original: StateDict, output_file: Path) -> None:
    output_file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_file.parent, prefix=f".{output_file.name}-") as scratch:
        written = Path(scratch) / output_file.name
        torch.save(original, written)
        reloaded = torch.load(written, weights_only=True, map_location="cpu")
        different = [key for key, tensor in original.items() if not torch.equal(tensor, reloaded[key])]
        if different:
            raise ValueError(f"The written tensors must equal the folder's, found others: {', '.join(different)}.")
        os.replace(written, output_file)


@contextmanager
def quiet():
    """Without the progress bars and warnings of transformers, for which the report stands."""
    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="The original's checkpoint; with --reverse, a converted folder.")
    parser.add_argument("target", help="The folder to write; with --reverse, the checkpoint to write.")
    parser.add_argument("--window-overlap", type=int, help="Frames that two windows share (default: 50).")
    parser.add_argument("--id2label", help="The labels' names: JSON, or text with one a line.")
    parser.add_argument("--reverse", action="store_true", help="From a folder to the original's checkpoint.")
    parser.add_argument("--force", action="store_true", help="Replace what stands at the target.")
    args = parser.parse_args(argv)
    if args.reverse and (args.window_overlap is not None or args.id2label is not None):
        parser.error("--window-overlap and --id2label do not go with --reverse: the folder holds both already.")
    try:
        if args.reverse:
            kind = revert(args.source, args.target, force=args.force)
            for name in kind.main.unsaved:
                print(f"Left out:  {name}, which the original does not save")
            print(f"Written:   {args.target} ({kind.name} of the original); all tensors equal the folder's")
            return
        overlap = DEFAULT_OVERLAP if args.window_overlap is None else args.window_overlap
        id2label = None if args.id2label is None else read_labels(args.id2label)
        print(convert(args.source, args.target, window_overlap=overlap, id2label=id2label, force=args.force))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
