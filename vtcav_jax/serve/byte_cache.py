"""Bounded cache of results that many requests may ask for at the same time."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class ByteCache(Generic[T]):
    """Results by key, at most `max_bytes` together; the one that was used least recently goes first.

    A result that several threads ask for is computed by one of them.
    """

    def __init__(self, max_bytes: int, size_of: Callable[[T], int]):
        self._max_bytes, self._size_of = max_bytes, size_of
        self._results: OrderedDict[Hashable, T] = OrderedDict()
        self._lock, self._key_locks = threading.Lock(), dict[Hashable, tuple[threading.Lock, list[int]]]()
        self.n_bytes = 0

    def get(self, key: Hashable) -> T | None:
        """Return the result, or None if it is not in the cache."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
            return self._results.get(key)

    def put(self, key: Hashable, result: T) -> None:
        with self._lock:
            if key in self._results:
                self.n_bytes -= self._size_of(self._results.pop(key))
            self._results[key] = result
            self.n_bytes += self._size_of(result)
            while self.n_bytes > self._max_bytes and len(self._results) > 1:
                self.n_bytes -= self._size_of(self._results.popitem(last=False)[1])

    def get_or_compute(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the result; threads that ask for one that is being computed wait for it."""
        if (result := self.get(key)) is not None:
            return result
        with self._lock:
            key_lock, waiting = self._key_locks.setdefault(key, (threading.Lock(), [0]))
            waiting[0] += 1
        try:
            with key_lock:
                if (result := self.get(key)) is None:
                    result = compute()
                    self.put(key, result)
                return result
        finally:
            with self._lock:
                waiting[0] -= 1
                if not waiting[0]:
                    self._key_locks.pop(key, None)
