"""The dashboard, in a real browser, of a real server."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.support.browser import Browser
from tests.support.server import Server, write_config
from tests.support.waiting import until

KEY, OTHER_KEY = "key-of-the-dashboard", "key-after-the-reload"

CONFIG: dict[str, dict[str, object]] = {
    "server": {"allowed_origins": ""},
    "api": {"open": "no", "keys": KEY},
}

_TEXT = "return document.getElementById(arguments[0]).innerText.trim()"
_IS_SEEN = "return document.getElementById(arguments[0]).checkVisibility()"
_LOG_IN = """
    document.getElementById("key").value = arguments[0];
    document.querySelector("#login-form button").click();
"""

#: Two clients in the page, and what they got.
_CLIENTS = """
    window.got = [];
    window.source = new EventSource("../sse?channel=demo:lobby");
    source.addEventListener("price", ({ data }) => window.got.push(data));
    const info = encodeURIComponent('{"name":"ann"}');
    window.socket = new WebSocket(`ws://${location.host}/ws?channel=demo:lobby&info=${info}`);
    socket.onclose = ({ code }) => (window.ended = code);
"""

_FLOW = """
    const body = JSON.stringify({ publish: { channel: "demo:lobby", data: { flow: 1 }, history: false } });
    window.flow = setInterval(() => fetch("../emit", { method: "POST", body }), 50);
"""

_PUBLISH = """
    document.getElementById("publish-channel").value = arguments[0];
    document.getElementById("publish-event").value = "price";
    document.getElementById("publish-data").value = arguments[1];
    document.querySelector("#publish-form button").click();
"""

_ROW = '[...document.querySelectorAll("#connections tr")].find((row) => row.cells[1].textContent === arguments[0])'

_REFUSED = re.compile(r"status of 40[14] ")

_PAGE_COLOUR = "return getComputedStyle(document.body).backgroundColor"


class DashboardTests(TestCase):
    """``/admin/``."""

    timeout = 120

    async def start(self) -> None:
        """Start both, and open the page."""
        self.browser = await Browser.start(self)
        self.config = write_config(self, CONFIG)
        self.server = await Server.start_with(self, self.config)
        await self.browser.open(f"{self.server.url}admin/")

    async def text(self, id_: str) -> str:
        """Return what an element shows."""
        return str(await self.browser.run(_TEXT, id_))

    async def number(self, id_: str) -> float:
        """Return the number that an element shows: -1 if it shows none yet."""
        text = await self.text(id_)
        return -1.0 if text in ("", "–") else float(text.replace(",", ""))

    async def shows(self, id_: str, part: str) -> None:
        """Wait until an element shows a text."""

        async def look() -> bool:
            return part in await self.text(id_)

        await until(look, f"{id_} to show {part!r}", every=0.05)

    async def seen(self, id_: str) -> None:
        """Wait until an element is there to be seen."""
        await until(lambda: self.browser.run(_IS_SEEN, id_), f"{id_} to be seen", every=0.05)

    async def log_in(self, key: str = KEY) -> None:
        """Log in, and wait for the first figures."""
        await self.seen("login")
        await self.browser.run(_LOG_IN, key)
        await self.seen("dashboard")
        await self.shows("feed-text", "live")

    async def complaints(self) -> list[Any]:
        """Return what the browser complains of, besides answers that refuse something."""
        said = await self.browser.log()
        return [each for each in said if each["level"] == "SEVERE" and not _REFUSED.search(each["message"])]

    async def test_work(self) -> None:
        """Who has the key sees what goes on, publishes, looks into a channel and ends a connection."""
        await self.start()
        await self.seen("login")
        await self.browser.run(_LOG_IN, "x" * 20)
        await self.shows("login-problem", "not known")
        self.assertFalse(await self.browser.run(_IS_SEEN, "dashboard"))
        await self.log_in()

        # What is there.
        await self.browser.run(_CLIENTS)
        await self.shows("connections-now", "2")
        await self.shows("legend", "WebSocket\n1\nSSE\n1")
        await self.shows("top", "demo:lobby\t2")
        await self.shows("nodes", "ready\t2\t1")
        self.assertEqual(await self.text("broker-state"), "healthy")

        # What flows: each message goes to two.
        await self.browser.run(_FLOW)

        async def flows() -> bool:
            return await self.number("in-now") >= 5 and await self.number("out-now") >= 10

        await until(flows, "the rates to rise", every=0.05)
        await self.browser.run("clearInterval(window.flow)")

        async def rests() -> bool:
            return await self.number("in-now") == await self.number("out-now") == 0

        await until(rests, "the rates to fall", every=0.05)

        # The form reaches a subscriber, and says what is wrong.
        await self.browser.run(_PUBLISH, "demo:lobby", '{"eur":41.2}')
        await self.shows("publish-status", "Published at ")
        got = """return window.got.includes('{"eur":41.2}')"""
        await until(lambda: self.browser.run(got), "the message", every=0.05)
        await self.browser.run(_PUBLISH, "nothing:a", "text")
        await self.shows("publish-status", "unknown channel")

        # The inspector.
        await self.browser.run("document.querySelector('#top button').click()")
        await self.shows("inspect-subscribers", "2")
        await self.shows("history", '{"eur":41.2}')
        await self.shows("history", "price")
        await self.shows("presence", '{"name":"ann"}')

        # A connection ends, for good.
        await until(lambda: self.browser.run(f"return Boolean({_ROW})", "websocket"), "the WebSocket's row", every=0.05)
        await self.browser.run(f"{_ROW}.querySelector('button').click()", "websocket")
        await until(lambda: self.browser.run("return window.ended === 4500"), "the end of the WebSocket", every=0.05)
        await until(lambda: self.browser.run(f"return !{_ROW}", "websocket"), "its row to go", every=0.05)
        await self.shows("connections-now", "1")
        self.assertEqual(await self.complaints(), [])

        # Nothing came from elsewhere, and the key is nowhere.
        names = await self.browser.run("return performance.getEntriesByType('resource').map(({ name }) => name)")
        self.assertEqual([name for name in names if not name.startswith(self.server.url)], [])
        self.assertEqual([name for name in names if KEY in name], [])
        self.assertEqual(await self.browser.run("return [document.cookie, localStorage.length]"), ["", 0])

    async def test_session(self) -> None:
        """A session outlives a reload of the page; it ends when its key is gone, and by logging out."""
        await self.start()
        await self.log_in()
        await self.browser.open(f"{self.server.url}admin/")
        await self.shows("feed-text", "live")

        path = Path(self.config)
        path.write_text(path.read_text().replace(KEY, OTHER_KEY))
        self.server.process.signal(signal.SIGHUP)
        await self.seen("login")
        await self.shows("login-problem", "over")
        self.assertFalse(await self.browser.run(_IS_SEEN, "dashboard"))

        await self.log_in(OTHER_KEY)
        await self.browser.run("document.getElementById('logout').click()")
        await self.seen("login")
        await self.browser.open(f"{self.server.url}admin/")
        await self.seen("login")
        self.assertEqual(await self.complaints(), [])

    async def test_restart(self) -> None:
        """When the server goes and another comes, the page goes on by itself with the same session."""
        await self.start()
        await self.log_in()
        path = Path(self.config)
        path.write_text(path.read_text().replace("tcp:0:", f"tcp:{self.server.port}:"))
        await self.server.process.stop()
        await self.shows("feed-text", "waiting")
        self.server = await Server.start_with(self, self.config)
        await self.shows("feed-text", "live")
        await self.shows("nodes", "ready")

    async def test_colours(self) -> None:
        """The page is light or dark as the system is, or as was chosen, and that is remembered."""
        await self.start()
        await self.seen("login")
        light, dark = "rgb(245, 246, 248)", "rgb(14, 18, 24)"

        async def system(scheme: str) -> Any:
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            await self.browser.command("Emulation.setEmulatedMedia", features=features)
            return await self.browser.run(_PAGE_COLOUR)

        async def choose(theme: str) -> Any:
            await self.browser.run("document.querySelector(`#theme input[value='${arguments[0]}']`).click()", theme)
            return await self.browser.run(_PAGE_COLOUR)

        self.assertEqual([await system("light"), await system("dark")], [light, dark])
        self.assertEqual([await choose("light"), await choose("dark"), await choose("")], [light, dark, dark])
        await choose("light")
        await self.browser.open(f"{self.server.url}admin/")
        self.assertEqual(await self.browser.run(_PAGE_COLOUR), light)

    async def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key."""
        what = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.browser.command("Input.dispatchKeyEvent", type="keyDown", text=text, **what)
        await self.browser.command("Input.dispatchKeyEvent", type="keyUp", **what)

    async def test_keyboard(self) -> None:
        """A keyboard is enough: to log in, and to come to each control; and each says what it is."""
        await self.start()
        await until(lambda: self.browser.run("return document.activeElement.id === 'key'"), "the focus", every=0.05)
        await self.browser.command("Input.insertText", text=KEY)
        await self.press("Enter", 13, "\r")
        await self.seen("dashboard")
        await self.shows("feed-text", "live")
        await self.browser.run(_CLIENTS)
        await self.shows("top", "demo:lobby\t2")
        await until(lambda: self.browser.run(f"return Boolean({_ROW})", "websocket"), "the rows", every=0.05)

        await self.browser.run("document.querySelector('.skip').focus(); window.reached = new Set()")
        reached = "reached.add(document.activeElement); return document.activeElement.outerHTML"
        for _ in range(40):
            await self.press("Tab", 9)
            await self.browser.run(reached)
        controls = """[...document.querySelectorAll("button, input, select, textarea")]
            .filter((each) => each.checkVisibility() && !each.disabled && (each.type !== "radio" || each.checked))"""
        missed = f"return {controls}.filter((each) => !reached.has(each)).map((each) => each.outerHTML)"
        self.assertEqual(await self.browser.run(missed), [])
        nameless = f"""return {controls}.filter((each) => !(each.labels?.length || each.textContent.trim()
            || each.ariaLabel)).map((each) => each.outerHTML)"""
        self.assertEqual(await self.browser.run(nameless), [])
