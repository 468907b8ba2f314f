"""Reports what a conversion of a teacher found and wrote, in the terminal and in the folder's model card."""

from dataclasses import dataclass
from pathlib import Path

import torch

TOLERANCE = 1e-6  # relative, in float64; a constant such as 0.2, rounded to float32 in a file, brings some 1e-8

EFFICIENTAT_CARD = """---
license: mit
library_name: transformers
pipeline_tag: audio-classification
tags:
- audio
- efficientat
---

# {name}

[EfficientAT](https://arxiv.org/abs/2211.04772) names sounds: a small CNN that was trained on AudioSet by distillation
from transformers. These {num_parameters:,} parameters were converted from a checkpoint of the
[original](https://github.com/fschmid56/EfficientAT).

| | |
|---|---|
| Checkpoint | `{checkpoint}` |
| SHA-256 | `{sha256}` |
| Licence | MIT, Copyright (c) 2022 Florian Schmid |

AudioSet's labels are licensed CC BY 4.0 by Google.

## Use

```python
from transformers import pipeline

classifier = pipeline("audio-classification", model="path/or/repository", trust_remote_code=True)
print(classifier(waveform))  # mono, floats in [-1, 1] at {sampling_rate} Hz
```

`AutoModelForAudioClassification` also returns the embedding of the clip, `pooler_output`, and one vector per
{frame_ms:g} ms, `last_hidden_state`, of which `frame_mask` marks those within the clip. Frame i is centred at i times
{frame_ms:g} ms. A clip's result is the same alone and in a padded batch.
"""
SPEECH_EMBEDDING_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: feature-extraction
tags:
- audio
- speech
- keyword-spotting
---

# {name}

speech_embedding tells what is spoken: a small CNN by Google that was trained to tell keywords
([Lin et al., 2020](https://arxiv.org/abs/2002.01322)). These {num_parameters:,} parameters were converted from a
TensorFlow Lite file.

| | |
|---|---|
| File | `{checkpoint}` |
| SHA-256 | `{sha256}` |
| Licence | Apache-2.0, Google |

## Use

```python
from transformers import AutoFeatureExtractor, AutoModel

feature_extractor = AutoFeatureExtractor.from_pretrained("path/or/repository", trust_remote_code=True)
model = AutoModel.from_pretrained("path/or/repository", trust_remote_code=True).eval()
inputs = feature_extractor(waveform, sampling_rate={sampling_rate}, return_tensors="pt")  # mono, floats in [-1, 1]
vectors = model(**inputs).last_hidden_state  # (1, num_frames, {hidden_size})
```

Each vector sees a window of 0.78 s. There is one per {frame_ms:g} ms, the first centred at 0.39 s; `frame_mask` marks
those within the clip and `pooler_output` is their mean. A shorter clip is read as if silence followed. A clip's result
is the same alone and in a padded batch.
"""


@dataclass
class TeacherReport:
    """What was found in a checkpoint, and how it was converted.

    Args:
        found (`str`): What the checkpoint is.
        architecture (`str`): The class that was written.
        sizes (`dict`): The sizes that the checkpoint shows, by their names in the configuration.
        assumptions (`list[str]`): What it does not show.
        num_parameters (`int`): Learned values that were converted.
        sha256 (`str`): Of the checkpoint.
        output_dir (`Path`): The folder that was written.
        command (`str`): What to try next, with a place for the folder.
        max_difference (`float`): Largest difference from the original's outputs, relative to the largest output.
    """

    found: str
    architecture: str
    sizes: dict
    assumptions: list[str]
    num_parameters: int
    sha256: str
    output_dir: Path
    command: str
    max_difference: float = float("nan")

    def __str__(self) -> str:
        lines = [
            f"Found:     {self.found}, {self.num_parameters:,} parameters",
            f"Sizes:     {', '.join(f'{name}={value}' for name, value in self.sizes.items())}",
            *(f"Assumed:   {assumption}" for assumption in self.assumptions),
            f"Written:   {self.output_dir} ({self.architecture})",
            f"Reloaded:  the outputs are the original's; largest relative difference: {self.max_difference:.1e}",
            f"Next:      {self.command.format(self.output_dir)}",
        ]
        return "\n".join(lines)

    def model_card(self, template: str, checkpoint: str, config) -> str:
        return template.format(
            name=self.output_dir.name,
            num_parameters=self.num_parameters,
            checkpoint=checkpoint,
            sha256=self.sha256,
            sampling_rate=config.sampling_rate,
            hidden_size=config.hidden_size,
            frame_ms=1000 * config.inputs_to_logits_ratio / config.sampling_rate,
        )


def compare(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Measures the largest difference, relative to the largest value.

    Compare in float64, where only another computation can differ, whatever the weights are.

    Raises:
        `ValueError`: It is more than rounding.
    """
    if found.shape != expected.shape:
        raise ValueError(
            f"The folder must give outputs of shape {tuple(expected.shape)}, found: {tuple(found.shape)}."
        )
    difference = ((found - expected).abs().max() / expected.abs().max()).item()
    if not difference <= TOLERANCE:
        raise ValueError(
            f"The folder must compute what the checkpoint does, found a relative difference of {difference:.1e}. "
            "Nothing was written. Please report it with the version of Transformers."
        )
    return difference
