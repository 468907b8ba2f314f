"""A HEAR classifier as an ONNX graph in float32: waveform and mask -> logits, for any batch and length."""

import numpy as np
import onnx
import onnx_ir.passes.common as ir_passes
import torch
from onnx import helper, numpy_helper

from ..modeling_hear import HEARForAudioClassification


class LogitsOnly(torch.nn.Module):
    """Waveform and mask -> logits, as a tensor rather than an output object."""

    def __init__(self, model: HEARForAudioClassification):
        super().__init__()
        self.model = model

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_values, attention_mask).logits


@torch.no_grad()
def to_onnx(model: HEARForAudioClassification) -> onnx.ModelProto:
    """
    Writes a classifier as one graph.

    Args:
        model (`HEARForAudioClassification`): A model in float32 and evaluation mode.

    Returns:
        `onnx.ModelProto`: `input_values` and `attention_mask`, `(batch_size, num_samples)`, -> `logits`.
    """
    exported = torch.onnx.export(
        trace(model),
        dynamo=True,
        opset_version=18,
        input_names=["input_values", "attention_mask"],
        output_names=["logits"],
        verbose=False,
    )
    assert exported is not None  # without a file to write to, there is a program
    ir_passes.CommonSubexpressionEliminationPass()(exported.model)
    graph = exported.model_proto
    fold_transposes(graph.graph)
    remove_unused(graph.graph)
    return graph


def trace(model: HEARForAudioClassification) -> torch.export.ExportedProgram:
    """Traces the model with clips of several windows and segments, so that one graph fits all lengths."""
    num_samples = model.config.inputs_to_logits_ratio * (2 * model.config.max_position_embeddings + 40)
    inputs = (torch.randn(2, num_samples), torch.ones(2, num_samples, dtype=torch.long))
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    return torch.export.export(
        LogitsOnly(model),
        inputs,
        dynamic_shapes=(free, free),
        strict=False,
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def fold_transposes(graph: onnx.GraphProto) -> None:
    """Transposes the weights of linear layers now: quantisation only sees those that are stored as they are used."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        array = numpy_helper.to_array(weights[node.input[0]])
        axes = helper.get_node_attr_value(node, "perm")
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array.transpose(axes)), node.output[0]))
        graph.node.remove(node)


def remove_unused(graph: onnx.GraphProto) -> None:
    """Removes the weights that no node reads."""
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def is_front_end(node: onnx.NodeProto) -> bool:
    """Whether a node is of the spectrogram, which needs all bits of float32."""
    return any("spectrogram:" in prop.value for prop in node.metadata_props if prop.key.endswith("namespace"))


def linear_layers(graph: onnx.GraphProto) -> list[str]:
    """Names of the products with a stored weight, except the front end's."""
    weights = {tensor.name for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    return [node.name for node in products if not is_front_end(node)]
