"""What a reader's source says before it runs: untouched, half-filled, or written."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Callable
from typing import Any

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definition_of(obj: Callable[..., Any]) -> FunctionNode | None:
    """The syntax tree of `obj`'s own `def` or `class`, or None when its source cannot be had.

    Cells count as files: IPython keeps their text in `linecache`, where `inspect` finds it. Line
    numbers in the tree are those of the cell or file.
    """
    obj = inspect.unwrap(obj)
    name = getattr(obj, "__name__", "")
    try:
        lines, first = inspect.getsourcelines(obj)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        # A lambda inside a longer expression, a prompt's function, a class of a cell: `inspect`
        # looks for a class in its module's file, and a notebook has none.
        return _class_in_cell(obj) if inspect.isclass(obj) else None
    ast.increment_lineno(tree, max(first, 1) - 1)
    for node in tree.body:
        if isinstance(node, FunctionNode) and node.name == name:
            return node
    return None


def _class_in_cell(cls: type) -> ast.ClassDef | None:
    """A class's syntax tree, found through the file (or cell) of its methods."""
    codes = [item.__code__ for item in vars(cls).values() if inspect.isfunction(item)]
    if not codes:
        # Nothing but a docstring, `...` or `pass` leaves a class without attributes of its own.
        own = {k for k in vars(cls) if not (k.startswith("__") and k.endswith("__"))}
        return None if own else ast.ClassDef(cls.__name__, [], [], [], [])
    code = codes[0]
    try:
        tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
            last = node.end_lineno or node.lineno
            if node.lineno <= code.co_firstlineno <= last:
                return node
    return None


def is_untouched(node: FunctionNode) -> bool:
    """Whether a `def` holds its docstring and `...` or `pass` alone (a class: all its methods)."""
    body = node.body
    if body and _is_docstring(body[0]):
        body = body[1:]
    if isinstance(node, ast.ClassDef):
        methods = [item for item in body if isinstance(item, FunctionNode)]
        rest = [item for item in body if item not in methods]
        return all(map(is_untouched, methods)) and all(map(_is_placeholder, rest))
    return all(map(_is_placeholder, body))


def leftover_ellipsis(node: FunctionNode) -> int | None:
    """The line of the first `...` that stands where a value or a statement is due, else None.

    `x[..., 0]` and annotations such as `Callable[..., int]` are ordinary Python and do not count.
    """
    ordinary: set[int] = set()
    for item in ast.walk(node):
        if isinstance(item, ast.Subscript):
            ordinary.update(id(part) for part in ast.walk(item.slice))
        elif isinstance(item, ast.Compare):  # `if index is ...:`
            ordinary.update(id(part) for part in item.comparators)
    lines = [
        item.lineno for item in ast.walk(node) if _is_ellipsis(item) and id(item) not in ordinary
    ]
    return min(lines, default=None)


def returns_nothing(node: FunctionNode) -> bool:
    """Whether a function has no `return value` and no `yield` of its own."""
    return not any(
        (isinstance(item, ast.Return) and item.value is not None)
        or isinstance(item, ast.Yield | ast.YieldFrom)
        for item in _own_nodes(node)
    )


def unused_arguments(node: FunctionNode) -> list[str]:
    """Names of a function's arguments that its body never reads (`_name` may go unread)."""
    if isinstance(node, ast.ClassDef):
        return []
    arguments = node.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    read = {
        item.id
        for statement in node.body
        for item in ast.walk(statement)
        if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Load)
    }
    return [n for n in names if n not in read and not n.startswith("_") and n != "self"]


def clean_source(obj: Callable[..., Any]) -> str:
    """The source of a function or class as a reader may paste it: dedented, undecorated.

    Raises OSError when there is no source (a function typed at a prompt, a C function).
    """
    text = textwrap.dedent(inspect.getsource(inspect.unwrap(obj)))
    node = ast.parse(text).body[0]
    first = node.lineno if isinstance(node, FunctionNode) else 1
    return "\n".join(text.splitlines()[first - 1 :]).rstrip() + "\n"


def _own_nodes(node: ast.AST) -> list[ast.AST]:
    """All nodes below `node` without those of functions defined inside it."""
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        found.append(child)
        if not isinstance(child, FunctionNode | ast.Lambda):
            found.extend(_own_nodes(child))
    return found


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_ellipsis(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _is_placeholder(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and _is_ellipsis(statement.value)
    )
