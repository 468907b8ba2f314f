"""Muon among the optimizers, and bfloat16 on a CPU, in the arguments that all training commands share."""

import copy

import pytest
import torch

from hear_hf.training.classification import FineTuningArguments
from hear_hf.training.optimization import MuonAndAdamW, build_optimizer, inner_matrices
from hear_hf.training.pretraining import PretrainingArguments
from hear_hf.training.runs import RunArguments
from helpers import small_model

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch 2.9 brought Muon")


def train(model, optimizer, num_steps):
    for _ in range(num_steps):
        optimizer.zero_grad()
        sum(parameter.square().sum() for parameter in model.parameters()).backward()
        optimizer.step()


@needs_muon
def test_muon_gets_the_matrices_inside_and_adamw_the_rest(tmp_path):
    model = small_model()
    optimizer = build_optimizer(model, RunArguments(str(tmp_path), optim="muon", use_cpu=True))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {True: set(), False: set()}
    for group in optimizer.param_groups:
        found[group["use_muon"]] |= {names[id(parameter)] for parameter in group["params"]}
    assert found[True] == inner_matrices(model) and found[True] | found[False] == set(names.values())
    assert {name.rpartition(".")[2] for name in found[True]} == {"weight"}
    assert "hear.acoustic_model.layers.0.attention.q_proj.weight" in found[True]
    for part in ("relative_keys", "content_bias", "position_embeddings", "spectrum.weight", "classifier.out_proj"):
        assert any(part in name for name in found[False]) and not any(part in name for name in found[True])


@needs_muon
def test_muon_moves_every_parameter_as_the_two_optimizers_do_alone(tmp_path):
    ours, theirs = small_model(), small_model()
    args = RunArguments(str(tmp_path), optim="muon", learning_rate=1e-2, weight_decay=0.1, use_cpu=True)
    train(ours, build_optimizer(ours, args), 2)
    inner = inner_matrices(theirs)
    parameters = dict(theirs.named_parameters())
    muon = torch.optim.Muon(
        [parameters[name] for name in inner], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    train(theirs, muon, 2)
    for name in inner:
        torch.testing.assert_close(ours.get_parameter(name), parameters[name])


@needs_muon
def test_muon_goes_on_from_its_saved_state(tmp_path):
    whole, resumed = small_model(), small_model()
    args = RunArguments(str(tmp_path), optim="muon", learning_rate=1e-2, use_cpu=True)
    first = build_optimizer(whole, args)
    train(whole, first, 2)
    resumed.load_state_dict(whole.state_dict())
    second = build_optimizer(resumed, args)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(whole, first, 2)
    train(resumed, second, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_pytorch_without_muon_is_told_so(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ValueError, match="must run on PyTorch 2.9 or later"):
        MuonAndAdamW([], {})


def test_other_optimizers_keep_their_names(tmp_path):
    assert RunArguments(str(tmp_path), optim="sgd", use_cpu=True).optim == "sgd"
    with pytest.raises(ValueError, match="is not a valid OptimizerNames"):
        RunArguments(str(tmp_path), optim="mun", use_cpu=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes the run")
@pytest.mark.parametrize("arguments", [FineTuningArguments, PretrainingArguments])
def test_bfloat16_on_a_cpu_needs_no_further_option(arguments, tmp_path):
    args = arguments(str(tmp_path), bf16=True, eval_strategy="no", save_strategy="no", load_best_model_at_end=False)
    assert args.bf16 and args.device.type == "cpu"
