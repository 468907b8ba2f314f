"""State dicts in the original's layout: its keys in its order, with weights drawn from their names."""

from collections import OrderedDict
from pathlib import Path

import torch

from golden import drawn_tensor
from hear_hf import HEARConfig, HEARQuantizerConfig
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
TINY_CONFIG = HEARConfig(**TINY, codebook_size=9, window_overlap=3, task_num_attention_heads=3)
TINY_QUANTIZER = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "window_length": 11,
    "num_mel_bins": 16,
    "codebook_size": 9,
    "sampling_rate": 16_000,
}
TINY_QUANTIZER_TRAINING = TINY_QUANTIZER | {
    "codebook_dim": 7,
    "decoder_hidden_size": 15,
    "decoder_num_attention_heads": 5,
    "decoder_intermediate_size": 26,
    "decoder_num_hidden_layers": 1,
    "teacher_hidden_size": 6,
}
TINY_QUANTIZER_CONFIG = HEARQuantizerConfig(**TINY_QUANTIZER_TRAINING, window_overlap=3)


def affine(name: str, *shape: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{name}.weight", shape), (f"{name}.bias", shape[:1])]


def layer_shapes(
    prefix: str, width: int, wide: int, heads: int, window_length: int, num_layers: int
) -> list[tuple[str, tuple[int, ...]]]:
    distances = (2 * window_length, width // heads)
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
    return [(f"{prefix}layers.{i}.{key}", shape) for i in range(num_layers) for key, shape in layer]


def acoustic_shapes(config: HEARConfig | HEARQuantizerConfig) -> list[tuple[str, tuple[int, ...]]]:
    return [
        *affine("feature_extractor.conv", config.hidden_size, config.num_mel_bins, 2),
        *layer_shapes(
            "contextual_encoder.",
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.window_length,
            config.num_hidden_layers,
        ),
    ]


def decoder_shapes(config: HEARQuantizerConfig) -> list[tuple[str, tuple[int, ...]]]:
    width = config.decoder_hidden_size
    return [
        *layer_shapes(
            "decoder.",
            width,
            config.decoder_intermediate_size,
            config.decoder_num_attention_heads,
            config.window_length,
            config.decoder_num_hidden_layers,
        ),
        *affine("decoder.out_layer.linear", width, width),
        *affine("decoder.out_layer.layer_norm", width),
        *affine("decoder.out_layer.out_linear", 2 * config.num_mel_bins, width),
        *affine("decoder.out_layer.out_linear2", config.teacher_hidden_size, width),
        ("vector_quantizer.code_book", (1, config.codebook_size, config.codebook_dim)),
        *affine("vector_quantizer.linear", width, config.codebook_dim),
    ]


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


def front_end_tables(sampling_rate: int, num_mel_bins: int) -> OrderedDict[str, torch.Tensor]:
    ours = HEARSpectrogram(HEARConfig(sampling_rate=sampling_rate, num_mel_bins=num_mel_bins, n_fft=2048)).tables()
    tables = OrderedDict()
    tables["preprocessor.spectrogram.window"] = ours["window"]
    tables["preprocessor.mel_spectrogram.spectrogram.window"] = ours["mel_window"]
    tables["preprocessor.mel_spectrogram.mel_scale.fb"] = ours["mel_filters"]
    if sampling_rate != 16_000:
        tables["preprocessor.resampler.kernel"] = ours["resampling_kernel"]
    return tables


def whole_classifier(config: HEARConfig = TINY_CONFIG) -> OrderedDict[str, torch.Tensor]:
    tables = front_end_tables(config.sampling_rate, config.num_mel_bins)
    acoustic = drawn("acoustic_model.", acoustic_shapes(config))
    return OrderedDict(tables | acoustic | drawn("", head_shapes(config)))


def acoustic_model(config: HEARConfig = TINY_CONFIG) -> OrderedDict[str, torch.Tensor]:
    return drawn("", acoustic_shapes(config))


def tokenizer(config: HEARQuantizerConfig = TINY_QUANTIZER_CONFIG, prefix: str = "") -> OrderedDict[str, torch.Tensor]:
    linear = affine("linear", config.codebook_size, config.hidden_size)
    return OrderedDict(drawn(f"{prefix}encoder.", acoustic_shapes(config)) | drawn(prefix, linear))


def pretraining_framework(
    config: HEARConfig = TINY_CONFIG, quantizer_config: HEARQuantizerConfig = TINY_QUANTIZER_CONFIG
) -> OrderedDict[str, torch.Tensor]:
    tables = front_end_tables(config.sampling_rate, config.num_mel_bins)
    head = affine("out_linear", config.codebook_size, config.hidden_size)
    encoder = drawn("encoder.", acoustic_shapes(config))
    return OrderedDict(tables | tokenizer(quantizer_config, "tokenizer.") | encoder | drawn("", head))


def tokenizer_training_framework(
    config: HEARQuantizerConfig = TINY_QUANTIZER_CONFIG,
) -> OrderedDict[str, torch.Tensor]:
    tables = front_end_tables(config.sampling_rate, config.num_mel_bins)
    return OrderedDict(tables | tokenizer(config, "tokenizer.") | drawn("", decoder_shapes(config)))


def saved(folder: Path, content, name: str = "tiny.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name
