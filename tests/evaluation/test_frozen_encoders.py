"""Frozen encoders: states of tiny random models of each family against their definition in time.

A clip alone is compared with the same clip in a batch, the number of frames with the duration, the time axis with a
tone that starts late, and classifiers with the bare models inside them.
"""

import json

import numpy as np
import pytest
import soxr
import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ASTModel,
    BertConfig,
    ClapAudioConfig,
    ClapAudioModel,
    ClapAudioModelWithProjection,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    EncodecConfig,
    EncodecFeatureExtractor,
    EncodecModel,
    HubertConfig,
    HubertModel,
    ViTConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
    WhisperModel,
)

from hear_hf import (
    HEARConfig,
    HEARFeatureExtractor,
    HEARForAudioClassification,
    HEARForPreTraining,
    HEARModel,
    HEARQuantizer,
    HEARQuantizerConfig,
)
from hear_hf.evaluation.frozen_encoders import FrozenEncoder, interpolate_frames
from helpers import SMALL

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40, "hidden_size": 32}
WAVEFORM = {
    **SIZES,
    "conv_dim": [16, 16],
    "conv_kernel": [10, 64],
    "conv_stride": [5, 64],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "hidden_dropout": 0.5,
}
QUANTIZER = {**SIZES, "window_length": 100, "codebook_size": 16, "codebook_dim": 8}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
# One band of frequency and a step of 20 ms, as SSAST's frame models are written.
FRAME_AST = ASTConfig(**SIZES, num_mel_bins=32, patch_size=32, frequency_stride=1, time_stride=2, max_length=230)
AST = ASTConfig(**SIZES, hidden_dropout_prob=0.5)
WHISPER = WhisperConfig(
    d_model=24, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, decoder_layers=1, vocab_size=20,
    decoder_attention_heads=2, decoder_ffn_dim=32, max_source_positions=100, dropout=0.5, pad_token_id=0,
    bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
)  # fmt: skip
# A quarter of the published size in each direction of the image, and as there cut into four pieces of time.
CLAP_SIZES = {
    "spec_size": 64, "num_mel_bins": 16, "patch_embeds_hidden_size": 16, "hidden_size": 32, "depths": [2, 2],
    "num_attention_heads": [2, 2], "hidden_dropout_prob": 0.5, "projection_dim": 8,
}  # fmt: skip
CLAP = ClapAudioConfig(**CLAP_SIZES)
FUSED_CLAP = ClapConfig(
    text_config={**SIZES, "vocab_size": 20},
    audio_config={**CLAP_SIZES, "enable_fusion": True, "fusion_num_hidden": 16},
)


def clap_features(truncation):
    return ClapFeatureExtractor(feature_size=16, max_length_s=2, truncation=truncation)


def waveform_features(mask):
    return Wav2Vec2FeatureExtractor(return_attention_mask=mask)


# name: model, feature extractor, frames a second (of the last layer)
FAMILIES = {
    "wav2vec2 group": (lambda: Wav2Vec2Model(Wav2Vec2Config(**WAVEFORM)), lambda: waveform_features(False), 50),
    "wav2vec2 layer": (
        lambda: Wav2Vec2Model(Wav2Vec2Config(**WAVEFORM, **LAYER_NORM)), lambda: waveform_features(True), 50
    ),
    "wav2vec2 adapter": (
        lambda: Wav2Vec2Model(Wav2Vec2Config(**WAVEFORM, **LAYER_NORM, add_adapter=True)),
        lambda: waveform_features(True), 50,
    ),
    "hubert": (lambda: HubertModel(HubertConfig(**WAVEFORM, **LAYER_NORM)), lambda: waveform_features(True), 50),
    "hubert batch norm": (
        lambda: HubertModel(HubertConfig(**WAVEFORM, **LAYER_NORM, conv_pos_batch_norm=True)),
        lambda: waveform_features(True), 50,
    ),
    "wavlm group": (lambda: WavLMModel(WavLMConfig(**WAVEFORM)), lambda: waveform_features(True), 50),
    "wavlm layer": (lambda: WavLMModel(WavLMConfig(**WAVEFORM, **LAYER_NORM)), lambda: waveform_features(True), 50),
    "data2vec": (
        lambda: Data2VecAudioModel(Data2VecAudioConfig(**WAVEFORM)), lambda: waveform_features(True), 50
    ),
    "hear": (lambda: HEARModel(HEARConfig(**SMALL)), HEARFeatureExtractor, 50),
    "hear quantizer": (lambda: HEARQuantizer(HEARQuantizerConfig(**QUANTIZER)), HEARFeatureExtractor, 50),
    "whisper": (lambda: WhisperModel(WHISPER), lambda: WhisperFeatureExtractor(chunk_length=2), 50),
    "ast": (lambda: ASTModel(AST), ASTFeatureExtractor, 10),
    "frame ast": (
        lambda: ASTModel(FRAME_AST), lambda: ASTFeatureExtractor(num_mel_bins=32, max_length=230), 50
    ),
    "clap": (lambda: ClapAudioModel(CLAP), lambda: clap_features("rand_trunc"), 16),
    "fused clap": (lambda: ClapModel(FUSED_CLAP), lambda: clap_features("fusion"), 16),
}  # fmt: skip


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A saved model of each family, made once."""
    made = {}

    def folder(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = tmp_path_factory.mktemp("model")
            save(made[name], *(make() for make in FAMILIES[name][:2]))
        return made[name]

    return folder


def save(folder, model, feature_extractor):
    # Weights large enough that a layer changes its input, and biases that padding would carry.
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    feature_extractor.save_pretrained(folder)
    return folder


class PassOn(torch.nn.Module):
    """In place of a stage of CLAP."""

    def forward(self, hidden_states, input_dimensions, *_):
        return hidden_states, hidden_states, (*input_dimensions, *input_dimensions)


def noise(seconds, rate=16_000, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate)).astype(np.float32)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_clip_alone_has_the_states_it_has_in_a_batch(folders, name):
    encoder = FrozenEncoder.from_pretrained(folders(name))
    clips = [noise(1.0, seed=1), noise(0.31, seed=2), noise(1.73, seed=3), noise(1.0, seed=4)]
    for clip, together in zip(clips, encoder(clips, 16_000), strict=True):
        alone = encoder([clip], 16_000)[0]
        assert alone.std() > 0.05
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_frames_follow_the_duration(folders, name):
    encoder, rate = FrozenEncoder.from_pretrained(folders(name)), FAMILIES[name][2]
    seconds = [0.5, 1.0, 1.9]
    for length, states in zip(seconds, encoder([noise(s) for s in seconds], 16_000), strict=True):
        assert abs(len(states) - rate * length) <= 1
        assert states.shape[1] == encoder.hidden_size and states.dtype == torch.float32


@pytest.mark.parametrize("name", ["ast", "frame ast", "whisper", "clap", "fused clap"])
def test_clips_longer_than_the_model_reads_are_joined_from_chunks(folders, name):
    encoder, rate = FrozenEncoder.from_pretrained(folders(name)), FAMILIES[name][2]
    chunk_seconds, seconds = (10.1, 12.0) if name == "ast" else (2.0, 4.3)
    clip = noise(seconds, encoder.sampling_rate)
    cut = int(chunk_seconds * encoder.sampling_rate)
    whole, first, rest = encoder([clip, clip[:cut], clip[cut:]], encoder.sampling_rate)
    assert len(whole) == round(rate * seconds)
    torch.testing.assert_close(whole, torch.cat([first, rest])[: len(whole)], atol=1e-4, rtol=0)


# Not the models with group norm, whose first layer is normalised over the whole clip.
@pytest.mark.parametrize("name", ["wav2vec2 layer", "data2vec", "hear", "whisper", "ast", "clap", "fused clap"])
@pytest.mark.parametrize("start", [0.6, 1.2])
@pytest.mark.parametrize("layer, factor", [(0, 2.5), (-1, 1.1)])  # attention carries it everywhere
def test_a_tone_changes_the_frames_from_its_start_on(folders, name, start, layer, factor):
    encoder = FrozenEncoder.from_pretrained(folders(name), layer=layer)
    clip, time = noise(1.8), np.arange(28_800) / 16_000
    tone = np.where(time >= start, np.sin(2 * np.pi * 1000 * time), 0).astype(np.float32)
    before, after = encoder([clip, clip + tone], 16_000)
    change = (after - before).norm(dim=1)
    position = (torch.arange(len(change)) + 0.5) / len(change) * 1.8
    assert change[position > start + 0.1].median() > factor * change[position < start - 0.1].median()
    if layer == 0 and name in ("ast", "clap", "fused clap"):
        assert change[position < start - 0.1].max() < 1e-4


@pytest.mark.parametrize("name", ["wav2vec2 layer", "hear", "ast", "clap"])
def test_a_clip_of_another_rate_is_resampled(folders, name):
    encoder = FrozenEncoder.from_pretrained(folders(name))
    clip = noise(1.0, 22_050)
    states = encoder([clip], 22_050)[0]
    torch.testing.assert_close(states, encoder([soxr.resample(clip, 22_050, encoder.sampling_rate)],
                                               encoder.sampling_rate)[0])  # fmt: skip
    assert len(states) == len(encoder([noise(1.0)], 16_000)[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_two_passes_are_equal_and_carry_no_gradient(folders, name):
    encoder = FrozenEncoder.from_pretrained(folders(name))
    first, second = (encoder([noise(0.5)], 16_000)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad and not first.is_inference()
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    student = torch.zeros_like(first, requires_grad=True)
    (student - first).square().mean().backward()
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("num_samples", [1, 150, 450])
def test_a_clip_however_short_has_a_frame(folders, name, num_samples):
    states = FrozenEncoder.from_pretrained(folders(name))([noise(1.0)[:num_samples]], 16_000)[0]
    assert 1 <= len(states) <= 5 and states.isfinite().all()


def test_no_clips_give_no_states(folders):
    assert FrozenEncoder.from_pretrained(folders("hear"))([], 16_000) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_each_layer_is_its_own_hidden_state(folders, name):
    encoder = FrozenEncoder.from_pretrained(folders(name), layer=1)
    layers = range(encoder.num_hidden_states)
    every = encoder.hidden_states([noise(0.5), noise(0.9)], 16_000, layers)[1]
    assert len({states.norm().item() for states in every}) == len(layers) >= 3
    torch.testing.assert_close(every[1], encoder([noise(0.9)], 16_000)[0], atol=1e-4, rtol=0)
    assert encoder.hidden_size == every[1].shape[1]
    twice = encoder.hidden_states([noise(0.9)], 16_000, [-1, layers[-1], -1])[0]
    assert all(torch.equal(states, twice[0]) for states in twice) and len(twice[0]) == len(every[-1])


def test_wav2vec2_states_are_those_of_transformers(folders):
    encoder = FrozenEncoder.from_pretrained(folders("wav2vec2 group"), layer=1)
    inputs = waveform_features(False)(noise(0.7), sampling_rate=16_000, return_tensors="pt")
    expected = Wav2Vec2Model.from_pretrained(folders("wav2vec2 group")).eval()(**inputs, output_hidden_states=True)
    torch.testing.assert_close(encoder([noise(0.7)], 16_000)[0], expected.hidden_states[1][0])


def test_ast_frames_are_its_output_patches_averaged_over_frequency(folders):
    model = ASTModel.from_pretrained(folders("ast")).eval()
    inputs = ASTFeatureExtractor()(noise(10.1), sampling_rate=16_000, return_tensors="pt")
    patches = model(**inputs).last_hidden_state[0, 2:].reshape(12, 101, -1)  # (frequency, time, D)
    torch.testing.assert_close(
        FrozenEncoder.from_pretrained(folders("ast"))([noise(10.1)], 16_000)[0], patches.mean(0)
    )


def test_clap_layers_are_put_together_as_its_output_is(folders):
    model = ClapAudioModel.from_pretrained(folders("clap"))
    model.audio_encoder.norm = torch.nn.Identity()  # then the last two hidden states are one
    model.audio_encoder.layers[-1] = PassOn()
    encoder = FrozenEncoder(model, clap_features("rand_trunc"))
    inner, last = encoder.hidden_states([noise(2.0, 48_000)], 48_000, [-2, -1])[0]
    assert len(inner) == 32 and inner.std() > 0.05
    torch.testing.assert_close(inner, last)


CLASSIFIERS = {
    "wav2vec2 layer": lambda: Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**WAVEFORM, **LAYER_NORM)),
    "ast": lambda: ASTForAudioClassification(AST),
    "hear": lambda: HEARForAudioClassification(HEARConfig(**SMALL)),
    "whisper": lambda: WhisperForAudioClassification(WHISPER),
    "clap": lambda: ClapAudioModelWithProjection(CLAP),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_checkpoint_with_a_head_gives_the_states_of_its_encoder(tmp_path, name):
    model, feature_extractor = CLASSIFIERS[name](), FAMILIES[name][1]()
    save(tmp_path, model, feature_extractor)
    loaded = FrozenEncoder.from_pretrained(tmp_path)
    held = getattr(model, "encoder", getattr(model, "audio_model", model.base_model))
    for parameter, own in zip(loaded.model.parameters(), held.parameters(), strict=True):
        torch.testing.assert_close(parameter, own.detach())


def test_a_model_at_hand_gives_the_states_of_its_checkpoint(folders):
    model = HEARModel.from_pretrained(folders("hear"))
    encoder = FrozenEncoder(model.train(), HEARFeatureExtractor())
    torch.testing.assert_close(
        encoder([noise(0.4)], 16_000)[0], FrozenEncoder.from_pretrained(folders("hear"))([noise(0.4)], 16_000)[0]
    )


@pytest.mark.parametrize("name", ["hear", "wav2vec2 layer", "whisper", "ast", "clap"])
def test_half_precision_gives_nearly_the_same_in_float32(folders, name):
    exact = FrozenEncoder.from_pretrained(folders(name), layer=1)([noise(0.5)], 16_000)[0]
    half = FrozenEncoder.from_pretrained(folders(name), layer=1, dtype=torch.bfloat16)([noise(0.5)], 16_000)[0]
    assert half.dtype == torch.float32 and 0 < (half - exact).abs().mean() < 0.1 * exact.abs().mean()


# Errors


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_out_of_range_is_named_with_the_range(folders, layer):
    with pytest.raises(ValueError, match=rf"into the 4 hidden states .* from -4 to 3, found: {layer}"):
        FrozenEncoder.from_pretrained(folders("hear"), layer=layer)


@pytest.mark.parametrize("config, processor", [(BertConfig(), {}), (ViTConfig(), {"image_processor_type": "ViT"})])
def test_a_text_or_vision_model_is_refused(tmp_path, config, processor):
    config.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(ValueError, match="must be an audio model saved with its feature extractor"):
        FrozenEncoder.from_pretrained(tmp_path)


def test_an_audio_model_without_hidden_states_is_refused(tmp_path):
    config = EncodecConfig(num_filters=2, hidden_size=8, codebook_size=8, codebook_dim=8, upsampling_ratios=[2, 2])
    EncodecModel(config).save_pretrained(tmp_path)
    EncodecFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must return `hidden_states`"):
        FrozenEncoder.from_pretrained(tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    save(tmp_path, HubertModel(HubertConfig(**WAVEFORM)), waveform_features(False))
    AST.save_pretrained(tmp_path)
    ASTFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must hold the weights of ASTModel, found"):
        FrozenEncoder.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "clip", [np.zeros((2, 800)), np.zeros(0), np.zeros(800, np.int16), np.full(800, np.nan)], ids=str
)
def test_a_clip_that_is_no_mono_waveform_is_refused(folders, clip):
    with pytest.raises(ValueError, match="Clip 1 must hold finite floats"):
        FrozenEncoder.from_pretrained(folders("hear"))([noise(0.1), clip], 16_000)


# Interpolation


def test_interpolation_keeps_a_line_where_it_was_in_time():
    line = torch.linspace(0.05, 0.95, 10)[:, None]  # the centres of ten frames of 0.1 s
    finer = interpolate_frames(line, 50)[:, 0]
    centres = (torch.arange(50) + 0.5) / 50
    torch.testing.assert_close(finer[3:-3], centres[3:-3])
    torch.testing.assert_close(interpolate_frames(line, 5)[:, 0], (torch.arange(5) + 0.5) / 5)


def test_interpolation_to_the_same_number_is_the_identity_and_one_frame_is_repeated():
    states = torch.randn(7, 3)
    assert torch.equal(interpolate_frames(states, 7), states)
    torch.testing.assert_close(interpolate_frames(states[:1], 4), states[:1].expand(4, 3))


@pytest.mark.parametrize("shape, num_frames", [((0, 3), 4), ((5, 3), 0), ((1, 5, 3), 4)])
def test_interpolation_of_or_to_nothing_is_an_error(shape, num_frames):
    with pytest.raises(ValueError, match="`states` must have shape"):
        interpolate_frames(torch.zeros(shape), num_frames)


def test_a_pretraining_checkpoint_of_hear_has_the_acoustic_models_states_alone(tmp_path):
    model = HEARForPreTraining(HEARConfig(**SMALL)).eval()
    model.save_pretrained(tmp_path)
    HEARFeatureExtractor().save_pretrained(tmp_path)
    encoder, clip = FrozenEncoder.from_pretrained(tmp_path, device="cpu"), noise(0.6)
    states = encoder([clip], 16_000)[0]
    assert encoder.num_hidden_states == 1 + model.config.num_hidden_layers
    torch.testing.assert_close(states, model(torch.tensor(clip)[None]).acoustic_hidden_states[0], rtol=0, atol=1e-5)
