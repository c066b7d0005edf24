"""A reader of kernels' syntax trees: does a kernel keep to functions on `xp` and operators?

It follows values through a kernel and the helpers it calls, and knows three kinds of them:

    ARRAY    an array: a positional argument, what `xp` returns, what operators make of arrays
    ARRAYS   a Python tuple or list of arrays: `*xs`, the gradient of a tuple result
    PLAIN    everything else: attributes, shapes, numbers, dtypes, `xp` itself

An ARRAY may be given to functions of the standard on `xp`, to ops and helpers, to operators and
to indexing, and asked for its `.shape`, `.dtype` and `.ndim`. Anything else is a fault, as are
branches on an ARRAY, writing into one, `out=`, NumPy, and functions that the standard lacks.
Augmented assignment is for PLAIN values alone (a counter in a loop over attributes).
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from nnx.op import Op

ARRAY, ARRAYS, PLAIN = "array", "arrays", "plain"
STANDARD = frozenset(
    """abs acos acosh add all any arange argmax argmin argsort asarray asin asinh astype atan atan2
    atanh bitwise_and bitwise_invert bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor
    broadcast_arrays broadcast_to can_cast ceil clip concat copysign cos cosh count_nonzero
    cumulative_prod cumulative_sum diff divide empty empty_like equal exp expand_dims expm1 eye
    finfo flip floor floor_divide full full_like greater greater_equal hypot iinfo isdtype isfinite
    isinf isnan less less_equal linspace log log10 log1p log2 logaddexp logical_and logical_not
    logical_or logical_xor matmul matrix_transpose max maximum mean meshgrid min minimum moveaxis
    multiply negative nextafter not_equal ones ones_like permute_dims positive pow prod reciprocal
    remainder repeat reshape result_type roll round searchsorted sign signbit sin sinh sort sqrt
    square squeeze stack std subtract sum take take_along_axis tan tanh tensordot tile tril triu
    trunc unstack var vecdot where zeros zeros_like""".split()  # noqa: SIM905 - readable
)  # of version 2024.12, without those whose result's shape depends on values (nonzero, unique_*)
NOT_ARRAYS = {"can_cast", "finfo", "iinfo", "isdtype", "result_type"}
SEVERAL = {"broadcast_arrays", "meshgrid", "unstack"}
DTYPES = {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
          "float32", "float64", "inf", "nan", "pi", "e", "newaxis"}  # fmt: skip
ASKED = {"shape", "dtype", "ndim"}
BUILTINS = {"enumerate", "getattr", "isinstance", "len", "range", "reversed", "slice", "sorted",
            "tuple", "zip", "list", "int", "float", "bool", "any", "all", "min", "max", "sum",
            "abs", "str"}  # fmt: skip
TAKES_ARRAYS = {"isinstance", "tuple", "list", "zip", "enumerate", "reversed"}  # of these, ARRAYS


class Reader(ast.NodeVisitor):
    """Reads one function with arguments of known kinds; `faults` are (line, what)."""

    def __init__(self, function: Callable[..., Any], kinds: dict[str, str]) -> None:
        self.function, self.names = function, kinds
        self.faults: list[str] = []
        self.returned: list[str] = []

    def fault(self, node: ast.AST, what: str) -> str:
        code = self.function.__code__
        line = code.co_firstlineno + getattr(node, "lineno", 1) - 1
        self.faults.append(f"{code.co_filename.rpartition('/')[2]}:{line}: {what}")
        return ARRAY

    def read(self) -> str:
        tree = ast.parse(textwrap.dedent(inspect.getsource(self.function))).body[0]
        assert isinstance(tree, ast.FunctionDef)
        for statement in tree.body:
            self.statement(statement)
        return ARRAYS if ARRAYS in self.returned else ARRAY if ARRAY in self.returned else PLAIN

    # Statements

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.Raise():
                pass
            case ast.Expr(value=value):
                self.kind(value)
            case ast.Return(value=value):
                self.returned.append(self.result(value))
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self.bind(target, value, self.kind(value))
            case ast.AugAssign(target=target, value=value):
                if {self.kind(target), self.kind(value)} & {ARRAY, ARRAYS}:
                    self.fault(node, "augmented assignment to an array")
            case ast.If(test=test, body=body, orelse=orelse):
                narrowed = self.test(test)
                before = dict(self.names)
                self.names.update(dict.fromkeys(narrowed, PLAIN))
                self.block(body)
                if not isinstance(body[-1], ast.Return):
                    before |= {k: v for k, v in self.names.items() if k not in narrowed}
                self.names = before
                self.block(orelse)
            case ast.For(target=target, iter=iterated, body=body):
                self.bind(target, None, self.item(iterated))
                self.block(body)
                self.block(body)  # what the first round bound
            case _:
                self.fault(node, f"a {type(node).__name__} statement")

    def block(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self.statement(statement)

    def result(self, value: ast.expr | None) -> str:
        """A dict of extras is no part of what a helper's caller gets on as arrays."""
        if isinstance(value, ast.Tuple):
            kinds = [self.kind(v) for v in value.elts]
            if isinstance(value.elts[-1], ast.Dict) and len(kinds) == 2:
                return kinds[0]
            return ARRAYS if ARRAY in kinds or ARRAYS in kinds else PLAIN
        return PLAIN if value is None else self.kind(value)

    def bind(self, target: ast.expr, value: ast.expr | None, kind: str) -> None:
        match target:
            case ast.Name(id=name):
                self.names[name] = kind
            case ast.Tuple(elts=targets):
                if isinstance(value, ast.Tuple) and len(value.elts) == len(targets):
                    for t, v in zip(targets, value.elts, strict=True):
                        self.bind(t, v, self.kind(v))
                elif kind == ARRAY:
                    self.fault(target, "an array taken apart")
                else:
                    for t in targets:
                        self.bind(t, None, ARRAY if kind == ARRAYS else PLAIN)
            case _:
                self.fault(target, "an assignment into an object")

    def test(self, node: ast.expr) -> set[str]:
        """A condition, never an array: the names that an `isinstance` in it shows to be plain."""
        if self.kind(node) == ARRAY:
            self.fault(node, "a branch on an array's values")
        match node:
            case ast.Call(func=ast.Name(id="isinstance"), args=[ast.Name(id=name), *_]):
                return {name}
        return set()

    # Expressions

    def item(self, iterated: ast.expr) -> str:
        kind = self.kind(iterated)
        if kind == ARRAY:
            return self.fault(iterated, "iteration over an array")
        return ARRAY if kind == ARRAYS else PLAIN

    def kind(self, node: ast.expr) -> str:
        match node:
            case ast.Constant():
                return PLAIN
            case ast.Name(id=name):
                return self.names.get(name, PLAIN)
            case ast.Attribute(value=value, attr=attr):
                if self.kind(value) == PLAIN:
                    return PLAIN
                return PLAIN if attr in ASKED else self.fault(node, f".{attr} of an array")
            case ast.Call():
                return self.call(node)
            case ast.BinOp(left=left, right=right):
                return self.joined(left, right)
            case ast.UnaryOp(op=operator, operand=operand):
                if isinstance(operator, ast.Not):
                    self.test(operand)
                    return PLAIN
                return self.kind(operand)
            case ast.BoolOp(values=values):
                for value in values[:-1]:
                    self.test(value)
                return self.joined(*values)
            case ast.Compare(left=left, ops=operators, comparators=others):
                kind = self.joined(left, *others)
                if all(isinstance(o, (ast.Is, ast.IsNot)) for o in operators):
                    return PLAIN
                if kind == ARRAY and (
                    len(operators) > 1 or isinstance(operators[0], (ast.In, ast.NotIn))
                ):
                    return self.fault(node, "`in` or a chained comparison reads an array's values")
                return kind
            case ast.Subscript(value=value, slice=index):
                self.kind(index)
                return PLAIN if self.kind(value) == PLAIN else ARRAY
            case ast.IfExp(test=test, body=body, orelse=orelse):
                narrowed, before = self.test(test), dict(self.names)
                self.names.update(dict.fromkeys(narrowed, PLAIN))
                first = self.kind(body)
                self.names = before
                return max(first, self.kind(orelse), key=(PLAIN, ARRAY, ARRAYS).index)
            case ast.Tuple(elts=elts) | ast.List(elts=elts):
                return ARRAYS if self.joined(*elts) != PLAIN else PLAIN
            case ast.Starred(value=value):
                return self.kind(value)
            case ast.Dict(values=values):
                self.joined(*values)
                return PLAIN
            case ast.Slice(lower=lower, upper=upper, step=step):
                return self.joined(*(e for e in (lower, upper, step) if e is not None))
            case (
                ast.GeneratorExp(elt=elt, generators=rounds)
                | ast.ListComp(elt=elt, generators=rounds)
            ):
                for r in rounds:
                    self.bind(r.target, None, self.item(r.iter))
                    for condition in r.ifs:
                        self.test(condition)
                return ARRAYS if self.kind(elt) != PLAIN else PLAIN
            case ast.JoinedStr():
                return PLAIN
        return self.fault(node, f"a {type(node).__name__} expression")

    def joined(self, *nodes: ast.expr) -> str:
        kinds = {self.kind(n) for n in nodes}
        return ARRAY if kinds & {ARRAY, ARRAYS} else PLAIN

    # Calls

    def call(self, node: ast.Call) -> str:
        if any(k.arg == "out" for k in node.keywords):
            self.fault(node, "out=")
        kinds = [self.kind(a) for a in node.args]
        named = {k.arg: self.kind(k.value) for k in node.keywords}
        match node.func:
            case ast.Attribute(value=ast.Name(id="xp"), attr=name):
                if name in DTYPES:
                    return PLAIN
                if name not in STANDARD:
                    self.fault(node, f"xp.{name} is not in the Array API standard")
                return PLAIN if name in NOT_ARRAYS else ARRAYS if name in SEVERAL else ARRAY
            case ast.Attribute(value=ast.Name(id="math")):
                if {ARRAY, ARRAYS} & {*kinds, *named.values()}:
                    self.fault(node, "math on an array")
                return PLAIN
            case ast.Attribute(value=value, attr=name):
                if self.kind(value) == ARRAY:
                    return self.fault(node, f"the method .{name}() of an array")
                if name == "append" and isinstance(value, ast.Name) and ARRAY in kinds:
                    self.names[value.id] = ARRAYS
                return PLAIN
            case ast.Name(id=name):
                return self.named_call(node, name, kinds, named)
        return self.fault(node, "a call of something computed")

    def named_call(self, node: ast.Call, name: str, kinds: list[str], named: dict[Any, str]) -> str:
        target = self.function.__globals__.get(name)
        if isinstance(target, Op):
            return ARRAY
        if inspect.isfunction(target):
            return self.helper(target, node, kinds, named)
        if name not in BUILTINS or target is not None:
            return self.fault(node, f"a call of {name}")
        if ARRAY in kinds and name != "isinstance":
            return self.fault(node, f"{name}() of an array")
        if ARRAYS in kinds and name in TAKES_ARRAYS - {"isinstance"}:
            return ARRAYS
        return PLAIN

    def helper(self, target: Any, node: ast.Call, kinds: list[str], named: dict[Any, str]) -> str:
        names = inspect.getfullargspec(target).args
        if any(isinstance(a, ast.Starred) for a in node.args):
            return self.fault(node, f"a helper called with *: {target.__name__}")
        inner = Reader(target, {**dict(zip(names, kinds, strict=False)), **named})
        kind = inner.read()
        self.faults += [f for f in inner.faults if f not in self.faults]
        return kind


def _extras(op: Op[...]) -> Iterator[tuple[str, str]]:
    """The extras of a forward kernel and their kinds, read off the dict that it returns."""
    reader = forward_reader(op.forward)
    tree = ast.parse(textwrap.dedent(inspect.getsource(op.forward))).body[0]
    reader.read()
    for node in ast.walk(tree):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            last = node.value.elts[-1]
            if isinstance(last, ast.Dict):
                for key, value in zip(last.keys, last.values, strict=True):
                    assert isinstance(key, ast.Constant)
                    yield key.value, reader.kind(value)


def forward_reader(forward: Callable[..., Any]) -> Reader:
    """Positional arguments are arrays unless a `/` separates attributes; `*xs` are several."""
    spec, code = inspect.getfullargspec(forward), forward.__code__
    split = code.co_posonlyargcount or len(spec.args)
    kinds = dict.fromkeys(spec.args[1:split], ARRAY)
    return Reader(forward, kinds | ({spec.varargs: ARRAYS} if spec.varargs else {}))


def derivative_reader(op: Op[...], kernel: Callable[..., Any]) -> Reader:
    sig = op.signature
    arrays = dict.fromkeys(sig.arrays, ARRAYS if sig.variadic else ARRAY)
    forward = forward_reader(op.forward)
    y = forward.read()
    known = {"y": y, **arrays, **dict.fromkeys(sig.attributes, PLAIN), **dict(_extras(op))}
    spec = inspect.getfullargspec(kernel)
    return Reader(kernel, {spec.args[1]: y, **{n: known.get(n, PLAIN) for n in spec.args[2:]}})
