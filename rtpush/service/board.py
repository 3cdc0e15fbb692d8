"""
A board on which all workers of a parent pin what they have counted, so that each can tell of all.

It is a file without a name, which the parent makes and all have open. Each worker has a place of its own; one that
comes after another in the same place goes on from what that one has counted.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Mapping

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

import rtpush
from rtpush.metrics.samples import Sample, Samples, carried
from rtpush.metrics.sampling import node_samples
from rtpush.registry.node import Node

__all__ = ["Board", "SharedSamples"]

#: The most bytes of a place. What nobody writes to takes no memory.
_PLACE = 1 << 20

#: What stands before the samples: their length, their checksum, and when they were taken.
_HEAD = struct.Struct("!IId")

#: Seconds between two times that a worker pins its samples.
_INTERVAL = 1.0

#: Seconds after which what goes up and down is not believed any more.
_STALE = 5.0

#: How often a place is read again that is just being written.
_TRIES = 3


class Board:
    """
    The places of all workers.

    :param fd: The file's descriptor, which belongs to this object.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def of(cls, count: int) -> Board:
        """Make one for a number of workers, which are counted from 1."""
        with tempfile.TemporaryFile() as file:
            fd = os.memfd_create("board") if sys.platform == "linux" else os.dup(file.fileno())
        os.ftruncate(fd, _PLACE * (count + 1))
        return cls(fd)

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._fd

    def close(self) -> None:
        """Have nothing more to do with it."""
        os.close(self._fd)

    def pin(self, number: int, samples: Samples, now: float) -> None:
        """
        Put samples where a worker has its place.

        :raises ValueError: if they are too large.
        """
        data = msgspec.json.encode(samples)
        if len(data) > _PLACE - _HEAD.size:
            raise ValueError(f"the samples have {len(data)} bytes")
        os.pwrite(self._fd, _HEAD.pack(len(data), _checksum(data), now) + data, _PLACE * number)

    def samples(self, number: int) -> tuple[Samples, float] | None:
        """Return the samples of a worker and when they were taken; nothing if there are none."""
        for _ in range(_TRIES):
            head = os.pread(self._fd, _HEAD.size, _PLACE * number)
            if len(head) < _HEAD.size:
                return None
            size, checksum, taken = _HEAD.unpack(head)
            data = os.pread(self._fd, size, _PLACE * number + _HEAD.size)
            if size and _checksum(data) == checksum:
                return msgspec.json.decode(data, type=dict[str, list[Sample]]), taken
        return None

    def numbers(self) -> range:
        """Return the numbers of all workers."""
        return range(1, os.fstat(self._fd).st_size // _PLACE)


class SharedSamples:
    """
    The samples of a worker's node, and those of the others.

    :param number: The worker's.
    """

    def __init__(self, clock: IReactorTime, board: Board, number: int, node: Node) -> None:
        self._clock = clock
        self._board = board
        self._number = number
        self._node = node
        before = board.samples(number)
        self._before: Samples = {} if before is None else before[0]
        self._pinning = LoopingCall(self._pin)
        self._pinning.clock = clock

    def start(self) -> None:
        """Begin to pin."""
        self._pinning.start(_INTERVAL)

    def stop(self) -> None:
        """Pin once more, and end."""
        if self._pinning.running:
            self._pinning.stop()
            self._pin()

    def gather(self) -> Mapping[str, Samples]:
        """Return the samples of all workers, by their numbers."""
        gathered = {str(self._number): self._own()}
        for number in self._board.numbers():
            found = self._board.samples(number)
            if number != self._number and found is not None:
                gathered[str(number)] = self._aged(*found)
        return dict(sorted(gathered.items(), key=lambda item: int(item[0])))

    def _own(self) -> Samples:
        return carried(self._before, node_samples(self._node))

    def _pin(self) -> None:
        self._board.pin(self._number, self._own(), self._clock.seconds())

    def _aged(self, samples: Samples, taken: float) -> Samples:
        age = max(0.0, self._clock.seconds() - taken)
        if age > _STALE:
            samples = carried(samples, {})
        return {**samples, "rtpush_sample_age_seconds": [Sample((), age)]}


def _checksum(data: bytes) -> int:
    """Return what differs if the data does, or the version that has written it."""
    return zlib.crc32(data, zlib.crc32(rtpush.__version__.encode()))
