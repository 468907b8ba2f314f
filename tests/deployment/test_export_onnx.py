"""examples/export_onnx.py and run_onnx.py: ONNX Runtime against PyTorch, and the runner where there is no PyTorch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("onnx", reason="the export needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxruntime", reason="the export needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxscript", reason="the export needs `pip install hear_hf[onnx]`")

import onnxruntime

import run_onnx
from hear_hf import HEARModel
from hear_hf.deployment import onnx_export
from helpers import noise, ragged_batch, samples_of, small_model

LABELS = ["bee", "cat", "dog", "eel", "fox", "gnu", "hen"]
BLOCKED = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "hear_hf", "onnx", "soxr"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@pytest.fixture(scope="module")
def model():
    """One layer, to be exported in half the time. Its windows are of 30 frames, its segments of 150."""
    return small_model(
        num_hidden_layers=1, id2label=dict(enumerate(LABELS)), problem_type="multi_label_classification"
    )


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """A saved model, and beside it its export in all types."""
    folder = tmp_path_factory.mktemp("onnx")
    model.save_pretrained(folder / "model")
    for i in range(3):
        soundfile.write(folder / f"{i}.wav", noise(12_000 + 5000 * i, i).numpy(), 16_000)
    onnx_export.export(str(folder / "model"), str(folder / "exported"), ["float32", "float16", "int8"])
    return folder


def logits_of(folder, dtype: str, waveform: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(folder / "exported" / onnx_export.FILES[dtype])
    return torch.from_numpy(session.run(None, onnx_export.model_inputs(waveform.numpy(), mask.numpy()))[0])


# Windows start every 24 frames, segments every 150; T is odd or even.
@pytest.mark.parametrize("num_frames", [1, 6, 7, 29, 30, 31, 54, 55, 78, 79, 149, 150, 151, 300, 301, 470])
@pytest.mark.parametrize("extra", [0, 170], ids="{} samples more".format)
@torch.no_grad()
def test_one_graph_serves_clips_of_every_length(folder, model, num_frames, extra):
    clip = noise(max(201, samples_of(num_frames) + extra))[None]
    logits = logits_of(folder, "float32", clip, torch.ones_like(clip))
    torch.testing.assert_close(logits, model(clip).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("side", ["right", "left"])
@torch.no_grad()
def test_clips_of_a_padded_batch_have_the_logits_that_they_have_alone(folder, model, side):
    clips = [noise(length, length) for length in (201, 1600, 9000, 25_000, 120_000)]
    logits = logits_of(folder, "float32", *ragged_batch(clips, side=side))
    expected = torch.cat([model(clip[None]).logits for clip in clips])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 0.01), ("int8", 0.06)])
@torch.no_grad()
def test_logits_of_smaller_types_are_near_those_of_float32(folder, model, dtype, bound):
    batch = ragged_batch([noise(length, length) for length in (1600, 9000, 60_000)])
    expected = model(*batch).logits
    difference = (logits_of(folder, dtype, *batch) - expected).abs().max() / expected.abs().max()
    assert 0 < difference < bound


def test_no_sum_of_two_8_bit_products_overflows_16_bits(folder):
    graph = onnx_export.onnx.load(folder / "exported" / "model_int8.onnx").graph
    weights = [t for t in graph.initializer if t.data_type == onnx_export.TensorProto.INT8 and len(t.dims) == 2]
    assert weights  # x86 processors without VNNI add pairs of products with activations of up to 255
    assert all(2 * 255 * np.abs(onnx_export.numpy_helper.to_array(t).astype(int)).max() < 2**15 for t in weights)


def test_float16_and_int8_store_the_weights_in_fewer_bits(folder):
    def bits(dtype):
        graph = onnx_export.onnx.load(folder / "exported" / onnx_export.FILES[dtype]).graph
        shapes = [(96, 48), (48, 96)]  # the acoustic model's feed-forward layer, transposed
        return {
            onnx_export.numpy_helper.to_array(t).dtype.itemsize * 8
            for t in graph.initializer
            if tuple(t.dims) in shapes
        }

    assert (bits("float32"), bits("float16"), bits("int8")) == ({32}, {16}, {8})


def test_calibrated_integers_are_near_float32_too(folder, model):
    graph = onnx_export.onnx.load(folder / "exported" / "model.onnx")
    path = folder / "calibrated.onnx"
    onnx_export.write_variant(graph, "int8", path, onnx_export.calibration_files(folder), 16_000)
    operators = {node.op_type for node in onnx_export.onnx.load(path).graph.node}
    assert "QuantizeLinear" in operators and "DynamicQuantizeLinear" not in operators
    difference = onnx_export.largest_difference(onnx_export.open_session(path), model)
    assert 0 < difference < onnx_export.TOLERANCES["int8"]


def test_metadata_say_what_a_device_must_know(folder):
    session = onnxruntime.InferenceSession(folder / "exported" / "model.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == LABELS and metadata["sampling_rate"] == "16000"
    assert metadata["problem_type"] == "multi_label_classification"
    assert metadata["model"] == str(folder / "model") and metadata["hear_hf_version"]


def run_without_torch(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", BLOCKED, run_onnx.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


@torch.no_grad()
def test_the_runner_names_sounds_without_pytorch(folder, model):
    result = run_without_torch(folder / "exported" / "model.onnx", folder / "0.wav", folder / "1.wav")
    assert result.returncode == 0, result.stderr
    clip = torch.from_numpy(soundfile.read(folder / "1.wav", dtype="float32")[0])
    scores = model(clip[None]).logits.sigmoid()[0]
    expected = ", ".join(f"{LABELS[i]} {scores[i]:.3f}" for i in scores.argsort(descending=True)[:3])
    assert result.stdout.splitlines()[1] == f"{folder / '1.wav'}: {expected}"


def test_the_runner_averages_channels(folder, tmp_path, capsys):
    clip = noise(9000).numpy()
    soundfile.write(tmp_path / "mono.wav", clip, 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "stereo.wav", np.stack([clip + 0.1, clip - 0.1], axis=1), 16_000, subtype="FLOAT")
    run_onnx.main(str(folder / "exported" / "model.onnx"), str(tmp_path / "mono.wav"), str(tmp_path / "stereo.wav"))
    mono, stereo = capsys.readouterr().out.splitlines()
    assert mono.partition(": ")[2] == stereo.partition(": ")[2]


def test_the_runner_resamples_where_it_can_and_else_says_what_to_do(folder, tmp_path, capsys):
    file = tmp_path / "rate.wav"
    soundfile.write(file, noise(22_050).numpy(), 22_050)
    result = run_without_torch(folder / "exported" / "model.onnx", file)
    assert result.returncode == 1 and "must be at 16000 Hz, found 22050 Hz" in result.stderr
    run_onnx.main(str(folder / "exported" / "model.onnx"), str(file))
    assert capsys.readouterr().out.startswith(f"{file}: ")


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_the_runner_scores_as_the_problem_asks(problem_type):
    logits = np.array([-90.0, 0.5, 2.0, 90.0], dtype=np.float32)
    expected = {"single": torch.softmax, "multi_": lambda x, _: x.sigmoid()}.get(problem_type[:6], lambda x, _: x)
    scores = run_onnx.scores_of(logits, problem_type)
    np.testing.assert_allclose(scores, expected(torch.from_numpy(logits), -1), rtol=1e-5, atol=1e-30)


def test_a_file_that_differs_from_pytorch_is_not_written(folder, tmp_path, monkeypatch):
    graph = onnx_export.onnx.load(folder / "exported" / "model.onnx")
    monkeypatch.setattr(onnx_export, "to_onnx", lambda model: graph)
    (tmp_path / "model.onnx").write_text("an older one")
    small_model(num_hidden_layers=1, num_labels=7, layer_norm_eps=0.5).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="must be within 0.001 of PyTorch's.*model.onnx is not written"):
        onnx_export.export(str(tmp_path / "other"), str(tmp_path), ["float32"])
    assert (tmp_path / "model.onnx").read_text() == "an older one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "other"]


def test_calibration_without_audio_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=f"folder with audio files, found none in {tmp_path}"):
        onnx_export.export(str(folder / "model"), str(tmp_path), ["int8"], str(tmp_path))


def test_calibration_of_floats_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="is for --dtype int8, found without it"):
        onnx_export.export(str(folder / "model"), str(tmp_path), ["float16"], str(folder))


def test_a_model_without_a_classifier_s_weights_is_refused(tmp_path):
    HEARModel(small_model().config).save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="must be a HEAR classifier, found weights without classifier"):
        onnx_export.export(str(tmp_path / "bare"), str(tmp_path / "exported"), ["float32"])
    assert not (tmp_path / "exported").exists()


def test_the_runner_is_short():
    assert len(Path(run_onnx.__file__).read_text().splitlines()) <= 60
