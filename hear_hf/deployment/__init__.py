"""HEAR outside PyTorch: export to ONNX, and scores of the exported files."""

from ..extras import require

require(__name__, "onnx", "datasets", "evaluate", "onnx", "onnxruntime", "onnxscript", "sklearn", "soundfile", "soxr")
