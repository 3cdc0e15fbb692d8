"""What a section of the configuration is, and a key in it."""

from __future__ import annotations

import attrs

from rtpush.service.values import Value

__all__ = ["Key", "SectionType"]


@attrs.frozen
class Key:
    """
    One key of a section.

    :ivar value: What it may hold.
    :ivar doc: What it does, in the words that the shipped files use.
    :ivar other_field: The field of the class that holds it, where that is not called like the key.
    """

    name: str
    value: Value
    doc: str
    other_field: str = ""

    @property
    def field(self) -> str:
        """The field of the class that holds the value."""
        return self.other_field or self.name


@attrs.frozen
class SectionType:
    """
    One section.

    :ivar holder: The class that holds its values and knows their defaults.
    """

    name: str
    holder: type[attrs.AttrsInstance]
    keys: tuple[Key, ...]

    def default(self, key: Key) -> object:
        """Return the default of a key: :data:`attrs.NOTHING` if it must be given."""
        return attrs.fields_dict(self.holder)[key.field].default
