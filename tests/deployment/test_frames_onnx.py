"""The export of a model of frames: ONNX Runtime against PyTorch, and run_onnx.py against the package's events."""

import pytest
import soundfile
import torch

pytest.importorskip("onnx", reason="the export needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxruntime", reason="the export needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxscript", reason="the export needs `pip install hear_hf[onnx]`")

import onnx
import onnxruntime

import export_onnx
import run_onnx
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioFrameClassification
from hear_hf.deployment.onnx_session import model_inputs
from hear_hf.deployment.openvino_export import export_ir
from hear_hf.event_finder import EventFinder
from helpers import SMALL, noise, ragged_batch, samples_of


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model, and the file of its export."""
    folder = tmp_path_factory.mktemp("frames")
    settings = {"num_hidden_layers": 1, "event_thresholds": [0.45] * 7, "event_median_frames": 3}
    model = HEARForAudioFrameClassification(HEARConfig(**SMALL | settings)).eval()
    torch.nn.init.normal_(model.frame_classifier.weight, std=0.2)
    torch.nn.init.zeros_(model.frame_classifier.bias)
    model.save_pretrained(folder / "model")
    HEARFeatureExtractor().save_pretrained(folder / "model")
    export_onnx.main([str(folder / "model"), str(folder)])
    return model, folder / "onnx" / "model.onnx"


@pytest.mark.parametrize("num_frames", [(20, 9), (80, 31), (320, 12)], ids=str)
@torch.no_grad()
def test_frames_and_clips_have_pytorch_s_logits(exported, num_frames):
    model, path = exported
    waveform, mask = ragged_batch([noise(samples_of(n)) for n in num_frames])
    logits, clip_logits = onnxruntime.InferenceSession(path).run(None, model_inputs(waveform.numpy(), mask.numpy()))
    expected = model(waveform, mask)
    valid = expected.frame_mask
    torch.testing.assert_close(torch.from_numpy(logits)[valid], expected.logits[valid], rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.from_numpy(clip_logits), expected.clip_logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_the_command_without_pytorch_finds_the_package_s_events(exported, runtime, tmp_path, capsys):
    model, path = exported
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="the export needs `pip install hear_hf[openvino]`")
        export_ir(onnx.load(path), "float32", model, tmp_path)
        path = tmp_path / "openvino_model.xml"
    clip = noise(20_000).numpy()
    soundfile.write(tmp_path / "clip.wav", clip, 16_000, subtype="FLOAT")
    events = EventFinder(model, HEARFeatureExtractor())(clip).events
    run_onnx.main(str(path), str(tmp_path / "clip.wav"))
    expected = [f"{event.label} {event.start:.2f}-{event.end:.2f} s" for event in events]
    found = [one.rpartition(" ")[0] for one in capsys.readouterr().out.strip().partition(": ")[2].split(", ")]
    assert found == expected and len(events) > 3
