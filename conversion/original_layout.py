"""What the checkpoint files of the original hold, key by key, and where it goes in `hear_hf`.

The original is https://github.com/HarunoriKawano/HEAR. Each table lists (original, ours) in the original's order; a
row that ends `.*` stands for a weight and a bias.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from hear_hf import (
    HEARForAudioClassification,
    HEARForPreTraining,
    HEARModel,
    HEARPreTrainedModel,
    HEARQuantizer,
    HEARQuantizerConfig,
    HEARQuantizerForPreTraining,
)

FEATURE_ENCODER = (("conv.*", "conv.*"),)
LAYERS = (
    ("layers.{layer}.layer_norm1.*", "layers.{layer}.attention_layer_norm.*"),
    ("layers.{layer}.self_attn.query_bias1", "layers.{layer}.attention.content_bias"),
    ("layers.{layer}.self_attn.query_bias2", "layers.{layer}.attention.position_bias"),
    ("layers.{layer}.self_attn.linear_q.*", "layers.{layer}.attention.q_proj.*"),
    ("layers.{layer}.self_attn.linear_k.*", "layers.{layer}.attention.k_proj.*"),
    ("layers.{layer}.self_attn.linear_v.*", "layers.{layer}.attention.v_proj.*"),
    ("layers.{layer}.self_attn.linear_out.*", "layers.{layer}.attention.out_proj.*"),
    (
        "layers.{layer}.self_attn.relative_position_k.positional_embedding.weight",
        "layers.{layer}.attention.relative_keys",
    ),
    (
        "layers.{layer}.self_attn.relative_position_v.positional_embedding.weight",
        "layers.{layer}.attention.relative_values",
    ),
    ("layers.{layer}.layer_norm2.*", "layers.{layer}.feed_forward_layer_norm.*"),
    ("layers.{layer}.ffn.layer_norm.*", "layers.{layer}.feed_forward.layer_norm.*"),
    ("layers.{layer}.ffn.intermediate_dense.*", "layers.{layer}.feed_forward.intermediate_dense.*"),
    ("layers.{layer}.ffn.output_dense.*", "layers.{layer}.feed_forward.output_dense.*"),
)
MIXTURE_TASK_MODEL_AND_HEAD = (
    ("spectrogram_mixture.gate_linear.*", "hear.spectrogram_mixture.gate.*"),
    ("spectrogram_mixture.spectrum_linear.*", "hear.spectrogram_mixture.spectrum.*"),
    ("spectrogram_mixture.layer_norm.*", "hear.spectrogram_mixture.layer_norm.*"),
    ("spectrogram_mixture.mixture.*", "hear.spectrogram_mixture.output.*"),
    ("task_model.pos_embed", "hear.task_model.position_embeddings"),
    ("task_model.transformer.self_attn.in_proj_weight", "hear.task_model.qkv_proj.weight"),
    ("task_model.transformer.self_attn.in_proj_bias", "hear.task_model.qkv_proj.bias"),
    ("task_model.transformer.self_attn.out_proj.*", "hear.task_model.out_proj.*"),
    ("task_model.transformer.linear1.*", "hear.task_model.intermediate_dense.*"),
    ("task_model.transformer.linear2.*", "hear.task_model.output_dense.*"),
    ("task_model.transformer.norm1.*", "hear.task_model.attention_layer_norm.*"),
    ("task_model.transformer.norm2.*", "hear.task_model.final_layer_norm.*"),
    ("decoder.linear.*", "classifier.dense.*"),
    ("decoder.batch_norm.*", "classifier.batch_norm.*"),
    ("decoder.batch_norm.running_mean", "classifier.batch_norm.running_mean"),
    ("decoder.batch_norm.running_var", "classifier.batch_norm.running_var"),
    ("decoder.batch_norm.num_batches_tracked", "classifier.batch_norm.num_batches_tracked"),
    ("decoder.out.*", "classifier.out_proj.*"),
)
DECODER_HEADS_AND_CODEBOOK = (
    ("decoder.out_layer.linear.*", "decoder.dense.*"),
    ("decoder.out_layer.layer_norm.*", "decoder.layer_norm.*"),
    ("decoder.out_layer.out_linear.*", "decoder.mel_head.*"),
    ("decoder.out_layer.out_linear2.*", "decoder.teacher_head.*"),
    ("vector_quantizer.code_book", "vector_quantizer.codebook"),
    ("vector_quantizer.linear.*", "vector_quantizer.projection.*"),
)
LEADING_AXIS = ("vector_quantizer.code_book",)  # of size 1, which ours lack

# The front end's fixed tables, by our names in `HEARSpectrogram.tables()`; we compute them and never store them.
FRONT_END = (
    ("preprocessor.spectrogram.window", "window"),
    ("preprocessor.mel_spectrogram.spectrogram.window", "mel_window"),
    ("preprocessor.mel_spectrogram.mel_scale.fb", "mel_filters"),
    ("preprocessor.resampler.kernel", "resampling_kernel"),
)
WINDOW = FRONT_END[0][0]

# Sizes: (field of the configuration, key that shows it, axis, size of that axis -> value)
CLASSIFIER_SIZES = (
    # Two frames of n_fft // 2 + 1 bins each, where n_fft is even.
    ("n_fft", "spectrogram_mixture.spectrum_linear.weight", 1, lambda num_bins: num_bins - 2),
    ("task_hidden_size", "task_model.pos_embed", 2, int),
    ("max_position_embeddings", "task_model.pos_embed", 1, int),
    ("task_intermediate_size", "task_model.transformer.linear1.weight", 0, int),
    ("classifier_proj_size", "decoder.linear.weight", 0, int),
    ("num_labels", "decoder.out.weight", 0, int),
)
DECODER_SIZES = (
    ("decoder_hidden_size", "decoder.layers.0.layer_norm1.weight", 0, int),
    ("decoder_num_attention_heads", "decoder.layers.0.self_attn.query_bias1", 0, int),
    ("decoder_intermediate_size", "decoder.layers.0.ffn.intermediate_dense.weight", 0, int),
    ("codebook_dim", "vector_quantizer.code_book", 2, int),
    ("teacher_hidden_size", "decoder.out_layer.out_linear2.weight", 0, int),
)


def encoder_sizes(prefix: str) -> tuple[tuple, ...]:
    """Lists the sizes that an acoustic model below `prefix` shows."""
    layer = f"{prefix}contextual_encoder.layers.0"
    return (
        ("hidden_size", f"{prefix}feature_extractor.conv.weight", 0, int),
        ("num_mel_bins", f"{prefix}feature_extractor.conv.weight", 1, int),
        ("num_attention_heads", f"{layer}.self_attn.query_bias1", 0, int),
        ("intermediate_size", f"{layer}.ffn.intermediate_dense.weight", 0, int),
        (
            "window_length",
            f"{layer}.self_attn.relative_position_k.positional_embedding.weight",
            0,
            lambda num_distances: num_distances // 2,
        ),
    )


@dataclass(frozen=True)
class Part:
    """Keys that go from one place to another.

    Args:
        keys (`tuple`): Table of (original, ours); rows with `{layer}` stand for every layer.
        theirs (`str`): Prefix of the original's keys.
        ours (`str`): Prefix of ours.
        num_layers (`str`): Field of the configuration that counts the layers.
    """

    keys: tuple[tuple[str, str], ...]
    theirs: str = ""
    ours: str = ""
    num_layers: str = "num_hidden_layers"

    @property
    def has_layers(self) -> bool:
        return any("{layer}" in theirs for theirs, _ in self.keys)

    def pairs(self, counts: Mapping[str, int]) -> list[tuple[str, str]]:
        return [(self.theirs + a, self.ours + b) for a, b in expand(self.keys, counts.get(self.num_layers, 1))]

    def count_layers(self, keys: Iterable[str]) -> int:
        """Counts the layers that the original's keys show, at least one."""
        layer = re.compile(re.escape(self.theirs) + r"layers\.([0-9]+)\.")
        return max(1, len({match.group(1) for match in map(layer.match, keys) if match}))


def encoder(theirs: str, ours: str = "acoustic_model.") -> tuple[Part, Part]:
    """Lays out an acoustic model, or a tokenizer's encoder."""
    return (
        Part(FEATURE_ENCODER, theirs + "feature_extractor.", ours + "feature_encoder."),
        Part(LAYERS, theirs + "contextual_encoder.", ours),
    )


@dataclass(frozen=True)
class Layout:
    """One of our models, and where it is in a file of the original.

    Args:
        architecture (`type`): Our class.
        parts (`tuple[Part, ...]`): Its tensors.
        sizes (`tuple`): Sizes that they show.
        assumed (`tuple`): Sizes that they do not show: field, sizes -> value, and what the report says of it.
        outputs (`tuple[str, ...]`): Its outputs that depend on these tensors alone.
        unsaved (`tuple[str, ...]`): State of ours that the original does not save.
        is_complete (`bool`): Whether these are all of its tensors. Otherwise the rest is newly initialised on loading.
        folder (`str`): The sub-folder of the conversion's folder that it is written to.
    """

    architecture: type[HEARPreTrainedModel]
    parts: tuple[Part, ...]
    sizes: tuple[tuple, ...]
    assumed: tuple[tuple[str, Callable[[dict], object], str], ...] = ()
    outputs: tuple[str, ...] = ("logits",)
    unsaved: tuple[str, ...] = ()
    is_complete: bool = True
    folder: str = ""

    def pairs(self, counts: Mapping[str, int]) -> list[tuple[str, str]]:
        """Lists all (original, ours) keys of a model of so many layers, in the original's order.

        Args:
            counts (`dict[str, int]`): Numbers of layers by their fields of the configuration.
        """
        return [pair for part in self.parts for pair in part.pairs(counts)]

    def count_layers(self, keys: Iterable[str]) -> dict[str, int]:
        return {part.num_layers: part.count_layers(keys) for part in self.parts if part.has_layers}


@dataclass(frozen=True)
class Kind:
    """One of the files that the original saves.

    Args:
        name (`str`): What it is.
        mark (`str`): First component of its keys that no other kind has.
        layouts (`tuple[Layout, ...]`): The models in it, in the original's order, the main one last.
        has_front_end (`bool`): Whether it stores the front end's tables.
    """

    name: str
    mark: str
    layouts: tuple[Layout, ...]
    has_front_end: bool = False

    @property
    def main(self) -> Layout:
        return self.layouts[-1]


def n_fft_at(sizes: dict) -> int:
    """Picks the resolution in Hz that 1024 gives at 16 kHz, or a finer one."""
    return 1024 << (-(-sizes["sampling_rate"] // 16_000) - 1).bit_length()


NO_TASK_MODEL = ("n_fft", n_fft_at, " and the task model's sizes, as the checkpoint lacks that model")
NO_DECODER = (
    "codebook_dim",
    lambda sizes: HEARQuantizerConfig.codebook_dim,
    " and the decoder's sizes, which only training needs, as the checkpoint lacks them",
)
TEMPERATURE = (
    "gumbel_temperature",
    lambda sizes: HEARQuantizerConfig.gumbel_temperature,
    ", from which it falls again (num_updates=0), as the original does not save how far it had fallen",
)
TASK_HEADS = (
    "task_num_attention_heads",
    lambda sizes: sizes["num_attention_heads"],
    ", as many as in the acoustic model, like the original",
)


def quantizer(theirs: str, **options) -> Layout:
    """Lays out the tokenizer below a prefix."""
    return Layout(
        architecture=HEARQuantizer,
        parts=(*encoder(f"{theirs}encoder."), Part((("linear.*", "code_head.*"),), theirs)),
        sizes=(*encoder_sizes(f"{theirs}encoder."), ("codebook_size", f"{theirs}linear.weight", 0, int)),
        assumed=(NO_DECODER,),
        **options,
    )


CLASSIFIER = Kind(
    name="whole classifier",
    mark="acoustic_model",
    layouts=(
        Layout(
            architecture=HEARForAudioClassification,
            parts=(*encoder("acoustic_model.", "hear.acoustic_model."), Part(MIXTURE_TASK_MODEL_AND_HEAD)),
            sizes=(*encoder_sizes("acoustic_model."), *CLASSIFIER_SIZES),
            assumed=(TASK_HEADS,),
        ),
    ),
    has_front_end=True,
)
ACOUSTIC = Kind(
    name="acoustic model alone",
    mark="contextual_encoder",
    layouts=(
        Layout(
            architecture=HEARModel,
            parts=encoder(""),
            sizes=encoder_sizes(""),
            assumed=(NO_TASK_MODEL,),
            outputs=("acoustic_hidden_states",),
            is_complete=False,
        ),
    ),
)
PRETRAINING = Kind(
    name="pretraining framework",
    mark="out_linear",
    layouts=(
        quantizer("tokenizer.", folder="quantizer"),
        Layout(
            architecture=HEARForPreTraining,
            parts=(*encoder("encoder.", "hear.acoustic_model."), Part((("out_linear.*", "code_head.*"),))),
            sizes=(*encoder_sizes("encoder."), ("codebook_size", "out_linear.weight", 0, int)),
            assumed=(NO_TASK_MODEL,),
        ),
    ),
    has_front_end=True,
)
TOKENIZER_TRAINING = Kind(
    name="tokenizer training framework",
    mark="vector_quantizer",
    layouts=(
        Layout(
            architecture=HEARQuantizerForPreTraining,
            parts=(
                *encoder("tokenizer.encoder.", "quantizer.acoustic_model."),
                Part((("linear.*", "code_head.*"),), "tokenizer.", "quantizer."),
                Part(LAYERS, "decoder.", "decoder.transformer.", "decoder_num_hidden_layers"),
                Part(DECODER_HEADS_AND_CODEBOOK),
            ),
            sizes=(
                *encoder_sizes("tokenizer.encoder."),
                ("codebook_size", "tokenizer.linear.weight", 0, int),
                *DECODER_SIZES,
            ),
            assumed=(TEMPERATURE,),
            outputs=("logits", "reconstruction"),
            unsaved=("vector_quantizer.num_updates",),
        ),
    ),
    has_front_end=True,
)
TOKENIZER = Kind(name="tokenizer alone", mark="linear", layouts=(quantizer(""),))

KINDS = (CLASSIFIER, PRETRAINING, TOKENIZER_TRAINING, TOKENIZER, ACOUSTIC)


def expand(table: tuple[tuple[str, str], ...], num_layers: int) -> list[tuple[str, str]]:
    """Repeats each run of rows with `{layer}` for every layer, and turns each `.*` into a weight and a bias."""
    pairs = []
    for is_layer, group in groupby(table, key=lambda row: "{layer}" in row[0]):
        rows = list(group)
        for layer in range(num_layers if is_layer else 1):
            pairs += [(theirs.format(layer=layer), ours.format(layer=layer)) for theirs, ours in rows]
    ends = {True: (".weight", ".bias"), False: ("",)}
    return [
        (theirs.removesuffix(".*") + end, ours.removesuffix(".*") + end)
        for theirs, ours in pairs
        for end in ends[theirs.endswith(".*")]
    ]


def recognise(keys: Iterable[str]) -> Kind:
    """Recognises by its keys which file of the original this is.

    Raises:
        `ValueError`: It is none of them.
    """
    parts = {key.partition(".")[0] for key in keys}
    for kind in KINDS:
        if kind.mark in parts:
            return kind
    raise ValueError(
        "The checkpoint must be one of the original's, whose keys start with one of "
        f"{', '.join(f'`{kind.mark}.`' for kind in KINDS)}; found keys that start with: "
        f"{', '.join(f'`{part}`' for part in sorted(parts)[:20])}."
    )


def kind_of(architecture: str | None) -> Kind:
    """Finds the file of the original for a model of ours, by the name of its class.

    Raises:
        `ValueError`: There is none for it.
    """
    kinds = {kind.main.architecture.__name__: kind for kind in KINDS}
    if architecture not in kinds:
        raise ValueError(f"The model must be one of {', '.join(kinds)}, found: {architecture}.")
    return kinds[architecture]
