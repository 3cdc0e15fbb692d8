"""
Bytes that look for code which was not reached yet: ``python -m tests.hardening.fuzz --atheris SECONDS``.

``atheris`` (libFuzzer) does it, where it can be installed; it is for CPython on Linux and macOS, and no dependency of
anything else. The first byte of an input says which of the readers in ``parsers`` it is for.
"""

from __future__ import annotations

import sys
from random import Random

import atheris

with atheris.instrument_imports(include=["rtpush", "msgspec", "jwt", "httptools"]):
    from tests.hardening.inputs import Inputs
    from tests.hardening.parsers import PARSERS

__all__ = ["main"]

_READERS = list(PARSERS.values())

#: How many inputs of each kind it begins with.
_EACH = 30


def _try(data: bytes) -> None:
    if data:
        _READERS[data[0] % len(_READERS)](data[1:])


def _begin(folder: str) -> None:
    """Write what it begins with."""
    inputs = Inputs()
    inputs.chance = Random(0)
    makers = {
        "head": inputs.request,
        "query": inputs.query,
        "cursor": inputs.cursor,
        "json": inputs.json_command,
        "msgpack": inputs.msgpack_command,
        "proxy": inputs.proxy_header,
        "forwarded": inputs.forwarded,
        "ini": inputs.lines,
        "name": inputs.name,
        "token": inputs.token,
        "jwks": inputs.key_set,
    }
    for kind, name in enumerate(PARSERS):
        for number in range(_EACH):
            with open(f"{folder}/{name}-{number}", "wb") as file:
                file.write(bytes([kind]) + makers[name]())


def main(seconds: str, folder: str) -> None:
    """Try for so long, and end the process; with a status that is not 0 if something was found, which is shown."""
    _begin(folder)
    options = [f"-max_total_time={seconds}", "-max_len=16384", "-timeout=20", f"-artifact_prefix={folder}/", folder]
    atheris.Setup([sys.argv[0], *options], _try)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
