"""The layers of rtpush, as a law: which part may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[1]

#: What each part may import of rtpush, besides itself. What is not here may not be imported.
LAYERS = {
    "errors": {},
    "protocol": {"errors"},
    "interfaces": {"errors", "protocol"},
    "broker": {"errors", "protocol", "interfaces"},
    "auth": {"errors", "protocol", "interfaces"},
    "registry": {"errors", "protocol", "interfaces", "auth"},
    "hooks": {"errors", "protocol", "interfaces", "auth", "registry"},
    "metrics": {"errors", "protocol", "interfaces", "registry"},
    "transports": {"errors", "protocol", "interfaces", "registry", "auth"},
    "api": {"errors", "protocol", "interfaces", "registry", "metrics", "auth", "transports"},
    "client": {"errors", "protocol"},
    "service": {
        "errors", "protocol", "interfaces", "broker", "registry", "hooks", "metrics", "auth", "transports", "api"
    },
    "planning": {"errors", "protocol"},
    "cli": {"errors", "protocol", "auth", "hooks", "client", "planning", "service"},
    "testing": {"errors", "protocol", "registry", "service"},
}

#: Parts that do no input and output: of what is not ours, these may not be imported.
PURE = {"errors", "protocol", "planning"}
IMPURE_PACKAGES = {"twisted", "zope", "autobahn", "txredisapi", "asyncio", "socket", "time", "random", "threading"}

#: Modules that, by way of txredisapi, bring the reactor: all that speak with Redis. Only the service imports them, when
#: a configuration asks for it.
ON_TXREDISAPI = {
    f"rtpush.broker.redis.{name}"
    for name in (
        "broker", "following", "link", "membership", "presence", "protocol", "questions", "session", "shard"
    )
}

#: Parts that may import the reactor as they are imported. Elsewhere it is passed in.
WITH_REACTOR = {"service", "cli"}


@attrs.frozen
class Import:
    """An import of a module or of something in it; ``always`` if it happens as the importing module is imported."""

    name: str
    line: int
    always: bool


def imports(source: str, package: str) -> Iterator[Import]:
    """
    Yield what a module imports, wherever it does.

    :param package: The package that the module is in, for relative imports.
    """
    todo: list[tuple[ast.AST, bool]] = [(ast.parse(source), True)]
    while todo:
        node, always = todo.pop()
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, always) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: -(node.level - 1) or None] if node.level else []
            origin = ".".join([*parents, *filter(None, [node.module])])
            yield from (Import(f"{origin}.{alias.name}", node.lineno, always) for alias in node.names)
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        todo += [(child, always and not deferred) for child in ast.iter_child_nodes(node)]


def offences(name: str, source: str, *, is_package: bool = False) -> list[str]:
    """Return what a module imports and may not."""
    part = name.split(".")[1]
    if part not in LAYERS:
        return [f"{name}: {part} has no place in LAYERS"]
    found = []
    for each in imports(source, name if is_package else name.rpartition(".")[0]):
        top, _, rest = each.name.partition(".")
        wanted = rest.partition(".")[0]
        if top == "rtpush":
            # Of the package itself there is only its version.
            allowed = wanted in {part, "", "__version__", *LAYERS[part]}
        elif part in PURE:
            allowed = top not in IMPURE_PACKAGES
        else:
            allowed = True
        if each.always and part not in WITH_REACTOR and f"{each.name}.".startswith("twisted.internet.reactor."):
            allowed = False
        if not allowed:
            found.append(f"{name}:{each.line}: {part} may not import {each.name}")
    return found


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the name and the path of every module of rtpush."""
    for path in sorted((ROOT / "rtpush").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name != "rtpush":
            yield name, path


def loaded_by(names: list[str]) -> set[str]:
    """Return all modules that are there after importing some in a new process."""
    code = f"import sys, importlib; [importlib.import_module(name) for name in {names!r}]; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True
    )
    return set(result.stdout.split())


class LayerTests(SynchronousTestCase):
    """The modules that there are."""

    def test_layers(self) -> None:
        """No module imports what its layer may not."""
        found = [
            offence
            for name, path in modules()
            for offence in offences(name, path.read_text(), is_package=path.name == "__init__.py")
        ]
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_one_direction(self) -> None:
        """The table itself has no circle: what comes later imports only what comes earlier."""
        seen: set[str] = set()
        for part, allowed in LAYERS.items():
            if part != "cli":
                self.assertLessEqual(set(allowed), seen, part)
            seen.add(part)

    def test_pure(self) -> None:
        """Importing the protocol core brings nothing of Twisted, not even by way of others."""
        loaded = loaded_by([name for name, _ in modules() if name.split(".")[1] in PURE]) - loaded_by([])
        self.assertIn("rtpush.protocol.position", loaded)
        self.assertEqual({name for name in loaded if name.split(".")[0] in {"twisted", "zope", "autobahn"}}, set())

    def test_no_reactor(self) -> None:
        """Importing all that is not the service installs no reactor, not even by way of others."""
        names = [name for name, _ in modules() if name not in ON_TXREDISAPI]
        loaded = loaded_by([name for name in names if name.split(".")[1] not in WITH_REACTOR])
        self.assertIn("rtpush.transports", loaded)
        self.assertNotIn("twisted.internet.reactor", loaded)

    def test_no_txredisapi(self) -> None:
        """What every process imports, does not bring txredisapi."""
        self.assertNotIn("txredisapi", loaded_by(["rtpush.service.assemble", "rtpush.service.config"]))


class CheckTests(SynchronousTestCase):
    """The check itself: it must be able to fail."""

    def test_offences(self) -> None:
        """What a layer may not import is found, however it is written."""
        for name, source in (
            ("rtpush.protocol.x", "import twisted.internet.defer"),
            ("rtpush.protocol.x", "from zope import interface"),
            ("rtpush.protocol.x", "import time"),
            ("rtpush.protocol.x", "def f():\n    import autobahn"),
            ("rtpush.protocol.x", "from rtpush.interfaces import IBroker"),
            ("rtpush.protocol.x", "from ..registry import node"),
            ("rtpush.protocol.x", "from .. import registry"),
            ("rtpush.broker.x", "from rtpush import registry"),
            ("rtpush.registry.x", "if TYPE_CHECKING:\n    from rtpush.transports.sse import Stream"),
            ("rtpush.transports.x", "import rtpush.service.config"),
            ("rtpush.client.x", "from rtpush.registry.node import Node"),
            ("rtpush.transports.x", "from twisted.internet import reactor"),
            ("rtpush.transports.x", "try:\n    import twisted.internet.reactor as r\nexcept ImportError:\n    pass"),
            ("rtpush.transports.x", "class C:\n    from twisted.internet.reactor import callLater"),
            ("rtpush.unheard_of.x", ""),
        ):
            with self.subTest(name=name, source=source):
                self.assertEqual(len(offences(name, source)), 1, (name, source))

    def test_innocent(self) -> None:
        """What a layer may import is not found."""
        for name, source in (
            (
                "rtpush.protocol.x",
                "import re, attrs\nfrom rtpush.errors import ErrorCode\nfrom .position import Position",
            ),
            ("rtpush.broker.x", "from twisted.internet.defer import Deferred\nfrom rtpush import __version__"),
            ("rtpush.transports.x", "def f():\n    from twisted.internet import reactor"),
            ("rtpush.service.x", "from twisted.internet import reactor\nimport rtpush.transports.sse"),
        ):
            with self.subTest(name=name, source=source):
                self.assertEqual(offences(name, source), [])
        self.assertEqual(offences("rtpush.protocol", "from . import position", is_package=True), [])
