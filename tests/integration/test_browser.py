"""A real browser behind a real proxy that lets through less and less, and then all again."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.support.browser import Browser
from tests.support.journey import MESSAGES, Journey, View
from tests.support.nginx import Nginx
from tests.support.server import Server
from tests.support.waiting import until

#: Remembers which transports carry, from the first on.
_WATCH = """
    const { client } = window.demo;
    window.carried = [client.transport ?? null];
    client.on("transport", ({ transport }) => window.carried.push(transport ?? null));
"""

_LOOK = "return [window.carried, window.demo.received.length]"

_RESULT = """
    const { received, stats } = window.demo;
    return { stats, numbers: received.map(({ data }) => data.n), by: received.map(({ transport }) => transport) };
"""

_FOLLOW = """
    window.events = [];
    window.opened = 0;
    window.source = new EventSource(arguments[0]);
    source.onmessage = ({ data, lastEventId }) => window.events.push([JSON.parse(data), lastEventId]);
    source.addEventListener("open", (event) => { if (event.data) window.opened += 1; });
    source.addEventListener("gap", () => window.events.push(["gap"]));
"""


class DemoPageTests(TestCase):
    """The demo page, with our client."""

    timeout = 150

    async def test_thousand_messages(self) -> None:
        """
        The page gets every message once and in order while WebSocket, then SSE are blocked, then connections are cut,
        and takes each time the best transport that works.
        """
        channel = "demo:numbers"
        browser = await Browser.start(self)
        server = await Server.start(self)
        nginx = await Nginx.start(self, server.port)
        await browser.open(f"{nginx.url}demo/?base=/net/&channel={channel}&climbAfter=0.25&openTimeout=1.5")
        await until(lambda: server.subscribers(channel), "the page to subscribe")
        await browser.run(_WATCH)

        async def look() -> View:
            return View(*await browser.run(_LOOK))

        await Journey(server, nginx, channel, look, "websocket").travel()
        result = await browser.run(_RESULT)
        self.assertEqual(result["numbers"], list(range(1, MESSAGES + 1)))
        stats = result["stats"]
        self.assertEqual([stats[name] for name in ("lost", "doubled", "misordered", "gaps")], [0, 0, 0, 0])
        # The offsets say where it was on the way: up, down to the bottom, up again.
        self.assertEqual((result["by"][0], result["by"][-1]), ("websocket", "websocket"))
        self.assertEqual(set(result["by"]), {"websocket", "sse", "longpoll"})
        self.assertLess(result["by"].index("sse"), result["by"].index("longpoll"))


class EventSourceTests(TestCase):
    """What a browser can do without our client."""

    timeout = 120

    async def test_resumes(self) -> None:
        """A plain EventSource that is cut again and again goes on by itself, from the last event that it saw."""
        channel = "demo:source"
        browser = await Browser.start(self)
        server = await Server.start(self)
        nginx = await Nginx.start(self, server.port)
        await browser.open(f"{nginx.url}empty.html")
        await browser.run(_FOLLOW, f"/net/sse?channel={channel}")
        await until(lambda: server.subscribers(channel), "the page to subscribe")
        position = ""
        for cut in range(5):
            first = 40 * cut + 1
            await server.publish(channel, range(first, first + 20))
            await nginx.switch("good")
            # Nobody is there to hear these.
            positions = await server.publish(channel, range(first + 20, first + 40))
            position = "{epoch}:{offset}".format_map(positions[-1])
        await until(lambda: browser.run("return window.events.length >= 200"), "200 messages", every=0.1)
        events = await browser.run("return window.events")
        self.assertEqual([data for data, _ in events], list(range(1, 201)))
        self.assertEqual(events[-1][1], position)
        self.assertGreaterEqual(await browser.run("return window.opened"), 2)
