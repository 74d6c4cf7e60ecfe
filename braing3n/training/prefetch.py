"""Batches made ahead of the step that uses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item, Made = TypeVar("Item"), TypeVar("Made")


def prefetched(make: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Iterator[Made]:
    """`map(make, items)` in order, with `threads` results in the making while one is used; 0 makes them on demand.

    Threads suffice, since reading files and copying tensors release Python's lock.
    """
    if threads == 0:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    ahead: deque = deque()
    try:
        for item in items:
            ahead.append(pool.submit(make, item))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
