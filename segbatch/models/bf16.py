"""Which hardware computes bfloat16 natively, so that ``precision="bf16"`` is faster than fp32.

Importing this module does not import torch.
"""

from __future__ import annotations

from pathlib import Path

from segbatch.errors import ModelError

# Of x86 (avx512_bf16, amx_bf16) and Arm (bf16), as Linux names them.
_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def cpu_supports_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU of this machine supports bf16 natively, by what Linux states of it."""
    if not cpuinfo.exists():
        return False
    lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features")))
    return not _CPU_FLAGS.isdisjoint(next(lines, "").split())


def refuse_emulated_bf16(device: str) -> None:
    """Check the GPU for which ``precision: auto`` has chosen bf16.

    Args:
        device: Of the network. Only a GPU is checked.

    Raises:
        ModelError: The GPU does not support bf16 natively.
    """
    import torch

    from segbatch.models.runner import resolve_device, supports_bf16

    if resolve_device(device).type != "cuda" or supports_bf16(device):
        return
    raise ModelError(
        f"precision: auto is bf16 where workers have GPUs, and the GPU {torch.cuda.get_device_name(device)} only "
        "emulates bf16; give --precision fp32, with --overwrite if this output was begun in bf16"
    )
