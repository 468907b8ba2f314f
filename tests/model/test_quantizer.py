"""The quantizer and its training by distillation: batches, long clips, losses, temperature, codes, saving."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForAudioTokenization, AutoModelForPreTraining

from golden import SMALL_QUANTIZER, golden_model
from hear_hf import HEARFeatureExtractor, HEARQuantizer, HEARQuantizerConfig, HEARQuantizerForPreTraining
from hear_hf.modeling_hear_quantizer import code_statistics, count_codes
from helpers import noise, ragged_batch
from original_layout import TOKENIZER_TRAINING

LENGTHS = (201, 1600, 5000, 9600, 16_001, 40_000)  # windows hold 9600 samples
LOSSES = ("reconstruction_loss", "distillation_loss", "diversity_loss")


def small_pretraining(**changes) -> HEARQuantizerForPreTraining:
    return golden_model(TOKENIZER_TRAINING.main, **SMALL_QUANTIZER | changes)


@pytest.fixture
def pretraining():
    return small_pretraining()


@pytest.fixture
def quantizer(pretraining):
    return pretraining.quantizer


def teacher_states(num_clips: int, num_frames: int) -> torch.Tensor:
    return torch.randn(num_clips, num_frames, 24, generator=torch.Generator().manual_seed(7))


def ragged_inputs(model, clips, fill="noise", **options):
    """A padded batch with teacher states, which in padding are `nan`."""
    waveform, mask = ragged_batch(clips, fill=fill, **options)
    with torch.no_grad():
        valid = model.quantizer(waveform, mask).frame_mask
    teacher = teacher_states(*valid.shape).masked_fill(~valid.unsqueeze(-1), torch.nan)
    return {"input_values": waveform, "attention_mask": mask, "teacher_hidden_states": teacher}, valid


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("fill", ["noise", float("nan")])
@torch.no_grad()
def test_a_clip_has_the_same_logits_and_codes_alone_and_in_any_batch(quantizer, side, fill):
    clips = [noise(length, length) for length in LENGTHS]
    batch = quantizer(*ragged_batch(clips, side=side, fill=fill))
    for row, clip in enumerate(clips):
        alone = quantizer(clip[None])
        num_frames = alone.codes.shape[1]
        assert batch.frame_mask[row].sum() == num_frames
        torch.testing.assert_close(batch.logits[row, :num_frames], alone.logits[0], rtol=0, atol=1e-5)
        assert torch.equal(batch.codes[row, :num_frames], alone.codes[0])


def test_codes_are_the_highest_scored_and_minus_100_in_padding(quantizer):
    outputs = quantizer(*ragged_batch([noise(3000), noise(40_000)]))
    assert not outputs.frame_mask.all()
    assert torch.equal(outputs.codes == -100, ~outputs.frame_mask)
    best = outputs.logits.argmax(-1)
    assert torch.equal(outputs.codes[outputs.frame_mask], best[outputs.frame_mask])
    assert len(best[outputs.frame_mask].unique()) > 10  # so that equal codes mean something


@pytest.mark.parametrize("fill", ["noise", float("nan")])
def test_what_padding_holds_changes_neither_losses_nor_gradients(pretraining, fill):
    inputs, valid = ragged_inputs(pretraining, [noise(5000, 1), noise(33_000, 2), noise(12_000, 3)], fill)
    quiet = inputs | {
        "input_values": inputs["input_values"].masked_fill(inputs["attention_mask"] == 0, 0.0),
        "teacher_hidden_states": inputs["teacher_hidden_states"].nan_to_num(3.0),
    }
    found, expected = gradients(pretraining, inputs), gradients(pretraining, quiet)
    assert not valid.all() and all(torch.isfinite(tensor).all() for tensor in found.values())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def gradients(model, inputs) -> dict[str, torch.Tensor]:
    """The losses, and the gradient of each parameter. The Gumbel noise is the same in each call."""
    model.zero_grad()
    torch.manual_seed(5)
    outputs = model.train()(**inputs)
    outputs.loss.backward()
    learned = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {name: outputs[name].detach() for name in LOSSES} | learned


@torch.no_grad()
def test_losses_are_means_over_the_valid_frames_of_the_batch(pretraining):
    clips = [noise(5000, 1), noise(33_000, 2)]
    inputs, valid = ragged_inputs(pretraining, clips)
    batch, num_frames = pretraining(**inputs), valid.sum(1)
    alone = [
        pretraining(clip[None], teacher_hidden_states=inputs["teacher_hidden_states"][row : row + 1, :count])
        for row, (clip, count) in enumerate(zip(clips, num_frames, strict=True))
    ]
    for name in LOSSES[:2]:
        means = torch.stack([outputs[name] for outputs in alone])
        assert abs(means[0] - means[1]) > 1e-3  # so that another weighting would differ
        expected = (means * num_frames).sum() / num_frames.sum()
        torch.testing.assert_close(batch[name], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_samples", [8000, 40_000], ids=["one window", "several windows"])
@torch.no_grad()
def test_the_losses_are_those_of_the_paper(pretraining, num_samples):
    waveform = torch.stack([noise(num_samples, 1), noise(num_samples, 2)])
    num_frames = pretraining._get_feat_extract_output_lengths(num_samples)
    teacher = teacher_states(2, num_frames)
    outputs = pretraining(waveform, teacher_hidden_states=teacher)
    log_mel, _ = pretraining.quantizer.spectrogram(waveform)
    expected_mel = log_mel[:, : 2 * num_frames]
    assert torch.equal(outputs.log_mel, expected_mel) and outputs.reconstruction.shape == expected_mel.shape
    torch.testing.assert_close(outputs.reconstruction_loss, (outputs.reconstruction - expected_mel).square().mean())

    vectors = pretraining.vector_quantizer.projection(pretraining.vector_quantizer.codebook[outputs.codes])
    _, prediction = pretraining.decoder(vectors, outputs.frame_mask)
    cosines = torch.nn.functional.normalize(prediction, dim=-1) * torch.nn.functional.normalize(teacher, dim=-1)
    torch.testing.assert_close(outputs.distillation_loss, 1 - cosines.sum(-1).mean())

    shares = outputs.logits.softmax(-1).mean((0, 1))
    torch.testing.assert_close(outputs.diversity_loss, (shares - 1 / 64).square().sum())
    weighted = [0.3 * outputs.reconstruction_loss, 0.7 * outputs.distillation_loss, 0.1 * outputs.diversity_loss]
    torch.testing.assert_close(outputs.loss, sum(weighted))


@torch.no_grad()
def test_the_weights_of_the_losses_are_those_of_the_configuration():
    weights = {f"{name}_weight": weight for name, weight in zip(LOSSES, (2, 0.0, 5.0), strict=True)}
    outputs = small_pretraining(**weights)(noise(8000)[None], teacher_hidden_states=teacher_states(1, 25))
    torch.testing.assert_close(outputs.loss, 2 * outputs.reconstruction_loss + 5 * outputs.diversity_loss)


@pytest.mark.parametrize("teacher_hidden_size", [24, None])
def test_without_teacher_states_reconstruction_and_diversity_alone_are_learned(teacher_hidden_size):
    config = HEARQuantizerConfig(**SMALL_QUANTIZER | {"teacher_hidden_size": teacher_hidden_size})
    model = HEARQuantizerForPreTraining(config).train()
    outputs = model(noise(8000)[None])
    outputs.loss.backward()
    assert outputs.distillation_loss is None
    torch.testing.assert_close(outputs.loss, 0.3 * outputs.reconstruction_loss + 0.1 * outputs.diversity_loss)
    untouched = {name for name, p in model.named_parameters() if p.grad is None}
    head = {"decoder.teacher_head.weight", "decoder.teacher_head.bias"}
    assert untouched == (head if teacher_hidden_size else set())


@torch.no_grad()
def test_an_odd_last_frame_of_the_spectrogram_is_neither_encoded_nor_scored(pretraining):
    log_mel = torch.randn(1, 41, 128)
    assert pretraining.quantizer.quantize(log_mel, None).codes.shape == (1, 20)
    outputs = pretraining(noise(9000)[None])  # 57 frames
    assert outputs.codes.shape == (1, 28) and outputs.reconstruction.shape == outputs.log_mel.shape == (1, 56, 128)


@pytest.mark.parametrize("case", ["few codes", "equal shares", "one code", "all padding"])
def test_perplexity_and_usage_are_those_that_numpy_gives(case):
    codes = {
        "few codes": torch.randint(0, 9, (3, 40)) * 5,
        "equal shares": torch.arange(64).repeat(2, 1),
        "one code": torch.full((2, 5), 63),
        "all padding": torch.full((2, 5), -100),
    }[case].clone()
    codes[:, -3:] = -100
    if case == "equal shares":
        codes = torch.cat([codes, torch.tensor([[61, 62, 63], [61, 62, 63]])], dim=1)
    perplexity, usage = code_statistics(count_codes(codes, codebook_size=64))
    counts = np.bincount(codes[codes >= 0].numpy(), minlength=64)
    shares = counts[counts > 0] / max(1, counts.sum())
    assert perplexity.item() == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-5)
    assert usage.item() == pytest.approx((counts > 0).sum() / 64)


@torch.no_grad()
def test_the_statistics_of_a_batch_leave_its_padding_out(pretraining):
    outputs = pretraining(*ragged_batch([noise(5000), noise(33_000)]))
    codes = outputs.codes[outputs.frame_mask]
    assert outputs.code_usage == len(codes.unique()) / 64
    shares = codes.bincount() / len(codes)
    torch.testing.assert_close(outputs.code_perplexity, torch.special.entr(shares).sum().exp())
    probs = outputs.logits.softmax(-1)[outputs.frame_mask].mean(0)
    torch.testing.assert_close(outputs.diversity_loss, (probs - 1 / 64).square().sum())


def test_training_draws_codes_by_their_probabilities_and_evaluation_takes_the_best(pretraining):
    vector_quantizer, logits = pretraining.vector_quantizer, torch.tensor([2.0, 1.0, 0.0, -40.0]).log_softmax(-1)
    logits = torch.cat([logits, torch.full((60,), -40.0)])[None, None]
    rows = vector_quantizer.projection(vector_quantizer.codebook)
    torch.testing.assert_close(vector_quantizer.eval()(logits)[0, 0], rows[0])
    drawn = vector_quantizer.train()(logits.expand(1, 20_000, -1))[0]
    distance, code = torch.cdist(drawn, rows[:4]).min(-1)
    assert distance.max() < 1e-2  # a single row of the codebook, not a mixture
    shares = code.bincount(minlength=4) / len(code)
    torch.testing.assert_close(shares, logits[0, 0, :4].exp(), rtol=0, atol=0.02)


def test_the_gradient_passes_through_the_draw_to_the_encoder(pretraining):
    inputs = {"input_values": noise(20_000)[None], "teacher_hidden_states": teacher_states(1, 63)}
    pretraining.config.diversity_loss_weight = 0.0  # the other two reach the encoder by way of the codes alone
    found = gradients(pretraining, inputs)
    assert {name for name in found if "." in name} == {name for name, _ in pretraining.named_parameters()}
    assert all(gradient.isfinite().all() and gradient.count_nonzero() > 0 for gradient in found.values())


@pytest.mark.parametrize("num_updates", [0, 1, 1000, 100_000, 277_258, 277_260, 10**7])
def test_the_temperature_falls_exponentially_to_its_floor(pretraining, num_updates):
    pretraining.vector_quantizer.num_updates.fill_(num_updates)
    expected = max(0.5, 2.0 * 0.999995**num_updates)
    assert pretraining.vector_quantizer.temperature.item() == pytest.approx(expected, rel=1e-6)


def test_the_temperature_falls_by_one_step_a_call_and_not_by_itself():
    model = small_pretraining(gumbel_temperature_decay=0.9, gumbel_min_temperature=1.5).train()
    found = []
    for _ in range(5):
        found += [model(noise(3000)[None]).temperature.item() for _ in range(2)]
        model.anneal_temperature()
    expected = [max(1.5, 2.0 * 0.9**step) for step in range(5) for _ in range(2)]
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_temperature_is_saved_and_restored(pretraining, tmp_path, dtype):
    pretraining.vector_quantizer.num_updates.fill_(12_345)  # no number of bfloat16
    before = pretraining.vector_quantizer.temperature.clone()
    pretraining.to(dtype).save_pretrained(tmp_path)
    loaded = HEARQuantizerForPreTraining.from_pretrained(tmp_path, dtype=dtype)
    assert loaded.dtype == dtype and loaded.vector_quantizer.num_updates == 12_345
    assert torch.equal(loaded.vector_quantizer.temperature, before)


def test_a_lower_temperature_sharpens_the_gradient_s_distribution(pretraining):
    logits, steps = torch.randn(1, 200, 64), {}
    for num_updates in (0, 10**7):
        pretraining.vector_quantizer.num_updates.fill_(num_updates)
        scores = logits.clone().requires_grad_()
        torch.manual_seed(0)
        pretraining.train().vector_quantizer(scores).sum().backward()
        steps[num_updates] = (scores.grad.abs() / scores.grad.abs().sum(-1, keepdim=True)).amax(-1).mean()
    assert steps[10**7] > steps[0]


def assert_same_weights(model, other):
    weights, others = model.state_dict(), other.state_dict()
    assert weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("auto", [HEARQuantizerForPreTraining, AutoModelForPreTraining])
@torch.no_grad()
def test_a_model_in_training_survives_a_round_trip(pretraining, tmp_path, auto):
    pretraining.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded) is HEARQuantizerForPreTraining and not loaded.training
    assert_same_weights(loaded, pretraining)
    inputs = {"input_values": noise(20_000)[None], "teacher_hidden_states": teacher_states(1, 63)}
    assert torch.equal(loaded(**inputs).loss, pretraining(**inputs).loss)


@pytest.mark.parametrize("auto", [HEARQuantizer, AutoModel, AutoModelForAudioTokenization])
@pytest.mark.parametrize("saved", ["alone", "in training"])
@torch.no_grad()
def test_a_quantizer_loads_from_its_own_checkpoint_and_from_that_of_its_training(pretraining, tmp_path, auto, saved):
    (pretraining if saved == "in training" else pretraining.quantizer).save_pretrained(tmp_path)
    loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is HEARQuantizer
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same_weights(loaded, pretraining.quantizer)
    assert torch.equal(loaded(noise(20_000)[None]).logits, pretraining.quantizer(noise(20_000)[None]).logits)


def test_a_quantizer_s_checkpoint_loads_for_training_with_a_new_codebook_and_decoder(pretraining, tmp_path):
    pretraining.quantizer.save_pretrained(tmp_path)
    loaded, info = HEARQuantizerForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert_same_weights(loaded.quantizer, pretraining.quantizer)
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"decoder", "vector_quantizer"}
    assert abs(loaded.vector_quantizer.codebook.std() - 1) < 0.1 and loaded.vector_quantizer.num_updates == 0
    assert loaded(noise(9000)[None]).loss.isfinite()


def test_the_auto_classes_build_from_a_config_and_the_extractor_is_saved_beside(quantizer, tmp_path):
    assert type(AutoConfig.for_model("hear_quantizer")) is HEARQuantizerConfig
    assert type(AutoModel.from_config(quantizer.config)) is HEARQuantizer
    assert type(AutoModelForPreTraining.from_config(quantizer.config)) is HEARQuantizerForPreTraining
    quantizer.save_pretrained(tmp_path)
    HEARFeatureExtractor().save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert all((tmp_path / f"{target.split('.')[0]}.py").is_file() for target in auto_map.values())


def test_the_defaults_are_the_published_size():
    with torch.device("meta"):
        model = HEARQuantizerForPreTraining(HEARQuantizerConfig())
    assert sum(parameter.numel() for parameter in model.quantizer.parameters()) == 1_588_096
    assert model.vector_quantizer.codebook.shape == (1024, 32) and model.decoder.teacher_head.out_features == 768


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_autocast_runs_and_keeps_the_losses_in_float32(pretraining, training):
    inputs, _ = ragged_inputs(pretraining, [noise(5000), noise(33_000)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = pretraining.train(training)(**inputs)
    outputs.loss.backward()
    assert outputs.loss.dtype == outputs.diversity_loss.dtype == torch.float32 and outputs.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in pretraining.parameters() if p.grad is not None)


@torch.no_grad()
def test_a_bfloat16_model_runs_and_is_close(pretraining):
    inputs, valid = ragged_inputs(pretraining, [noise(5000), noise(33_000)])
    expected, found = pretraining(**inputs), pretraining.bfloat16()(**inputs)
    assert found.logits.dtype == torch.bfloat16 and found.log_mel.dtype == torch.float32
    assert abs(found.loss - expected.loss) < 0.05
    assert (found.codes == expected.codes)[valid].float().mean() > 0.9


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("num_samples", [8000, 40_000], ids=["one window", "several windows"])
def test_gradient_checkpointing_changes_neither_losses_nor_gradients(pretraining, num_samples):
    num_frames = pretraining._get_feat_extract_output_lengths(num_samples)
    inputs = {"input_values": noise(num_samples)[None], "teacher_hidden_states": teacher_states(1, num_frames)}
    expected = gradients(pretraining, inputs)
    pretraining.gradient_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(gradients(pretraining, inputs), expected)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"teacher_hidden_states": torch.zeros(1, 24, 24)}, r"shape \(1, 25, 24\), .*found: \(1, 24, 24\)"),
        ({"teacher_hidden_states": torch.zeros(1, 25, 23)}, r"shape \(1, 25, 24\), .*found: \(1, 25, 23\)"),
        ({"teacher_hidden_states": torch.zeros(25, 24)}, r"shape \(1, 25, 24\), .*found: \(25, 24\)"),
        ({"attention_mask": torch.ones(1, 25)}, "marks samples, not frames"),
        ({"input_values": torch.zeros(8000)}, "must have shape"),
        ({"input_values": torch.zeros(1, 200)}, "at least 201 samples"),
    ],
)
def test_inputs_of_another_shape_are_refused(pretraining, changes, message):
    with pytest.raises(ValueError, match=message):
        pretraining(**{"input_values": noise(8000)[None], "attention_mask": torch.ones(1, 8000)} | changes)


def test_teacher_states_for_a_model_without_a_teacher_are_refused():
    model = HEARQuantizerForPreTraining(HEARQuantizerConfig(**SMALL_QUANTIZER | {"teacher_hidden_size": None}))
    with pytest.raises(ValueError, match="`config.teacher_hidden_size` is their width, found: None"):
        model(noise(8000)[None], teacher_hidden_states=torch.zeros(1, 25, 24))


@torch.no_grad()
def test_hidden_states_and_attentions_are_returned_on_request(quantizer):
    outputs = quantizer(noise(8000)[None], output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in outputs.hidden_states] == 3 * [(1, 25, 32)]
    assert torch.equal(outputs.hidden_states[-1], outputs.last_hidden_state)
    assert [weights.shape for weights in outputs.attentions] == 2 * [(1, 4, 25, 25)]
    assert quantizer(noise(8000)[None]).hidden_states is None
    assert torch.equal(quantizer(noise(8000)[None], return_dict=False)[0], outputs.logits)
