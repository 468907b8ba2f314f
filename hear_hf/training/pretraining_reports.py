"""What a pretraining run leaves beside its model: plots, a model card, and a last word on the terminal."""

from pathlib import Path

import matplotlib
import numpy as np
import torch

from ..data.clips import PretrainingClips
from ..data.sources import describe_source, hub_datasets
from ..sharing.cards import pretraining_card
from .pretraining import PretrainingTrainer

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt

CURVES = {
    "loss": "Loss",
    "reconstruction_loss": "Reconstruction loss",
    "distillation_loss": "Distillation loss",
    "masked_accuracy": "Masked accuracy",
    "code_perplexity": "Code perplexity",
    "code_usage": "Share of codes in use",
    "temperature": "Temperature",
    "audio_hours_per_second": "Audio hours per second",
}


def report(trainer: PretrainingTrainer, metrics: dict[str, float], data_args, stage: int, origin: str) -> None:
    """Writes `training_curves.png`, `codes.png`, `clip.png` and `README.md`, and prints a summary.

    Args:
        trainer (`PretrainingTrainer`): After training, and after the evaluation that gave `metrics`.
        metrics (`dict[str, float]`): Of the held-out clips; empty where there are none.
        data_args (`PretrainingDataArguments`): Where the clips came from.
        stage (`int`): 1 for the quantizer, 2 for masked audio modelling.
        origin (`str`): A sentence on the teacher or the quantizer.
    """
    folder = Path(trainer.args.output_dir)
    plot_curves(trainer.state.log_history, folder / "training_curves.png")
    means = trainer.eval_means if metrics else trainer.train_means
    plot_codes(means.code_counts.cpu().numpy(), folder / "codes.png")
    plot_clip(trainer, folder / "clip.png")
    scores = {title: metrics[f"eval_{name}"] for name, title in CURVES.items() if f"eval_{name}" in metrics}
    write_model_card(trainer, scores, data_args, origin)
    print_summary(trainer, scores, stage)


def plot_curves(log_history: list[dict], path: Path) -> None:
    """Each logged value over the steps, of training and of held-out clips."""
    names = [name for name in CURVES if any(name in entry for entry in log_history)]
    num_rows = -(-len(names) // 3)
    figure, grid = plt.subplots(num_rows, 3, figsize=(12, 3 * num_rows), layout="constrained", squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        for key, label in ((name, "training"), (f"eval_{name}", "held out")):
            points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
            if points:
                axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 50 else None)
        axes.set(title=CURVES[name], xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend()
    for axes in grid.flat[len(names) :]:
        axes.axis("off")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_codes(counts: np.ndarray, path: Path) -> None:
    """How often each code occurs, the most frequent first."""
    shares = np.sort(counts)[::-1] / max(counts.sum(), 1)
    figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    axes.bar(np.arange(len(shares)), shares, width=1.0)
    axes.axhline(1 / len(shares), color="black", linestyle=":", label="all equally often")
    title = f"{np.count_nonzero(counts)} of {len(counts)} codes in use, {int(counts.sum())} frames"
    axes.set(title=title, xlabel="code, by frequency", ylabel="share of the frames", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


@torch.no_grad()
def plot_clip(trainer: PretrainingTrainer, path: Path) -> None:
    """One clip: its spectrogram beside the reconstruction, or with its hidden frames and what was predicted there."""
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    batch = trainer._prepare_inputs(trainer.data_collator([example_clip(trainer)]))
    inputs = trainer.complete(batch)
    if model.config.model_type == "hear_quantizer":
        outputs = model(**inputs)
        panels = {
            "Log-mel spectrogram": outputs.log_mel[0],
            "Its reconstruction from the codes": outputs.reconstruction[0],
        }
    else:
        log_mel = model.hear.spectrogram(inputs["input_values"], inputs["attention_mask"])[0][0]
        hidden = inputs["mask_time_indices"][0].repeat_interleave(2)
        log_mel = log_mel[: len(hidden)]
        panels = {
            "Log-mel spectrogram": log_mel,
            "With its hidden frames": log_mel.masked_fill(hidden[:, None], float("nan")),
        }
    draw_panels(panels, path)


def example_clip(trainer: PretrainingTrainer) -> dict:
    """The longest of a few clips, held out where there are such."""
    clips = trainer.eval_dataset or trainer.train_dataset
    if isinstance(clips, PretrainingClips):
        chosen = [clips[index] for index in range(min(len(clips), 20))]
    else:
        chosen = [clip for clip, _ in zip(clips, range(20), strict=False)]
    return max(chosen, key=lambda clip: len(clip["input_values"]))


def draw_panels(panels: dict[str, torch.Tensor], path: Path) -> None:
    """Spectrograms of one clip one below the other, (num_frames, num_mel_bins) each, in the same colours."""
    images = {title: panel.float().cpu().numpy().T for title, panel in panels.items()}
    low, high = np.nanpercentile(next(iter(images.values())), [1, 99.5])
    figure, grid = plt.subplots(len(images), 1, figsize=(9, 2.6 * len(images)), layout="constrained", sharex=True)
    for axes, (title, values) in zip(grid, images.items(), strict=True):
        seconds = values.shape[1] / 100
        image = axes.imshow(
            values, origin="lower", aspect="auto", vmin=low, vmax=high, extent=(0, seconds, 0, len(values))
        )
        axes.set(title=title, ylabel="mel bin")
    grid[-1].set(xlabel="seconds")
    figure.colorbar(image, ax=grid, label="normalised log power")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write_model_card(trainer: PretrainingTrainer, scores: dict[str, float], data_args, origin: str) -> None:
    """The folder's README.md: metadata that the Hub reads, and how the model was made."""
    args, clips = trainer.args, trainer.train_dataset
    card = pretraining_card(
        trainer.model,
        Path(args.output_dir).name,
        scores,
        source=describe_source(data_args),
        repository=trainer.hub_model_id,
        datasets=hub_datasets(data_args),
        num_clips=len(clips) if isinstance(clips, PretrainingClips) else None,
        crop_seconds=clips.reader.max_samples / clips.reader.sampling_rate,
        origin=origin,
        steps=trainer.state.global_step,
        batch_size=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        args=args,
    )
    card.save(Path(args.output_dir) / "README.md")


def print_summary(trainer: PretrainingTrainer, scores: dict[str, float], stage: int) -> None:
    folder = trainer.args.output_dir
    script, option = (
        ("pretrain.py", "--quantizer_name_or_path") if stage == 1 else ("finetune.py", "--model_name_or_path")
    )
    held_out = ", ".join(f"{name.lower()} {value:.4g}" for name, value in scores.items()) or "none"
    print(
        f"\nTrained {trainer.state.global_step} steps. On held-out clips: {held_out}."
        f"\nIn {folder}: the model, its card (README.md) and the plots."
        f"\nNext: python examples/{script} {option} {folder}"
    )
