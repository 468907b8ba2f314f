"""Names the sounds in a clip on Hugging Face's Inference Endpoints, which load and call `EndpointHandler`.

A request is an audio file's bytes, or JSON that holds them in base64:

    {"inputs": "UklGR...", "parameters": {"top_k": 5, "function_to_apply": "softmax"}}

The answer is `[{"label": "dog", "score": 0.97}, ...]`. `push_to_hub.py --endpoint` of hear_hf writes this file.
"""

import base64
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from audio.visitors import read_clip

try:
    import hear_hf  # noqa: F401 (registers HEAR with the Auto classes)

    HEAR_HF_INSTALLED = True
except ImportError:
    HEAR_HF_INSTALLED = False

MAX_BYTES = 200_000_000  # of a file
TOP_K = 5
FUNCTIONS = {"softmax": lambda logits: logits.softmax(-1), "sigmoid": torch.sigmoid, "none": torch.clone}
FUNCTION_OF = {"multi_label_classification": "sigmoid", "regression": "none"}  # any other: softmax


class EndpointHandler:
    """
    Serves the classifier of a folder.

    Args:
        path (`str`): The folder, a copy of the repository. Its code is run where the package `hear_hf` is absent.
    """

    def __init__(self, path: str = "."):
        source = {"trust_remote_code": not HEAR_HF_INSTALLED}
        self.feature_extractor = AutoFeatureExtractor.from_pretrained(path, **source)
        model = AutoModelForAudioClassification.from_pretrained(path, use_safetensors=True, **source)
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    @torch.inference_mode()
    def __call__(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        """
        Answers a request: the likeliest labels with their scores, the best first.

        Args:
            data (`dict`): `inputs`, an audio file's bytes or their base64; and, if given, `parameters`: `top_k`, how
                many labels to name (5), and `function_to_apply`, which makes scores of logits: `"softmax"`,
                `"sigmoid"` or `"none"`, by default what the model was trained with.

        Raises:
            `ValueError`: The request is none, or the clip is broken, silent, too short or too long.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise ValueError("A request must hold `inputs`: an audio file's bytes, or their base64 in JSON.")
        top_k, function = self._parameters(data.get("parameters") or {})
        rate = self.feature_extractor.sampling_rate
        waveform = read_bytes(file_bytes(data["inputs"]), rate)
        inputs = self.feature_extractor(waveform, sampling_rate=rate, return_tensors="pt")
        logits = self.model(**inputs.to(self.model.device, self.model.dtype)).logits[0].float()
        best = FUNCTIONS[function](logits).topk(min(top_k, len(logits)))
        names = [self.model.config.id2label[index] for index in best.indices.tolist()]
        return [{"label": name, "score": score} for name, score in zip(names, best.values.tolist(), strict=True)]

    def _parameters(self, parameters: Any) -> tuple[int, str]:
        if not isinstance(parameters, dict) or not parameters.keys() <= {"top_k", "function_to_apply"}:
            raise ValueError(f"`parameters` may hold `top_k` and `function_to_apply`, found: {shown(parameters)}.")
        top_k = TOP_K if parameters.get("top_k") is None else parameters["top_k"]
        if type(top_k) is not int or top_k < 1:
            raise ValueError(f"`top_k` must be a whole number of at least 1, found: {shown(top_k)}.")
        default = FUNCTION_OF.get(self.model.config.problem_type, "softmax")
        function = parameters.get("function_to_apply") or default
        if not isinstance(function, str) or function not in FUNCTIONS:
            raise ValueError(f"`function_to_apply` must be one of {', '.join(FUNCTIONS)}, found: {shown(function)}.")
        return top_k, function


def file_bytes(inputs: Any) -> bytes:
    """The file that a request holds."""
    if isinstance(inputs, str) and len(inputs) <= MAX_BYTES * 4 // 3 + 4:
        try:
            inputs = base64.b64decode(inputs, validate=True)
        except ValueError as error:
            raise ValueError(f"Text in `inputs` must be an audio file in base64, found: {error}.") from error
    if not isinstance(inputs, bytes | bytearray | str):
        raise ValueError(f"`inputs` must be an audio file's bytes, or their base64, found: {type(inputs).__name__}.")
    if isinstance(inputs, str) or len(inputs) > MAX_BYTES:
        raise ValueError(f"The clip must take at most {MAX_BYTES // 1_000_000} MB, found: more. Cut or compress it.")
    return inputs


def read_bytes(content: bytes, sampling_rate: int) -> np.ndarray:
    """Decodes a file's bytes, (num_samples,), as `read_clip` does a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "The clip"
        path.write_bytes(content)
        return read_clip(path, sampling_rate)


def shown(value: Any) -> str:
    return repr(value)[:100]
