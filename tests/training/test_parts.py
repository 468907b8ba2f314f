"""Evaluation in parts, against the whole batch padded to its longest clip."""

import numpy as np
import torch

from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.training import parts
from hear_hf.training.classification import FineTuningArguments, ModelArguments, build_trainer
from hear_hf.training.parts import in_parts
from helpers import noise, ragged_batch, small_model, write_tone

CLIPS = [noise(length, seed) for seed, length in enumerate((4_000, 30_000, 3_000, 9_000, 30_000, 8_000))]
TINY = "hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=24,task_hidden_size=16"


@torch.no_grad()
def test_a_clip_gets_in_its_part_what_it_gets_in_the_whole_batch_and_no_part_is_large(monkeypatch):
    monkeypatch.setattr(parts, "MAX_SAMPLES", 20_000)
    model, shapes = small_model(), []

    def logits(**inputs):
        shapes.append(tuple(inputs["input_values"].shape))
        return model(**inputs).logits

    torch.testing.assert_close(in_parts(logits, CLIPS), model(*ragged_batch(CLIPS)).logits, rtol=0, atol=1e-5)
    assert shapes == [(1, 30_000), (1, 30_000), (2, 9_000), (2, 4_000)]


def test_evaluation_and_the_head_alone_read_long_clips_in_parts_and_find_the_same(tmp_path, monkeypatch):
    for label, frequency in (("low", 200), ("high", 3_000)):
        for i in range(6):
            write_tone(tmp_path / label / f"{i}.wav", frequency, 0.1 + 0.2 * i, seed=i)
    dataset = load_labelled_audio(DataArguments(data_dir=str(tmp_path), validation_share=0.5))
    settings = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "head_epochs": 1}
    trainer = build_trainer(
        dataset, FineTuningArguments(str(tmp_path / "run"), **settings), ModelArguments(config_overrides=TINY)
    )

    def findings():
        sizes.clear()
        torch.manual_seed(0)  # of the new head
        trainer.train_head()
        return trainer.predict(trainer.eval_dataset)

    sizes = []
    record = lambda _, args, inputs: sizes.append(inputs["attention_mask"].shape)  # noqa: E731
    trainer.model.hear.register_forward_pre_hook(record, with_kwargs=True)
    whole = findings()
    assert len(sizes) == 2
    monkeypatch.setattr(parts, "MAX_SAMPLES", 10_000)
    in_pieces = findings()
    np.testing.assert_allclose(in_pieces.predictions, whole.predictions, atol=1e-4)
    np.testing.assert_array_equal(in_pieces.label_ids, whole.label_ids)
    assert abs(in_pieces.metrics["test_loss"] - whole.metrics["test_loss"]) < 1e-5
    assert len(sizes) > 8 and all(rows * samples <= 10_000 or rows == 1 for rows, samples in sizes)
