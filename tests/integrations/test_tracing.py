"""Graphs that `torch.jit.trace`, OpenVINO and Transformers' own exporter make, beside the model."""

import numpy as np
import pytest
import torch

from hear_hf import HEARFeatureExtractor
from helpers import noise, ragged_batch, small_model

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


def clips(num_samples, seed=0):
    return torch.stack([noise(num_samples, seed + i) for i in range(2)])


@pytest.mark.parametrize("num_samples", [8000, 30_000, 100_000], ids=["one window", "windows", "segments"])
@pytest.mark.parametrize("with_grad", [True, False])
def test_a_traced_model_passes_its_own_check_and_is_the_model(num_samples, with_grad):
    model = small_model()
    with torch.set_grad_enabled(with_grad):
        traced = torch.jit.trace(model, clips(num_samples), strict=False)
    with torch.no_grad():
        others = clips(num_samples, seed=7)
        torch.testing.assert_close(traced(others)["logits"], model(others).logits, rtol=0, atol=1e-5)


def test_a_traced_model_reads_the_mask_that_it_is_given():
    model = small_model()
    inputs = dict(zip(("input_values", "attention_mask"), ragged_batch([noise(40_000), noise(9000, 1)]), strict=True))
    example = {name: torch.ones_like(tensor) for name, tensor in inputs.items()}
    with torch.no_grad():
        traced = torch.jit.trace(model, example_kwarg_inputs=example, strict=False)
        torch.testing.assert_close(traced(**inputs)["logits"], model(**inputs).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_samples", [15_000, 33_000])
def test_a_traced_model_refuses_another_length(num_samples):
    traced = torch.jit.trace(small_model(), clips(30_000), strict=False)
    with pytest.raises(RuntimeError, match="must match"):
        traced(clips(num_samples))


def test_openvino_converts_the_model_itself():
    openvino = pytest.importorskip("openvino", reason="it needs the package openvino")
    model, others = small_model(), clips(30_000, seed=7)
    converted = openvino.convert_model(model, example_input=clips(30_000), input=[2, 30_000])
    compiled = openvino.compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.no_grad():
        np.testing.assert_allclose(compiled(others.numpy())[0], model(others).logits, atol=1e-4)


@pytest.mark.slow
def test_transformers_exporter_gives_a_graph_for_all_lengths():
    pytest.importorskip("onnxscript", reason="it needs the extra `onnx`")
    pytest.importorskip("onnxruntime", reason="it needs the extra `onnx`")
    exporters = pytest.importorskip("transformers.exporters.exporter_onnx", reason="Transformers has it from 5.20 on")
    from hear_hf.deployment.onnx_graph import sample_inputs

    model = small_model(num_hidden_layers=1)
    exported = exporters.OnnxExporter().export(
        model, sample_inputs(model.config), config=exporters.OnnxConfig(dynamic=True)
    )
    for seconds in (0.1, 0.5, 3, 7):
        batch = [noise(int(16_000 * part * seconds)).numpy() for part in (1, 0.7)]
        inputs = HEARFeatureExtractor()(batch, sampling_rate=16_000, padding=True, return_tensors="pt")
        with torch.no_grad():
            torch.testing.assert_close(exported(**inputs)["logits"], model(**inputs).logits, rtol=0, atol=1e-4)
