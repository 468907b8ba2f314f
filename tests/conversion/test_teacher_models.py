"""The teachers' models beside what every model here promises: padding, precision, remote code, clear errors."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from hear_hf.evaluation.frozen_encoders import FrozenEncoder
from helpers import noise, ragged_batch
from teacher_models import (
    EfficientATConfig,
    EfficientATFeatureExtractor,
    EfficientATForAudioClassification,
    SpeechEmbeddingConfig,
    SpeechEmbeddingFeatureExtractor,
    SpeechEmbeddingModel,
)

EXTRACTORS = {"efficientat": EfficientATFeatureExtractor, "speech_embedding": SpeechEmbeddingFeatureExtractor}


def make(name):
    """A small random model, with batch norms that make something of zeros."""
    if name == "speech_embedding":
        return SpeechEmbeddingModel(SpeechEmbeddingConfig(conv_dim=[5, 6, 7, 9, 10], hidden_size=8)).eval()
    problem = {"num_labels": 5, "problem_type": "multi_label_classification"}
    model = EfficientATForAudioClassification(EfficientATConfig(width_mult=0.1, **problem)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(params=EXTRACTORS)
def name(request):
    return request.param


@pytest.fixture
def teacher(name):
    return make(name)


@pytest.fixture
def extractor(name):
    return EXTRACTORS[name]()


@pytest.fixture
def folder(teacher, extractor, tmp_path):
    teacher.save_pretrained(tmp_path / "teacher")
    extractor.save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


CLIPS = [noise(num_samples, seed) for seed, num_samples in enumerate([32_017, 500, 12_800, 21_003])]
CLIPS[3] *= 0.05
CLIPS[3][5_000:9_000] = 0  # silence, which a range of 80 dB limits
CLIPS[3][-5:] = 1  # the loudest, in no whole frame


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_clips_result_is_the_same_alone_and_in_a_padded_batch(teacher, side):
    """On either side of huge noise, to 1e-5 of the largest value."""
    waveform, mask = ragged_batch(CLIPS, side)
    batch = teacher(waveform, mask, output_hidden_states=True)
    for row, clip in enumerate(CLIPS):
        alone = teacher(clip[None])
        num_frames = alone.last_hidden_state.shape[1]
        assert batch.frame_mask[row].tolist() == [i < num_frames for i in range(batch.frame_mask.shape[1])]
        for key in {"logits", "pooler_output", "last_hidden_state"} & set(alone):
            found = batch[key][row, :num_frames] if key == "last_hidden_state" else batch[key][row]
            tolerance = 1e-5 * max(1, alone[key].abs().max().item())
            torch.testing.assert_close(found, alone[key][0], rtol=0, atol=tolerance)


@torch.no_grad()
def test_a_mask_of_ones_and_no_mask_are_the_same(teacher):
    clip = CLIPS[0][None]
    outputs = teacher(clip, torch.ones_like(clip, dtype=torch.long)), teacher(clip)
    assert torch.equal(outputs[0].last_hidden_state, outputs[1].last_hidden_state)
    assert outputs[0].frame_mask.all() and outputs[1].frame_mask.all()


@pytest.mark.parametrize("frame", [11, 12])
def test_frames_are_centred_where_the_configuration_says(teacher, frame):
    """In the middle of the samples that they depend on, to a few hops."""
    config = teacher.config
    with torch.no_grad():  # squeeze-and-excitation makes frames depend on the whole clip
        for name, parameter in teacher.named_parameters():
            parameter.mul_(0 if "excite.weight" in name else 1)
    clip = (0.1 * torch.randn(1, 24 * config.inputs_to_logits_ratio)).requires_grad_()
    teacher(clip).last_hidden_state[0, frame].square().sum().backward()
    samples = clip.grad[0].nonzero()
    assert 0 < samples.min() and samples.max() < clip.shape[1] - 1
    expected = config.first_frame_center + frame * config.inputs_to_logits_ratio
    assert abs((samples.min() + samples.max()) / 2 - expected) < 3 * config.hop_length


@torch.no_grad()
def test_hidden_states_are_frames_of_each_stage_and_last_the_output(teacher):
    outputs = teacher(CLIPS[0][None], output_hidden_states=True)
    assert torch.equal(outputs.hidden_states[-1], outputs.last_hidden_state)
    assert all(states.ndim == 3 for states in outputs.hidden_states) and len(outputs.hidden_states) > 5
    assert teacher(CLIPS[0][None]).hidden_states is None
    teacher.config.output_hidden_states = True
    assert len(teacher(CLIPS[0][None]).hidden_states) == len(outputs.hidden_states)


@torch.no_grad()
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-4), (torch.bfloat16, 0.1)])
def test_the_spectrogram_stays_float32_whatever_the_models_dtype(name, dtype, tolerance):
    teacher, other = make(name), make(name)
    other.load_state_dict(teacher.state_dict())
    other.to(dtype)
    spectrograms = [next(m for n, m in each.named_modules() if n.endswith("spectrogram")) for each in (teacher, other)]
    clip = CLIPS[0][None]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(spectrograms[0](clip)[0], spectrograms[1](clip)[0])
    expected, found = teacher(clip).pooler_output, other(clip).pooler_output
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=tolerance * expected.abs().max().item())


@torch.no_grad()
def test_silence_and_a_click_give_finite_outputs(teacher):
    clips = torch.zeros(2, 20_000)
    clips[1, 9_000] = 1.0
    outputs = teacher(clips)
    assert outputs.last_hidden_state.isfinite().all() and outputs.pooler_output.isfinite().all()


@torch.no_grad()
def test_channels_last_changes_nothing(teacher):
    expected = teacher(CLIPS[0][None]).pooler_output
    found = teacher.to(memory_format=torch.channels_last)(CLIPS[0][None]).pooler_output
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "inputs, words",
    [
        ((torch.zeros(1, 1, 16_000),), "must have shape"),
        ((torch.zeros(1, 100),), "at least 40[02] samples"),
        ((torch.zeros(1, 16_000), torch.ones(1, 50)), "marks samples, not frames"),
    ],
)
def test_the_model_refuses_other_shapes(teacher, inputs, words):
    with pytest.raises(ValueError, match=words):
        teacher(*inputs)


@pytest.mark.parametrize(
    "clip, error, words",
    [
        (np.zeros((2, 16_000, 2), np.float32), ValueError, "must be mono"),
        (np.zeros(100, np.float32), ValueError, "at least 40[02] samples"),
        (np.zeros(0, np.float32), ValueError, "at least 40[02] samples"),
        (np.full(16_000, np.nan, np.float32), ValueError, "found: 16000 NaN or infinite of 16000"),
        (np.zeros(16_000, np.int64), TypeError, "floats in .* found: int64"),
        ("clip.wav", ValueError, "must be mono"),
        ([np.zeros(16_000, np.float32), np.zeros((16_000, 2), np.float32)], ValueError, "Clip 1 must be mono"),
    ],
)
def test_the_feature_extractor_refuses_what_is_no_clip(extractor, clip, error, words):
    with pytest.raises(error, match=words):
        extractor(clip, sampling_rate=extractor.sampling_rate)


def test_the_feature_extractor_refuses_another_rate(extractor):
    with pytest.raises(ValueError, match="trained using a sampling rate"):
        extractor(np.zeros(16_000, np.float32), sampling_rate=44_100)


def test_the_feature_extractor_takes_arrays_tensors_lists_and_pcm_alike(extractor):
    clip = (noise(1_000) * 2**15).round().clamp(-(2**15), 2**15 - 1)
    pcm, floats = clip.numpy().astype(np.int16), clip.numpy().astype(np.float64) / 2**15
    kinds = [
        pcm,
        floats,
        torch.from_numpy(floats),
        floats.tolist(),
        [floats],
        [torch.from_numpy(floats)],
        floats[None],
    ]
    for kind in kinds:
        inputs = extractor(kind, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        assert inputs["input_values"].dtype == torch.float32 and inputs["attention_mask"].tolist() == [[1] * 1_000]
        torch.testing.assert_close(inputs["input_values"][0].double(), torch.from_numpy(floats))


def test_a_loaded_folder_saves_itself_again_with_its_code(folder, tmp_path):
    type(make_like(folder)).from_pretrained(folder).save_pretrained(tmp_path / "again")
    for path in folder.glob("model*.py"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def make_like(folder):
    return make(json.loads((folder / "config.json").read_text())["model_type"])


LOAD = """
    import sys
    import numpy as np, torch
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, pipeline
    folder, remote = sys.argv[1], {"trust_remote_code": True}
    extractor = AutoFeatureExtractor.from_pretrained(folder, **remote)
    model = AutoModel.from_pretrained(folder, **remote).eval()
    clip = np.load(sys.argv[2])
    inputs = extractor(clip, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    print(model(**inputs).pooler_output.tolist())
    if "AutoModelForAudioClassification" in AutoConfig.from_pretrained(folder, **remote).auto_map:
        classifier = AutoModelForAudioClassification.from_pretrained(folder, **remote).eval()
        scores = classifier(**inputs).logits[0].sigmoid()
        classify = pipeline("audio-classification", model=folder, **remote)
        results = classify(clip, top_k=1, function_to_apply="sigmoid")  # 5.4 does not ask the configuration
        assert results[0]["label"] == classifier.config.id2label[int(scores.argmax())]
        assert abs(results[0]["score"] - scores.max().item()) < 1e-6
    assert not [name for name in sys.modules if name.startswith(("hear_hf", "teacher_models"))]
"""


@torch.no_grad()
def test_the_auto_classes_and_the_pipeline_load_the_folder_where_this_package_is_absent(folder, tmp_path):
    np.save(tmp_path / "clip.npy", CLIPS[0].numpy())
    command = [sys.executable, "-c", textwrap.dedent(LOAD), folder, tmp_path / "clip.npy"]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = type(make_like(folder)).from_pretrained(folder).eval()(CLIPS[0][None]).pooler_output
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_frozen_encoder_gives_the_frames_of_any_layer(teacher, extractor):
    encoder = FrozenEncoder(teacher, extractor, device="cpu")
    clips = [CLIPS[0].numpy(), CLIPS[2].numpy()]
    for clip, layers in zip(clips, encoder.hidden_states(clips, encoder.sampling_rate, [2, -1]), strict=True):
        expected = teacher(torch.from_numpy(clip)[None], output_hidden_states=True).hidden_states
        torch.testing.assert_close(layers, [expected[2][0], expected[-1][0]], rtol=1e-5, atol=1e-5)
