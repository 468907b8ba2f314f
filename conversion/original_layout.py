"""What the original's checkpoint files hold, key by key, and where it goes in `hear_hf`.

The original is https://github.com/HarunoriKawano/HEAR. Each table lists (original, ours) in the original's order.
"""

import re
from dataclasses import dataclass, field
from itertools import groupby

from hear_hf import HEARForAudioClassification, HEARModel, HEARPreTrainedModel

ACOUSTIC_MODEL = (
    ("feature_extractor.conv.weight", "feature_encoder.conv.weight"),
    ("feature_extractor.conv.bias", "feature_encoder.conv.bias"),
    ("contextual_encoder.layers.{layer}.layer_norm1.weight", "layers.{layer}.attention_layer_norm.weight"),
    ("contextual_encoder.layers.{layer}.layer_norm1.bias", "layers.{layer}.attention_layer_norm.bias"),
    ("contextual_encoder.layers.{layer}.self_attn.query_bias1", "layers.{layer}.attention.content_bias"),
    ("contextual_encoder.layers.{layer}.self_attn.query_bias2", "layers.{layer}.attention.position_bias"),
    ("contextual_encoder.layers.{layer}.self_attn.linear_q.weight", "layers.{layer}.attention.q_proj.weight"),
    ("contextual_encoder.layers.{layer}.self_attn.linear_q.bias", "layers.{layer}.attention.q_proj.bias"),
    ("contextual_encoder.layers.{layer}.self_attn.linear_k.weight", "layers.{layer}.attention.k_proj.weight"),
    ("contextual_encoder.layers.{layer}.self_attn.linear_k.bias", "layers.{layer}.attention.k_proj.bias"),
    ("contextual_encoder.layers.{layer}.self_attn.linear_v.weight", "layers.{layer}.attention.v_proj.weight"),
    ("contextual_encoder.layers.{layer}.self_attn.linear_v.bias", "layers.{layer}.attention.v_proj.bias"),
    ("contextual_encoder.layers.{layer}.self_attn.linear_out.weight", "layers.{layer}.attention.out_proj.weight"),
    ("contextual_encoder.layers.{layer}.self_attn.linear_out.bias", "layers.{layer}.attention.out_proj.bias"),
    (
        "contextual_encoder.layers.{layer}.self_attn.relative_position_k.positional_embedding.weight",
        "layers.{layer}.attention.relative_keys",
    ),
    (
        "contextual_encoder.layers.{layer}.self_attn.relative_position_v.positional_embedding.weight",
        "layers.{layer}.attention.relative_values",
    ),
    ("contextual_encoder.layers.{layer}.layer_norm2.weight", "layers.{layer}.feed_forward_layer_norm.weight"),
    ("contextual_encoder.layers.{layer}.layer_norm2.bias", "layers.{layer}.feed_forward_layer_norm.bias"),
    ("contextual_encoder.layers.{layer}.ffn.layer_norm.weight", "layers.{layer}.feed_forward.layer_norm.weight"),
    ("contextual_encoder.layers.{layer}.ffn.layer_norm.bias", "layers.{layer}.feed_forward.layer_norm.bias"),
    (
        "contextual_encoder.layers.{layer}.ffn.intermediate_dense.weight",
        "layers.{layer}.feed_forward.intermediate_dense.weight",
    ),
    (
        "contextual_encoder.layers.{layer}.ffn.intermediate_dense.bias",
        "layers.{layer}.feed_forward.intermediate_dense.bias",
    ),
    ("contextual_encoder.layers.{layer}.ffn.output_dense.weight", "layers.{layer}.feed_forward.output_dense.weight"),
    ("contextual_encoder.layers.{layer}.ffn.output_dense.bias", "layers.{layer}.feed_forward.output_dense.bias"),
)

MIXTURE_TASK_MODEL_AND_HEAD = (
    ("spectrogram_mixture.gate_linear.weight", "hear.spectrogram_mixture.gate.weight"),
    ("spectrogram_mixture.gate_linear.bias", "hear.spectrogram_mixture.gate.bias"),
    ("spectrogram_mixture.spectrum_linear.weight", "hear.spectrogram_mixture.spectrum.weight"),
    ("spectrogram_mixture.spectrum_linear.bias", "hear.spectrogram_mixture.spectrum.bias"),
    ("spectrogram_mixture.layer_norm.weight", "hear.spectrogram_mixture.layer_norm.weight"),
    ("spectrogram_mixture.layer_norm.bias", "hear.spectrogram_mixture.layer_norm.bias"),
    ("spectrogram_mixture.mixture.weight", "hear.spectrogram_mixture.output.weight"),
    ("spectrogram_mixture.mixture.bias", "hear.spectrogram_mixture.output.bias"),
    ("task_model.pos_embed", "hear.task_model.position_embeddings"),
    ("task_model.transformer.self_attn.in_proj_weight", "hear.task_model.qkv_proj.weight"),
    ("task_model.transformer.self_attn.in_proj_bias", "hear.task_model.qkv_proj.bias"),
    ("task_model.transformer.self_attn.out_proj.weight", "hear.task_model.out_proj.weight"),
    ("task_model.transformer.self_attn.out_proj.bias", "hear.task_model.out_proj.bias"),
    ("task_model.transformer.linear1.weight", "hear.task_model.intermediate_dense.weight"),
    ("task_model.transformer.linear1.bias", "hear.task_model.intermediate_dense.bias"),
    ("task_model.transformer.linear2.weight", "hear.task_model.output_dense.weight"),
    ("task_model.transformer.linear2.bias", "hear.task_model.output_dense.bias"),
    ("task_model.transformer.norm1.weight", "hear.task_model.attention_layer_norm.weight"),
    ("task_model.transformer.norm1.bias", "hear.task_model.attention_layer_norm.bias"),
    ("task_model.transformer.norm2.weight", "hear.task_model.final_layer_norm.weight"),
    ("task_model.transformer.norm2.bias", "hear.task_model.final_layer_norm.bias"),
    ("decoder.linear.weight", "classifier.dense.weight"),
    ("decoder.linear.bias", "classifier.dense.bias"),
    ("decoder.batch_norm.weight", "classifier.batch_norm.weight"),
    ("decoder.batch_norm.bias", "classifier.batch_norm.bias"),
    ("decoder.batch_norm.running_mean", "classifier.batch_norm.running_mean"),
    ("decoder.batch_norm.running_var", "classifier.batch_norm.running_var"),
    ("decoder.batch_norm.num_batches_tracked", "classifier.batch_norm.num_batches_tracked"),
    ("decoder.out.weight", "classifier.out_proj.weight"),
    ("decoder.out.bias", "classifier.out_proj.bias"),
)

# The front end's fixed tables, by our names in `HEARSpectrogram.tables()`; we compute them and never store them.
FRONT_END = (
    ("preprocessor.spectrogram.window", "window"),
    ("preprocessor.mel_spectrogram.spectrogram.window", "mel_window"),
    ("preprocessor.mel_spectrogram.mel_scale.fb", "mel_filters"),
    ("preprocessor.resampler.kernel", "resampling_kernel"),
)
WINDOW = FRONT_END[0][0]

# (field of HEARConfig, key that shows it, axis, size of that axis -> value)
ACOUSTIC_SIZES = (
    ("hidden_size", "feature_extractor.conv.weight", 0, int),
    ("num_mel_bins", "feature_extractor.conv.weight", 1, int),
    ("num_attention_heads", "contextual_encoder.layers.0.self_attn.query_bias1", 0, int),
    ("intermediate_size", "contextual_encoder.layers.0.ffn.intermediate_dense.weight", 0, int),
    (
        "window_length",
        "contextual_encoder.layers.0.self_attn.relative_position_k.positional_embedding.weight",
        0,
        lambda num_distances: num_distances // 2,
    ),
)
CLASSIFIER_SIZES = (
    # Two frames of n_fft // 2 + 1 bins each, where n_fft is even.
    ("n_fft", "spectrogram_mixture.spectrum_linear.weight", 1, lambda num_bins: num_bins - 2),
    ("task_hidden_size", "task_model.pos_embed", 2, int),
    ("max_position_embeddings", "task_model.pos_embed", 1, int),
    ("task_intermediate_size", "task_model.transformer.linear1.weight", 0, int),
    ("classifier_proj_size", "decoder.linear.weight", 0, int),
    ("num_labels", "decoder.out.weight", 0, int),
)


@dataclass(frozen=True)
class Kind:
    """One of the files that the original saves.

    Args:
        name (`str`): What it is.
        mark (`str`): First component of its keys that no other kind has.
        architecture (`type`, *optional*): Our class that it becomes; `None` where it is not supported yet.
        acoustic_prefixes (`tuple[str, str]`): Where its acoustic model lives, and where ours does.
        other_keys (`tuple`): Table of the rest.
        other_sizes (`tuple`): Sizes that the rest shows.
        has_front_end (`bool`): Whether it stores the front end's tables.
        left_out (`dict[str, str]`): Prefixes that have no place in our model, and why.
    """

    name: str
    mark: str
    architecture: type[HEARPreTrainedModel] | None = None
    acoustic_prefixes: tuple[str, str] = ("", "acoustic_model.")
    other_keys: tuple[tuple[str, str], ...] = ()
    other_sizes: tuple[tuple, ...] = ()
    has_front_end: bool = False
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def is_classifier(self) -> bool:
        return self.architecture is HEARForAudioClassification

    def pairs(self, num_layers: int) -> list[tuple[str, str]]:
        """All (original, ours) keys of a model of that many layers, in the original's order."""
        theirs, ours = self.acoustic_prefixes
        acoustic = [(theirs + a, ours + b) for a, b in expand_layers(ACOUSTIC_MODEL, num_layers)]
        return [*acoustic, *self.other_keys]

    def sizes(self) -> list[tuple]:
        acoustic = [(name, self.acoustic_prefixes[0] + key, *rest) for name, key, *rest in ACOUSTIC_SIZES]
        return [*acoustic, *self.other_sizes]

    def find_left_out(self, keys) -> dict[str, str]:
        """The keys that have no place in our model, and why."""
        reasons = self.left_out.items()
        return {key: reason for key in keys for prefix, reason in reasons if key.startswith(prefix)}

    def count_layers(self, keys) -> int:
        """Layers of the acoustic model, at least one."""
        layer = re.compile(re.escape(self.acoustic_prefixes[0]) + r"contextual_encoder\.layers\.([0-9]+)\.")
        return max(1, len({match.group(1) for match in map(layer.match, keys) if match}))


CLASSIFIER = Kind(
    name="whole classifier",
    mark="acoustic_model",
    architecture=HEARForAudioClassification,
    acoustic_prefixes=("acoustic_model.", "hear.acoustic_model."),
    other_keys=MIXTURE_TASK_MODEL_AND_HEAD,
    other_sizes=CLASSIFIER_SIZES,
    has_front_end=True,
)
ACOUSTIC = Kind(name="acoustic model alone", mark="contextual_encoder", architecture=HEARModel)
PRETRAINING = Kind(
    name="pretraining framework",
    mark="out_linear",
    architecture=HEARModel,
    acoustic_prefixes=("encoder.", "acoustic_model."),
    has_front_end=True,
    left_out={
        "out_linear.": "belongs to the pretraining head, which hear_hf does not have yet",
        "tokenizer.": "belongs to the quantizer, which hear_hf does not have yet",
    },
)
TOKENIZER_TRAINING = Kind(name="tokenizer training framework", mark="vector_quantizer")
TOKENIZER = Kind(name="tokenizer alone", mark="linear")

KINDS = (CLASSIFIER, PRETRAINING, TOKENIZER_TRAINING, TOKENIZER, ACOUSTIC)


def expand_layers(table: tuple[tuple[str, str], ...], num_layers: int) -> list[tuple[str, str]]:
    """Repeats each run of rows with `{layer}` for every layer."""
    pairs = []
    for is_layer, rows in groupby(table, key=lambda row: "{layer}" in row[0]):
        rows = list(rows)
        for layer in range(num_layers if is_layer else 1):
            pairs += [(theirs.format(layer=layer), ours.format(layer=layer)) for theirs, ours in rows]
    return pairs


def recognise(keys) -> Kind:
    """Tells by the keys which file of the original this is.

    Raises:
        `ValueError`: if it is none of them.
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
