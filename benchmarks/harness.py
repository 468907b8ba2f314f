"""Times models beside each other, each in a process of its own and in turns, so that other load meets them all."""

import ctypes
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from contestants import CLASSIFIERS, NUM_LABELS, PRETRAINERS, SAMPLING_RATE, efficientat

MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """What holds for a whole run."""

    mode: str = "inference"
    device: str = "cpu"
    dtype: str = "float32"
    compile: bool = False
    turn_seconds: float = 0.7
    rounds: int = 3
    case_seconds: float = 60.0
    efficientat: Path | None = None
    cpu_time: bool = False  # of the process, which other load on the machine does not lengthen

    @property
    def contestants(self) -> dict:
        if self.mode == "pretraining":
            return PRETRAINERS
        if self.efficientat is None:
            return CLASSIFIERS
        return CLASSIFIERS | {"cnn": (f"EfficientAT {self.efficientat.name}", partial(efficientat, self.efficientat))}


@dataclass(frozen=True)
class Case:
    """A batch of clips, `seconds` long each, and the CPU threads that read it."""

    threads: int
    seconds: tuple[float, ...]

    @classmethod
    def ragged(cls, threads: int, batch_size: int) -> "Case":
        return cls(threads, tuple(np.linspace(1, 10, batch_size).tolist()))

    @property
    def name(self) -> str:
        shortest, longest = min(self.seconds), max(self.seconds)
        length = f"{longest:g} s" if shortest == longest else f"{shortest:g} to {longest:g} s"
        return length if len(self.seconds) == 1 else f"{len(self.seconds)} x {length}"

    def clips(self) -> list[np.ndarray]:
        generator = np.random.default_rng(0)
        return [0.1 * generator.standard_normal(round(s * SAMPLING_RATE), dtype=np.float32) for s in self.seconds]


@dataclass
class Result:
    """What one model took for one case. Times are seconds for the whole batch, memory is MiB above the loaded model.

    `seconds` counts from waveforms to logits, or to the end of a training step; `forward_seconds` leaves out what is
    done before the model is called. The lists hold the fastest of each round.
    """

    model: str
    label: str
    case: str
    threads: int
    batch_size: int
    audio_seconds: float
    num_parameters: int
    gflops: float | None
    peak_mib: float | None
    num_runs: int
    seconds_min: float
    seconds_median: float
    forward_seconds_min: float
    seconds_by_round: list[float]
    forward_seconds_by_round: list[float]


class Worker:
    """Holds one model and measures it."""

    def __init__(self, name: str, settings: Settings):
        self.settings, self.dtype = settings, getattr(torch, settings.dtype)
        self.trains = settings.mode != "inference"
        torch.manual_seed(0)
        contestant = settings.contestants[name][1]()
        self.contestant = contestant.to(settings.device, torch.float32 if self.trains else self.dtype)
        self.model = contestant.model.train(self.trains)
        self.callable = torch.compile(self.model) if settings.compile else self.model
        weights = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=1e-5) if self.trains else None
        self.memory = Memory(settings.device)

    def prepare(self, case: Case) -> tuple[int, float | None]:
        """Warms up. Number of parameters, and GFLOP counted where the case is an inference with one clip."""
        torch.set_num_threads(case.threads)
        self.clips = case.clips()
        counts = len(self.clips) == 1 and not self.trains
        with counted_operations() if counts else nullcontext() as counter:
            self.run(self.model if counts else self.callable)
        if counts and self.settings.compile:
            self.run(self.callable)
        self.memory.reset()
        num_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return num_parameters, counter.get_total_flops() / 1e9 if counts else None

    def turn(self) -> tuple[list[tuple[float, float]], float | None]:
        """Total and forward seconds of the runs of one turn, and the peak of the memory since `prepare`."""
        runs, start = [], time.perf_counter()
        least = 3 if self.settings.device == "cuda" else 1  # the first one has to ask the GPU for memory again
        while len(runs) < least or time.perf_counter() - start < self.settings.turn_seconds:
            runs.append(self.run(self.callable))
        peak = self.memory.peak()
        if self.settings.device == "cuda":
            torch.cuda.empty_cache()  # the others want it
        return runs, peak

    def run(self, model) -> tuple[float, float]:
        start = self.clock()
        inputs = self.contestant.inputs(self.clips, self.settings.device, self.dtype)
        extracted = self.clock()
        (self.train_step if self.trains else self.infer)(model, inputs)
        end = self.clock()
        return end - start, end - extracted

    def clock(self) -> float:
        if self.settings.device == "cuda":
            torch.cuda.synchronize()
        return time.process_time() if self.settings.cpu_time else time.perf_counter()

    def infer(self, model, inputs: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            outputs = model(**inputs)
        if not getattr(outputs, "logits", outputs).isfinite().all():
            raise RuntimeError("The logits must be finite, found some that are not.")

    def train_step(self, model, inputs: dict[str, torch.Tensor]) -> None:
        with torch.autocast(self.settings.device, self.dtype, enabled=self.dtype != torch.float32):
            outputs = model(**inputs)
        loss = outputs
        if self.settings.mode == "training":
            logits = getattr(outputs, "logits", outputs).float()
            loss = torch.nn.functional.cross_entropy(
                logits, torch.arange(len(logits), device=logits.device) % NUM_LABELS
            )
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


@contextmanager
def counted_operations() -> Iterator[FlopCounterMode]:
    """Fused attention is taken apart, for the counter does not see into all of its kernels."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


class Memory:
    """Peak memory above that of the moment when it is made: of the GPU, or of this process (Linux alone)."""

    def __init__(self, device: str):
        self.device = device
        self.before = self.reset()

    def reset(self) -> float | None:
        """Forgets the peak; memory in use."""
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed, but kept by the allocator
            Path("/proc/self/clear_refs").write_text("5")  # see proc(5): resets the peak
        except OSError:
            return None
        return self.process_peak()

    def peak(self) -> float | None:
        """In MiB; `None` where it cannot be told."""
        if self.before is None:
            return None
        peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else self.process_peak()
        return (peak - self.before) / MIB

    def process_peak(self) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


_worker: Worker | None = None


def _start(name: str, settings: Settings) -> None:
    global _worker
    _worker = Worker(name, settings)


def _prepare(case: Case) -> tuple[int, float | None]:
    return _worker.prepare(case)


def _turn() -> tuple[list[tuple[float, float]], float | None]:
    return _worker.turn()


def compete(names: list[str], cases: list[Case], settings: Settings) -> Iterator[list[Result]]:
    """For each case the results of all models, which take `rounds` turns, or two where `case_seconds` are over."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pools = {
            name: stack.enter_context(ProcessPoolExecutor(1, context, _start, (name, settings))) for name in names
        }
        for case in cases:
            counts = {name: pool.submit(_prepare, case).result() for name, pool in pools.items()}
            turns, start = {name: [] for name in names}, time.perf_counter()
            for i in range(settings.rounds):
                if i >= 2 and time.perf_counter() - start > settings.case_seconds:
                    break
                for name, pool in pools.items():
                    turns[name].append(pool.submit(_turn).result())
            yield [result(name, case, settings, counts[name], turns[name]) for name in names]


def result(name: str, case: Case, settings: Settings, counts: tuple[int, float | None], turns: list) -> Result:
    rounds = [np.array(runs) for runs, _ in turns]  # (runs, 2)
    totals = np.concatenate(rounds)[:, 0]
    by_round = np.array([runs.min(0) for runs in rounds])  # (rounds, 2)
    return Result(
        model=name,
        label=settings.contestants[name][0],
        case=case.name,
        threads=case.threads,
        batch_size=len(case.seconds),
        audio_seconds=sum(case.seconds),
        num_parameters=counts[0],
        gflops=counts[1],
        peak_mib=turns[-1][1],
        num_runs=len(totals),
        seconds_min=float(totals.min()),
        seconds_median=float(np.median(totals)),
        forward_seconds_min=float(by_round[:, 1].min()),
        seconds_by_round=by_round[:, 0].tolist(),
        forward_seconds_by_round=by_round[:, 1].tolist(),
    )
