"""The model that a distillation trains: from a checkpoint or from scratch, with the labels of its teacher."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForAudioClassification, AutoModelForAudioFrameClassification

from .. import HEARConfig, HEARForAudioClassification, HEARForAudioFrameClassification
from ..arguments import option
from .distillation_teachers import MULTI_LABEL, TeacherTargets
from .teacher_readers import is_classifier, is_frame_classifier

MIN_PROBABILITY = 1e-4  # of a label whose output bias is set

Student = HEARForAudioClassification | HEARForAudioFrameClassification


@dataclass
class StudentArguments:
    """Which model to train."""

    model_name_or_path: str | None = option(
        default=None, help="A checkpoint to train further; without it, HEAR is trained from scratch."
    )
    model_revision: str = option(default="main", help="The branch, tag or commit of that checkpoint.")
    trust_remote_code: bool = option(default=False, help="Run the code that the checkpoint brings along.")
    frame_labels: bool = option(
        default=False,
        help="Train a HEARForAudioFrameClassification, which says what is heard when, from the teacher's labels over "
        "time.",
    )
    config_overrides: str | None = option(
        default=None,
        help="Fields of the config to change, for example `hidden_size=128,num_hidden_layers=4`.",
    )


def load_student_config(args: StudentArguments) -> HEARConfig:
    """Loads the config, still without the teacher's labels."""
    config = HEARConfig()
    if args.model_name_or_path is not None:
        source = {"revision": args.model_revision, "trust_remote_code": args.trust_remote_code}
        config = AutoConfig.from_pretrained(args.model_name_or_path, **source)
    if config.model_type != HEARConfig.model_type:
        raise ValueError(f"`model_name_or_path` must hold a HEAR, found a model of type {config.model_type!r}.")
    if args.config_overrides:
        config.update_from_string(args.config_overrides)
        config.validate()
    return config


def load_student(args: StudentArguments, config: HEARConfig, labelled: TeacherTargets | None) -> Student:
    """
    Loads the student, with the labels of the teacher that has some, in whose shares a new head starts.

    Raises:
        `ValueError`: Its labels are not those of the teacher.
    """
    is_own_head = is_frame_classifier if args.frame_labels else is_classifier
    has_head = args.model_name_or_path is not None and is_own_head((config.architectures or [""])[0])
    if labelled is not None:
        take_labels(config, labelled, has_head)
    config.event_thresholds, config.event_median_frames = None, 1  # of the head as it was
    if args.model_name_or_path is None:
        student = HEARForAudioFrameClassification(config) if args.frame_labels else HEARForAudioClassification(config)
    else:
        source = {"revision": args.model_revision, "trust_remote_code": args.trust_remote_code}
        auto_class = AutoModelForAudioFrameClassification if args.frame_labels else AutoModelForAudioClassification
        student = auto_class.from_pretrained(args.model_name_or_path, config=config, **source)
    if labelled is not None and not has_head:
        start_biases(student, labelled)
    return student


def check_frame_labels(args: StudentArguments, labelled: TeacherTargets | None) -> None:
    """Refuses, where labels over time are wanted, a teacher without labels, and one that must name something."""
    if not args.frame_labels:
        return
    if labelled is None:
        raise ValueError(
            "`frame_labels` must come with a teacher that has labels, found none. Add one, or leave it out."
        )
    if not labelled.is_multi_label:
        raise ValueError(
            "`frame_labels` must come with a teacher that may hear any number of labels, or none, found a softmax "
            f"over those of {labelled.facts.name}. Give another teacher first or, if each label has a probability of "
            f"its own, --teacher_problem_type {MULTI_LABEL}."
        )


def take_labels(config: HEARConfig, labelled: TeacherTargets, has_head: bool) -> None:
    """Gives the config the teacher's labels; a head that exists must have them already."""
    theirs: Any = labelled.id2label
    if has_head and config.id2label != theirs:
        raise ValueError(
            f"The labels of `model_name_or_path` must be those of the teacher {labelled.facts.name}, found "
            f"{config.num_labels} labels where the teacher has {len(theirs)}, or others or in another order. Start "
            "from a checkpoint without a head, or take another teacher first."
        )
    config.id2label, config.label2id = theirs, {name: index for index, name in theirs.items()}
    config.problem_type = labelled.problem_type  # type: ignore[assignment]  # one of its three


@torch.no_grad()
def start_biases(student: Student, labelled: TeacherTargets) -> None:
    """Lets the output start at the teacher's mean probabilities, which it would take many steps to learn."""
    mean = labelled.statistics["mean_probabilities"].clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    model: Any = student
    output = model.frame_classifier if is_frame_classifier(type(model).__name__) else model.classifier.out_proj
    output.bias.copy_(mean.logit() if labelled.is_multi_label else mean.log())
