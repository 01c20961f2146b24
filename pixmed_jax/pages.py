"""Pages from templates that lie in the package, HTML or Markdown: all escaped, nothing left undefined."""

import re
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup


def render(package: str, template: str, **values: Any) -> str:
    """The page that `template`, a file of `package`, makes of the values."""
    return _environment(package, template.endswith(".md.j2")).get_template(template).render(**values)


@cache  # with its compiled templates
def _environment(package: str, markdown: bool) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=not markdown,
        finalize=_plain if markdown else None,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=markdown,
    )


def _plain(value: Any) -> str:
    """One line of Markdown that shows the value as it is, HTML in it too; Markup goes through."""
    if isinstance(value, Markup):
        return value
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*\[\]<>|#&!~]|(?<!\w)_|_(?!\w))", r"\\\1", text)  # inside of a word _ is itself
