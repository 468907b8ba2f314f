"""Stages what belongs on the Hub of a model's folder, and checks that it is complete."""

import json
import re
import shutil
from dataclasses import dataclass
from difflib import unified_diff
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import HfApi, ModelCard, constants, snapshot_download
from safetensors.torch import load_file
from transformers import AutoConfig, AutoFeatureExtractor, PreTrainedModel
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES

import hear_hf  # registers HEAR with the Auto classes

from ..adapters import is_adapter, load_adapter, plain_model
from ..arguments import option
from ..rates import check_rates
from ..sentence_transformers_hear import FILES as EMBEDDING_FILES
from ..weight_files_hear import ADAPTER_CONFIG
from .cards import PLACEHOLDER
from .elsewhere import outputs_elsewhere
from .isolated import outputs_on_noise
from .links import check_link
from .upload import Destination, SharingError, explain, is_repository

PACKAGE = Path(hear_hf.__file__).parent
QUANTIZER = "quantizer"  # the sub-folder that pretrain.py makes
ONNX = "onnx"  # the sub-folder that export_onnx.py makes
GRAPHS = ("model.onnx", "model_fp16.onnx", "model_quantized.onnx")
ENDPOINT = ("handler.py", "requirements.txt", "audio")  # what endpoints.py writes
CONFIGS = ("config.json", "preprocessor_config.json")
ADAPTER_WEIGHTS = "adapter_model.safetensors"
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", ADAPTER_WEIGHTS)
REPORTS = ("README.md", "LICEN[CS]E*", "*.png", "*.jpg", "*.svg", "*_results.json", "per_label.txt")
MAX_REPORT_SIZE = 10_000_000  # bytes
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
TRAINING = ("checkpoint-*", "runs", "events.out.tfevents*", "trainer_state.json", "run_record.json")
STALE = (
    "*_hear*.py",
    "model*.safetensors",
    "model.safetensors.index.json",
    "pytorch_model*.bin*",
    "training_args.bin",
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
)
METADATA = ("license", "library_name", "pipeline_tag", "tags")
UNFILLED = (PLACEHOLDER, "More Information Needed", "More information needed", "TODO", "FIXME", "{{ ", "{% ")
MAX_SHOWN_LINES = 100  # of each file of code that is not the installed package's
TOLERANCE = 1e-6  # on outputs, relative to the largest


@dataclass
class CheckArguments:
    """How to check a model."""

    trust_remote_code: bool = option(
        default=False, help="Run code of the model's folder though it is not the installed package's."
    )


@dataclass
class Checked:
    """A model that passed the checks, the Auto class that loads it from a sub-folder, and its outputs on noise.

    Of an adapter, `pinned_base` is the name of the base model and the commit of it that was checked.
    """

    model: PreTrainedModel
    sampling_rate: int
    auto_class: str
    subfolder: str
    outputs: np.ndarray
    pinned_base: tuple[str, str] | None = None

    @property
    def base(self) -> str | None:
        return self.pinned_base and self.pinned_base[0]

    @property
    def is_classifier(self) -> bool:
        return self.auto_class == "AutoModelForAudioClassification"


def stage(folder: Path, target: Path, root: Path | None = None, with_onnx: bool = False) -> dict[str, str]:
    """
    Copies what belongs on the Hub to a new folder, and returns the reason for each file or folder kept back.

    A folder without any code, as this repository's own checkpoint is, or with an adapter, which has that of its config
    alone, gets the installed package's.

    Args:
        folder (`Path`): The model's folder.
        target (`Path`): The folder to create.
        root (`Path`, *optional*): What no link may lead out of; the folder itself by default.
        with_onnx (`bool`, *optional*, defaults to `False`): Whether the graphs of its `onnx` belong to it.

    Raises:
        `SharingError`: The folder is no complete model, or something in it is a link that leads elsewhere.
    """
    root = root or folder
    if not (folder / "config.json").is_file():
        raise SharingError(f"The folder must be one that save_pretrained wrote, found no config.json in {folder}")
    check_index(folder)
    target.mkdir(parents=True)
    home = folder if any(folder.glob("*.py")) and not is_adapter(folder) else PACKAGE
    code = code_files(folder, home)
    kept_back: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.name == QUANTIZER and path.is_dir() and target.name != QUANTIZER:
            check_link(path, root)
            inner = stage(path, target / QUANTIZER, root)
            kept_back |= {f"{QUANTIZER}/{name}": reason for name, reason in inner.items()}
        elif path.name == ONNX and path.is_dir():
            kept_back |= stage_graphs(path, target / ONNX, root) if with_onnx else {f"{ONNX}/": "give --onnx"}
        elif reason := reason_to_keep_back(path, code):
            kept_back[path.name + "/" * path.is_dir()] = reason
        else:
            check_link(path, root)
            shutil.copyfile(path, target / path.name)
    forget_origin(target / "config.json")
    if home is PACKAGE:
        for name in code:
            shutil.copyfile(home / name, target / name)
    # Remote code is looked for beside the repository's own config, also for the models of sub-folders.
    for path in (target / QUANTIZER).glob("*.py"):
        if not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)
    return kept_back


def forget_origin(config: Path) -> None:
    """Drops from a configuration of an older Transformers where it was loaded from, often a folder of this machine."""
    content = read_json(config)
    if content.pop("_name_or_path", None) is not None:
        config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def stage_graphs(folder: Path, target: Path, root: Path) -> dict[str, str]:
    """Copies the graphs that export_onnx.py wrote, and returns the reason for each other file."""
    target.mkdir()
    check_link(folder, root)
    kept_back = {}
    for path in sorted(folder.iterdir()):
        if path.name in GRAPHS:
            check_link(path, root)
            shutil.copyfile(path, target / path.name)
        else:
            kept_back[f"{ONNX}/{path.name}"] = "not written by export_onnx.py"
    return kept_back


def reason_to_keep_back(path: Path, code: set[str]) -> str | None:
    """Why a file is not uploaded; `None` if it is."""
    if path.name.startswith(".") or path.name == "__pycache__":
        return "hidden"
    if any(fnmatch(path.name, pattern) for pattern in TRAINING):
        return "training state"
    if path.suffix in PICKLES:
        return "a pickle, which can run code when it is loaded"
    if path.name in {*ENDPOINT} - code:
        return "--endpoint writes its own"
    if path.is_dir():
        return "a folder"
    if path.name in (*CONFIGS, ADAPTER_CONFIG, *EMBEDDING_FILES, *code) or any(
        fnmatch(path.name, pattern) for pattern in WEIGHTS
    ):
        return None
    if path.suffix == ".py":
        return "code that the model does not use"
    if not any(fnmatch(path.name, pattern) for pattern in REPORTS):
        return "not part of a model"
    return "too large for a report" if path.exists() and path.stat().st_size > MAX_REPORT_SIZE else None


def is_stale(path: str) -> bool:
    """Whether a file of a model's repository holds weights or HEAR's code, which an upload replaces as a whole."""
    folder, _, name = path.rpartition("/")
    if folder == ONNX:
        return name in GRAPHS
    return folder in ("", QUANTIZER) and any(fnmatch(name, pattern) for pattern in STALE)


def code_files(folder: Path, home: Path) -> set[str]:
    """The Python files, to be found in `home`, that the folder's `auto_map`s name, and those that they import."""
    references = []
    for name in CONFIGS:
        if (folder / name).is_file():
            auto_map = read_json(folder / name).get("auto_map", {})
            references += code_references(auto_map, name)
    named = {f"{reference.partition('.')[0]}.py" for reference in references}
    outside = sorted(name for name in named if Path(name).name != name)
    try:
        imported = {Path(file).name for name in named for file in get_relative_import_files(home / name)}
        missing = outside or sorted(name for name in named | imported if not (home / name).is_file())
    except OSError as error:
        missing = [Path(error.filename).name]
    if missing:
        raise SharingError(
            f"The code that the configuration names must be in {folder.name}, found no {', '.join(missing)}. Load the "
            "model and save it again with save_pretrained."
        )
    return named | imported


def code_references(auto_map: Any, name: str) -> list[str]:
    """The classes, as `file.Class`, that the `auto_map` of a file names; an entry is one of them or a list."""
    entries = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    references = [one for entry in entries for one in (entry if isinstance(entry, list) else [entry]) if one]
    if not isinstance(auto_map, dict) or not all(isinstance(one, str) for one in references):
        raise SharingError(
            f"`auto_map` of {name} must name a class in a file for each Auto class, found: {str(auto_map)[:100]}. "
            "Load the model and save it again with save_pretrained."
        )
    return references


def check_index(folder: Path) -> None:
    """Checks that an index of shards names files beside it alone: others would be read, and go up, with the model."""
    path = folder / "model.safetensors.index.json"
    shards = read_json(path).get("weight_map") if path.is_file() else {}
    wrong = [one for one in shards.values() if not is_shard(one)] if isinstance(shards, dict) else [shards]
    if wrong:
        raise SharingError(
            f"{path.name} must name files beside it, model*.safetensors, found: {str(wrong[0])[:100]!r}. Load the "
            "model and save it again with save_pretrained."
        )


def is_shard(name: object) -> bool:
    return isinstance(name, str) and fnmatch(name, WEIGHTS[0]) and not {*name} & {"/", "\\"}


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (RecursionError, ValueError) as error:
        raise SharingError(f"{path.name} must be JSON, found: {error}. Save it again.") from error
    if not isinstance(content, dict):
        raise SharingError(f"{path.name} must hold named values, found: {type(content).__name__}. Save it again.")
    return content


def check_models(folder: Path, trust_remote_code: bool = False) -> list[Checked]:
    """
    Loads a staged model, and its quantizer if it has one, and runs them here and as another machine would.

    Args:
        folder (`Path`): What `stage` made.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Whether to run code of the folder that is not the
            installed package's.

    Raises:
        `SharingError`: A check failed.
    """
    base = check_base(folder) if is_adapter(folder) else None
    if not trust_remote_code:
        check_code(folder)
        if base is not None:
            check_code(code_of(*base))
    checked = [check_model(folder, "", base)]
    if (folder / QUANTIZER).is_dir():
        checked.append(check_model(folder, QUANTIZER))
    compare(checked, str(folder))
    return checked


def check_code(folder: Path) -> None:
    """Shows code that is not the installed package's, and raises `SharingError`: the check would run it."""
    installed = {path.name: path.read_bytes() for path in PACKAGE.glob("*.py")}
    foreign = [path for path in sorted(folder.rglob("*.py")) if path.read_bytes() != installed.get(path.name)]
    for path in foreign:
        name = path.relative_to(folder).as_posix()
        changes = unified_diff(lines_of(PACKAGE / path.name), lines_of(path), "installed", name, lineterm="")
        shown = [*islice(changes, MAX_SHOWN_LINES + 1)]
        for line in shown[:MAX_SHOWN_LINES]:
            print("".join(one if one.isprintable() else repr(one)[1:-1] for one in line))
        if len(shown) > MAX_SHOWN_LINES:
            print(f"... read the rest in {name}")
    if foreign:
        raise SharingError(
            "The model's code, which the check runs, must be the installed package's, found other code in "
            f"{', '.join(path.name for path in foreign)}. Read it, then give --trust_remote_code; or load the model "
            "and save it again, which renews its code."
        )


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def check_model(folder: Path, subfolder: str, base: tuple[str, str] | None = None) -> Checked:
    place = folder / subfolder
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        feature_extractor = AutoFeatureExtractor.from_pretrained(place, trust_remote_code=False)
        auto_class = find_auto_class(config)
        if base is not None:
            return check_adapter(place, feature_extractor, base)
        if not list(place.glob(WEIGHTS[0])):
            raise SharingError(
                "The weights must be in model.safetensors, found none. Pickles are not uploaded: load the model and "
                "save it again with save_pretrained."
            )
        model, report = getattr(transformers, auto_class).from_pretrained(
            place, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False
        )
        check_weights(model, report)
        check_rates("the model", config, feature_extractor)
        outputs = outputs_on_noise(model, feature_extractor)
    except SharingError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise SharingError(f"The model must load and run, found in {subfolder or 'the folder'}: {reason}") from error
    check_outputs(outputs)
    checked = Checked(model, feature_extractor.sampling_rate, auto_class, subfolder, outputs)
    if checked.is_classifier:
        check_labels(place, outputs.shape[-1])
    return checked


def check_base(folder: Path) -> tuple[str, str]:
    """The name of an adapter's base model, which must be on the Hub, and the commit of it that all checks read."""
    adapter = read_json(folder / ADAPTER_CONFIG)
    base = str(adapter.get("base_model_name_or_path"))
    revision = adapter.get("revision")
    if Path(base).exists() or not is_repository(base) or not isinstance(revision, str | None):
        raise SharingError(
            f"The base model of an adapter must be on the Hub, found: {base}. Publish that and train from its name, "
            "or merge the adapter into it with finetune.py --merge_adapter."
        )
    try:
        return base, str(HfApi(endpoint=constants.ENDPOINT).model_info(base, revision=revision).sha)
    except Exception as error:
        raise SharingError(explain(error, Destination(base, revision=revision))) from error


def code_of(repository: str, commit: str) -> Path:
    """Downloads the Python files of a model of the Hub."""
    try:
        return Path(snapshot_download(repository, revision=commit, allow_patterns="*.py"))
    except Exception as error:
        raise SharingError(explain(error, Destination(repository))) from error


def check_adapter(folder: Path, feature_extractor, base: tuple[str, str]) -> Checked:
    """Loads an adapter on its base model, and checks both."""
    from peft import get_peft_model_state_dict

    adapted = load_adapter(folder, base_revision=base[1])
    expected, found = get_peft_model_state_dict(adapted).keys(), load_file(folder / ADAPTER_WEIGHTS).keys()
    check_weights(
        adapted, {"missing_keys": expected - found, "unexpected_keys": found - expected, "mismatched_keys": []}
    )
    model = plain_model(adapted)
    try:
        check_rates("the model", model.config, feature_extractor)
    except ValueError as error:
        raise SharingError(str(error)) from error
    outputs = outputs_on_noise(model, feature_extractor)
    check_outputs(outputs)
    check_labels(folder, outputs.shape[-1])
    auto_class = find_auto_class(model.config)
    return Checked(model, feature_extractor.sampling_rate, auto_class, "", outputs, base)


def check_outputs(outputs: np.ndarray) -> None:
    if not np.isfinite(outputs).all():
        raise SharingError("The outputs on a clip of noise must be finite, found NaN or infinity.")


def find_auto_class(config) -> str:
    """The name of the Auto class that loads the saved class."""
    architecture = (config.architectures or ["none"])[0]
    for name, reference in (getattr(config, "auto_map", None) or {}).items():
        if reference and reference.endswith(f".{architecture}"):
            return name
    if architecture in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES.values():
        return "AutoModelForAudioClassification"
    raise SharingError(
        f"The model must be one of HEAR's or an audio classifier of Transformers, found: {architecture}."
    )


def check_weights(model: PreTrainedModel, report: dict) -> None:
    for kind in ("missing", "unexpected", "mismatched"):
        if report[f"{kind}_keys"]:
            raise SharingError(
                f"The weights must be those of the configuration, found {kind}: {sorted(report[f'{kind}_keys'])[:5]}. "
                "Save the model again with save_pretrained."
            )
    bad = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if bad:
        raise SharingError(f"Weights must be finite, found NaN or infinity in: {bad[:5]}. Take an earlier checkpoint.")


def check_labels(folder: Path, num_logits: int) -> None:
    """Checks the names in config.json itself: Transformers fills in those that are missing."""
    config = read_json(folder / "config.json")
    names = {int(index): name for index, name in config.get("id2label", {}).items()}
    if sorted(names) != list(range(num_logits)) or not all(isinstance(name, str) for name in names.values()):
        raise SharingError(
            f"`id2label` must name the {num_logits} labels of the head, found {len(names)}: "
            f"{str(list(names.items())[:5])[:300]}. Set `id2label` and `label2id`, and save again."
        )
    if {name: index for index, name in names.items()} != config.get("label2id"):
        raise SharingError("`label2id` must be the inverse of `id2label`, found another. Set both, and save again.")


def compare(checked: list[Checked], source: str, revision: str = "main", token: str | None = None) -> None:
    """Loads models where `hear_hf` is absent, from a folder or the Hub, and compares their outputs with `checked`."""
    try:
        places = [(one.auto_class, one.subfolder) for one in checked]
        found = outputs_elsewhere(source, places, revision, token, checked[0].pinned_base)
    except RuntimeError as error:
        raise SharingError(f"The model must load where hear_hf is absent, found: {error}") from error
    for one, outputs in zip(checked, found, strict=True):
        difference = np.abs(outputs - one.outputs).max() if outputs.shape == one.outputs.shape else np.inf
        if not difference <= TOLERANCE * max(1.0, np.abs(one.outputs).max()):
            raise SharingError(
                "The model must give the same outputs where hear_hf is absent, found a difference of "
                f"{difference:.1e}. Load it and save it again with save_pretrained, which renews its code."
            )


def check_card(card: ModelCard, folder: Path) -> None:
    """Checks that a card has metadata, no unfilled part, and all of its images beside it."""
    metadata = card.data.to_dict()
    prose = re.sub(r"(`+).+?\1", "", card.text)  # a label may be called anything
    images = re.findall(r"!\[[^\]]*\]\((?!https?:)([^)\s]+)", card.text)
    problems = {
        "no metadata": [name for name in METADATA if not metadata.get(name)],
        "unfilled": [mark for mark in UNFILLED if mark in prose],
        "empty": empty_sections(card.text),
        "no such image": [image for image in images if not (folder / image).is_file()],
    }
    found = "; ".join(f"{problem}: {', '.join(names)}" for problem, names in problems.items() if names)
    if found:
        raise SharingError(
            f"The card README.md must be complete, found {found}. Fill it in, or delete it for a new one."
        )


def empty_sections(text: str) -> list[str]:
    """Headings with nothing below them, not even a smaller heading; `all of it` if the whole card is empty."""
    text = re.sub(r"^```.*?^```", "code", text, flags=re.DOTALL | re.MULTILINE)  # `#` begins a comment there
    parts = re.split(r"^(#+) (.*)$", text, flags=re.MULTILINE)
    levels, titles, bodies = parts[1::3], parts[2::3], parts[3::3]
    deeper = [len(following) > len(level) for level, following in zip(levels, levels[1:], strict=False)] + [False]
    empty = [
        title for title, body, inner in zip(titles, bodies, deeper, strict=True) if not body.strip() and not inner
    ]
    return empty if titles or text.strip() else ["all of it"]
