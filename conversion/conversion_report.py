"""What a conversion found and wrote: a report for the terminal, and a model card for each folder."""

from dataclasses import dataclass
from pathlib import Path

from hear_hf import (
    HEARConfig,
    HEARForAudioClassification,
    HEARForPreTraining,
    HEARModel,
    HEARQuantizer,
    HEARQuantizerConfig,
    HEARQuantizerForPreTraining,
)
from original_layout import Kind, Layout

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
the head, is newly initialised on loading, as transformers reports: fine-tune the model before you use it.

```python
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

feature_extractor = AutoFeatureExtractor.from_pretrained("path/or/repository", trust_remote_code=True)
model = AutoModelForAudioClassification.from_pretrained(
    "path/or/repository", num_labels=10, trust_remote_code=True
)
```"""
QUANTIZER_USAGE = """The quantizer, the paper's acoustic tokenizer, gives one code for each 20 ms of sound.

```python
from transformers import AutoFeatureExtractor, AutoModel

feature_extractor = AutoFeatureExtractor.from_pretrained("path/or/repository", trust_remote_code=True)
quantizer = AutoModel.from_pretrained("path/or/repository", trust_remote_code=True).eval()
inputs = feature_extractor(waveform, sampling_rate={sampling_rate}, return_tensors="pt")  # mono, floats in [-1, 1]
codes = quantizer(**inputs).codes  # (1, num_frames)
```"""
QUANTIZER_TRAINING_USAGE = f"""{QUANTIZER_USAGE}

To train it further, with its codebook and decoder, load it by `AutoModelForPreTraining`."""


@dataclass(frozen=True)
class Advice:
    """The next command for a converted model, the section of its card on its use, and its pipeline."""

    command: str
    usage: str
    pipeline_tag: str = ""


FINETUNE = Advice("finetune.py --model_name_or_path {} --acoustic_learning_rate_scale 0.1", ACOUSTIC_USAGE)
ADVICE = {
    HEARForAudioClassification: Advice(
        "predict.py {} clip.wav", CLASSIFIER_USAGE, "pipeline_tag: audio-classification\n"
    ),
    HEARModel: FINETUNE,
    HEARForPreTraining: FINETUNE,
    HEARQuantizer: Advice("pretrain.py --quantizer_name_or_path {}", QUANTIZER_USAGE),
    HEARQuantizerForPreTraining: Advice("pretrain.py --quantizer_name_or_path {}", QUANTIZER_TRAINING_USAGE),
}


@dataclass
class ModelReport:
    """The conversion of one of the models in a checkpoint.

    Args:
        layout (`Layout`): Where the model was.
        config (`HEARConfig` or `HEARQuantizerConfig`): The configuration that was written.
        sizes (`dict[str, int]`): The sizes that the checkpoint shows, by their names in the configuration.
        assumptions (`list[str]`): What the checkpoint does not show, and was assumed.
        num_parameters (`int`): How many learned values were converted.
        output_dir (`Path`): The folder that was written.
        max_difference (`float`): Largest difference of an output after the folder was loaded again.
    """

    layout: Layout
    config: HEARConfig | HEARQuantizerConfig
    sizes: dict[str, int]
    assumptions: list[str]
    num_parameters: int
    output_dir: Path
    max_difference: float = float("nan")

    def __str__(self) -> str:
        lines = [
            f"Written:   {self.output_dir} ({self.layout.architecture.__name__})",
            f"Sizes:     {', '.join(f'{name}={value}' for name, value in self.sizes.items())}",
            *(f"Assumed:   {assumption}" for assumption in self.assumptions),
            f"Reloaded:  all tensors are equal; largest difference of the output: {self.max_difference:.1e}",
        ]
        return "\n".join(lines)


@dataclass
class ConversionReport:
    """What was found in a checkpoint, and how it was converted.

    Args:
        kind (`Kind`): Which of the original's files it is.
        models (`list[ModelReport]`): The models in it, the main one last.
        sha256 (`str`): SHA-256 of the checkpoint.
        output_dir (`Path`): The folder that was written.
    """

    kind: Kind
    models: list[ModelReport]
    sha256: str
    output_dir: Path

    @property
    def main(self) -> ModelReport:
        """The conversion of the main model."""
        return self.models[-1]

    def __str__(self) -> str:
        num_parameters = sum(model.num_parameters for model in self.models)
        lines = [
            f"Found:     {self.kind.name}, {num_parameters:,} parameters",
            *map(str, reversed(self.models)),
            f"Next:      python examples/{ADVICE[self.kind.main.architecture].command.format(self.output_dir)}",
        ]
        return "\n".join(lines)

    def model_card(self, model: ModelReport, checkpoint: str) -> str:
        advice = ADVICE[model.layout.architecture]
        return CARD.format(
            pipeline_tag=advice.pipeline_tag,
            name=model.output_dir.name,
            kind=self.kind.name,
            num_parameters=model.num_parameters,
            checkpoint=checkpoint,
            sha256=self.sha256,
            usage=advice.usage.format(sampling_rate=model.config.sampling_rate),
        )
