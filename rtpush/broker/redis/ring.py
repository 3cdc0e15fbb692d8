"""Which of several Redis servers has a channel: consistent hashing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from hashlib import blake2b

__all__ = ["Ring"]

#: How many points each shard has on the ring. More of them spread the channels more evenly.
_POINTS = 160


class Ring:
    """
    Tells the shard of each channel.

    The function is part of what is stored: it must never change, since a channel whose shard is another one has lost
    its history. Any program can compute it:

    - The hash of a text is its BLAKE2b with a digest of 8 bytes, as a big-endian number.
    - The shard called ``name`` has 160 points: the hashes of ``name#0`` to ``name#159``.
    - The shard of a channel is the one of the first point that is not below the hash of the channel's name; after the
      last point comes the first.

    Names, not their order, decide: to add a shard moves about one of n channels, all of them to the new one.

    :param names: What the shards are called.
    :raises ValueError: if there is none, or two have the same name.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if not names or len(set(names)) < len(names):
            raise ValueError(f"expected one or more different names, not {names!r}")
        points = sorted(
            (_hash(f"{name}#{number}"), name, index) for index, name in enumerate(names) for number in range(_POINTS)
        )
        self._hashes = [point for point, _, _ in points]
        self._shards = [index for _, _, index in points]
        self._single = len(names) == 1

    def __call__(self, channel: str) -> int:
        """Return the index of the channel's shard."""
        if self._single:
            return 0
        return self._shards[bisect_left(self._hashes, _hash(channel)) % len(self._shards)]


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
