"""What a conversion found and wrote, in a report for the terminal and a model card for the folder."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hear_hf import HEARConfig
from original_layout import Kind

CARD = """---
license: mit
library_name: transformers
{pipeline_tag}tags:
- audio
- hear
---

# {name}

[HEAR](https://arxiv.org/abs/2603.26098) is a small audio model. These {num_parameters:,} parameters were converted
from a checkpoint of the [original](https://github.com/HarunoriKawano/HEAR): the {kind}.

| | |
|---|---|
| Checkpoint | `{checkpoint}` |
| SHA-256 | `{sha256}` |

## Use

{usage}
"""
CLASSIFIER_USAGE = """```python
from transformers import pipeline

classifier = pipeline("audio-classification", model="path/or/repository", trust_remote_code=True)
print(classifier(waveform))  # mono, floats in [-1, 1] at {sampling_rate} Hz, of any length
```"""
ACOUSTIC_USAGE = """Only the acoustic model is trained. What follows it, the spectrogram mixture, the task model and
the head, is newly initialised on loading, which transformers reports: train it first.

```python
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

feature_extractor = AutoFeatureExtractor.from_pretrained("path/or/repository", trust_remote_code=True)
model = AutoModelForAudioClassification.from_pretrained(
    "path/or/repository", num_labels=10, trust_remote_code=True
)
```"""


@dataclass
class ConversionReport:
    """What was found in a checkpoint, and what became of it.

    Args:
        kind (`Kind`): Which of the original's files it is.
        config (`HEARConfig`): The configuration that was written.
        sizes (`dict[str, int]`): The sizes that the checkpoint shows, by their names in the configuration.
        assumptions (`list[str]`): What it does not show, and was assumed.
        left_out (`dict[str, str]`): Its keys that were not converted, and why.
        num_parameters (`int`): Learned values that were converted.
        sha256 (`str`): Of the checkpoint.
        output_dir (`Path`): The folder that was written.
        max_difference (`float`): Largest difference of an output after the folder was loaded again.
    """

    kind: Kind
    config: HEARConfig
    sizes: dict[str, int]
    assumptions: list[str]
    left_out: dict[str, str]
    num_parameters: int
    sha256: str
    output_dir: Path
    max_difference: float = float("nan")

    def __str__(self) -> str:
        command = "predict.py {} clip.wav" if self.kind.is_classifier else "finetune.py --model_name_or_path {}"
        left_out = Counter((key.partition(".")[0], reason) for key, reason in self.left_out.items())
        lines = [
            f"Found:     {self.kind.name}, {self.num_parameters:,} parameters",
            f"Sizes:     {', '.join(f'{name}={value}' for name, value in self.sizes.items())}",
            *(f"Assumed:   {assumption}" for assumption in self.assumptions),
            *(f"Left out:  {part}.* ({count} tensors): {reason}" for (part, reason), count in left_out.items()),
            f"Written:   {self.output_dir} ({self.kind.architecture.__name__})",
            f"Reloaded:  all tensors are equal; largest difference of the output: {self.max_difference:.1e}",
            f"Next:      python examples/{command.format(self.output_dir)}",
        ]
        return "\n".join(lines)

    def model_card(self, checkpoint: str) -> str:
        usage = CLASSIFIER_USAGE if self.kind.is_classifier else ACOUSTIC_USAGE
        return CARD.format(
            pipeline_tag="pipeline_tag: audio-classification\n" if self.kind.is_classifier else "",
            name=self.output_dir.name,
            kind=self.kind.name,
            num_parameters=self.num_parameters,
            checkpoint=checkpoint,
            sha256=self.sha256,
            usage=usage.format(sampling_rate=self.config.sampling_rate),
        )
