"""How far the logits move with what should not matter: batch, threads, compiler, precision. Prints a Markdown table.

    python benchmarks/agreement.py                       # the published size: minutes, most of them for `inductor`
    python benchmarks/agreement.py --seconds 0.1 31 65   # several segments of the task model

Weights are random, of a size that makes every part of the model matter. `tests/model/test_agreement.py` holds the
bounds.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from hear_hf import HEARConfig, HEARForAudioClassification
from hear_hf.arguments import option, parse_arguments

SAMPLING_RATE = 16_000


@dataclass(frozen=True)
class Variation:
    """Something to vary, and how far it may move the logits, relative to the largest one."""

    name: str
    logits: Callable[[nn.Module, list[torch.Tensor]], torch.Tensor]
    bound: float


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def alone(model: nn.Module, clips: list[torch.Tensor]) -> torch.Tensor:
    """Each clip by itself, without a mask."""
    return torch.cat([model(clip[None]).logits for clip in clips])


def together(model: nn.Module, clips: list[torch.Tensor]) -> torch.Tensor:
    """All clips in one padded batch."""
    waveform = nn.utils.rnn.pad_sequence(clips, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(clip) for clip in clips], batch_first=True)
    return model(waveform, mask).logits


def in_pairs(model: nn.Module, clips: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([together(model, clips[i : i + 2]) for i in range(0, len(clips), 2)])


def with_two_threads(model: nn.Module, clips: list[torch.Tensor]) -> torch.Tensor:
    with num_threads(2):
        return alone(model, clips)


@torch.enable_grad()
def with_gradients(model: nn.Module, clips: list[torch.Tensor]) -> torch.Tensor:
    return alone(model, clips).detach()


def compiled(backend: str) -> Callable[[nn.Module, list[torch.Tensor]], torch.Tensor]:
    return lambda model, clips: together(torch.compile(model, backend=backend), clips)


def cast(dtype: torch.dtype) -> Callable[[nn.Module, list[torch.Tensor]], torch.Tensor]:
    return lambda model, clips: alone(copy.deepcopy(model).to(dtype), clips)


def autocast(dtype: torch.dtype) -> Callable[[nn.Module, list[torch.Tensor]], torch.Tensor]:
    return lambda model, clips: torch.autocast("cpu", dtype)(alone)(model, clips)


VARIATIONS = [
    Variation("the same call again", alone, 0.0),
    Variation("clips in pairs, padded", in_pairs, 1e-5),
    Variation("all clips in one padded batch", together, 1e-5),
    Variation("two threads", with_two_threads, 1e-5),
    Variation("gradients recorded", with_gradients, 1e-5),
    Variation("compiled, `aot_eager`", compiled("aot_eager"), 1e-5),
    Variation("compiled, `inductor`", compiled("inductor"), 1e-5),
    Variation("float64 (front end float32)", cast(torch.float64), 1e-5),
    Variation("float16", cast(torch.float16), 1e-2),
    Variation("float16 by autocast", autocast(torch.float16), 1e-2),
    Variation("bfloat16", cast(torch.bfloat16), 1e-1),
    Variation("bfloat16 by autocast", autocast(torch.bfloat16), 1e-1),
]


@torch.no_grad()
def largest_difference(variation: Variation, model: nn.Module, clips: list[torch.Tensor]) -> float:
    """From the logits of each clip alone, eager, in float32 on one thread; relative to the largest of them."""
    with num_threads(1):
        expected = alone(model, clips)
        difference = variation.logits(model, clips).double() - expected
    return (difference.abs().max() / expected.abs().max()).item()


def random_model(seed: int = 0, **config) -> HEARForAudioClassification:
    """In eval mode. Attention, positions and norms of freshly initialised weights are too even to move anything."""
    torch.manual_seed(seed)
    model = HEARForAudioClassification(HEARConfig(**config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative" in name or "position" in name or parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return model


def random_clips(seconds: list[float], seed: int = 0) -> list[torch.Tensor]:
    """Noise whose loudness rises."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [round(s * SAMPLING_RATE) for s in seconds]
    return [torch.randn(n, generator=generator) * torch.linspace(0.02, 0.3, n) for n in lengths]


@dataclass
class AgreementArguments:
    """Which clips to classify, by how large a head."""

    seconds: list[float] = option(default_factory=lambda: [0.5, 3, 7, 12], help="Lengths of the clips.")
    num_labels: int = option(default=50, help="Labels of the model.")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments(AgreementArguments, argv, __doc__)
    model, clips = random_model(num_labels=args.num_labels), random_clips(args.seconds)
    print("| what varies | largest difference of a logit, relative | the tests allow |\n|---|---|---|")
    for variation in VARIATIONS:
        difference = largest_difference(variation, model, clips)
        print(f"| {variation.name} | {difference:.1g} | {variation.bound:g} |", flush=True)


if __name__ == "__main__":
    main()
