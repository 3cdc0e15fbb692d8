"""How values are written in the configuration: from text to numbers, words and lists."""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import attrs

from rtpush.service.ini import Line, Mistake, show

__all__ = [
    "Many",
    "One",
    "Value",
    "boolean",
    "choice",
    "integer",
    "matching",
    "member",
    "nearest",
    "number",
    "origin",
    "path",
    "url",
]

_E = TypeVar("_E", bound=enum.Enum)

_BOOLEANS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False, "1": True, "0": False}
_DEFAULT_PORTS = {"http": 80, "https": 443}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean …?`` for the known name that looks most like this one, or nothing."""
    close = difflib.get_close_matches(name.lower()[:100], list(known), n=1)
    return f"did you mean {close[0]}?" if close else ""


@attrs.frozen
class One:
    """
    A value of a single line.

    :ivar expected: What may be written, as it stands after "expected".
    :ivar convert: Turns the text into the value; raises :exc:`ValueError`, with a reason where there is more to say.
    :ivar secret: Whether messages must not show the value.
    """

    expected: str
    convert: Callable[[str], object]
    secret: bool = False

    def read(self, lines: Sequence[Line]) -> object:
        """
        Read the value.

        :raises Mistake: if it is not what was expected.
        """
        if not lines:
            raise Mistake(None, f"there is no value; expected {self.expected}")
        if len(lines) > 1:
            raise Mistake(lines[1].number, f"{self.shown(lines[1].text)}: expected one line only: {self.expected}")
        return self.item(lines[0])

    def item(self, line: Line) -> object:
        """
        Read a piece of text.

        :raises Mistake: if it is not what was expected.
        """
        try:
            return self.convert(line.text)
        except ValueError as error:
            reason = f" ({error})" if str(error) else ""
            raise Mistake(line.number, f"{self.shown(line.text)}: expected {self.expected}{reason}") from error

    def shown(self, text: str) -> str:
        """Return the text as a message may show it."""
        return f"a value of {len(text)} characters" if self.secret else show(text)


@attrs.frozen
class Many:
    """
    A list of values, one a line.

    :ivar one: What each of them is.
    :ivar commas: Whether a line may hold several, with commas between them.
    :ivar least: How many there must be at least.
    """

    one: One
    commas: bool = False
    least: int = 0

    def read(self, lines: Sequence[Line]) -> tuple[object, ...]:
        """
        Read the values.

        :raises Mistake: if one of them is not what was expected or is there twice, or if there are too few.
        """
        values: list[object] = []
        for piece in self._pieces(lines):
            value = self.one.item(piece)
            if value in values:
                raise Mistake(piece.number, f"{self.one.shown(piece.text)}: expected each value once")
            values.append(value)
        if len(values) < self.least:
            raise Mistake(None, f"there is no value; expected {self.one.expected}")
        return tuple(values)

    def _pieces(self, lines: Sequence[Line]) -> Iterator[Line]:
        for line in lines:
            for piece in line.text.split(",") if self.commas else [line.text]:
                if piece.strip():
                    yield Line(line.number, piece.strip())


#: What a key may hold.
Value = One | Many


def integer(least: int, most: int) -> One:
    """Return the kind of value that is a whole number within bounds."""

    def convert(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,18}", text) is None or not least <= (value := int(text)) <= most:
            raise ValueError
        return value

    return One(f"a whole number from {least} to {most}", convert)


def number(least: float, most: float, what: str = "a number of seconds") -> One:
    """Return the kind of value that is a number within bounds, written without sign and exponent."""

    def convert(text: str) -> float:
        match = re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", text)
        if match is None or not least <= (value := float(text)) <= most:
            raise ValueError
        return value

    return One(f"{what} from {least:g} to {most:.0f}", convert)


def boolean() -> One:
    """Return the kind of value that is yes or no."""

    def convert(text: str) -> bool:
        value = _BOOLEANS.get(text.lower())
        if value is None:
            raise ValueError
        return value

    return One("yes or no", convert)


def choice(*words: str) -> One:
    """Return the kind of value that is one of a few words."""

    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(nearest(text, words))
        return text

    return One(" or ".join(filter(None, [", ".join(words[:-1]), words[-1]])), convert)


def member(kind: type[_E]) -> One:
    """Return the kind of value that is a member of an enumeration, written as the member's value."""
    words = choice(*(str(each.value) for each in kind))
    return One(words.expected, lambda text: kind(words.convert(text)))


def matching(pattern: str, expected: str, *, secret: bool = False) -> One:
    """Return the kind of value that is a text of a certain form."""

    def convert(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError
        return text

    return One(expected, convert, secret)


def path() -> One:
    """Return the kind of value that is the path of a file."""
    return matching(r"[^\0]+", "the path of a file")


def url() -> One:
    """Return the kind of value that is an absolute HTTP URL. A slash at its end is dropped."""

    def convert(text: str) -> str:
        parts = _split(text)
        if parts.scheme not in _DEFAULT_PORTS or parts.query or parts.fragment:
            raise ValueError
        return text.rstrip("/")

    return One("an absolute URL without query, such as https://push.example.com", convert)


def origin() -> One:
    """Return the kind of value that is a web origin, brought into the form in which browsers send it, or ``*``."""

    def convert(text: str) -> str:
        if text == "*":
            return text
        parts = _split(text.lower())
        if parts.path or parts.query or parts.fragment:
            raise ValueError
        host = parts.netloc
        if parts.port is not None and parts.port == _DEFAULT_PORTS.get(parts.scheme):
            host = host.rpartition(":")[0]
        return f"{parts.scheme}://{host}"

    return One("an origin without path, such as https://example.com, or *", convert)


def _split(text: str) -> SplitResult:
    # urlsplit drops some characters silently: what is not plain must not get there.
    if re.fullmatch(r"[!-~]+", text) is None:
        raise ValueError
    parts = urlsplit(text)
    if not parts.scheme or not parts.hostname or "@" in parts.netloc or parts.port == 0:
        raise ValueError
    return parts
