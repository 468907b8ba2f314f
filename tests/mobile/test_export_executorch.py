"""examples/export_executorch.py: ExecuTorch on the exported programs against PyTorch."""

import json

import pytest
import torch

pytest.importorskip("executorch", reason="the export needs `pip install hear_hf[executorch]`")

from executorch.runtime import Runtime

import export_executorch
from hear_hf import HEARConfig, HEARForAudioFrameClassification
from hear_hf.mobile import executorch_export
from hear_hf.mobile.executorch_export import lower
from hear_hf.static_graph import StaticClassifier
from helpers import SMALL, noise, save_wav2vec2, small_model

LABELS = ["bee", "cat", "dog", "eel", "fox", "gnu", "hen"]


@pytest.fixture(scope="module")
def model():
    return small_model(num_hidden_layers=1, id2label=dict(enumerate(LABELS)))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The saved model, and its programs for clips of 1.2 s, which are three windows."""
    folder = tmp_path_factory.mktemp("exported")
    model.save_pretrained(folder / "model")
    export_executorch.main(
        [str(folder / "model"), str(folder / "programs"), "--seconds", "1.2", "--dtype", "float32", "int8"]
    )
    return folder / "programs"


@pytest.mark.parametrize(("name", "least", "bound"), [("model_1.2s", 0, 1e-4), ("model_1.2s_int8", 1e-4, 0.06)])
@torch.no_grad()
def test_the_logits_are_those_of_pytorch(folder, model, name, least, bound):
    program = Runtime.get().load_program(folder / f"{name}.pte").load_method("forward")
    clip = noise(19_200, seed=7)[None]
    expected = model(clip).logits
    difference = (program.execute([clip])[0] - expected).abs().max() / expected.abs().max()
    assert least <= difference < bound


@torch.no_grad()
def test_of_a_model_of_frames_a_program_gives_both_logits(tmp_path):
    model = HEARForAudioFrameClassification(HEARConfig(**SMALL | {"num_hidden_layers": 1})).eval()
    executorch_export.export_program(model, 0.5, "float32", tmp_path)
    program = Runtime.get().load_program(tmp_path / "model_0.5s.pte").load_method("forward")
    clip = noise(8000, seed=7)[None]
    outputs = model(clip)
    found = program.execute([clip])
    torch.testing.assert_close(found, [outputs.logits, outputs.clip_logits], rtol=1e-4, atol=1e-4)


def test_the_json_file_has_what_a_device_must_know(folder):
    described = json.loads((folder / "model_1.2s_int8.json").read_text())
    assert described.pop("hear_hf_version")
    assert described == {
        "labels": LABELS,
        "sampling_rate": 16_000,
        "num_samples": 19_200,
        "problem_type": "single_label_classification",
    }


def test_an_int8_program_stores_its_linear_layers_in_fewer_bits(folder):
    sizes = {name: (folder / f"model_1.2s{name}.pte").stat().st_size for name in ("", "_int8")}
    assert sizes["_int8"] < 0.9 * sizes[""]


@torch.no_grad()
def test_xnnpack_computes_all_of_it(model):
    clip = noise(8000)[None]
    lowered = lower(StaticClassifier(model, 8000), "float32", clip).exported_program()
    names = [node.name for node in lowered.graph.nodes if node.op == "call_function"]
    assert [name.rstrip("_1") for name in names] == ["executorch_call_delegate", "getitem"]


def test_a_program_that_differs_too_much_is_not_written(model, tmp_path, monkeypatch):
    monkeypatch.setitem(executorch_export.TOLERANCES, "float32", 1e-9)
    with pytest.raises(ValueError, match="must be within 1e-09 of PyTorch's.*model_0.5s.pte is not written"):
        executorch_export.export_program(model, 0.5, "float32", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seconds", ["0.001", "30.1", "-1"])
def test_a_length_that_no_program_has_is_refused_before_anything_is_written(model, seconds, tmp_path):
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit, match=r"must hold 400 to 48000 samples, at most 3 s, found"):
        export_executorch.main([str(tmp_path / "model"), str(tmp_path / "out"), "--seconds", seconds])
    assert not (tmp_path / "out").exists()


def test_another_model_ends_the_command_with_its_name(tmp_path):
    save_wav2vec2(tmp_path)
    with pytest.raises(SystemExit, match="must be a HEAR classifier, found model type 'wav2vec2'"):
        export_executorch.main([str(tmp_path), str(tmp_path / "out")])
