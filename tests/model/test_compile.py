"""torch.compile: one graph without breaks, the eager model's numbers, and no new graph for each length."""

import pytest
import torch
from packaging.version import Version

from helpers import noise, ragged_batch, samples_of, small_model

pytestmark = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.13"), reason="older compilers break the graph, as torch 2.7's at `sym_max`"
)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(model, **options):
    # `aot_eager` traces forward and backward as the default backend does, and needs no C++ compiler.
    return torch.compile(model, fullgraph=True, backend="aot_eager", **options)


CLIPS = [noise(samples_of(70)), noise(samples_of(20))]


@pytest.mark.parametrize("masked", [True, False], ids=["mask", "no mask"])
@torch.no_grad()
def test_one_graph_holds_the_whole_model(masked):
    """Without `.item()` or a branch on a tensor, either of which would break it, as CUDA graphs ask for."""
    model = small_model(num_hidden_layers=1)
    batch = ragged_batch(CLIPS) if masked else (CLIPS[0][None],)
    torch.testing.assert_close(compiled(model)(*batch).logits, model(*batch).logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_graph_takes_a_hole_in_a_mask_as_silence_as_the_eager_model_does():
    model = small_model(num_hidden_layers=1)
    waveform, mask = ragged_batch(CLIPS)
    mask[0, 1000:1500] = mask[1, 200:201] = 0
    expected = model(waveform, mask).logits
    waveform[mask == 0] = torch.nan
    torch.testing.assert_close(compiled(model)(waveform, mask).logits, expected, rtol=0, atol=1e-5)


def test_one_graph_holds_a_training_step_with_the_eager_model_s_gradients():
    silent = dict.fromkeys(["hidden_dropout", "activation_dropout", "attention_dropout"], 0.0)
    model = small_model(num_hidden_layers=1, task_dropout=0.0, classifier_dropout=0.0, **silent).train()
    batch, gradients = (*ragged_batch(CLIPS), torch.tensor([1, 2])), []
    for forward in (model, compiled(model)):
        model.zero_grad()
        forward(*batch[:2], labels=batch[2]).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch.compiler.set_stance came with torch 2.6")
@pytest.mark.parametrize(
    "num_frames",
    [
        pytest.param((20, 9, 25), id="one window", marks=pytest.mark.slow),
        pytest.param((80, 58, 110), id="several windows", marks=pytest.mark.slow),
        pytest.param((340, 200, 301), id="several segments", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_other_lengths_need_no_other_graph(num_frames):
    """Clips of one window, of two, of more, and of several segments have a graph each, and each one more for odd T."""
    model = small_model(num_hidden_layers=1)
    forward = compiled(model, dynamic=True)
    first, *others = (ragged_batch([noise(samples_of(n) + 33), noise(samples_of(5))]) for n in num_frames)
    forward(*first)
    with torch.compiler.set_stance("fail_on_recompile"):
        for batch in others:
            torch.testing.assert_close(forward(*batch).logits, model(*batch).logits, rtol=0, atol=1e-5)
