"""Tests of rtpush.planning.capacity: the formulae, with numbers that can be worked out by hand."""

from __future__ import annotations

import math

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.planning.capacity import RULE_OF_THUMB, Demand, Machine, Need, plan
from rtpush.planning.figures import TRANSPORTS, Costs, Figures

COSTS = Costs(memory=1000.0, opening=100e-6, delivery=10e-6)
FIGURES = Figures(
    machine="made up",
    date="",
    costs=dict.fromkeys(TRANSPORTS, COSTS),
    publish=50e-6,
    heartbeat=5e-6,
    process=50e6,
    kernel=4000.0,
    redis=40e-6,
)
MACHINE = Machine(cores=8, memory=32e9, network=1e9, busy=0.5)


def need(transport: str, machine: Machine = MACHINE, **more: float) -> Need:
    """Return what a million users need."""
    fields = {"users": 1_000_000, "rate": 0.1, "size": 200, **more}
    return plan(Demand(**fields), FIGURES, machine, transport)  # type: ignore[arg-type]


class PlanTests(SynchronousTestCase):
    """Each figure by itself."""

    def test_short_polls(self) -> None:
        """A short poll every 5 s by a million users is 200,000 requests and 152 MiB of headers a second."""
        found = need("shortpoll", interval=5.0, headers=800)
        self.assertEqual(found.requests, 200_000.0)
        self.assertEqual(found.headers, 160_000_000.0)
        self.assertEqual(int(found.headers / 1024**2), 152)
        self.assertEqual(found.delay, 2.5)

    def test_rule(self) -> None:
        """The rule of 40 KB says 38 GiB for a million; what was measured says what it says."""
        found = need("websocket")
        self.assertEqual((RULE_OF_THUMB, int(found.rule / 1024**3)), (40_960.0, 38))
        self.assertEqual(found.memory, 1e9 + found.workers * 50e6)
        self.assertEqual(found.kernel, 4e9)

    def test_processor(self) -> None:
        """Cores are the sum of openings, publishes, deliveries and heartbeats, each by its cost."""
        found = need("websocket", session=1000.0, heartbeat=20.0, fanout=10)
        openings, publishes, deliveries, beats = 1000 * 100e-6, 10_000 * 50e-6, 100_000 * 10e-6, 50_000 * 5e-6
        self.assertAlmostEqual(found.cores, openings + publishes + deliveries + beats)
        self.assertEqual(found.workers, math.ceil(found.cores / 0.5))
        self.assertEqual((found.machines, found.bound), (1, "processor"))

    def test_short_poll_processor(self) -> None:
        """Polls cost the same whether they bring something or not."""
        self.assertAlmostEqual(need("shortpoll", session=1e9, rate=0).cores, 200_000 * 10e-6, places=6)

    def test_bandwidth(self) -> None:
        """What goes out is the messages in the form of the transport, with packets; the form is the server's own."""
        quiet = need("sse", rate=0.0)
        busy = need("sse", rate=0.1)
        each = (busy.outgoing - quiet.outgoing) / 100_000
        # "id: k3f9x0ab:1000000\ndata: " + 200 + "\n\n", and 66 bytes of packet.
        self.assertApproximates(each, 21 + 1 + 6 + 200 + 2 - 1 + 66, 1.5)
        self.assertEqual(round((busy.incoming - quiet.incoming) / 100_000), 66)

    def test_long_polls(self) -> None:
        """Without messages polls come as fast as they time out; with many, as fast as the messages."""
        self.assertApproximates(need("longpoll", rate=0.0, hold=25.0, session=1e12).requests, 40_000.0, 1)
        self.assertApproximates(need("longpoll", rate=10.0, hold=25.0, session=1e12).requests, 10_000_000.0, 1)
        # One message in 25 s on average: 1/25 / (1 - 1/e).
        expected = 40_000 / (1 - math.exp(-1))
        self.assertApproximates(need("longpoll", rate=0.04, hold=25.0, session=1e12).requests, expected, 1)

    def test_bounds(self) -> None:
        """What there is least of decides how many machines there are."""
        little = attrs.evolve(MACHINE, memory=2e9)
        self.assertEqual(need("websocket", little).bound, "memory")
        total = 5e9 + need("websocket").workers * 50e6
        self.assertEqual(need("websocket", little).machines, math.ceil(total / 1.5e9))
        self.assertEqual(need("websocket", attrs.evolve(MACHINE, network=1e7)).bound, "network")

    def test_broker(self) -> None:
        """A message for one user goes to one process; one for all, to all of them."""
        one = need("websocket")
        self.assertEqual(one.publishes, 100_000.0)
        self.assertApproximates(one.broker_out, 100_000.0, 0.1)
        self.assertAlmostEqual(one.broker_cores, 4.0)
        self.assertEqual(one.shards, 8)
        everybody = need("websocket", fanout=1_000_000)
        self.assertEqual(everybody.publishes, 0.1)
        self.assertAlmostEqual(everybody.broker_out, 0.1 * everybody.workers)

    @given(
        st.sampled_from(TRANSPORTS),
        st.integers(1, 10**9),
        st.floats(0, 1000),
        st.integers(0, 10**6),
        st.integers(1, 1000),
    )
    def test_more_is_never_less(self, transport: str, users: int, rate: float, size: int, fanout: int) -> None:
        """Twice the users never need less of anything, and every figure is a number."""
        demand = Demand(users=users, rate=rate, size=size, fanout=fanout)
        first = plan(demand, FIGURES, MACHINE, transport)
        second = plan(attrs.evolve(demand, users=users * 2), FIGURES, MACHINE, transport)
        for field in attrs.fields(Need):
            before, after = getattr(first, field.name), getattr(second, field.name)
            if not isinstance(before, str):
                self.assertTrue(math.isfinite(before) and before >= 0, field.name)
                self.assertGreaterEqual(after, before * (1 - 1e-9), field.name)
