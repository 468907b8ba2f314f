"""The linear head, `classifier_proj_size=None`: against a product of matrices, and wherever a head goes."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForAudioClassification

from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioClassification, HEARStream
from helpers import SMALL, linear_model, noise, ragged_batch, small_model


@torch.no_grad()
def test_logits_are_linear_in_the_pooled_output():
    model = linear_model()
    pooled, head = model.hear(noise(9000)[None]).pooler_output, model.classifier.out_proj
    expected = pooled @ head.weight.T + head.bias
    torch.testing.assert_close(model(noise(9000)[None]).logits, expected, rtol=0, atol=1e-4)
    assert [name for name, _ in model.classifier.named_parameters()] == ["out_proj.weight", "out_proj.bias"]


def test_the_published_head_is_the_default_and_has_all_its_layers():
    names = {name.partition(".")[0] for name, _ in small_model().classifier.named_parameters()}
    assert HEARConfig().classifier_proj_size == 384 and names == {"dense", "batch_norm", "out_proj"}


@torch.no_grad()
def test_a_linear_head_survives_a_round_trip(tmp_path):
    model = linear_model()
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert json.loads((tmp_path / "config.json").read_text())["classifier_proj_size"] is None
    assert not info["missing_keys"] and not info["unexpected_keys"]
    torch.testing.assert_close(loaded(noise(9000)[None]).logits, model(noise(9000)[None]).logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_clip_has_the_same_logits_alone_and_in_a_padded_batch():
    model, clips = linear_model(), [noise(9000), noise(4000, 1)]
    waveform, mask = ragged_batch(clips)
    for clip, logits in zip(clips, model(waveform, attention_mask=mask).logits, strict=True):
        torch.testing.assert_close(model(clip[None]).logits[0], logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_stream_decides_as_the_model_does():
    model, stream = linear_model(), HEARStream(linear_model(), 16_000, window_seconds=0.25, hop_seconds=0.25)
    stream.push(noise(9000))
    torch.testing.assert_close(stream.finish().logits, model(noise(9000)[None]).logits[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_linear_head_runs_in_half_precision_and_under_autocast(dtype):
    assert linear_model().to(dtype)(noise(9000)[None]).logits.dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert linear_model()(noise(9000)[None]).logits.dtype == torch.float32


def test_a_linear_head_learns():
    model = linear_model().train()
    model(noise(9000)[None], labels=torch.tensor([3])).loss.backward()
    assert model.classifier.out_proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("text", "size"), [("classifier_proj_size=None", None), ("classifier_proj_size=16", 16)])
def test_overrides_choose_either_head(text, size):
    for before in (None, 20):
        config = HEARConfig(**SMALL | {"classifier_proj_size": before})
        config.update_from_string(f"num_hidden_layers=3,{text}")
        assert (config.classifier_proj_size, config.num_hidden_layers) == (size, 3)


@pytest.mark.parametrize("size", [0, -1, 2**24 + 1])
def test_a_head_of_an_impossible_width_is_refused(size):
    with pytest.raises(StrictDataclassError):
        HEARConfig(classifier_proj_size=size)


def test_a_checkpoint_s_head_gives_way_to_a_linear_one(tmp_path):
    small_model().save_pretrained(tmp_path)
    loaded = HEARForAudioClassification.from_pretrained(
        tmp_path, classifier_proj_size=None, num_labels=3, ignore_mismatched_sizes=True
    )
    assert loaded.classifier.out_proj.weight.shape == (3, 3 * SMALL["task_hidden_size"])
    assert torch.equal(loaded.hear.task_model.out_proj.weight, small_model().hear.task_model.out_proj.weight)


@pytest.mark.slow
@torch.no_grad()
def test_a_linear_head_is_exported(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from export_onnx import main

    model = linear_model()
    model.save_pretrained(tmp_path / "model")
    HEARFeatureExtractor().save_pretrained(tmp_path / "model")
    main([str(tmp_path / "model"), str(tmp_path)])
    session = runtime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    clip = noise(9000)[None]
    inputs = {"input_values": clip.numpy(), "attention_mask": torch.ones_like(clip, dtype=torch.int64).numpy()}
    wanted = {entry.name for entry in session.get_inputs()}
    (logits,) = session.run(["logits"], {name: value for name, value in inputs.items() if name in wanted})
    torch.testing.assert_close(torch.from_numpy(logits), model(clip).logits, rtol=0, atol=1e-3)
