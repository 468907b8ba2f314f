"""A HEAR classifier as an ONNX graph in float32: waveform and mask -> logits, for any batch and length."""

import numpy as np
import onnx
import onnx_ir.passes.common as ir_passes
import torch
from onnx import helper, numpy_helper

from ..configuration_hear import HEARConfig
from ..modeling_hear import HEARForAudioClassification, HEARForAudioFrameClassification

FRONT_END = "spectrogram/"  # begins the names of its nodes


class LogitsOnly(torch.nn.Module):
    """Waveform and mask -> logits, and of a model of frames those of the clip, as tensors rather than an object."""

    def __init__(self, model: HEARForAudioClassification | HEARForAudioFrameClassification):
        super().__init__()
        self.model = model

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor):
        outputs = self.model(input_values, attention_mask)
        return (outputs.logits, outputs.clip_logits) if has_frames(self.model) else outputs.logits


def has_frames(model: torch.nn.Module) -> bool:
    return isinstance(model, HEARForAudioFrameClassification)


@torch.no_grad()
def to_onnx(model: HEARForAudioClassification | HEARForAudioFrameClassification) -> onnx.ModelProto:
    """
    Writes a classifier as one graph.

    Args:
        model (`HEARForAudioClassification` or `HEARForAudioFrameClassification`):
            A model in float32 and evaluation mode.

    Returns:
        `onnx.ModelProto`: `input_values` and `attention_mask`, `(batch_size, num_samples)`, -> `logits`, of clips or
        of frames, and of a model of frames also `clip_logits`.
    """
    exported = torch.onnx.export(
        trace(model),
        dynamo=True,
        opset_version=18,
        input_names=["input_values", "attention_mask"],
        output_names=["logits", "clip_logits"] if has_frames(model) else ["logits"],
        verbose=False,
    )
    assert exported is not None  # without a file to write to, there is a program
    ir_passes.CommonSubexpressionEliminationPass()(exported.model)
    graph = exported.model_proto
    name_front_end(graph.graph)
    strip_traces(graph)
    fold_transposes(graph.graph)
    remove_unused(graph.graph)
    require_samples(graph.graph, model.config.win_length // 2 + 1)
    return graph


def sample_inputs(config: HEARConfig) -> dict[str, torch.Tensor]:
    """Clips of several windows and segments, and their mask: traced with them, one graph fits all lengths."""
    num_samples = config.inputs_to_logits_ratio * (2 * config.max_position_embeddings + 40)
    mask = torch.ones(2, num_samples, dtype=torch.int32)  # the feature extractor's type
    return {"input_values": torch.randn(2, num_samples), "attention_mask": mask}


def trace(model: HEARForAudioClassification | HEARForAudioFrameClassification) -> torch.export.ExportedProgram:
    """Traces the model, so that one graph fits all lengths."""
    sample = sample_inputs(model.config)
    inputs = sample["input_values"], sample["attention_mask"].long()
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


def require_samples(graph: onnx.GraphProto, minimum: int) -> None:
    """Ends a run of shorter clips with an error that names the least number of samples, as PyTorch does.

    ONNX has no assertion: reading the mask's last required sample fails, and its product with 0 changes nothing.
    """
    name = f"clips_must_hold_at_least_{minimum}_samples"
    for node in graph.node:
        inputs = [f"{name}.{used}" if used in ("input_values", "attention_mask") else used for used in node.input]
        node.ClearField("input")
        node.input.extend(inputs)
    constants = [("last_sample", np.array([minimum - 1])), ("no_samples", np.array(0))]
    graph.initializer.extend(numpy_helper.from_array(array, f"{name}.{part}") for part, array in constants)
    checks = [
        helper.make_node(operator, inputs, [output], output, **attributes)
        for operator, inputs, output, attributes in (
            ("Gather", ["attention_mask", f"{name}.last_sample"], f"{name}.sample", {"axis": 1}),
            ("Mul", [f"{name}.sample", f"{name}.no_samples"], f"{name}.zero", {}),
            ("Add", ["attention_mask", f"{name}.zero"], f"{name}.attention_mask", {}),
            ("Cast", [f"{name}.zero"], f"{name}.float_zero", {"to": onnx.TensorProto.FLOAT}),
            ("Add", ["input_values", f"{name}.float_zero"], f"{name}.input_values", {}),
        )
    ]
    nodes = [*checks, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def name_front_end(graph: onnx.GraphProto) -> None:
    """Marks the nodes of the spectrogram by their names."""
    for node in graph.node:
        if any("spectrogram:" in prop.value for prop in node.metadata_props if prop.key.endswith("namespace")):
            node.name = f"{FRONT_END}{node.name}"


def strip_traces(model: onnx.ModelProto) -> None:
    """Removes what the exporter notes of its own machine: stack traces with the paths of its files."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    for part in (model, graph, *graph.node, *graph.initializer, *values, *model.functions):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def remove_unused(graph: onnx.GraphProto) -> None:
    """Removes the weights that no node reads."""
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def is_front_end(node: onnx.NodeProto) -> bool:
    """Whether a node is of the spectrogram, which needs all bits of float32."""
    return node.name.startswith(FRONT_END)


def linear_layers(graph: onnx.GraphProto) -> list[str]:
    """Names of the products with a stored weight, except the front end's."""
    weights = {tensor.name for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    return [node.name for node in products if not is_front_end(node)]
