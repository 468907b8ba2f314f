"""Converts the original's checkpoints into folders that `from_pretrained` loads, and back.

    python conversion/convert_hear_checkpoint.py hear.pth my_hear --id2label labels.txt
    python conversion/convert_hear_checkpoint.py my_hear hear.pth --reverse

Reads the whole classifier, the acoustic model alone, and of the pretraining framework the acoustic model. All sizes
come from the checkpoint; only the overlap of the windows is not in it. Nothing in the checkpoint is executed, nothing
is downloaded, and nothing is kept that was not loaded again and found equal.
"""

import argparse
import hashlib
import json
import os
import tempfile
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel
from transformers.utils import logging

from checkpoint_files import StateDict, check_names, check_shapes, check_tensor, one_line, read_checkpoint, read_folder
from conversion_report import ConversionReport
from hear_hf import HEARConfig, HEARFeatureExtractor
from hear_hf.spectrogram_hear import HEARSpectrogram
from original_layout import ACOUSTIC, CLASSIFIER, FRONT_END, WINDOW, Kind, recognise

DEFAULT_OVERLAP = 50
TABLE_TOLERANCE = 1e-5  # ours are equal to the bit; another version of torch may round otherwise
OUTPUT_TOLERANCE = 1e-5
MAX_TEST_FRAMES = 1500  # 30 s


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
        `ValueError`: if the file is none of the original's or not supported yet; if something in it is missing,
            unknown, of another shape or dtype, or not finite; if the labels do not fit; if the folder may not be
            written.
    """
    checkpoint, output_dir = Path(checkpoint).resolve(), Path(output_dir).resolve()
    check_output(output_dir, checkpoint, force)
    original = read_checkpoint(checkpoint)
    kind = recognise(original)
    if kind.architecture is None:
        raise ValueError(f"`{checkpoint.name}` is the original's {kind.name}, which is not supported yet.")
    left_out = kind.find_left_out(original)
    pairs = check_contents({key: tensor for key, tensor in original.items() if key not in left_out}, kind)
    sizes = read_sizes(original, kind)
    config, assumptions = make_config(kind, sizes, window_overlap, id2label)
    check_shapes(original, original_shapes(kind, config), sources(sizes))
    check_tables(original, config)

    state_dict = {ours: original[theirs].detach().clone().contiguous() for theirs, ours in pairs}
    with quiet(), torch.random.fork_rng(devices=[]):
        model = kind.architecture(config).eval()
        model.load_state_dict(state_dict, strict=kind.is_classifier)
        report = ConversionReport(
            kind=kind,
            config=config,
            sizes={name: value for name, (value, _) in sizes.items()},
            assumptions=assumptions,
            left_out=left_out,
            num_parameters=sum(state_dict[name].numel() for name, _ in model.named_parameters() if name in state_dict),
            sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            output_dir=output_dir,
        )
        write_verified(model, state_dict, report, checkpoint.name)
    return report


def revert(folder: str | Path, output_file: str | Path, *, force: bool = False) -> Kind:
    """Writes the checkpoint that the original would have saved: its keys in its order, bit for bit.

    Args:
        folder (`str` or `Path`): A folder of a [`HEARForAudioClassification`], or one of the acoustic model alone.
        output_file (`str` or `Path`): The file to write.
        force (`bool`, *optional*, defaults to `False`): Whether to replace an existing file.

    Returns:
        Which of the original's files was written. The pretraining framework has no reverse: the folder made of it
        gives the acoustic model alone.

    Raises:
        `ValueError`: if the folder holds no such model or one that the original cannot express, or if the file may
            not be written.
    """
    folder, output_file = Path(folder).resolve(), Path(output_file).resolve()
    if output_file.is_dir() or (output_file.exists() and not force):
        raise ValueError(f"`{output_file}` must be new. Give another name, or --force to replace a file.")
    config, ours = read_folder(folder)
    kind = CLASSIFIER if any(key.startswith("classifier.") for key in ours) else ACOUSTIC
    pairs = kind.pairs(config.num_hidden_layers)
    check_names(f"`{folder.name}`, to become the {kind.name},", ours, [name for _, name in pairs])
    for key, tensor in ours.items():
        check_tensor(key, tensor)

    tables = HEARSpectrogram(config).tables() if kind.has_front_end else {}
    original = OrderedDict((theirs, tables[name]) for theirs, name in FRONT_END if name in tables)
    original.update((theirs, ours[name]) for theirs, name in pairs)
    check_shapes(original, original_shapes(kind, config), "config.json says so.")
    write_checkpoint(original, output_file)
    return kind


def check_output(output_dir: Path, checkpoint: Path, force: bool) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"`{output_dir}` must be a folder, found: a file.")
    if output_dir in checkpoint.parents:
        raise ValueError(f"`{output_dir}` must not hold the checkpoint: it would be replaced with the folder.")
    if output_dir.is_dir() and any(output_dir.iterdir()) and not force:
        raise ValueError(f"`{output_dir}` must be new or empty. Give another name, or --force to replace it.")


def check_contents(original: StateDict, kind: Kind) -> list[tuple[str, str]]:
    """Checks the keys and the values, and gives the (original, ours) pairs of keys."""
    tables = {theirs for theirs, _ in FRONT_END} if kind.has_front_end else set()
    pairs = kind.pairs(kind.count_layers(original))
    check_names(f"The {kind.name}", [key for key in original if key not in tables], [theirs for theirs, _ in pairs])
    for key, tensor in original.items():
        check_tensor(key, tensor)
    return pairs


def read_sizes(original: StateDict, kind: Kind) -> dict[str, tuple[int, str]]:
    """The sizes that the shapes show: field of the configuration -> its value, and the key that shows it."""
    sizes = {"num_hidden_layers": (kind.count_layers(original), "the keys")}
    for name, key, axis, value_of in kind.sizes():
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
    kind: Kind, sizes: dict[str, tuple[int, str]], window_overlap: int, id2label: dict[int, str] | None
) -> tuple[HEARConfig, list[str]]:
    """The configuration, and what had to be assumed for it."""
    values = {name: value for name, (value, _) in sizes.items()} | {"window_overlap": window_overlap}
    assumptions = [f"window_overlap={window_overlap}, which no checkpoint shows"]
    if "sampling_rate" not in values:
        values["sampling_rate"] = 16_000
        assumptions.append(f"sampling_rate=16000, as the checkpoint lacks `{WINDOW}`")
    if kind.is_classifier:
        heads = values["task_num_attention_heads"] = values["num_attention_heads"]
        assumptions.append(f"task_num_attention_heads={heads}, as many as in the acoustic model, like the original")
    else:
        # The resolution that 1024 gives at 16 kHz, or finer. The acoustic model does not read this spectrum.
        values["n_fft"] = 1024 << (-(-values["sampling_rate"] // 16_000) - 1).bit_length()
        assumptions.append(f"n_fft={values['n_fft']} and the task model's sizes, as the checkpoint lacks that model")
    values |= label_values(id2label, values.pop("num_labels", None))
    try:
        return HEARConfig(**values), assumptions
    except StrictDataclassError as error:
        raise ValueError(f"The sizes must go together, found: {one_line(error)}. {sources(sizes)}") from error


def label_values(id2label: dict[int, str] | None, num_labels: int | None) -> dict:
    if id2label is None:
        return {} if num_labels is None else {"num_labels": num_labels}
    if num_labels is None:
        raise ValueError("`id2label` must be left out: this checkpoint has no labels.")
    if sorted(id2label) != list(range(num_labels)):
        raise ValueError(
            f"`id2label` must name labels 0 to {num_labels - 1}, {num_labels} in all, found {len(id2label)}: "
            f"{', '.join(map(str, sorted(id2label)))}."
        )
    label2id = {label: index for index, label in id2label.items()}
    if len(label2id) < num_labels or "" in label2id:
        raise ValueError("`id2label` must give each label a name of its own, found: an empty or a repeated one.")
    return {"id2label": id2label, "label2id": label2id}


def original_shapes(kind: Kind, config: HEARConfig) -> dict[str, tuple[int, ...]]:
    """The shapes that the original's tensors have in a model of these sizes."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in kind.architecture(config).state_dict().items()}
    return {theirs: shapes[ours] for theirs, ours in kind.pairs(config.num_hidden_layers)}


def check_tables(original: StateDict, config: HEARConfig) -> None:
    """The front end's tables are not stored, so they must be those that we compute."""
    tables = HEARSpectrogram(config).tables()
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


def write_verified(model: PreTrainedModel, state_dict: StateDict, report: ConversionReport, checkpoint: str) -> None:
    """Writes the folder beside its place, checks it, and moves it there last."""
    output_dir = report.output_dir
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir.parent, prefix=f".{output_dir.name}-") as scratch:
        folder, replaced = Path(scratch) / output_dir.name, Path(scratch) / "replaced"
        model.save_pretrained(folder, state_dict=dict(state_dict))  # a copy, for it empties what it is given
        HEARFeatureExtractor(sampling_rate=report.config.sampling_rate).save_pretrained(folder)
        report.max_difference = verify(model, state_dict, folder)
        (folder / "README.md").write_text(report.model_card(checkpoint), encoding="utf-8")
        if output_dir.exists():
            os.replace(output_dir, replaced)
        try:
            os.replace(folder, output_dir)
        except OSError:
            if replaced.exists():
                os.replace(replaced, output_dir)
            raise


def verify(model: PreTrainedModel, state_dict: StateDict, folder: Path) -> float:
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
    difference = (converted_output(model, inputs) - converted_output(reloaded, inputs)).abs().max().item()
    if not difference <= OUTPUT_TOLERANCE:
        raise ValueError(f"The reloaded model must give the same output, found a difference of {difference:.1e}.")
    return difference


@torch.no_grad()
def converted_output(model: PreTrainedModel, inputs) -> torch.Tensor:
    """The output that rests on converted weights alone: logits, or the acoustic hidden states."""
    outputs = model(**inputs)
    return outputs.logits if "logits" in outputs else outputs.acoustic_hidden_states


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


def read_labels(path: str | Path) -> dict[int, str]:
    """Labels from JSON, {"0": "dog"} or a list, or from a text file with one label a line.

    Raises:
        `ValueError`: if the file is neither.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        labels = json.loads(text)
    except json.JSONDecodeError as error:
        if path.suffix == ".json":
            raise ValueError(f"`{path}` must be JSON, found: {error}.") from error
        labels = None
    except UnicodeDecodeError as error:
        raise ValueError(f"`{path}` must be UTF-8 text, found: {error}.") from error
    if not isinstance(labels, (dict, list)):
        labels = text.strip("\n").split("\n")
    if isinstance(labels, list):
        labels = dict(enumerate(labels))
    if not all(str(index).isdecimal() and isinstance(label, str) for index, label in labels.items()):
        raise ValueError(f'`{path}` must name labels by their numbers, like {{"0": "dog"}}, or list the names.')
    return {int(index): label.strip() for index, label in labels.items()}


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
            print(f"Written:   {args.target} ({kind.name} of the original); all tensors equal the folder's")
            return
        overlap = DEFAULT_OVERLAP if args.window_overlap is None else args.window_overlap
        id2label = None if args.id2label is None else read_labels(args.id2label)
        print(convert(args.source, args.target, window_overlap=overlap, id2label=id2label, force=args.force))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
