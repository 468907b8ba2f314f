"""A linear probe of a model in training: how well labelled clips can be told apart by its frozen features."""

from dataclasses import dataclass

import numpy as np
import torch

from .. import HEARFeatureExtractor, HEARModel
from ..arguments import option
from ..data.decoding import decode_audio
from ..data.labelled import DataArguments, load_labelled_audio
from ..evaluation.folds import gather_clips, make_folds
from ..evaluation.probing import probe_layer


@dataclass
class StudentProbeArguments:
    """Labelled clips to probe the model on at each evaluation."""

    probe_file: list[str] | None = option(
        default=None,
        help="Tables with the columns `audio` and `label`: each evaluation trains a logistic regression on the frozen "
        "features of their clips. By default nothing is probed.",
    )
    probe_test_file: list[str] | None = option(
        default=None, help="Tables to score it on; by default a tenth of the clips of probe_file."
    )

    def __post_init__(self):
        if self.probe_test_file and not self.probe_file:
            raise ValueError("`probe_test_file` must come with `probe_file`, found none: give it too.")


class StudentProbe:
    """
    Labelled clips, and the probe that is trained and scored on them.

    Args:
        args (`StudentProbeArguments`): Where the clips are.
        feature_extractor (`HEARFeatureExtractor`): The model's.
        seed (`int`, *optional*, defaults to 0): Decides which clips it is scored on, where none are given.
    """

    def __init__(self, args: StudentProbeArguments, feature_extractor: HEARFeatureExtractor, seed: int = 0):
        tables = DataArguments(train_file=args.probe_file, test_file=args.probe_test_file)
        self.feature_extractor = feature_extractor
        self.clips = gather_clips(load_labelled_audio(tables, seed))
        self.folds = make_folds(self.clips, None, seed)

    def __call__(self, model: HEARModel, batch_size: int) -> dict[str, float]:
        """Returns `probe_accuracy`, or `probe_mean_average_precision` where a clip has any number of labels."""
        scores = probe_layer(self.features(model, batch_size), self.clips.labels, self.folds).scores
        return {f"probe_{self.clips.metric}": float(np.mean(scores))}

    @torch.no_grad()
    def features(self, model: HEARModel, batch_size: int) -> np.ndarray:
        """Mean, maximum and deviation of each clip's frames, (num_clips, 3 * width), of a model in eval mode."""
        rate, rows = self.feature_extractor.sampling_rate, []
        for start in range(0, len(self.clips.audio), batch_size):
            entries = self.clips.audio[start : start + batch_size]["audio"]
            waveforms = [decode_audio(entry, rate) for entry in entries]
            inputs = self.feature_extractor(waveforms, sampling_rate=rate, padding=True, return_tensors="pt")
            rows.append(model(**inputs.to(model.device)).pooler_output.float().cpu().numpy())
        return np.concatenate(rows)


def load_probe(
    args: StudentProbeArguments, feature_extractor: HEARFeatureExtractor, seed: int = 0
) -> StudentProbe | None:
    return StudentProbe(args, feature_extractor, seed) if args.probe_file else None
