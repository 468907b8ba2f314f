"""examples/export_onnx.py: ONNX Runtime on the exported files against PyTorch, and what the files hold."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="the export needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxruntime", reason="the export needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxscript", reason="the export needs `pip install hear_hf[onnx]`")

import onnx
import onnxruntime
from onnx import numpy_helper

import export_onnx
from hear_hf import HEARModel
from hear_hf.deployment.onnx_dtypes import calibration_files
from hear_hf.deployment.onnx_export import (
    FILES,
    TOLERANCES,
    check_exported,
    copy_configuration,
    export_file,
    load_classifier,
)
from hear_hf.deployment.onnx_session import model_inputs
from helpers import noise, ragged_batch, samples_of, save_wav2vec2, small_model


def graph_of(folder, dtype: str) -> onnx.ModelProto:
    return onnx.load(folder / "model" / "onnx" / FILES[dtype])


def logits_of(folder, dtype: str, waveform: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(folder / "model" / "onnx" / FILES[dtype])
    return torch.from_numpy(session.run(None, model_inputs(waveform.numpy(), mask.numpy()))[0])


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
    tensors = graph_of(folder, "int8").graph.initializer
    weights = [tensor for tensor in tensors if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2]
    assert weights  # x86 processors without VNNI add pairs of products with activations of up to 255
    assert all(2 * 255 * np.abs(numpy_helper.to_array(weight).astype(int)).max() < 2**15 for weight in weights)


def test_float16_and_int8_store_the_weights_in_fewer_bits(folder):
    def bits(dtype):
        feed_forward = [(96, 48), (48, 96)]  # the acoustic model's weights, transposed
        tensors = graph_of(folder, dtype).graph.initializer
        return {8 * numpy_helper.to_array(t).dtype.itemsize for t in tensors if tuple(t.dims) in feed_forward}

    assert (bits("float32"), bits("float16"), bits("int8")) == ({32}, {16}, {8})


def test_calibrated_integers_are_near_float32_too(folder, model, tmp_path):
    measured = export_file(graph_of(folder, "float32"), "int8", model, tmp_path, calibration_files(folder))
    operators = {node.op_type for node in onnx.load(tmp_path / "onnx" / FILES["int8"]).graph.node}
    assert "QuantizeLinear" in operators and "DynamicQuantizeLinear" not in operators
    assert 0 < measured.difference < TOLERANCES["int8"]


def test_metadata_say_what_a_device_must_know(folder, model):
    session = onnxruntime.InferenceSession(folder / "model" / "onnx" / "model.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == [model.config.id2label[i] for i in range(7)]
    assert metadata["sampling_rate"] == "16000" and metadata["problem_type"] == "multi_label_classification"
    assert metadata["model"] == "model" and metadata["hear_hf_version"]


@pytest.mark.parametrize("dtype", list(FILES))
def test_a_file_holds_no_path_and_no_trace_of_the_machine_that_wrote_it(folder, dtype):
    content = (folder / "model" / "onnx" / FILES[dtype]).read_bytes()
    for private in (str(folder), str(Path(export_onnx.__file__).parent), str(Path(torch.__file__).parent), ".py"):
        assert private.encode() not in content, private


@pytest.mark.parametrize("dtype", list(FILES))
@pytest.mark.parametrize("num_samples", [1, 100, 159, 160, 200])
def test_a_clip_that_pytorch_refuses_as_too_short_is_refused_by_a_file_too(folder, model, dtype, num_samples):
    clip = noise(num_samples)[None]
    with pytest.raises(ValueError, match="at least 201 samples"):
        model(clip)
    session = onnxruntime.InferenceSession(folder / "model" / "onnx" / FILES[dtype])
    with pytest.raises(Exception, match="clips_must_hold_at_least_201_samples"):
        session.run(None, model_inputs(clip.numpy()))


@torch.no_grad()
def test_a_file_takes_a_hole_in_a_mask_as_silence_as_pytorch_does(folder, model):
    waveform, mask = noise(9_000)[None].repeat(2, 1), torch.ones(2, 9_000, dtype=torch.long)
    mask[0, 1000:1500] = mask[1, 8_000:] = mask[1, :300] = mask[1, 5_000] = 0
    expected = model(waveform, mask).logits
    waveform[mask == 0] = torch.nan
    session = onnxruntime.InferenceSession(folder / "model" / "onnx" / "model.onnx")
    (logits,) = session.run(None, {"input_values": waveform.numpy(), "attention_mask": mask.numpy()})
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_the_command_reports_each_file_and_sets_the_threads(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export_onnx, "to_onnx", lambda model: graph_of(folder, "float32"))
    export_onnx.main([str(folder / "model"), str(tmp_path), "--dtype", "float16", "int8", "--threads", "3"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == "MiB difference ms for 10 s (3 threads)".split() and torch.get_num_threads() == 3
    assert [row.split()[0] for row in rows] == ["PyTorch", "float16", "int8"]
    assert [row.split()[-1] for row in rows[1:]] == [
        str(tmp_path / "onnx" / FILES[dtype]) for dtype in ("float16", "int8")
    ]
    sizes = [float(row.split()[1]) for row in rows]
    assert sizes == [
        pytest.approx(path.stat().st_size / 2**20, abs=0.05)
        for path in (
            folder / "model" / "model.safetensors",
            *(tmp_path / "onnx" / FILES[t] for t in ("float16", "int8")),
        )
    ]


def test_float32_alone_is_written_unless_asked_for_more(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx, "to_onnx", lambda model: graph_of(folder, "float32"))
    export_onnx.main([str(folder / "model"), str(tmp_path / "new" / "folder")])
    assert [path.name for path in (tmp_path / "new" / "folder" / "onnx").iterdir()] == ["model.onnx"]


def test_the_folder_holds_what_transformers_js_looks_for(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx, "to_onnx", lambda model: graph_of(folder, "float32"))
    export_onnx.main([str(folder / "model"), str(tmp_path), "--dtype", "float32", "float16", "int8"])
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    graphs = {"onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_quantized.onnx"}
    assert found == {"config.json", "preprocessor_config.json"} | graphs
    assert (tmp_path / "config.json").read_bytes() == (folder / "model" / "config.json").read_bytes()


def test_the_labels_beside_the_graphs_are_their_model_s(tmp_path):
    for name, label in (("model", "cat"), ("other", "dog")):
        small_model(id2label={i: f"{label} {i}" for i in range(7)}).save_pretrained(tmp_path / name)
        copy_configuration(str(tmp_path / name), tmp_path)  # a folder for itself, of the last export
        assert f"{label} 0" in (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match="must be empty or the folder of .*found another model"):
        copy_configuration(str(tmp_path / "model"), tmp_path / "other")
    assert "dog 0" in (tmp_path / "other" / "config.json").read_text()


def test_files_of_an_earlier_version_are_told_about(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "model_int8.onnx").write_text("an older one")
    monkeypatch.setattr(export_onnx, "to_onnx", lambda model: graph_of(folder, "float32"))
    export_onnx.main([str(folder / "model"), str(tmp_path)])
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith(f"{tmp_path} holds model_int8.onnx of an earlier version") and FILES["int8"] in told


def test_graphs_of_the_model_beside_them_pass_the_check(folder):
    check_exported(folder / "model")


@pytest.mark.parametrize("change", ["weights", "labels"])
def test_graphs_of_another_model_do_not_pass_the_check(folder, tmp_path, change):
    shutil.copytree(folder / "model", tmp_path / "model")
    model = load_classifier(str(tmp_path / "model"))
    if change == "weights":
        model.classifier.out_proj.bias.data += 1
    else:
        model.config.id2label[0] = "ape"
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="onnx/model.onnx must have the model's labels.*Export the model again"):
        check_exported(tmp_path / "model")


def test_a_folder_without_graphs_does_not_pass_the_check(folder, tmp_path):
    with pytest.raises(ValueError, match="must hold files of export_onnx.py, found none"):
        check_exported(tmp_path)


def test_a_file_that_differs_from_pytorch_is_not_written(folder, tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_text("an older one")
    other = small_model(num_hidden_layers=1, layer_norm_eps=0.5)
    with pytest.raises(ValueError, match="must be within 0.001 of PyTorch's.*model.onnx is not written"):
        export_file(graph_of(folder, "float32"), "float32", other, tmp_path)
    assert (tmp_path / "onnx" / "model.onnx").read_text() == "an older one"
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["model.onnx"]


def test_calibration_without_audio_is_refused(folder, tmp_path):
    arguments = [str(folder / "model"), str(tmp_path / "onnx"), "--dtype", "int8", "--calibration_data"]
    with pytest.raises(ValueError, match=f"folder with audio files, found none in {tmp_path}"):
        export_onnx.main([*arguments, str(tmp_path)])
    assert not (tmp_path / "onnx").exists()


def test_calibration_of_floats_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="is for --dtype int8, found without it"):
        export_onnx.main(
            [str(folder / "model"), str(tmp_path), "--dtype", "float16", "--calibration-data", str(folder)]
        )


def test_a_model_without_a_classifier_s_weights_is_refused(tmp_path):
    HEARModel(small_model().config).save_pretrained(tmp_path / "bare")
    with pytest.raises(SystemExit, match="must be a HEAR classifier, found weights without classifier"):
        export_onnx.main([str(tmp_path / "bare"), str(tmp_path / "exported")])
    assert not (tmp_path / "exported").exists()


def test_another_model_is_refused(tmp_path):
    save_wav2vec2(tmp_path)
    with pytest.raises(ValueError, match="must be a HEAR classifier, found model type 'wav2vec2'"):
        load_classifier(str(tmp_path))
