"""Two times when everybody comes: all nodes crash at once, and one node after the other is restarted. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import attrs

from rtpush.planning.crowd import Chance, Crowd, Node, Outcome, Share, evenly
from rtpush.protocol.backoff import Backoff
from rtpush.protocol.bucket import TokenBucket
from rtpush.protocol.drain import TICK, last_told, slice_size

__all__ = ["Scene", "crash", "rolling_restart"]

Report = Callable[[Crowd], object]


def _ignore(crowd: Crowd) -> None:
    """Tell nobody."""


@attrs.frozen(kw_only=True)
class Scene:
    """
    Who is there when it begins. Times are seconds.

    :ivar rate: How many clients a node lets in a second in the long run; 0 for any number.
    :ivar burst: How many it lets in at once.
    :ivar down: How long a node that has ended does not listen.
    :ivar share: Which node gets a client that comes.
    """

    clients: int
    nodes: int
    backoff: Backoff = Backoff()
    rate: float = 2000.0
    burst: int = 5000
    down: float = 5.0
    share: Share = evenly

    def bucket(self, now: float) -> TokenBucket:
        """Return the bucket of a node that has just started."""
        return TokenBucket(self.rate, self.burst, now)


def crash(scene: Scene, chance: Chance | None, report: Report = _ignore) -> Outcome:
    """
    Have all nodes die at the same moment, and come back together after a while.

    :param chance: Spreads the clients; without it nobody is spread.
    :param report: Called now and then.
    """
    nodes = [Node(scene.bucket(0.0), listens=False) for _ in range(scene.nodes)]
    crowd = Crowd(nodes, scene.backoff, scene.share, chance)

    def start() -> None:
        for node in nodes:
            node.bucket = scene.bucket(crowd.now)
            node.listens = True

    crowd.at(0.0, lambda: crowd.lose(scene.clients))
    crowd.at(scene.down, start)
    return crowd.run(lambda: report(crowd))


def rolling_restart(
    scene: Scene,
    chance: Chance | None,
    *,
    window: float = 15.0,
    notice: float = 3.0,
    pause: float = 10.0,
    report: Report = _ignore,
) -> Outcome:
    """
    Restart one node after the other, each with a drain.

    :param chance: Spreads the clients; without it nobody is spread, and all of a node are told at the same moment.
    :param window: How long a node takes to leave.
    :param notice: How much of it passes before the first clients are told.
    :param pause: How long each new node has before the next one leaves.
    :param report: Called now and then.
    """
    each, rest = divmod(scene.clients, scene.nodes)
    nodes = [Node(scene.bucket(0.0), clients=each + (place < rest)) for place in range(scene.nodes)]
    crowd = Crowd(nodes, scene.backoff, scene.share, chance)
    # What a node says as it goes when there are others: come back by the first step of the backoff.
    after = partial(scene.backoff.delay, 0)

    def leave(node: Node) -> None:
        node.listens = False
        for time, clients in _slices(node.clients, window, notice, spread=chance is not None):
            crowd.at(crowd.now - notice + time, partial(let_go, node, clients))

    def let_go(node: Node, clients: int) -> None:
        node.clients -= clients
        crowd.lose(clients, after)

    def start(node: Node) -> None:
        node.bucket = scene.bucket(crowd.now)
        node.listens = True

    time = 0.0
    for node in nodes:
        crowd.at(time + notice, partial(leave, node))
        crowd.at(time + window + scene.down, partial(start, node))
        time += window + scene.down + pause
    return crowd.run(lambda: report(crowd))


def _slices(clients: int, window: float, notice: float, *, spread: bool) -> Iterator[tuple[float, int]]:
    """Yield when how many are told, in seconds since the beginning of the window."""
    if not spread:
        yield notice, clients
        return
    tick, last = 0, last_told(window)
    while clients:
        elapsed = notice + tick * TICK
        told = min(slice_size(clients, elapsed, last), clients)
        yield elapsed, told
        clients -= told
        tick += 1
