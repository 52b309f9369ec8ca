"""Finds the codes that the source gives to failures, conditions, Events and findings."""

import ast
import inspect
from types import ModuleType

from bus_operator import sql
from bus_operator.errors import BusError as OperatorError

NAMES = ("reason", "code")
"""How arguments, attributes and functions are called that hold codes."""

POSITIONS = {"true": 1, "false": 1, "unknown": 1, "Condition": 2, "Finding": 0}
"""Which argument of those that make conditions and findings is the code."""


def of_probe(name: str) -> str:
    return "May" + "".join(part.capitalize() for part in name.split("_"))


class Codes(ast.NodeVisitor):
    """Finds the codes that a module gives to failures, conditions and Events."""

    def __init__(self, module: ModuleType, text: str) -> None:
        self.module = module
        self.found: set[str] = set()
        self.unclear: list[str] = []
        self.visit(ast.parse(text))

    def visit_Call(self, node: ast.Call) -> None:
        attribute = node.func if isinstance(node.func, ast.Attribute) else None
        name = attribute.attr if attribute else getattr(node.func, "id", "")
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        # Kubernetes' own reasons are another matter.
        for keyword in NAMES if name != "ApiException" else ():
            if keyword in keywords:
                self.add(keywords[keyword])
        position = POSITIONS.get(name, len(node.args))
        if position < len(node.args) and (attribute is None or ast.unparse(attribute.value) in ("Condition", "status")):
            self.add(node.args[position])
        if name == "get" and len(node.args) == 2 and ast.unparse(node.args[0]) == "'reason'":
            self.add(node.args[1])
        kind = getattr(self.module, name, None)
        nameless = inspect.isclass(kind) and issubclass(kind, OperatorError) and kind.reason == OperatorError.reason
        if nameless and "reason" not in keywords:
            self.complain(node, f"{name} has no reason of its own: say which")
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for inner in ast.walk(node) if node.name in NAMES else ():
            if isinstance(inner, ast.Return) and inner.value is not None:
                self.add(inner.value)
        self.generic_visit(node)

    def add(self, value: ast.expr) -> None:
        match value:
            case ast.Constant(value=str() as code):
                self.found.add(code)
            case ast.IfExp():
                self.add(value.body)
                self.add(value.orelse)
            case ast.Name(id=name) if isinstance(getattr(self.module, name, None), str):
                self.found.add(getattr(self.module, name))
            case ast.BinOp(left=ast.Constant(value="May")):
                self.found |= {of_probe(name) for name, _, _ in sql.denied_probes()}
            # Passed on: found where it comes from.
            case ast.Constant(value=None) | ast.Name(id="reason" | "code") | ast.Attribute(attr="reason" | "code"):
                pass
            case ast.Subscript(slice=ast.Constant(value="reason")):
                pass
            case _:
                self.complain(value, f"what is {ast.unparse(value)}?")

    def complain(self, node: ast.expr, words: str) -> None:
        self.unclear.append(f"{self.module.__name__}:{node.lineno}: {words}")
