"""The JavaScript client's own tests, which run under Node."""

from __future__ import annotations

import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.programs import find

_CLIENT = Path(__file__).resolve().parents[2] / "clients" / "js"
_OLDEST = 20


def _node() -> str:
    node = find("node")
    if node is None:
        raise SkipTest("node is missing")
    version = subprocess.run([node, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < _OLDEST:
        raise SkipTest(f"node is {version}, and the client needs {_OLDEST} or newer")
    return node


class JavaScriptClientTests(SynchronousTestCase):
    """``clients/js/test``."""

    def test_own_tests(self) -> None:
        """They pass."""
        files = sorted(str(path.relative_to(_CLIENT)) for path in _CLIENT.glob("test/*.test.js"))
        result = subprocess.run(
            [_node(), "--test", "--test-reporter=tap", *files],
            cwd=_CLIENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        self.assertEqual((result.returncode, "\n# fail 0\n" in result.stdout), (0, True), result.stdout)
