"""examples/export_openvino.py: OpenVINO on its files against PyTorch, what runs them, and what is refused."""

import io
import shutil
import sys
from contextlib import redirect_stdout
from types import SimpleNamespace

import pytest
import soundfile
import torch

pytest.importorskip("onnx", reason="the export needs `pip install hear_hf[openvino]`")
pytest.importorskip("onnxruntime", reason="the export needs `pip install hear_hf[openvino]`")
pytest.importorskip("onnxscript", reason="the export needs `pip install hear_hf[openvino]`")
pytest.importorskip("openvino", reason="the export needs `pip install hear_hf[openvino]`")
pytest.importorskip("nncf", reason="the export needs `pip install hear_hf[openvino]`")

import onnx
import openvino

import export_openvino
import hear_hf.extras
import run_onnx
from hear_hf.deployment.onnx_export import FILES as ONNX_FILES
from hear_hf.deployment.onnx_export import label_names
from hear_hf.deployment.onnx_graph import is_front_end
from hear_hf.deployment.onnx_scoring import contestants
from hear_hf.deployment.onnx_session import model_inputs
from hear_hf.deployment.openvino_export import export_ir
from hear_hf.deployment.openvino_session import FILES, ir_runner, read_metadata
from helpers import noise, ragged_batch, samples_of, small_model


@pytest.fixture(scope="module")
def graph(folder):
    return onnx.load(folder / "model" / "onnx" / ONNX_FILES["float32"])


@pytest.fixture(scope="module")
def exported(folder, graph, tmp_path_factory):
    """A folder with a file of each type, and what the command printed."""
    target, printed = tmp_path_factory.mktemp("openvino"), io.StringIO()
    types = ["--dtype", "float32", "float16", "int8", "--calibration_data", str(folder)]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(export_openvino, "to_onnx", lambda model: graph)
        export_openvino.main([str(folder / "model"), str(target), *types])
    return SimpleNamespace(folder=target, lines=printed.getvalue().splitlines())


# Windows start every 24 frames, segments every 150.
@pytest.mark.parametrize("num_frames", [7, 30, 31, 55, 150, 151, 301])
@torch.no_grad()
def test_one_file_serves_clips_of_every_length(exported, model, num_frames):
    clip = noise(samples_of(num_frames))[None]
    logits = ir_runner(exported.folder / FILES["float32"])(model_inputs(clip.numpy()))
    torch.testing.assert_close(torch.from_numpy(logits), model(clip).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-3), ("float16", 0.1), ("int8", 0.1)])
@torch.no_grad()
def test_a_padded_batch_has_pytorch_s_logits(exported, model, dtype, bound):
    waveform, mask = ragged_batch([noise(length, length) for length in (1600, 9000, 60_000)])
    logits = ir_runner(exported.folder / FILES[dtype])(model_inputs(waveform.numpy(), mask.numpy()))
    expected = model(waveform, mask).logits
    assert 0 < (torch.from_numpy(logits) - expected).abs().max() / expected.abs().max() < bound


@torch.no_grad()
def test_integers_choose_pytorch_s_labels(exported, model, waveforms):
    run = ir_runner(exported.folder / FILES["int8"])
    for waveform in waveforms:
        assert run(model_inputs(waveform[None].numpy()))[0].argmax() == model(waveform[None]).logits[0].argmax()


def test_integers_are_everywhere_but_in_the_front_end(exported):
    operations = openvino.Core().read_model(exported.folder / FILES["int8"]).get_ops()
    read_by = [
        reader.get_node().get_friendly_name()
        for operation in operations
        if operation.get_type_name() == "FakeQuantize"
        for reader in operation.output(0).get_target_inputs()
    ]
    assert len(read_by) > 10
    assert not [name for name in read_by if is_front_end(SimpleNamespace(name=name))]


def test_smaller_types_have_smaller_files(exported):
    sizes = [(exported.folder / file).with_suffix(".bin").stat().st_size for file in FILES.values()]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3


def test_the_command_reports_each_file(exported):
    head, *rows = exported.lines
    assert head.split()[:6] == ["MiB", "difference", "ms", "for", "10", "s"]
    assert [row.split()[0] for row in rows] == ["PyTorch", *FILES]
    assert [row.split()[-1] for row in rows[1:]] == [str(exported.folder / file) for file in FILES.values()]


def test_the_folder_holds_what_optimum_intel_looks_for_and_no_path(exported, folder):
    weights = {file.replace(".xml", ".bin") for file in FILES.values()}
    found = {path.name for path in exported.folder.iterdir()}
    assert found == {*FILES.values(), *weights, "config.json", "preprocessor_config.json"}
    for file in FILES.values():
        content = (exported.folder / file).read_bytes()
        assert not [place for place in (folder, exported.folder) if str(place).encode() in content]


@pytest.mark.parametrize("dtype", FILES)
def test_metadata_say_what_a_device_must_know(exported, model, dtype):
    metadata = read_metadata(openvino.Core().read_model(exported.folder / FILES[dtype]))
    assert metadata["labels"] == str(label_names(model)).replace("'", '"')
    assert metadata["sampling_rate"] == "16000" and metadata["problem_type"] == "multi_label_classification"
    assert metadata.get("precision") == ("f32" if dtype == "float32" else None)


@pytest.mark.parametrize("dtype", FILES)
@torch.no_grad()
def test_the_command_without_pytorch_names_sounds(exported, folder, model, waveforms, dtype, capsys):
    run_onnx.main(str(exported.folder / FILES[dtype]), str(folder / "1.wav"))
    label, score = capsys.readouterr().out.split(": ")[1].split(",")[0].split()
    scores = model(waveforms[1][None]).logits.sigmoid()[0]
    assert label == model.config.id2label[int(scores.argmax())] and abs(float(score) - scores.max()) < 0.03


def test_a_file_of_one_length_reads_that_length_alone(folder, graph, model, tmp_path, capsys):
    measured = export_ir(graph, "float32", model, tmp_path, seconds=0.5)
    assert 0 < measured.difference < 1e-3
    soundfile.write(tmp_path / "half.wav", noise(8000).numpy(), 16_000)
    run_onnx.main(str(tmp_path / FILES["float32"]), str(tmp_path / "half.wav"))
    assert "half.wav: " in capsys.readouterr().out
    with pytest.raises(SystemExit, match="1 of 1 files"):
        run_onnx.main(str(tmp_path / FILES["float32"]), str(folder / "0.wav"))
    assert "hold 8000 samples, the model's only length, found 4000" in capsys.readouterr().err


def test_files_are_scored_beside_those_of_onnx_and_alone(exported, folder, model, tmp_path):
    shutil.copytree(exported.folder, tmp_path / "both")
    names = [one.name for one in contestants(model, str(tmp_path / "both"))]
    assert names == ["PyTorch float32", "PyTorch bfloat16", *(f"OpenVINO {dtype}" for dtype in FILES)]
    shutil.copytree(folder / "model" / "onnx", tmp_path / "both" / "onnx")
    clip = noise(9000)[None].numpy()
    reference, *others = contestants(model, str(tmp_path / "both"))
    assert len(others) == 7
    for one in others:
        assert abs(one.logits(clip) - reference.logits(clip)).max() < 0.1 and one.mib > 0, one.name


def test_a_file_that_differs_from_pytorch_is_not_written(graph, tmp_path):
    (tmp_path / FILES["float32"]).write_text("an older one")
    other = small_model(num_hidden_layers=1, layer_norm_eps=0.5)
    with pytest.raises(ValueError, match="must be within 0.001 of PyTorch's.*openvino_model.xml is not written"):
        export_ir(graph, "float32", other, tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an older one"]


def test_integers_without_clips_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="--dtype int8 needs --calibration_data, found none"):
        export_openvino.main([str(folder / "model"), str(tmp_path / "new"), "--dtype", "int8"])
    with pytest.raises(ValueError, match="folder with audio files, found none"):
        arguments = ["--dtype", "int8", "--calibration_data", str(tmp_path)]
        export_openvino.main([str(folder / "model"), str(tmp_path / "new"), *arguments])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("seconds", ["0", "-1", "0.01", "nan"])
def test_clips_too_short_to_be_read_are_no_fixed_length(folder, tmp_path, seconds):
    with pytest.raises(ValueError, match="`seconds` must be"):
        export_openvino.main([str(folder / "model"), str(tmp_path / "new"), "--seconds", seconds])


def test_a_missing_package_is_named_with_the_command_that_installs_it(exported, graph, model, tmp_path, monkeypatch):
    found = hear_hf.extras.find_spec
    monkeypatch.setattr(hear_hf.extras, "find_spec", lambda name: None if name == "nncf" else found(name))
    with pytest.raises(
        ImportError, match=r'OpenVINO needs nncf, not installed here: pip install "hear_hf\[openvino\]'
    ):
        export_ir(graph, "int8", model, tmp_path)
    monkeypatch.setattr(hear_hf.extras, "find_spec", lambda name: None if name == "openvino" else found(name))
    with pytest.raises(ImportError, match="OpenVINO needs openvino, not installed here"):
        contestants(model, str(exported.folder))


def test_the_command_without_pytorch_names_a_missing_package(exported, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(SystemExit, match="needs openvino, not installed here: pip install openvino"):
        run_onnx.main(str(exported.folder / FILES["float32"]), str(folder / "0.wav"))


def test_a_file_of_another_model_is_refused(folder, graph, tmp_path):
    openvino.save_model(openvino.Core().read_model(graph.SerializeToString()), tmp_path / "other.xml")
    with pytest.raises(SystemExit, match="must be a file of export_onnx.py or export_openvino.py.*without labels"):
        run_onnx.main(str(tmp_path / "other.xml"), str(folder / "0.wav"))
