"""Python sources inside a wheel, read without importing them: what a module defines, and what its things take."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from zipfile import ZipFile

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Sources:
    def __init__(self, wheel: Path) -> None:
        self._wheel = ZipFile(wheel)
        self._names = set(self._wheel.namelist())
        self.module = cache(self._parse)

    def _parse(self, name: str) -> ast.Module | None:
        """A module or a package by its dotted name; None where there is none."""
        path = name.replace(".", "/")
        for candidate in (f"{path}.py", f"{path}/__init__.py"):
            if candidate in self._names:
                return ast.parse(self._wheel.read(candidate))
        return None

    def texts(self, package: str) -> list[str]:
        """The text of each module in a package."""
        start = package.replace(".", "/") + "/"
        names = sorted(name for name in self._names if name.startswith(start) and name.endswith(".py"))
        return [self._wheel.read(name).decode() for name in names]

    def find(self, module: str, name: str) -> ast.AST | None:
        """What defines a name of a module: a class, a function or an assignment, through imports and the table that
        a lazy package imports by. A module counts as a name of its package."""
        tree = self.module(module)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
                return node
            if isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == name for t in node.targets
            ):
                return node
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self.find(self._origin(module, node), alias.name) or node
            if isinstance(node, ast.Dict) and (place := _lazy_place(node, name)):
                return self.find(f"{module}{place[0]}", place[1])
        return self.module(f"{module}.{name}")

    def members(self, module: str, name: str) -> dict[str, ast.AST]:
        """The fields, methods and properties of a class and its bases, and what its methods set on self."""
        found = self.find(module, name)
        if not isinstance(found, ast.ClassDef):
            return {}
        members: dict[str, ast.AST] = {}
        for base in found.bases:
            if isinstance(base, ast.Name) and base.id != name:
                members |= self.members(self._home(module, name), base.id)
        members |= dict(_own_members(found))
        return members

    def _home(self, module: str, name: str) -> str:
        """The module in which a class really stands, so that its bases are looked for there."""
        tree = self.module(module)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
                return self._home(self._origin(module, node), name)
            if isinstance(node, ast.Dict) and (place := _lazy_place(node, name)):
                return self._home(f"{module}{place[0]}", place[1])
        return module

    def _origin(self, module: str, node: ast.ImportFrom) -> str:
        """The module that a module imports from, in full."""
        if not node.level:
            return node.module or ""
        is_package = f"{module.replace('.', '/')}/__init__.py" in self._names
        parts = module.split(".")
        package = parts[: len(parts) - node.level + is_package]
        return ".".join([*package, *([node.module] if node.module else [])])


def parameters(function: ast.AST) -> tuple[set[str], set[str]]:
    """All parameters of a function, and those that have to be given; without self."""
    assert isinstance(function, Function), ast.dump(function)[:100]
    args = function.args
    positional = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    optional = set(positional[len(positional) - len(args.defaults) :])
    keyword = {arg.arg for arg in args.kwonlyargs}
    optional |= {arg.arg for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default}
    everything = {*positional, *keyword} - {"self"}
    return everything, everything - optional


def _lazy_place(table: ast.Dict, name: str) -> tuple[str, str] | None:
    """Where `{"Name": ".module:Name"}` says that a name is."""
    for key, value in zip(table.keys, table.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == name and isinstance(value, ast.Constant):
            module, colon, attribute = str(value.value).partition(":")
            if colon and module.startswith("."):
                return module, attribute
    return None


def _own_members(of: ast.ClassDef) -> Iterator[tuple[str, ast.AST]]:
    for node in of.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node
        elif isinstance(node, Function):
            yield node.name, node
            for inner in ast.walk(node):
                if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                    yield inner.attr, inner
