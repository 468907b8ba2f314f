"""examples/score_onnx.py on clips whose labels are known: accuracies are right, and wrong files and labels refused."""

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("onnxruntime", reason="the scoring needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnx", reason="the scoring needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxscript", reason="the scoring needs `pip install hear_hf[onnx]`")

import score_onnx
from hear_hf import HEARFeatureExtractor
from hear_hf.arguments import parse_arguments
from hear_hf.data.labelled import DataArguments
from hear_hf.deployment import onnx_export, onnx_scoring
from helpers import noise, small_model

LABELS = ["cat", "dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with its export, and tables of clips with the labels that it gives them, but for one of eight."""
    folder = tmp_path_factory.mktemp("scored")
    model = small_model(num_hidden_layers=1, num_labels=2, id2label=dict(enumerate(LABELS)), label2id=None)
    waveforms = [noise(4000 + 900 * i, i).clamp(-1, 1) for i in range(8)]
    for i, waveform in enumerate(waveforms):
        soundfile.write(folder / f"{i}.wav", waveform.numpy(), 16_000, subtype="FLOAT")
    with torch.no_grad():
        logits = torch.cat([model(waveform[None]).logits for waveform in waveforms])
        model.classifier.out_proj.bias[1] += (logits[:, 0] - logits[:, 1]).median() + 1e-3  # both labels occur
        chosen = torch.cat([model(waveform[None]).logits for waveform in waveforms]).argmax(-1).tolist()
    model.save_pretrained(folder / "model")
    HEARFeatureExtractor().save_pretrained(folder / "model")
    chosen[0] = 1 - chosen[0]
    rows = "".join(f"{i}.wav,{LABELS[label]}\n" for i, label in enumerate(chosen))
    for name in ("train", "test"):
        (folder / f"{name}.csv").write_text("audio,label\n" + rows)
    onnx_export.export(str(folder / "model"), str(folder / "exported"), ["float32", "int8"])
    return folder


def arguments(folder, **changes):
    paths = {"model_name_or_path": "model", "onnx_dir": "exported", "train_file": "train.csv", "test_file": "test.csv"}
    return [word for name, path in (paths | changes).items() for word in (f"--{name}", str(folder / path))]


def test_each_type_is_scored_on_the_test_clips(folder, capsys):
    score_onnx.main(arguments(folder))
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "|  | MiB | accuracy | macro_f1 | as float32 | ms a clip |"
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [row[0] for row in cells] == ["PyTorch float32", "PyTorch bfloat16", "ONNX float32", "ONNX int8"]
    assert [row[2] for row in cells if row[0].endswith("float32")] == 2 * ["87.5"]
    assert all(float(row[4]) == 100 for row in cells if row[0].endswith("float32"))
    assert float(cells[3][1]) < float(cells[2][1])


def test_a_clip_that_a_type_labels_otherwise_is_counted(folder, monkeypatch):
    opposite = onnx_scoring.Contestant("opposite", lambda clip: -reference.logits(clip), 0.0)
    reference = onnx_scoring.pytorch_contestant(onnx_export.load(folder / "model"), torch.float32)
    monkeypatch.setattr(onnx_scoring, "contestants", lambda _: [reference, opposite])
    first, second = onnx_scoring.score(
        *parse_arguments((onnx_scoring.ScoringArguments, DataArguments), arguments(folder))
    )
    assert (first["as float32"], second["as float32"]) == (100, 0)
    np.testing.assert_allclose([first["accuracy"], second["accuracy"]], [87.5, 12.5])


def test_a_folder_without_exported_files_is_refused(folder):
    with pytest.raises(ValueError, match="must hold files of export_onnx.py, found none"):
        score_onnx.main(arguments(folder, onnx_dir="model"))


def test_clips_with_other_labels_are_refused(folder):
    text = (folder / "train.csv").read_text()
    (folder / "other.csv").write_text(text.replace("cat", "ape"))
    with pytest.raises(ValueError, match="must be those of the clips, found: 2 and 2, the first 'cat' and 'ape'"):
        score_onnx.main(arguments(folder, train_file="other.csv", test_file="other.csv"))
