"""Work on many items in several processes, whose results come in the order of the items."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    num_proc: int,
    chunk_size: int = 1,
    start_method: str | None = None,
) -> Iterator[Result]:
    """
    Applies a function to each item, a few items ahead of what is taken, so that the items may be endless.

    Args:
        function (`Callable`): With more than one process, it and its results are pickled.
        items (`Iterable`): What it is applied to.
        num_proc (`int`): The number of processes; with 1, all is done in this one.
        chunk_size (`int`, *optional*, defaults to 1): How many items a process is given at a time.
        start_method (`str`, *optional*): How processes start, by default as Python's do. PyTorch's threads do not
            survive a fork: where they compute, take `spawn`.
    """
    if num_proc == 1:
        yield from map(function, items)
        return
    remaining = iter(items)
    ahead: deque[Future[list[Result]]] = deque()
    pool = ProcessPoolExecutor(num_proc, get_context(start_method))
    try:
        while chunk := list(islice(remaining, chunk_size)):
            ahead.append(pool.submit(_apply, function, chunk))
            if len(ahead) > 2 * num_proc:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _apply(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]
