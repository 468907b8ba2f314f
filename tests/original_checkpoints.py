"""State dicts in the original's layout: its keys in its order, with weights drawn from their names."""

from collections import OrderedDict
from pathlib import Path

import torch

from golden import drawn_tensor
from hear_hf import HEARConfig
from hear_hf.spectrogram_hear import HEARSpectrogram

# The sizes all differ, so that no two can be taken for one another.
TINY = {
    "hidden_size": 12,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "window_length": 10,
    "num_mel_bins": 16,
    "n_fft": 512,
    "task_hidden_size": 18,
    "task_intermediate_size": 22,
    "max_position_embeddings": 40,
    "classifier_proj_size": 14,
    "num_labels": 5,
    "sampling_rate": 16_000,
}
TINY_CONFIG = HEARConfig(**TINY, window_overlap=3, task_num_attention_heads=3)


def affine(name: str, *shape: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{name}.weight", shape), (f"{name}.bias", shape[:1])]


def acoustic_shapes(config: HEARConfig) -> list[tuple[str, tuple[int, ...]]]:
    width, wide, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    distances = (2 * config.window_length, width // heads)
    layer = [
        *affine("layer_norm1", width),
        ("self_attn.query_bias1", (heads, width // heads)),
        ("self_attn.query_bias2", (heads, width // heads)),
        *affine("self_attn.linear_q", width, width),
        *affine("self_attn.linear_k", width, width),
        *affine("self_attn.linear_v", width, width),
        *affine("self_attn.linear_out", width, width),
        ("self_attn.relative_position_k.positional_embedding.weight", distances),
        ("self_attn.relative_position_v.positional_embedding.weight", distances),
        *affine("layer_norm2", width),
        *affine("ffn.layer_norm", width),
        *affine("ffn.intermediate_dense", wide, width),
        *affine("ffn.output_dense", width, wide),
    ]
    numbered = [
        (f"contextual_encoder.layers.{i}.{key}", shape)
        for i in range(config.num_hidden_layers)
        for key, shape in layer
    ]
    return [*affine("feature_extractor.conv", width, config.num_mel_bins, 2), *numbered]


def head_shapes(config: HEARConfig) -> list[tuple[str, tuple[int, ...]]]:
    width, task, proj = config.hidden_size, config.task_hidden_size, config.classifier_proj_size
    return [
        *affine("spectrogram_mixture.gate_linear", width, width),
        *affine("spectrogram_mixture.spectrum_linear", width, 2 * (config.n_fft // 2 + 1)),
        *affine("spectrogram_mixture.layer_norm", width),
        *affine("spectrogram_mixture.mixture", task, 2 * width),
        ("task_model.pos_embed", (1, config.max_position_embeddings, task)),
        ("task_model.transformer.self_attn.in_proj_weight", (3 * task, task)),
        ("task_model.transformer.self_attn.in_proj_bias", (3 * task,)),
        *affine("task_model.transformer.self_attn.out_proj", task, task),
        *affine("task_model.transformer.linear1", config.task_intermediate_size, task),
        *affine("task_model.transformer.linear2", task, config.task_intermediate_size),
        *affine("task_model.transformer.norm1", task),
        *affine("task_model.transformer.norm2", task),
        *affine("decoder.linear", proj, 3 * task),
        *affine("decoder.batch_norm", proj),
        ("decoder.batch_norm.running_mean", (proj,)),
        ("decoder.batch_norm.running_var", (proj,)),
        ("decoder.batch_norm.num_batches_tracked", ()),
        *affine("decoder.out", config.num_labels, proj),
    ]


def drawn(prefix: str, shapes: list[tuple[str, tuple[int, ...]]]) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((prefix + key, drawn_tensor(prefix + key, shape)) for key, shape in shapes)


def front_end_tables(config: HEARConfig) -> OrderedDict[str, torch.Tensor]:
    ours = HEARSpectrogram(config).tables()
    tables = OrderedDict()
    tables["preprocessor.spectrogram.window"] = ours["window"]
    tables["preprocessor.mel_spectrogram.spectrogram.window"] = ours["mel_window"]
    tables["preprocessor.mel_spectrogram.mel_scale.fb"] = ours["mel_filters"]
    if config.sampling_rate != 16_000:
        tables["preprocessor.resampler.kernel"] = ours["resampling_kernel"]
    return tables


def whole_classifier(config: HEARConfig = TINY_CONFIG) -> OrderedDict[str, torch.Tensor]:
    acoustic = drawn("acoustic_model.", acoustic_shapes(config))
    return OrderedDict(front_end_tables(config) | acoustic | drawn("", head_shapes(config)))


def acoustic_model(config: HEARConfig = TINY_CONFIG) -> OrderedDict[str, torch.Tensor]:
    return drawn("", acoustic_shapes(config))


def tokenizer(config: HEARConfig = TINY_CONFIG) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict(drawn("encoder.", acoustic_shapes(config)) | drawn("", affine("linear", 9, config.hidden_size)))


def pretraining_framework(config: HEARConfig = TINY_CONFIG) -> OrderedDict[str, torch.Tensor]:
    quantizer = OrderedDict((f"tokenizer.{key}", tensor) for key, tensor in tokenizer(config).items())
    encoder = drawn("encoder.", acoustic_shapes(config))
    head = drawn("", affine("out_linear", 9, config.hidden_size))
    return OrderedDict(front_end_tables(config) | quantizer | encoder | head)


def tokenizer_training_framework(config: HEARConfig = TINY_CONFIG) -> OrderedDict[str, torch.Tensor]:
    quantizer = OrderedDict((f"tokenizer.{key}", tensor) for key, tensor in tokenizer(config).items())
    decoder = drawn("decoder.", [(key[19:], shape) for key, shape in acoustic_shapes(config)[2:]])
    codebook = drawn("vector_quantizer.", [("code_book", (1, 9, 7)), *affine("linear", config.hidden_size, 7)])
    return OrderedDict(front_end_tables(config) | quantizer | decoder | codebook)


def saved(folder: Path, content, name: str = "tiny.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name
