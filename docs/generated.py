"""
What is on these pages and made from the code: the keys of the configuration, and the calls of the server API.

It also makes links such as ```redis.rst <redis.rst>`_`` lead to the built page, so that pages read well in a repository
browser too.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

from rtpush.api.openapi import document
from rtpush.service import schema
from rtpush.service.sections import SectionType
from rtpush.service.values import Many, One

PROD = Path(__file__).resolve().parents[1] / "conf" / "prod.ini"

#: Keys whose defaults depend on something else; what they do says it.
_EMPTY = ("", (), None)


class ConfigKeys(SphinxDirective):
    """``config-keys``: a section for each section of the configuration, with all of its keys."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        self.env.note_dependency(str(PROD))
        self.env.note_dependency(str(schema.__file__))
        explained = explanations(PROD.read_text(encoding="utf-8"))
        return [self._section(section, explained) for section in (*schema.SECTIONS, schema.NAMESPACE)]

    def _section(self, section: SectionType, explained: dict[tuple[str, str], list[str]]) -> nodes.section:
        node = _section(self, f"config-{section.name.partition(':')[0]}", f"[{section.name}]")
        items = nodes.definition_list(classes=["config-keys"])
        for key in section.keys:
            term = nodes.term("", "", nodes.literal(text=key.name))
            default = written(section.default(key))
            if default is None:
                term += nodes.inline(text="  must be given")
            elif default:
                term += [nodes.inline(text=" = "), nodes.literal(text=default)]
            body = nodes.definition("", nodes.paragraph(text=key.doc))
            # That none is missing there is tested beside the configuration.
            body += _explanation(explained.get((section.name.partition(":")[0], key.name), [])[1:])
            body += nodes.paragraph(text=f"Expected: {expected(key.value)}.")
            items += nodes.definition_list_item("", term, body)
        node += items
        return node


def explanations(text: str) -> dict[tuple[str, str], list[str]]:
    """
    Return what the shipped configuration says above each key, by section and key, in lines.

    ``[namespace:default]`` stands for all namespaces.
    """
    found: dict[tuple[str, str], list[str]] = {}
    section = ""
    above: list[str] = []
    for line in text.splitlines():
        if match := re.fullmatch(r"\[([a-z_]+)(:\w+)?\]", line):
            section, above = match[1], []
        elif match := re.match(r"#?([a-z_]+) =", line):
            found[section, match[1]], above = above, []
        elif line.startswith("# "):
            above.append(line[2:])
        else:
            above = []
    return found


def written(default: Any) -> str | None:
    """Return a default as it would be written in the file; nothing is empty, and None is for what must be given."""
    if default is attrs.NOTHING:
        return None
    if default in _EMPTY:
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, enum.Enum):
        return str(default.name if isinstance(default.value, int) else default.value).lower()
    if isinstance(default, tuple):
        return ", ".join(each if isinstance(each, str) else "redis://127.0.0.1:6379/0" for each in default)
    if isinstance(default, float):
        return f"{default:g}"
    return str(default)


def expected(value: One | Many | Any) -> str:
    """Return what may be written for a key."""
    if not isinstance(value, Many):
        return str(value.expected)
    return f"{value.one.expected}; several {'with commas between them, or ' if value.commas else ''}one a line"


def _explanation(lines: list[str]) -> Iterator[nodes.Element]:
    """Make paragraphs of what reads as text, and literal blocks of forms and examples."""
    text: list[str] = []
    forms: list[str] = []
    for line in lines:
        is_form = "  " in line
        if is_form and text:
            yield nodes.paragraph(text=" ".join(text))
            text = []
        if not is_form and forms:
            yield _forms(forms)
            forms = []
        (forms if is_form else text).append(line)
    if text:
        yield nodes.paragraph(text=" ".join(text))
    if forms:
        yield _forms(forms)


def _forms(lines: list[str]) -> nodes.literal_block:
    content = "\n".join(lines)
    return nodes.literal_block(content, content, language="none")


class ApiCalls(SphinxDirective):
    """``api-calls``: a section for each call of the server API, from its OpenAPI document."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        described = document()
        schemas = described["components"]["schemas"]
        return [
            self._section(path, methods["post"], schemas, described["servers"][0]["url"])
            for path, methods in described["paths"].items()
        ]

    def _section(self, path: str, call: dict[str, Any], schemas: dict[str, Any], prefix: str) -> nodes.section:
        body = schemas[_schema(call["requestBody"]["content"])["$ref"].rpartition("/")[2]]
        result = _schema(call["responses"]["200"]["content"])["properties"]["result"]
        node = _section(self, f"api-{call['operationId']}", call["operationId"])
        node += nodes.paragraph("", "", nodes.literal(text=f"POST {prefix}{path}"))
        for text in body["description"].split("\n\n"):
            node += nodes.paragraph("", "", *_inline(text))
        if body["properties"]:
            rows = [
                (name, kind(each), _given(name, each, body["required"])) for name, each in body["properties"].items()
            ]
            node += _table(("body", "type", "if it is not there"), rows)
        required = result.get("required", ())
        rows = [
            (name, kind(each), each.get("description", "" if name in required or not required else "may be absent"))
            for name, each in result["properties"].items()
        ]
        node += _table(("result", "type", ""), rows)
        return node


def kind(described: dict[str, Any]) -> str:
    """Return a type of JSON in words."""
    if not described:
        return "any JSON"
    if "$ref" in described:
        return str(described["$ref"].rpartition("/")[2].lower())
    if "anyOf" in described:
        return " or ".join(kind(each) for each in described["anyOf"] if each.get("type") != "null")
    if "oneOf" in described:
        return " or ".join(kind(each) for each in described["oneOf"])
    if described["type"] == "array":
        return f"[{kind(described['items'])}, …]"
    if described["type"] == "object" and "properties" in described:
        required = described.get("required", described["properties"])
        names = (name if name in required else f"{name}?" for name in described["properties"])
        return f"{{{', '.join(names)}}}"
    if described["type"] == "object" and isinstance(each := described.get("additionalProperties"), dict):
        return f"{{name: {kind(each)}, …}}"
    return str(described["type"])


def _given(name: str, described: dict[str, Any], required: list[str]) -> str:
    if name in required:
        return "an error"
    default = described.get("default")
    if default is None:
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def _schema(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["application/json"]["schema"]
    return found


def _section(directive: SphinxDirective, name: str, title: str) -> nodes.section:
    node = nodes.section(ids=[name], names=[nodes.fully_normalize_name(name)])
    node += nodes.title("", "", nodes.literal(text=title))
    directive.state.document.note_explicit_target(node)
    return node


def _inline(text: str) -> Iterator[nodes.Node]:
    for index, piece in enumerate(text.split("``")):
        yield nodes.literal(text=piece) if index % 2 else nodes.Text(piece)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> nodes.table:
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=width) for width in (24, 40, 36)[: len(head)]]
    group += nodes.thead("", _row([nodes.Text(text) for text in head]))
    group += nodes.tbody("", *(_row([nodes.literal(text=name), *map(nodes.Text, others)]) for name, *others in rows))
    return nodes.table("", group)


def _row(cells: list[Any]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


class PageLinks(SphinxTransform):
    """Turns links to files of this folder into links to their pages, which Sphinx checks."""

    default_priority: ClassVar[int] = 5

    def apply(self, **kwargs: Any) -> None:
        """Turn those of one page."""
        for node in list(self.document.findall(nodes.reference)):
            match = re.fullmatch(r"([a-z-]+)\.rst(#.*)?", node.get("refuri", ""))
            if match is None:
                continue
            text = node.astext()
            shown = nodes.inline(text=text)
            link = addnodes.pending_xref(
                "",
                shown,
                refdoc=self.env.docname,
                refdomain="std",
                reftype="doc",
                reftarget=match[1],
                refexplicit=text != match[0],
                refwarn=True,
            )
            node.replace_self(link)


def _signature(*event: Any) -> tuple[str, str] | None:
    """Have signatures show interfaces by their names; as types they would be shown by their ``repr``."""
    arguments, returned = event[-2:]
    if arguments is None:
        return None
    shown = [re.sub(r"<InterfaceClass (?:\w+\.)*(\w+)>", r"\1", text or "") for text in (arguments, returned)]
    return shown[0], shown[1]


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx."""
    app.add_directive("config-keys", ConfigKeys)
    app.add_directive("api-calls", ApiCalls)
    app.add_transform(PageLinks)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
