"""Program that compiles an exported function for a chip; a process of its own, which compilers may end or configure.

python -m vtcav_jax.ahead_of_time.compile_worker CHIP EXPORTED RESULT
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
from jax import export
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from vtcav_jax.ahead_of_time.chips import Chip, get_chip
from vtcav_jax.ahead_of_time.hlo_traffic import ON_CHIP, program_traffic


def compile_exported(chip: Chip, exported: export.Exported) -> dict[str, Any]:
    """Return the memory and the traffic of the program, or the message of the compiler that rejects it."""
    sharding = SingleDeviceSharding(target_device(chip))
    leaves = [jax.ShapeDtypeStruct(aval.shape, aval.dtype, sharding=sharding) for aval in exported.in_avals]
    args, kwargs = jax.tree.unflatten(exported.in_tree, leaves)
    lowered = jax.jit(exported.call).trace(*args, **kwargs).lower(lowering_platforms=(chip.export_platform,))
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return {"error": str(error).partition("\n")[0]}
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None and text is not None
    parts = ("argument_size", "output_size", "temp_size", "generated_code_size")
    used = sum(getattr(memory, f"{part}_in_bytes") for part in parts) - memory.alias_size_in_bytes
    accessed = program_traffic(text.replace(ON_CHIP, ""))
    return {"memory_bytes": used, "traffic_bytes": program_traffic(text), "accessed_bytes": accessed}


def target_device(chip: Chip) -> Any:
    """Return a device of a machine that is not here."""
    if chip.platform == "tpu":
        return topologies.get_topology_desc(platform="tpu", topology_name=chip.topology).devices[0]
    description = Path(__file__).with_name(chip.topology).read_text(encoding="utf-8")
    options = {"target_config": description, "topology": "1x1x1"}
    return topologies.get_topology_desc(platform="cuda", topology_name="", **options).devices[0]


def main(chip: str, source: str, destination: str) -> None:
    exported = export.deserialize(bytearray(Path(source).read_bytes()))
    Path(destination).write_text(json.dumps(compile_exported(get_chip(chip), exported)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
