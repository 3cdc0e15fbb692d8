"""What is measured with worker processes and more clients than one process can hold."""

from __future__ import annotations

import math
import statistics
import time

from benchmarks.crowd import MARK, Crowd, crowd
from benchmarks.errors import BenchmarkError
from benchmarks.load import Publisher
from benchmarks.proc import Meter, kernel_bytes, pss_bytes, settle
from benchmarks.scenario import Figure, Sample, Scale, Scenario
from benchmarks.target import Ability, Target
from benchmarks.workers import RtpushWorkers

__all__ = ["MASS_SCENARIOS"]

#: How many connections a worker has; far below the limit of open files, as the kernel does not share them out evenly.
_A_WORKER = 10_000
#: How many connections follow a channel.
_A_CHANNEL = 100
_PAYLOAD_BYTES = 128
#: Seconds between two messages to the same connection, and between two requests that publish.
_PERIOD, _STEP = 10.0, 0.1
_PATIENCE = 180.0


def channel_names(count: int) -> list[str]:
    """Return so many channels."""
    return [f"bench:{number}" for number in range(count)]


class Mass(Scenario):
    """A scenario with a crowd, on workers."""

    group = "workers"
    needs = frozenset({Ability.WORKERS})
    repeat = False
    quick = False

    def workers(self, count: int) -> int:
        """Return how many workers so many connections need."""
        return max(2, math.ceil(count / _A_WORKER))


class Many(Mass):
    """Connections of all transports that are held open, first left alone, then with a message each every 10 s."""

    name = "many"
    figures = (
        Figure("many-held", "held to the end", "connections", False),
        Figure("many-dropped", "dropped", "connections", True),
        Figure("many-delivered", "messages delivered, of those due", "%", False, 100.0),
        Figure("many-pss", "memory of the processes, a connection", "KB", True, 1 / 1024),
        Figure("many-pss-all", "memory of the processes, all", "MB", True, 1 / 1024**2),
        Figure("many-kernel", "memory of the kernel, a connection and its client's", "KB", True, 1 / 1024),
        Figure("many-nobody", "CPU with nobody there", "% of a core", True, 100.0),
        Figure("many-heartbeat", "CPU of a heartbeat round, beyond that", "% of a core", True, 100.0),
        Figure("many-messages", "CPU with a message each every 10 s, all", "% of a core", True, 100.0),
    )

    def prepare(self, target: Target, scale: Scale) -> None:
        assert isinstance(target, RtpushWorkers)
        target.workers = self.workers(scale.many)
        target.heartbeat = RtpushWorkers.heartbeat

    def measure(self, target: Target, scale: Scale) -> Sample:
        assert isinstance(target, RtpushWorkers)
        channels = channel_names(max(1, scale.many // _A_CHANNEL))
        settle(target.pid)
        before, kernel_before = pss_bytes(target.pid), kernel_bytes()
        nobody = Meter(target.pid)
        with nobody:
            time.sleep(target.heartbeat / 3)
        with crowd("benchmarks.holding", target.port, scale.many, channels) as everybody:
            # Those who come have work done for them for a while yet.
            settle(target.pid, limit=target.heartbeat / 3)
            idle = Meter(target.pid)
            with idle:
                time.sleep(target.heartbeat)
            pss, kernel = pss_bytes(target.pid), kernel_bytes()
            begun = everybody.ask()
            busy = Meter(target.pid)
            with busy:
                due = self._publish(target, channels, scale) * scale.many // len(channels)
            answers = self._ended(everybody, due)
        held, delivered = everybody.total("held", answers), everybody.total("delivered", answers)
        clients = (everybody.total("cpu", answers) - everybody.total("cpu", begun)) / len(answers)
        return Sample(
            {
                "many-held": held,
                "many-dropped": everybody.total("dropped", answers),
                "many-delivered": delivered / due,
                "many-pss": (pss - before) / scale.many,
                "many-pss-all": pss,
                "many-kernel": (kernel - kernel_before) / scale.many,
                "many-nobody": nobody.server / nobody.wall,
                "many-heartbeat": idle.server / idle.wall - nobody.server / nobody.wall,
                "many-messages": busy.server / busy.wall,
            },
            server_busy=busy.server / busy.wall,
            client_busy=clients / busy.wall,
            details={
                "connections": scale.many,
                "workers": target.workers,
                "held when idle": everybody.total("held", begun),
                "heartbeats": everybody.total("heartbeats", begun),
                "put off": everybody.total("put off", begun),
                "idle user": idle.user,
                "idle system": idle.system,
                "busy user": busy.user,
                "busy system": busy.system,
                "seconds with messages": busy.wall,
            },
        )

    def _publish(self, target: RtpushWorkers, channels: list[str], scale: Scale) -> int:
        """Publish at a steady rate; return how many messages."""
        payload = MARK.ljust(_PAYLOAD_BYTES, "x")
        a_round = min(round(_PERIOD / _STEP), len(channels))
        step = _PERIOD / a_round
        rounds = max(1, round(scale.minutes * 60 / _PERIOD))
        requests = [target.spread(channels[place::a_round], payload) for place in range(a_round)]
        begun = time.monotonic()
        with Publisher(target.publishing, 1) as publisher:
            for number in range(rounds * a_round):
                time.sleep(max(0.0, begun + number * step - time.monotonic()))
                publisher.send(requests[number % a_round])
                publisher.finish()
        return rounds * len(channels)

    def _ended(self, everybody: Crowd, due: int) -> list[dict[str, float]]:
        """Wait until all was delivered, or for long nothing comes; return what each process has seen."""
        delivered = -1.0
        while True:
            answers = [dict(answer) for answer in everybody.ask()]
            now = everybody.total("delivered", answers)
            if now >= due or now == delivered:
                return answers
            delivered = now
            time.sleep(2.0)


class Return(Mass):
    """WebSocket clients that come back after a restart, each with its position: when the last has its first message.

    A message is published on each channel while the server is away. Time runs from when the server is told to end.
    """

    name = "return"
    figures = (
        Figure("return-asked", "all back after a restart, as the server asks: the last first delivery", "s", True),
        Figure("return-asked-p50", "as the server asks: half of the first deliveries", "s", True),
        Figure("return-at-once", "all back after a restart, at once: the last first delivery", "s", True),
        Figure("return-at-once-p50", "at once: half of the first deliveries", "s", True),
        Figure("return-away", "of these, how long nobody listens", "s", True),
    )

    def prepare(self, target: Target, scale: Scale) -> None:
        assert isinstance(target, RtpushWorkers)
        target.workers = self.workers(scale.returning)
        # The crowd does not answer any.
        target.heartbeat = 600.0

    def measure(self, target: Target, scale: Scale) -> Sample:
        assert isinstance(target, RtpushWorkers)
        values: dict[str, float] = {}
        details: dict[str, float] = {"clients": scale.returning, "workers": target.workers}
        away = []
        for asked, key in ((True, "return-asked"), (False, "return-at-once")):
            # Each time others, so that the message of the first is not theirs.
            channels = [f"{channel}-{key}" for channel in channel_names(max(1, scale.returning // _A_CHANNEL))]
            with crowd("benchmarks.returning", target.port, scale.returning, channels, asked=asked) as everybody:
                settle(target.pid, limit=5.0)
                begun = time.monotonic()
                target.stop()
                stopped = time.monotonic()
                target.publish_in_redis(channels, MARK.ljust(_PAYLOAD_BYTES, "x"))
                target.start()
                away.append(time.monotonic() - stopped)
                served, attempts = self._served(everybody, scale.returning)
            values[key] = max(served) - begun
            values[f"{key}-p50"] = statistics.median(served) - begun
            details[f"{key} attempts"] = attempts
        values["return-away"] = statistics.mean(away)
        return Sample(values, details=details)

    def _served(self, everybody: Crowd, count: int) -> tuple[list[float], float]:
        """Return when each got its first message, and how many attempts it took all. Raises `BenchmarkError`."""
        give_up = time.monotonic() + _PATIENCE
        while time.monotonic() < give_up:
            time.sleep(1.0)
            answers = everybody.ask()
            served = [moment for answer in answers for moment in answer["served"]]
            if len(served) == count:
                return served, everybody.total("attempts", answers)
        raise BenchmarkError(f"only {len(served)} of {count} clients came back")


MASS_SCENARIOS: tuple[Scenario, ...] = (Many(), Return())
