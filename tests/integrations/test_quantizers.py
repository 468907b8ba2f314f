"""Quantised models of PyTorch, torchao and bitsandbytes beside the float32 ones."""

import pytest
import torch
from transformers import AutoModelForAudioClassification, BitsAndBytesConfig

from hear_hf import HEARConfig, HEARForAudioClassification
from helpers import SMALL, noise, small_model

CLIPS = [noise(8000, i) for i in range(4)]
TOLERANCE = 0.1  # of logits whose spread is 0.9


def largest_difference(quantised, model=None):
    model, clips = model or small_model(), torch.stack(CLIPS)
    with torch.no_grad():
        return (quantised(clips).logits - model(clips).logits).abs().max()


def loaded(folder, config, **changes):
    """A small model and itself as `from_pretrained` quantises it."""
    model = small_model(**changes)
    model.save_pretrained(folder)
    return AutoModelForAudioClassification.from_pretrained(folder, quantization_config=config), model


@pytest.mark.parametrize("width", [20, None], ids=["head", "linear head"])
def test_dynamic_quantisation_of_pytorch(width):
    model = HEARForAudioClassification(HEARConfig(**SMALL | {"classifier_proj_size": width})).eval()
    quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    assert not any(type(module) is torch.nn.Linear for module in quantised.modules())
    assert 0 < largest_difference(quantised, model) < TOLERANCE


def test_torchao_through_from_pretrained(tmp_path):
    torchao = pytest.importorskip("torchao.quantization", reason="this quantiser needs the package torchao")
    transformers = pytest.importorskip("transformers", minversion="5.20", reason="5.4 asks for another torchao")
    config = transformers.TorchAoConfig(torchao.Int8WeightOnlyConfig())
    quantised, model = loaded(tmp_path, config)
    layers = [module for module in quantised.modules() if isinstance(module, torch.nn.Linear)]
    assert len(layers) == 21 and all("Int8Tensor" in str(type(layer.weight)) for layer in layers)
    assert 0 < largest_difference(quantised, model) < TOLERANCE


def test_torchao_of_an_exported_graph():
    pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e", reason="it needs the package torchao")
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    model, clips = small_model(), torch.stack(CLIPS)
    with torch.no_grad():
        graph = torch.export.export(model, (clips,), strict=False).module()
        quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
        prepared = pt2e.prepare_pt2e(graph, quantizer)
        prepared(clips)  # which measures the ranges
        quantised = pt2e.convert_pt2e(prepared)
        difference = (quantised(clips)["logits"] - model(clips).logits).abs().max()
    assert sum("quantize_per_tensor" in str(node.target) for node in quantised.graph.nodes) > 20
    assert 0 < difference < TOLERANCE


# Of sizes that its 4-bit kernel takes: its blocks hold 64 weights.
SIZES = dict.fromkeys(["hidden_size", "intermediate_size", "task_hidden_size", "task_intermediate_size"], 64)


@pytest.mark.parametrize(
    ("settings", "kind"), [({"load_in_8bit": True}, "Linear8bitLt"), ({"load_in_4bit": True}, "Linear4bit")]
)
def test_bitsandbytes_through_from_pretrained(settings, kind, tmp_path):
    pytest.importorskip("bitsandbytes", reason="this quantiser needs the package bitsandbytes")
    skip = ["spectrum", "classifier"]
    quantised, model = loaded(tmp_path, BitsAndBytesConfig(**settings, llm_int8_skip_modules=skip), **SIZES)
    assert sum(type(module).__name__ == kind for module in quantised.modules()) == 18
    assert 0 < largest_difference(quantised, model) < 3 * TOLERANCE  # of four bits
