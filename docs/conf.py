"""How Sphinx builds these pages: ``make docs``, or ``python -m sphinx -W -n -b html docs docs/_build/html``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import rtpush  # noqa: E402

project = "rtpush"
author = "The rtpush contributors"
project_copyright = author
version = release = rtpush.__version__

# Nothing here needs a network, neither to build the pages nor to read them.
extensions = ["sphinx.ext.autodoc", "generated"]
exclude_patterns = ["_build"]
default_role = None
highlight_language = "none"
smartquotes = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100

# With -n every name must lead somewhere. Those of other projects, and those inside of ours, are not described here.
nitpick_ignore_regex = [
    ("py:.*", r"(twisted|zope|attrs|msgspec|collections|random|typing)\..*"),
    ("py:.*", r"[a-z]+|[A-Z]|None|NoneType|Any|ValueError|TypeError|AssertionError|Random|Callable|Mapping|Sequence"),
    ("py:.*", r"I[A-Z]\w+( \| None)?|Deferred|Clock|Exception|RtpushError"),
    ("py:.*", r"rtpush\.(?!client\.Client$).*|InMemoryServer\..*"),
]

html_theme = "furo"
html_title = f"rtpush {release}"
html_static_path = ["_static"]
html_css_files = ["rtpush.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6b5c", "color-brand-content": "#0b6b5c"},
    "dark_css_variables": {"color-brand-primary": "#4fd1b5", "color-brand-content": "#4fd1b5"},
}
