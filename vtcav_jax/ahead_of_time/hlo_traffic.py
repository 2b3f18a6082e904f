"""Bytes that a compiled program reads from and writes to device memory, counted in the text of its optimised HLO.

XLA reports no cost of CUDA programs, and on every platform counts the body of a loop once. Here each instruction
outside a fusion reads its operands and writes its result, and the body of a loop counts once per iteration. Where only
slices of an operand are read, the slices count, and a result that replaces part of an array counts as that part. Arrays
have the size that they are stored with, including the padding of tiles; arrays on the chip (memory space 1, the vector
memory of a TPU) count 0. A Pallas kernel counts the bytes of its cost estimate.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

ON_CHIP = "S(1)"
WITHOUT_TRAFFIC = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "add-dependency"),
    *("copy-done", "slice-done", "async-done", "async-update", "partition-id", "replica-id"),
}
SLICES = ("slice", "dynamic-slice", "gather")
VIEWS = ("bitcast", "reshape", "copy", "convert")
ARRAY = re.compile(r"(pred|token|bf16|[sufc]\d+\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")


@dataclass(frozen=True)
class Instruction:
    """One line of HLO; `shape`, `arguments` and `attributes` are text."""

    shape: str
    opcode: str
    arguments: str
    attributes: str
    is_root: bool

    @property
    def bytes(self) -> int:
        return shape_bytes(self.shape)

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.arguments)


Computation = dict[str, Instruction]  # by name, in order


def program_traffic(text: str) -> int:
    """Return the bytes of one run of a compiled program."""
    computations, entry = parse_program(text)
    return computation_traffic(computations, entry)


def parse_program(text: str) -> tuple[dict[str, Computation], str]:
    """Return the computations by name, and the name of the entry computation."""
    computations: dict[str, Computation] = {}
    entry, name = "", ""
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            name = match[2]
            computations[name] = {}
            entry = name if match[1] else entry
        elif name and (match := INSTRUCTION.match(line)):
            computations[name][match[2]] = parse_instruction(match[3], bool(match[1]))
    if not entry:
        raise ValueError("expected the text of a compiled program with an ENTRY computation, got none")
    return computations, entry


def parse_instruction(text: str, is_root: bool) -> Instruction:
    shape, rest = split_after(text, " ")
    opcode, _, rest = rest.partition("(")
    arguments, attributes = split_after(rest, ")")
    return Instruction(shape, opcode, arguments, attributes, is_root)


def split_after(text: str, end: str) -> tuple[str, str]:
    """Return the text before and after the first `end` outside brackets."""
    depth = 0
    for i, character in enumerate(text):
        if character == end and not depth:
            return text[:i], text[i + 1 :]
        depth += (character in "([{") - (character in ")]}")
    raise ValueError(f"expected an instruction of HLO, got {text[:80]!r}")


def shape_bytes(shape: str) -> int:
    """Return the bytes of the arrays of a shape that are in device memory."""
    return sum(array_bytes(*array) for array in ARRAY.findall(shape) if ON_CHIP not in array[2])


def array_bytes(kind: str, sizes: str, layout: str) -> int:
    """Return the stored bytes of an array whose minor axes are padded to the first tile of the layout."""
    if kind == "token":
        return 0
    axes = [int(n) for n in re.findall(r"\d+", sizes)]
    order, _, rest = layout.partition(":")
    if tile := re.match(r"T\(([\d,]+)\)", rest):
        minor = [int(axis) for axis in order.split(",") if axis]
        for axis, size in zip(minor, reversed(tile[1].split(","))):
            axes[axis] = -(-axes[axis] // int(size)) * int(size)
    bits = 8 if kind == "pred" or kind.startswith("f8") else int(re.findall(r"\d+", kind)[0])
    return math.prod(axes) * bits // 8


def computation_traffic(computations: dict[str, Computation], name: str) -> int:
    instructions = computations[name]
    return sum(instruction_traffic(computations, instructions, item) for item in instructions.values())


def instruction_traffic(computations: dict[str, Computation], instructions: Computation, item: Instruction) -> int:
    if item.opcode in WITHOUT_TRAFFIC:
        return 0
    called = re.findall(r"(?:calls|to_apply|body)=%?([\w.\-]+)", item.attributes)
    if item.opcode == "while":
        trips = re.search(r'known_trip_count"?:\s*\{"n":"?(\d+)', item.attributes)
        if trips is None:
            raise ValueError("the program has a loop whose number of iterations depends on data: its bytes are unknown")
        return int(trips[1]) * computation_traffic(computations, called[0])
    if item.opcode == "conditional":
        branches = re.findall(r"(?:branch|true|false)_computations?=\{?([^},]+(?:, ?%[^},]+)*)", item.attributes)
        called = [name.strip(" %") for group in branches for name in group.split(",")]
    if item.opcode in ("call", "conditional", "async-start"):
        return max(computation_traffic(computations, name) for name in called)
    operands = [instructions[name] for name in item.operands]
    if item.opcode == "fusion":
        return fusion_traffic(computations[called[0]], operands, item.bytes)
    if item.opcode in ("copy-start", "slice-start"):  # the shape lists source, destination and a flag
        return sum(shape_bytes(text) for text in moved_arrays(item))
    if item.opcode in SLICES:
        return item.bytes + (min(item.bytes or operands[0].bytes, operands[0].bytes))
    if item.opcode == "dynamic-update-slice":
        return 2 * operands[1].bytes
    if item.opcode == "custom-call":
        if declared := re.search(r'"?bytes_accessed"?:\s*"?(\d+)', item.attributes):
            return int(declared[1])
        # An operand that the result replaces is not read
        replaced = re.findall(r"\{[\d, ]*\}: \((\d+), \{", item.attributes.partition("output_to_operand_aliasing")[2])
        operands = [operand for i, operand in enumerate(operands) if str(i) not in replaced]
    return item.bytes + sum(operand.bytes for operand in operands)


def moved_arrays(item: Instruction) -> Iterable[str]:
    """Return source and destination of an asynchronous copy; of a slice, the part of the source that is read."""
    arrays = [match.group() for match in ARRAY.finditer(item.shape)]
    if item.opcode == "copy-start":
        return arrays[:2]
    source, destination = arrays[:2]
    return [destination, destination.replace(ON_CHIP, "") if ON_CHIP not in source else ""]


def fusion_traffic(fused: Computation, operands: list[Instruction], result_bytes: int) -> int:
    """Return the bytes that a fusion reads of its operands and writes of its result."""
    read = sum(bytes_read(fused, name, operands) for name, item in fused.items() if item.opcode == "parameter")
    return read + bytes_written(fused, result_bytes)


def bytes_read(fused: Computation, parameter: str, operands: list[Instruction]) -> int:
    """Return the bytes read of one operand: all, or its slices if nothing else reads it."""
    whole = operands[int(fused[parameter].arguments)].bytes
    slices, names = 0, [parameter]
    while names:
        name = names.pop()
        for user, item in fused.items():
            if name not in item.operands:
                continue
            if item.opcode in VIEWS:
                names.append(user)
            elif item.opcode in SLICES and item.operands[0] == name:
                slices += shape_bytes(item.shape.replace(ON_CHIP, ""))
            elif item.opcode != "dynamic-update-slice" or item.operands[0] != name:
                return whole
    return min(slices, whole)


def bytes_written(fused: Computation, result_bytes: int) -> int:
    """Return the bytes written of a fusion's result: all, or the part that is replaced in an existing array."""
    root = next(item for item in fused.values() if item.is_root)
    while root.opcode in VIEWS:
        root = fused[root.operands[0]]
    if root.opcode == "dynamic-update-slice":
        return min(result_bytes, shape_bytes(fused[root.operands[1]].shape.replace(ON_CHIP, "")))
    return result_bytes
