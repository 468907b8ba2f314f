"""Gradients against finite differences in float64, runs against themselves, and logits against those of other batches,
threads, compilers and precisions, within the bounds of the table that `benchmarks/agreement.py` prints."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

import agreement
import soak
from golden import SMALL_QUANTIZER, golden_model
from hear_hf import (
    HEARConfig,
    HEARForAudioClassification,
    HEARForPreTraining,
    HEARQuantizerConfig,
    HEARQuantizerForPreTraining,
)
from hear_hf.acoustic_model_hear import FrameMasks, HEARAcousticModel
from hear_hf.attention_hear import HEARAttention
from hear_hf.frames_hear import frame_mask
from hear_hf.masking_hear import share_mask
from hear_hf.spectrogram_hear import HEARClips, HEARSpectrogram
from hear_hf.task_model_hear import HEARClassificationHead, HEARSpectrogramMixture, HEARTaskModel, pool_statistics
from helpers import SMALL, noise, ragged_batch, samples_of, small_model
from original_layout import PRETRAINING, TOKENIZER_TRAINING

LAYERS = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 6,
    "num_hidden_layers": 1,
    "window_length": 6,
    "window_overlap": 2,
    "num_mel_bins": 4,
    "codebook_size": 5,
}
TASK = {
    "task_hidden_size": 8,
    "task_num_attention_heads": 2,
    "task_intermediate_size": 6,
    "max_position_embeddings": 10,
    "classifier_proj_size": 4,
    "num_labels": 3,
    "n_fft": 400,
    "mask_feature_length": 8,  # at most `hidden_size`
}
DECODER = {
    "codebook_dim": 3,
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 6,
    "teacher_hidden_size": 3,
}
TINY = HEARConfig(**LAYERS, **TASK)
VALID = frame_mask(torch.tensor([15, 9]), 15)  # of four windows and of two


def drawn(module: nn.Module) -> nn.Module:
    """In float64 and in eval mode, with weights that make every part matter."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def gradients_are_exact(function, inputs: tuple[torch.Tensor, ...], module: nn.Module | None = None) -> bool:
    """Whether the gradients of inputs and parameters are those that random directions of finite differences give."""
    parameters = () if module is None else tuple(module.parameters())
    return gradcheck(lambda *both: function(*both[: len(inputs)]), (*inputs, *parameters), fast_mode=True)


@pytest.mark.parametrize("valid", [None, frame_mask(torch.tensor([6, 4]), 6)], ids=["no mask", "mask"])
def test_gradients_of_the_attention_are_exact(valid):
    attention = drawn(HEARAttention(TINY))
    assert gradients_are_exact(lambda x: attention(x, valid), (randn(2, 6, 8),), attention)


@pytest.mark.parametrize("num_frames", [5, 15], ids=["one window", "several windows"])
def test_gradients_of_the_acoustic_model_are_exact(num_frames):
    model = drawn(HEARAcousticModel(TINY))
    hidden = torch.rand(2, num_frames) < 0.3
    hidden_features = torch.zeros(2, 8, dtype=torch.bool).index_fill(1, torch.tensor([3]), True)
    masks = FrameMasks(VALID[:, :num_frames], hidden, hidden_features)
    assert gradients_are_exact(lambda x: model(x, masks).last_hidden_state, (randn(2, 2 * num_frames, 4),), model)


def test_gradients_of_the_mixture_are_exact():
    mixture = drawn(HEARSpectrogramMixture(TINY))
    assert gradients_are_exact(mixture, (randn(2, 3, 8), randn(2, 6, 201)), mixture)


@pytest.mark.parametrize("output_attentions", [False, True])
@pytest.mark.parametrize("valid", [None, VALID[:, 3:13]], ids=["no mask", "mask"])
def test_gradients_of_the_task_model_are_exact(valid, output_attentions):
    model = drawn(HEARTaskModel(TINY))
    assert gradients_are_exact(lambda x: model(x, valid, output_attentions)[0], (randn(2, 10, 8),), model)


@pytest.mark.parametrize("segment_length", [15, 4], ids=["one segment", "several segments"])
def test_gradients_of_the_pooling_are_exact(segment_length):
    assert gradients_are_exact(lambda x: pool_statistics(x, VALID, segment_length), (randn(2, 15, 8),))


@pytest.mark.parametrize(("training", "batch_size"), [(False, 2), (True, 1), (True, 4)])
def test_gradients_of_the_head_are_exact(training, batch_size):
    head = drawn(HEARClassificationHead(HEARConfig(**LAYERS, **TASK, classifier_dropout=0.0))).train(training)
    assert gradients_are_exact(head, (randn(batch_size, 24),), head)


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_gradients_of_the_classifier_s_loss_are_exact(problem_type):
    model = drawn(HEARForAudioClassification(HEARConfig(**LAYERS, **TASK, problem_type=problem_type)))
    labels = torch.tensor([2, 0]) if problem_type.startswith("single") else torch.rand(2, 3).double()
    batch = ragged_batch([noise(samples_of(15)), noise(samples_of(9))])
    assert gradients_are_exact(lambda: model(*batch, labels=labels).loss, (), model)


def test_gradients_of_masked_modelling_are_exact():
    model = drawn(HEARForPreTraining(TINY))
    waveform, mask = ragged_batch([noise(samples_of(15)), noise(samples_of(9))])
    hidden, labels = share_mask(VALID, 0.4, 2), torch.randint(5, (2, 15))
    assert gradients_are_exact(lambda: model(waveform, mask, hidden, labels).loss, (), model)


@pytest.mark.parametrize("name", ["loss", "reconstruction_loss", "distillation_loss", "diversity_loss"])
def test_gradients_of_the_quantizer_s_losses_are_exact_without_gumbel_noise(name):
    model = drawn(HEARQuantizerForPreTraining(HEARQuantizerConfig(**LAYERS, **DECODER)))
    batch = ragged_batch([noise(samples_of(15)), noise(samples_of(9))])
    assert gradients_are_exact(lambda teacher: model(*batch, teacher)[name], (randn(2, 15, 3),), model)


class Float64Spectrogram(HEARSpectrogram):
    """The front end without masks in float64, to which the real one never goes."""

    def __init__(self, config: HEARConfig):
        super().__init__(config)
        for name, table in self.tables().items():
            setattr(self, name, table.double())

    def forward(self, input_values, attention_mask=None):
        return *self.log_spectra(HEARClips.from_batch(input_values, None)), None


def in_float64(model: HEARForAudioClassification) -> HEARForAudioClassification:
    """A copy that computes everything in float64."""
    model = copy.deepcopy(model).double()
    model.hear.spectrogram = Float64Spectrogram(model.config)
    return model


def test_gradients_of_the_waveform_are_exact_where_the_front_end_computes_in_float64():
    model = in_float64(drawn(HEARForAudioClassification(TINY)))
    waveform = torch.stack([noise(samples_of(15), seed) for seed in (1, 2)]).double().requires_grad_()
    assert gradients_are_exact(lambda x: model(x).logits, (waveform,), model)


@pytest.mark.parametrize("sampling_rate", [16_000, 32_000])
def test_logits_and_waveform_gradients_in_float32_are_those_in_float64(sampling_rate):
    single, found = small_model(sampling_rate=sampling_rate, n_fft=1024 * sampling_rate // 16_000), []
    for model, dtype in ((single, torch.float32), (in_float64(single), torch.float64)):
        waveform = noise(40_000)[None].to(dtype).requires_grad_()
        logits = model(waveform).logits
        found.append((logits.double(), torch.autograd.grad(logits[0, 3], waveform)[0].double()))
    for single, double in zip(*found, strict=True):
        assert (single - double).abs().max() < 1e-4 * double.abs().max()


def test_parameter_gradients_in_float32_are_those_in_float64(model):
    batch, found = ragged_batch([noise(12_000, 1), noise(40_000, 2)]), []
    for each in (model, copy.deepcopy(model).double()):
        each(*batch, labels=torch.tensor([1, 2])).loss.backward()
        found.append([parameter.grad.double() for parameter in each.parameters()])
    largest = max(gradient.abs().max() for gradient in found[1])
    assert all((single - double).abs().max() < 1e-5 * largest for single, double in zip(*found, strict=True))


NUM_FRAMES = [37, 12, 62]  # windows hold 30


def classification() -> tuple[nn.Module, dict]:
    waveform, mask = ragged_batch([noise(samples_of(n), n) for n in NUM_FRAMES])
    model = small_model(apply_spec_augment=True, mask_feature_prob=0.2)
    return model, {"input_values": waveform, "attention_mask": mask, "labels": torch.tensor([0, 3, 6])}


def masked_modelling() -> tuple[nn.Module, dict]:
    model, batch = golden_model(PRETRAINING.main, **SMALL, codebook_size=64), classification()[1]
    hidden = share_mask(frame_mask(torch.tensor(NUM_FRAMES), 62), 0.4)
    labels = torch.randint(64, hidden.shape)
    return model, batch | {"mask_time_indices": hidden, "labels": labels}


def distillation() -> tuple[nn.Module, dict]:
    model, batch = golden_model(TOKENIZER_TRAINING.main, **SMALL_QUANTIZER), classification()[1]
    del batch["labels"]
    return model, batch | {"teacher_hidden_states": torch.randn(3, 62, 24)}


def trained(prepare, num_steps: int = 3) -> dict[str, torch.Tensor]:
    """Weights, optimizer states and losses after a few steps with dropout, from a seed."""
    torch.manual_seed(5)
    model, batch = prepare()
    model.train()
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for _ in range(num_steps):
        loss = model(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    moments = {f"moment.{i}": state["exp_avg_sq"] for i, state in optimizer.state_dict()["state"].items()}
    return model.state_dict() | moments | {"losses": torch.stack(losses)}


@pytest.fixture(params=[False, True], ids=["as is", "deterministic algorithms"])
def deterministic_algorithms(request):
    torch.use_deterministic_algorithms(request.param)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("prepare", [classification, masked_modelling, distillation], ids=lambda f: f.__name__)
def test_a_training_repeats_itself_to_the_bit(deterministic_algorithms, prepare, threads):
    with agreement.num_threads(threads):
        first, second = trained(prepare), trained(prepare)
    assert len(first["losses"].unique()) == len(first["losses"])  # it does train
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_another_seed_trains_otherwise_so_that_the_last_test_can_fail(monkeypatch):
    first = trained(classification)
    monkeypatch.setattr(torch, "manual_seed", lambda _: None)
    assert not torch.equal(first["losses"], trained(classification)["losses"])


CLIPS = [noise(samples_of(n), n) for n in (2, 20, 70, 170)]  # one window, several, two segments
PUBLISHED = [noise(round(16_000 * seconds), i) for i, seconds in enumerate((0.5, 3, 7, 12, 31))]
EAGER = [variation for variation in agreement.VARIATIONS if not variation.name.startswith("compiled")]
COMPILED = [variation for variation in agreement.VARIATIONS if variation not in EAGER]


def each(*variations: agreement.Variation):
    return pytest.mark.parametrize("variation", variations, ids=lambda variation: variation.name)


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@each(*EAGER)
def test_logits_of_a_small_model_agree(model, variation):
    assert agreement.largest_difference(variation, model, CLIPS) <= variation.bound


@pytest.mark.slow
@each(*COMPILED)
def test_logits_of_a_compiled_small_model_agree(model, variation, fresh_compiler):
    assert agreement.largest_difference(variation, model, CLIPS) <= variation.bound


@pytest.mark.slow
@each(*EAGER)
def test_logits_of_the_published_size_agree(full_model, variation):
    assert agreement.largest_difference(variation, full_model, PUBLISHED) <= variation.bound


def test_the_threads_are_restored(model):
    before = torch.get_num_threads()
    for variation in agreement.VARIATIONS[:5]:
        agreement.largest_difference(variation, model, CLIPS[:2])
    assert torch.get_num_threads() == before


def test_the_table_has_a_row_for_each_variation(monkeypatch, capsys):
    monkeypatch.setattr(agreement, "random_model", lambda **_: small_model())
    monkeypatch.setattr(agreement, "VARIATIONS", agreement.VARIATIONS[:2])
    agreement.main(["--seconds", "0.1", "0.7"])
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 4 and table[2] == "| the same call again | 0 | 0 |"


class Hoarder(nn.Module):
    """Keeps copies of the clips that it has classified."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.kept = model, []

    def forward(self, **inputs):
        self.kept.append(inputs["input_values"].repeat(8, 1))
        return self.model(**inputs)


def test_a_soak_notices_a_model_that_keeps_its_clips(model):
    hoarder = Hoarder(model)
    samples = list(soak.soak(hoarder, 30))
    assert samples[-1][0] == 30 and sum(len(clips) for clips in hoarder.kept) == 8 * 30
    assert soak.growth(samples, warm_up=5) > 40


def test_growth_is_that_after_the_warm_up_whatever_single_batches_leave():
    samples = [(n, 100.0 + min(n, 50) + 30 * (n % 10 == 0)) for n in range(1, 201)]
    assert soak.growth(samples, warm_up=50) == 0 and soak.growth(samples, warm_up=0) > 20


def test_a_soak_that_warms_up_to_its_end_is_refused(capsys):
    with pytest.raises(SystemExit):
        soak.main(["--num_clips", "100"])
    assert "--warm_up must be below --num_clips, found: 1000 and 100" in capsys.readouterr().err


def test_a_float32_pass_leaves_no_kernel_behind_in_onednn(model, capfd):
    """It would keep one for each shape, which fragments the heap of a process that reads clips of many lengths."""
    with torch.no_grad(), torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        model(*ragged_batch([noise(20_000), noise(9_000, seed=1)]))
    assert "onednn_verbose" not in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_1500_clips_of_random_lengths_leave_the_memory_flat():
    command = [sys.executable, soak.__file__, "--num_clips", "1500", "--warm_up", "300", "--limit_mib", "16"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
