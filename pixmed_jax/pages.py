"""Pages from templates that lie in the package: everything escaped, nothing left undefined."""

from typing import Any

import jinja2


def render(package: str, template: str, **values: Any) -> str:
    """The page that `template`, a file of `package`, makes of the values."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
