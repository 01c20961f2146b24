"""Every message that a user can meet, read from the source: `python docs/messages.py`.

A test holds the lines that docs/errors.md quotes against them.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
RAISED = ("PixmedError", "InUseError", "UsageError")


def messages() -> Iterator[tuple[str, str]]:
    """(module, message), {} around what is filled in."""
    for path in sorted([*(ROOT / "pixmed_jax").rglob("*.py"), ROOT / "launch.py"]):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in RAISED and node.args:
                text = _text(node.args[0])
                if re.search(
                    "[a-z]", re.sub(r"\{[^}]*\}", "", text)
                ):  # not one that others have put together
                    yield module, text


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "{" + ast.unparse(node.value).replace("\n", " ") + "}"
    return ""


if __name__ == "__main__":
    for where, line in messages():
        print(f"{where}: {line}")
