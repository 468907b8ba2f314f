"""Golden data: what the original implementation made of weights that are drawn, not stored. See fixtures/README.md."""

import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from hear_hf import HEARConfig, HEARPreTrainedModel
from hear_hf.spectrogram_hear import HEARSpectrogram
from original_layout import CLASSIFIER, Layout

SALT = "dev:"
FIXTURES = Path(__file__).parent / "fixtures"


# The small quantizer of `fixtures/`, and its training.
SMALL_QUANTIZER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "window_length": 30,
    "window_overlap": 6,
    "codebook_size": 64,
    "codebook_dim": 16,
    "decoder_hidden_size": 40,
    "decoder_intermediate_size": 80,
    "decoder_num_hidden_layers": 1,
    "teacher_hidden_size": 24,
}


def golden_model(layout: Layout = CLASSIFIER.main, **config) -> HEARPreTrainedModel:
    """In eval mode. Unlike freshly initialised weights, these make every part of the model matter."""
    model = layout.architecture(layout.architecture.config_class(**config))
    model.load_state_dict(model.state_dict() | drawn_weights(model, layout))
    return model.eval()


def drawn_weights(model: HEARPreTrainedModel, layout: Layout = CLASSIFIER.main) -> dict[str, torch.Tensor]:
    """The weights of the golden model of these sizes: each tensor drawn from a seed made of its original name."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return {ours: drawn_tensor(theirs, shapes[ours]) for theirs, ours in layout.pairs(model.config.to_dict())}


def drawn_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    z = np.random.RandomState(zlib.crc32((SALT + name).encode())).standard_normal(shape)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    if name.endswith("running_var"):
        z = np.exp(0.2 * z)
    elif name.endswith("running_mean") or "embed" in name or "query_bias" in name:
        z = 0.1 * z
    elif len(shape) == 1:
        z = 0.1 * z + (1 if name.endswith("weight") else 0)
    elif not name.endswith("code_book"):
        z = z / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(z.astype(np.float32))


def names(tensors: dict[str, torch.Tensor], start: str, last: str) -> list[str]:
    """What stands before `.last` in the keys that begin with `start`."""
    return [key.removesuffix(f".{last}") for key in tensors if key.startswith(start) and key.endswith(f".{last}")]


@torch.no_grad()
def assert_golden_logits(model: HEARPreTrainedModel, tensors: dict[str, torch.Tensor]) -> None:
    """The logits of the small classifier's clips agree to 1e-5."""
    clips = names(tensors, "small.hear.", "waveform")
    assert len(clips) >= 2
    for clip in clips:
        logits = model(tensors[f"{clip}.waveform"][None]).logits[0]
        torch.testing.assert_close(logits, tensors[f"{clip}.logits"], rtol=0, atol=1e-5)


def front_end_errors(tensors: dict[str, torch.Tensor], sampling_rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Absolute differences of our log-mel and log-power from the original's, over all clips of one rate, flat."""
    front_end = HEARSpectrogram(HEARConfig(sampling_rate=sampling_rate, n_fft=1024 * sampling_rate // 16_000))
    mel_errors, power_errors = [], []
    for name in names(tensors, f"frontend.{sampling_rate}.", "waveform"):
        log_mel, log_power, _ = front_end(tensors[f"{name}.waveform"][None])
        log_power = log_power.frames(0, log_mel.shape[1])[0]
        if f"{name}.log_power" in tensors:
            expected = tensors[f"{name}.log_power"]
        else:
            log_power, expected = log_power[::7], tensors[f"{name}.log_power_every_7th"]
        assert log_mel[0].shape == tensors[f"{name}.log_mel"].shape and log_power.shape == expected.shape
        mel_errors.append((log_mel[0] - tensors[f"{name}.log_mel"]).abs().flatten())
        power_errors.append((log_power - expected).abs().flatten())
    return torch.cat(mel_errors), torch.cat(power_errors)


if __name__ == "__main__":
    for file in sys.argv[1:]:
        small = load_file(file)
        print(max(front_end_errors(small, rate)[1].max().item() for rate in (16_000, 32_000)))
