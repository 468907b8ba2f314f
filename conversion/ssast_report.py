"""What a conversion of SSAST found and wrote: a report for the terminal, and a model card for the folder."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from ssast_layout import NUM_CLASS_TOKENS, SSASTSizes

CARD = """---
license: bsd-3-clause
library_name: transformers
pipeline_tag: feature-extraction
tags:
- audio
- ssast
- audio-spectrogram-transformer
---

# {name}

[SSAST](https://arxiv.org/abs/2110.09784) is an audio spectrogram transformer that was trained without labels. These
{num_parameters:,} parameters were converted from a frame-based checkpoint of the
[original](https://github.com/YuanGongND/ssast) into a plain AST of Transformers. It is the teacher of
[HEAR](https://arxiv.org/abs/2603.26098)'s quantizer.

| | |
|---|---|
| Checkpoint | `{checkpoint}` |
| SHA-256 | `{sha256}` |
| Licence | BSD-3-Clause, Copyright (c) 2022, Yuan Gong |

Share the folder only with the [text of the licence](https://github.com/YuanGongND/ssast/blob/main/LICENSE).

## Use

```bash
python examples/train_quantizer.py --teacher_name_or_path path/or/repository
```

```python
from transformers import AutoFeatureExtractor, AutoModel

feature_extractor = AutoFeatureExtractor.from_pretrained("path/or/repository")
model = AutoModel.from_pretrained("path/or/repository").eval()
inputs = feature_extractor(waveform, sampling_rate=16_000, return_tensors="pt")  # mono, floats in [-1, 1]
hidden_states = model(**inputs).last_hidden_state[:, {num_class_tokens}:]  # one state per {token_ms} ms
```

- The model reads {input_frames} frames of 10 ms at once ({seconds:.2f} s) and gives {num_positions} states. A shorter
  clip is padded with zeros behind its spectrogram: keep the states of the clip itself. Give a longer one in parts.
  `FrozenEncoder` in `hear_hf.evaluation.frozen_encoders` does both.
- The spectrogram is Kaldi's: {num_mel_bins} mel bins, Hann window, no dither, (x + 4.2677393) / (2 * 4.5689974).
- Transformers' AST has square patches. In these ({square}), all columns but the first {patch_frames} are zero, which
  makes them the original's {patch}. So the input has {max_length} frames; the last {num_ignored} change nothing.
"""


@dataclass
class SSASTReport:
    """What was found in a checkpoint, and how it was converted.

    Args:
        sizes (`SSASTSizes`): The model's sizes.
        heads_are_assumed (`bool`): Whether the number of heads was inferred from the hidden size.
        left_out (`dict[str, str]`): Keys that were not converted, and why.
        num_parameters (`int`): How many learned values were converted.
        sha256 (`str`): SHA-256 of the checkpoint.
        output_dir (`Path`): The folder that was written.
        max_difference (`float`): Largest difference from the original's hidden states, relative to the largest state.
    """

    sizes: SSASTSizes
    heads_are_assumed: bool
    left_out: dict[str, str]
    num_parameters: int
    sha256: str
    output_dir: Path
    max_difference: float = float("nan")

    def __str__(self) -> str:
        sizes, left_out = self.sizes, Counter((top_level(key), reason) for key, reason in self.left_out.items())
        heads = f"num_attention_heads={sizes.num_attention_heads}, one per 64 of hidden_size, as in all published ones"
        lines = [
            f"Found:     SSAST with patches of {sizes.patch}, {self.num_parameters:,} parameters",
            f"Sizes:     {', '.join(f'{name}={value}' for name, value in asdict(sizes).items())}",
            *([f"Assumed:   {heads}"] if self.heads_are_assumed else []),
            *(f"Left out:  {part} ({count} tensors): {reason}" for (part, reason), count in left_out.items()),
            f"Written:   {self.output_dir} (ASTModel)",
            f"Reloaded:  the hidden states are the original's; largest relative difference: {self.max_difference:.1e}",
            f"Next:      python examples/train_quantizer.py --teacher_name_or_path {self.output_dir}",
        ]
        return "\n".join(lines)

    def model_card(self, checkpoint: str) -> str:
        sizes = self.sizes
        return CARD.format(
            **asdict(sizes),
            name=self.output_dir.name,
            checkpoint=checkpoint,
            sha256=self.sha256,
            num_parameters=self.num_parameters,
            num_class_tokens=NUM_CLASS_TOKENS,
            patch=sizes.patch,
            square=f"{sizes.num_mel_bins}x{sizes.num_mel_bins}",
            input_frames=sizes.input_frames,
            max_length=sizes.max_length,
            num_ignored=sizes.max_length - sizes.input_frames,
            seconds=sizes.input_frames / 100,
            token_ms=10 * sizes.patch_frames,
        )


def top_level(key: str) -> str:
    """Shortens a key: `v.head.weight` -> `v.head.*`, `cpredlayer.0.weight` -> `cpredlayer.*`."""
    parts = key.split(".")
    depth = 2 if parts[0] == "v" else 1
    return ".".join(parts[:depth]) + (".*" if len(parts) > depth else "")
