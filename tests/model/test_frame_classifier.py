"""HEARForAudioFrameClassification: logits of frames and their pooling to clips, losses, and what it loads from."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from packaging.version import Version
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoModelForAudioFrameClassification

from hear_hf import HEARConfig, HEARForAudioFrameClassification
from hear_hf.frame_head_hear import pool_frame_logits
from helpers import SMALL, noise, ragged_batch, samples_of, small_model

STILL = dict.fromkeys(["hidden_dropout", "activation_dropout", "attention_dropout", "task_dropout"], 0.0)


def frame_model(**changes) -> HEARForAudioFrameClassification:
    """In eval mode, on the drawn weights of the small classifier."""
    model = HEARForAudioFrameClassification(HEARConfig(**SMALL | {"classifier_dropout": 0.0} | changes)).eval()
    model.hear.load_state_dict(small_model(**changes).hear.state_dict())
    torch.nn.init.normal_(model.frame_classifier.weight, std=0.3)
    return model


@pytest.fixture
def batch():
    return ragged_batch([noise(samples_of(20)), noise(samples_of(9), seed=1)])


@torch.no_grad()
def test_there_are_logits_of_each_frame_and_of_each_clip(batch):
    outputs = frame_model()(*batch)
    assert outputs.logits.shape == (2, 20, 7) and outputs.clip_logits.shape == (2, 7)
    assert outputs.frame_mask.sum(1).tolist() == [20, 9] and outputs.loss is None
    assert len(frame_model()(*batch, return_dict=False)) == 3


@pytest.mark.parametrize("num_frames", [20, 70, 320], ids=["one window", "several windows", "several segments"])
@torch.no_grad()
def test_a_clip_s_result_is_the_same_alone_and_in_a_batch(num_frames):
    model, clips = frame_model(), [noise(samples_of(num_frames)), noise(samples_of(9), seed=1)]
    together = model(*ragged_batch(clips))
    for row, clip in enumerate(clips):
        alone = model(clip[None])
        found = together.logits[row, : alone.logits.shape[1]]
        torch.testing.assert_close(found, alone.logits[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(together.clip_logits[row], alone.clip_logits[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("pooling", ["max", "mean", "linear_softmax"])
def test_the_clip_s_probability_is_pooled_from_those_of_its_valid_frames(pooling):
    logits = 3 * torch.randn(2, 6, 5, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    for row, length in enumerate((6, 4)):
        p = logits[row, :length].sigmoid()
        weights = {"max": None, "mean": torch.ones_like(p), "linear_softmax": p}[pooling]
        expected = p.amax(0) if weights is None else (weights * p).sum(0) / weights.sum(0)
        torch.testing.assert_close(pool_frame_logits(logits, mask, pooling)[row].sigmoid(), expected)


@pytest.mark.parametrize("pooling", ["max", "mean", "linear_softmax"])
def test_pooling_is_exact_and_has_gradients_where_frames_are_sure(pooling):
    logits = torch.full((1, 4, 2), -80.0).index_fill(2, torch.tensor([1]), 80.0).requires_grad_()
    pooled = pool_frame_logits(logits, torch.ones(1, 4, dtype=torch.bool), pooling)
    pooled.sum().backward()
    torch.testing.assert_close(pooled, torch.tensor([[-80.0, 80.0]]))
    assert logits.grad.isfinite().all()


def test_strong_labels_score_the_valid_frames_that_have_them(batch):
    model, labels = frame_model(), torch.randint(0, 2, (2, 20, 7))
    labels[0, 3:5] = labels[1, 2, 4] = -100
    outputs = model(*batch, labels=labels)
    scored = outputs.frame_mask[..., None] & (labels != -100)
    expected = binary_cross_entropy_with_logits(outputs.logits[scored], labels[scored].float())
    torch.testing.assert_close(outputs.loss, expected)
    labels[1, 9:] = 1 - labels[1, 9:]  # padding
    torch.testing.assert_close(model(*batch, labels=labels).loss, expected)


def test_weak_labels_score_the_clips(batch):
    model, labels = frame_model(frame_pooling="mean"), torch.randint(0, 2, (2, 7)).float()
    labels[0, 2] = -100
    outputs, scored = model(*batch, labels=labels), labels != -100
    expected = binary_cross_entropy_with_logits(outputs.clip_logits[scored], labels[scored])
    torch.testing.assert_close(outputs.loss, expected)
    outputs.loss.backward()
    assert model.frame_classifier.weight.grad.abs().max() > 0


def test_nothing_to_score_is_no_loss_and_no_nan(batch):
    loss = frame_model()(*batch, labels=torch.full((2, 20, 7), -100)).loss
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize("shape", [(2, 19, 7), (2, 20, 6), (2, 20), (1, 7)], ids=str)
def test_labels_of_another_shape_are_refused(batch, shape):
    with pytest.raises(ValueError, match=r"`labels` must have shape \(2, .*7\), .*found"):
        frame_model()(*batch, labels=torch.zeros(shape))


@pytest.mark.parametrize("source", ["classifier", "base"])
def test_it_loads_a_classifier_or_a_base_model_with_a_new_head_alone(tmp_path, source):
    model = small_model(problem_type="single_label_classification")
    (model if source == "classifier" else model.hear).save_pretrained(tmp_path)
    loaded, info = AutoModelForAudioFrameClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is HEARForAudioFrameClassification
    assert set(info["missing_keys"]) == {"frame_classifier.weight", "frame_classifier.bias"}
    assert not info["mismatched_keys"]
    assert loaded.config.problem_type == loaded.hear.config.problem_type == "multi_label_classification"
    torch.testing.assert_close(loaded.hear.task_model.out_proj.weight, model.hear.task_model.out_proj.weight)


@torch.no_grad()
def test_a_saved_model_comes_back(tmp_path, batch):
    model = frame_model(event_thresholds=[0.25] * 7, event_median_frames=5, frame_pooling="max")
    model.save_pretrained(tmp_path)
    loaded = AutoModelForAudioFrameClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(*batch).clip_logits, model(*batch).clip_logits)
    assert loaded.config.event_thresholds == [0.25] * 7 and loaded.config.event_median_frames == 5


def test_the_caller_s_configuration_stays_as_it_is():
    config = HEARConfig(**SMALL, problem_type="single_label_classification")
    HEARForAudioFrameClassification(config)
    assert config.problem_type == "single_label_classification"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"frame_pooling": "median"}, "`frame_pooling` must be one of max, mean, linear_softmax, found: 'median'"),
        ({"event_median_frames": 4}, "`event_median_frames` must be odd, found: 4"),
        ({"event_median_frames": -1}, "`event_median_frames` must be positive"),
        ({"event_thresholds": [0.5, 1.5]}, r"`event_thresholds` must be probabilities .* found: \[0.5, 1.5\]"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(StrictDataclassError, match=message):
        HEARConfig(**setting)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
def test_gradient_checkpointing_changes_no_gradient(batch):
    model, found = frame_model(**STILL).train(), []
    for _ in range(2):
        model.zero_grad()
        model(*batch, labels=torch.ones(2, 20, 7)).loss.backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
        model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(*found)


def test_parts_can_be_frozen(batch):
    model = frame_model()
    model.freeze_feature_encoder()
    assert not any(p.requires_grad for p in model.hear.acoustic_model.feature_encoder.parameters())
    model.freeze_base_model()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == ["frame_classifier.weight", "frame_classifier.bias"]


@pytest.mark.skipif(Version(torch.__version__) < Version("2.13"), reason="older compilers break the graph")
def test_one_graph_holds_a_training_step(batch):
    model, found = frame_model(num_hidden_layers=1, **STILL).train(), []
    for forward in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        forward(*batch, labels=torch.ones(2, 20, 7)).loss.backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)
