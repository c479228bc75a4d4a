"""Reads the text of a compiled program: the bytes that it moves, and its collectives.

XLA's own cost analysis counts the body of a loop once. Here a loop counts as often as XLA knows, or
as its condition says, which compares a counter from 0 with a constant; else it counts once.
"""

import re
from collections import Counter
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_WIDTHS = {"pred": 1, "c64": 8, "c128": 16, "token": 0}
_FREE = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "while"),
    *("conditional", "call", "partition-id", "replica-id", "opt-barrier", "domain"),
}
_HEADER = re.compile(r"^(ENTRY )?%?([^\s(]+) \(.*\{$")
_NAME = re.compile(r"^\s+(ROOT )?%?([^\s=]+) = ")
_ARRAY = re.compile(r"([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|(?:true|false)_computation)=%?([\w.\-]+)"
    r"|branch_computations=\{([^}]*)\}"
)
_WORKSPACE = re.compile(r", [su]8\[\d+\]\{0\}\)$")
_FAST_MEMORY = "S(1)"  # arrays that the compiler put into the chip's vector memory, not in HBM


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
      name: its name in its computation.
      type: of its result.
      operation: such as "fusion".
      argument: the text in its parentheses, such as the number of a parameter.
      attributes: the text behind them.
      is_root: whether its result is that of the computation.
    """

    name: str
    type: str
    operation: str
    argument: str
    attributes: str
    is_root: bool

    @property
    def operands(self) -> list[str]:
        """Names of the instructions whose results it takes."""
        return re.findall(r"%([\w.\-]+)", self.argument)

    @property
    def called(self) -> list[str]:
        """Names of the computations that it calls, a loop's condition aside."""
        names = [one or several for one, several in _CALLED.findall(self.attributes)]
        return [name.strip(" %") for text in names for name in text.split(",")]


class Traffic(NamedTuple):
    """What a program moves.

    Attributes:
      memory: bytes read from and written to HBM.
      collectives: {kind: bytes of the whole arrays}.
      counts: {kind: number of executions}.
    """

    memory: float
    collectives: Counter[str]
    counts: Counter[str]


Computations = dict[str, dict[str, Instruction]]


def measure_traffic(text: str) -> Traffic:
    """Measures what one execution of a compiled program moves."""
    computations, entry = parse_computations(text)
    traffic = Traffic(0.0, Counter(), Counter())
    pending = [(entry, 1)]
    while pending:
        name, times = pending.pop()
        instructions = computations[name]
        for x in instructions.values():
            if x.operation == "while":
                pending.append((x.called[0], times * count_trips(x, computations)))
            elif x.operation in ("conditional", "call"):  # of branches: every one, an upper bound
                pending.extend((called, times) for called in x.called)
            for kind, size in _list_collectives(x, instructions, computations):
                traffic.collectives[kind] += times * size
                traffic.counts[kind] += times
            moved = times * _count_memory(x, instructions, computations)
            traffic = traffic._replace(memory=traffic.memory + moved)
    return traffic


def _list_collectives(
    x: Instruction, instructions: dict[str, Instruction], computations: Computations
) -> list[tuple[str, float]]:
    """Lists kinds and bytes of the collectives that an instruction executes itself.

    On TPU a reduce-scatter is a fusion of an all-reduce and the slice that a chip keeps.
    """
    if x.operation == "fusion":
        body = computations[x.called[0]]
        inner = [pair for y in body.values() for pair in _list_collectives(y, body, computations)]
        slices = any(y.operation == "dynamic-slice" for y in body.values())
        return [("reduce-scatter" if slices else kind, size) for kind, size in inner]
    kind = x.operation.removesuffix("-start")
    if kind not in COLLECTIVES:
        return []
    operands, result = _count_operands(x, instructions), count_bytes(x.type)
    # The result of an asynchronous start has the operands beside the arrays.
    if x.operation != kind and kind != "all-reduce":
        result -= operands
    return [(kind, max(operands, result))]


def parse_computations(text: str) -> tuple[Computations, str]:
    """Parses the computations of a program, by name, and the name of the entry."""
    computations: Computations = {}
    entry = name = ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name = header[2]
            computations[name] = {}
            entry = name if header[1] else entry
        elif name and (instruction := _parse_instruction(line)):
            computations[name][instruction.name] = instruction
    if not entry:
        raise ValueError("The text is not a program of XLA: it has no entry computation.")
    return computations, entry


def _parse_instruction(line: str) -> Instruction | None:
    """Parses a line; None if it is not an instruction."""
    named = _NAME.match(line)
    if named is None:
        return None
    text = line[named.end() :]
    end = _find_end(text) if text.startswith("(") else text.index(" ")
    kind, text = text[:end], text[end:].lstrip()
    operation, _, text = text.partition("(")
    end = _find_end("(" + text) - 1
    return Instruction(
        named[2], kind, operation, text[: end - 1], text[end:], is_root=bool(named[1])
    )


def _find_end(text: str) -> int:
    """Returns the index behind the parenthesis that closes the first one."""
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return i + 1
    raise ValueError(f"A parenthesis is not closed: {text[:80]!r}")


def count_trips(loop: Instruction, computations: Computations) -> int:
    """Counts the iterations of a loop; 1 if they are not known."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(known[1])
    match = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
    condition = computations[match[1]] if match else {}
    limits = [
        int(condition[operand].argument)
        for x in condition.values()
        if x.is_root and x.operation == "compare" and "direction=LT" in x.attributes
        for operand in x.operands
        if condition[operand].operation == "constant"
    ]
    return limits[0] if limits else 1


def count_bytes(kind: str, *, fast: bool = True) -> int:
    """Counts the bytes of the arrays in a type, with or without those in fast memory."""
    total = 0
    for dtype, shape, layout in _ARRAY.findall(kind):
        if not fast and _FAST_MEMORY in layout:
            continue
        bits = re.search(r"\d+", dtype)
        size = _WIDTHS[dtype] if dtype in _WIDTHS else max(int(bits[0]), 8) // 8 if bits else 0
        for axis in filter(None, shape.split(",")):
            size *= int(axis)
        total += size
    return total


def _count_operands(x: Instruction, instructions: dict[str, Instruction]) -> int:
    return sum(count_bytes(instructions[o].type) for o in x.operands if o in instructions)


def _count_memory(
    x: Instruction, instructions: dict[str, Instruction], computations: Computations
) -> float:
    """Counts the bytes of HBM that an instruction of a running computation reads and writes."""
    if x.operation in _FREE or x.operation.endswith("-done"):
        return 0.0
    types = [instructions[o].type if o in instructions else "" for o in x.operands]
    if x.operation == "fusion":
        return _count_fusion(x, types, computations[x.called[0]])
    reads = [count_bytes(t, fast=False) for t in types]
    # Calls of libraries of GPUs return their workspace, too.
    kind = _WORKSPACE.sub("", x.type) if x.operation == "custom-call" else x.type
    writes = count_bytes(kind, fast=False)
    if x.operation in ("dynamic-slice", "slice", "gather"):
        return 2.0 * writes
    if x.operation == "dynamic-update-slice":
        return 2.0 * reads[1]
    if x.operation.endswith("-start"):  # the result names the operands again
        writes -= sum(reads)
    return float(sum(reads) + writes)


def _count_fusion(x: Instruction, types: list[str], body: dict[str, Instruction]) -> float:
    """Counts the bytes of a fusion; of an array that it only slices or updates, the part."""
    users: dict[str, list[Instruction]] = {name: [] for name in body}
    for user in body.values():
        for operand in user.operands:
            users[operand].append(user)
    parameters = {int(p.argument): p for p in body.values() if p.operation == "parameter"}
    total = 0.0
    for i, kind in enumerate(types):
        whole = count_bytes(kind, fast=False)
        parts = [_count_part(parameters[i], user, body) for user in users[parameters[i].name]]
        total += whole if None in parts else min(whole, sum(filter(None, parts)))
    updates = [u for u in body.values() if u.operation == "dynamic-update-slice"]
    written = count_bytes(x.type, fast=False)
    for update in updates:
        if count_bytes(update.type) <= written:  # written in place
            written += count_bytes(body[update.operands[1]].type) - count_bytes(update.type)
    return total + max(written, 0)


def _count_part(p: Instruction, user: Instruction, body: dict[str, Instruction]) -> int | None:
    """Counts the bytes of a parameter that an instruction reads; None if it reads all."""
    if user.operation == "dynamic-slice" and user.operands[0] == p.name:
        return count_bytes(user.type)
    if user.operation == "dynamic-update-slice" and user.operands[0] == p.name:
        return 0  # only its place is used
    return None
