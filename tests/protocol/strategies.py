"""What hypothesis draws: positions, names, JSON texts, payloads, messages."""

from __future__ import annotations

import json
import string
from typing import Any

from hypothesis import strategies as st

from rtpush.protocol.message import RESERVED_EVENTS, Kind, Message, Payload
from rtpush.protocol.position import MAX_OFFSET, Position

__all__ = [
    "binary_payloads",
    "channels",
    "epochs",
    "events",
    "json_payloads",
    "json_texts",
    "json_values",
    "messages",
    "payloads",
    "positions",
    "text_payloads",
    "texts",
]

#: The characters of channel names.
CHANNEL_LETTERS = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in ',"\\')

#: Any unicode that UTF-8 can carry, with the characters at which lines end often among it.
texts = st.text(st.one_of(st.sampled_from("\r\n\0:\ufeff\u2028\x85 "), st.characters(exclude_categories=["Cs"])))

epochs = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=32)

positions = st.builds(Position, epochs, st.integers(0, MAX_OFFSET))

channels = st.text(CHANNEL_LETTERS, min_size=1, max_size=255)

events = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029"), min_size=1, max_size=128
).filter(lambda event: event not in RESERVED_EVENTS)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=12,
)


@st.composite
def json_texts(draw: st.DrawFn) -> bytes:
    """Draw a JSON text, written in one of many ways."""
    value = draw(json_values)
    ascii_only = draw(st.booleans())
    indent = draw(st.sampled_from([None, 0, 1, "\t", "\r\n"]))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", "\t:\n")]))
    return json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators).encode()


json_payloads = (
    json_texts().filter(lambda text: not text.startswith(b'"')).map(lambda text: Payload(text, Kind.JSON))
)
text_payloads = texts.map(lambda text: Payload(text.encode(), Kind.TEXT))
binary_payloads = st.binary().map(lambda data: Payload(data, Kind.BINARY))
payloads = st.one_of(json_payloads, text_payloads, binary_payloads)

messages = st.builds(Message, channels, payloads, st.none() | events, st.none() | positions)
