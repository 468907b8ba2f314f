"""Unlabelled clips, ready for the DataLoader of a training: cropped, balanced, cached, with a teacher's states."""

from functools import partial
from typing import Any

from datasets import IterableDataset

from .balance import EQUAL, SOURCE_COLUMN, SourceBalance, balance_sources
from .clips import ClipReader, PretrainingClips, StreamedClips
from .decoded_cache import DecodedCache
from .sources import column_names
from .teacher_states import TEACHER_COLUMN, TeacherFeatures, TeacherStatesArguments
from .unlabelled import PretrainingDataArguments, load_unlabelled_audio, teacher_metadata


def load_pretraining_clips(
    data_args: PretrainingDataArguments,
    sampling_rate: int,
    max_length_seconds: float,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    teacher_args: TeacherStatesArguments | None = None,
    random_speed: float = 0.0,
) -> tuple[PretrainingClips | StreamedClips, PretrainingClips | None]:
    """
    Loads the clips that `data_args` names, ready for a DataLoader.

    Args:
        data_args (`PretrainingDataArguments`): The source and its columns.
        sampling_rate (`int`): The rate to decode to, in Hz.
        max_length_seconds (`float`): Length of the crops where `data_args` gives none: the model's window.
        seed (`int`, *optional*, defaults to 0): Decides the held-out clips, their order, and all draws.
        rank (`int`, *optional*, defaults to 0), world_size (`int`, *optional*, defaults to 1):
            This process and their number; only a stream needs them.
        teacher_args (`TeacherStatesArguments`, *optional*): Which stored states of a teacher to read; none by default.
        random_speed (`float`, *optional*, defaults to 0): Play training clips faster or slower by up to this share.

    Returns:
        The training clips, and the validation clips or `None`. Their `teacher` is `None` without stored states.

    Raises:
        `ValueError`: A file, a column or a row is missing or inconsistent; the message says which.
    """
    train, validation = load_unlabelled_audio(data_args, seed, teacher_args)
    teacher = None
    if teacher_args is not None and TEACHER_COLUMN in column_names(train):
        metadata = _teacher_metadata(teacher_args.teacher_file or data_args.train_file or [])
        if teacher_args.teacher_frame_seconds is not None:
            metadata["frame_seconds"] = teacher_args.teacher_frame_seconds
        teacher = TeacherFeatures.from_dataset(train, **metadata)
    length = max_length_seconds if data_args.max_length_seconds is None else data_args.max_length_seconds
    cache = None if data_args.decoded_cache is None else DecodedCache(data_args.decoded_cache, sampling_rate)
    shortest = data_args.min_length_seconds
    make_reader = partial(ClipReader, sampling_rate, length, shortest, seed, teacher=teacher, cache=cache)
    reader = make_reader(min_crop_seconds=data_args.min_crop_seconds, random_speed=random_speed)
    max_share = data_args.max_unusable_share
    clips: PretrainingClips | StreamedClips
    if isinstance(train, IterableDataset):
        clips = StreamedClips(train, reader, data_args.shuffle_buffer_size, rank, world_size, max_share)
    else:
        clips = PretrainingClips(train, reader, max_unusable_share=max_share)
        clips.fill_cache()
        if data_args.source_weights or data_args.clip_weights != EQUAL:
            clips.balance = _balance(clips, data_args)
    if teacher_args is not None and teacher is not None and teacher_args.standardize_teacher:
        teacher.standardize(train, seed, teacher_args.teacher_whitening)  # after the column was checked
    if validation is None:
        return clips, None
    if not data_args.validation_file:
        max_share = 1.0  # a few of the same clips as those above, whose share is measured there
    held_out = PretrainingClips(validation, make_reader(), training=False, max_unusable_share=max_share)
    held_out.fill_cache()
    return clips, held_out


def _balance(clips: PretrainingClips, args: PretrainingDataArguments) -> SourceBalance:
    names, source_names = [""] * len(clips), [""]
    if args.source_weights:
        if SOURCE_COLUMN not in clips.dataset.column_names:
            raise ValueError("`source_column` must be a column of tables or of a data set, found audio files alone.")
        names = [str(name) for name in clips.dataset.with_format(None)[SOURCE_COLUMN]]
        source_names = sorted(set(names)) if args.source_column else args.train_file or []
    return balance_sources(names, source_names, args.source_weights or [EQUAL], clips.seconds, args.clip_weights)


def _teacher_metadata(patterns: list[str]) -> dict[str, Any]:
    """Picks what a teacher's states need: any of `hidden_size`, `frame_seconds` and `scale`."""
    known = ("hidden_size", "frame_seconds", "scale")
    return {name: value for name, value in teacher_metadata(patterns).items() if name in known}
