"""Converts Google's speech_embedding, a small CNN that tells words, into a folder that `from_pretrained` loads.

    python conversion/convert_speech_embedding.py embedding_model.tflite speech_embedding

The file lies in the PyPI package pyopen-wakeword 1.1.0; `pip install "hear_hf[conversion]"` installs what reads it.
The folder brings its code along: load it with `trust_remote_code=True`. Nothing in the file is executed, nothing is
downloaded, and a folder is kept only if it loads again and computes what the original computes.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from checkpoint_files import StateDict, check_shapes, check_tensor
from hear_hf.arguments import command_parser, option
from output_files import check_output, put_in_place, quiet
from speech_embedding_layout import check_operators, original_embedding, read_sizes, to_state_dict
from teacher_models import SpeechEmbeddingConfig, SpeechEmbeddingFeatureExtractor, SpeechEmbeddingModel
from teacher_report import SPEECH_EMBEDDING_CARD, TeacherReport, compare
from tflite_file import Operator, read_operators


@dataclass
class ConversionArguments:
    """Whether to replace a folder."""

    force: bool = option(default=False, help="Replace what is already at the target.")


def convert(model_file: str | Path, output_dir: str | Path, *, force: bool = False) -> TeacherReport:
    """Converts the published file of speech_embedding into a folder that `AutoModel` and `AutoFeatureExtractor` load.

    Args:
        model_file (`str` or `Path`): The TensorFlow Lite file.
        output_dir (`str` or `Path`): The folder to write.
        force (`bool`, *optional*, defaults to `False`): Whether to replace a folder that is not empty.

    Returns:
        [`TeacherReport`]: What was found, and how it was converted.

    Raises:
        `ImportError`: The package `tflite` is not installed.
        `ValueError`: The file is broken, or of another model; or the folder may not be written.
    """
    model_file, output_dir = Path(model_file).resolve(), Path(output_dir).resolve()
    check_output(output_dir, model_file, force)
    operators = read_operators(model_file)
    check_operators(operators)
    state_dict = to_state_dict(operators)
    sizes = read_sizes(state_dict)
    config = SpeechEmbeddingConfig(**sizes, architectures=[SpeechEmbeddingModel.__name__])
    check_tensors(state_dict, config)
    report = TeacherReport(
        found="speech_embedding",
        architecture=SpeechEmbeddingModel.__name__,
        sizes=sizes,
        assumptions=[],
        num_parameters=sum(tensor.numel() for tensor in state_dict.values()),
        sha256=hashlib.sha256(model_file.read_bytes()).hexdigest(),
        output_dir=output_dir,
        command="python examples/probe.py --model_name_or_path {} --trust_remote_code",
    )
    with quiet(), torch.random.fork_rng(devices=[]), put_in_place(output_dir) as folder:
        model = SpeechEmbeddingModel(config)
        model.load_state_dict(state_dict)
        model.save_pretrained(folder)
        SpeechEmbeddingFeatureExtractor().save_pretrained(folder)
        report.max_difference = verify(operators, folder)
        card = report.model_card(SPEECH_EMBEDDING_CARD, model_file.name, config)
        (folder / "README.md").write_text(card, encoding="utf-8")
    return report


def check_tensors(state_dict: StateDict, config: SpeechEmbeddingConfig) -> None:
    """Refuses weights that are not finite, or whose shapes do not follow from the sizes."""
    with torch.device("meta"):
        expected = SpeechEmbeddingModel(config).state_dict()
    for key, tensor in state_dict.items():
        check_tensor(key, tensor)
    shapes = {key: tuple(tensor.shape) for key, tensor in expected.items()}
    check_shapes(state_dict, shapes, f"Read: conv_dim={config.conv_dim} and hidden_size={config.hidden_size}.")


@torch.no_grad()
def verify(operators: list[Operator], folder: Path) -> float:
    """Loads the folder, compares a clip with the original's windows, and returns the largest relative difference."""
    model = SpeechEmbeddingModel.from_pretrained(folder, local_files_only=True).double().eval()
    feature_extractor = SpeechEmbeddingFeatureExtractor.from_pretrained(folder, local_files_only=True)
    waveform = 0.1 * torch.randn(2 * feature_extractor.sampling_rate, generator=torch.Generator().manual_seed(0))
    inputs = feature_extractor(waveform, sampling_rate=feature_extractor.sampling_rate, return_tensors="pt")
    log_mel, _ = model.spectrogram(**inputs)
    windows = log_mel[0].double().unfold(0, model.config.window_frames, model.config.time_stride).transpose(1, 2)
    return compare(model(**inputs).last_hidden_state[0], original_embedding(operators, windows))


def main(argv: list[str] | None = None) -> None:
    parser = command_parser(ConversionArguments, __doc__)
    parser.add_argument("model_file", help="The TensorFlow Lite file, embedding_model.tflite.")
    parser.add_argument("output_dir", help="The folder to write.")
    args, files = parser.parse_args_into_dataclasses(argv)
    try:
        report = convert(files.model_file, files.output_dir, force=args.force)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    print(report)


if __name__ == "__main__":
    main()
