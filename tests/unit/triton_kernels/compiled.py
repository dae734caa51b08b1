"""The Triton kernels compiled to machine code, no GPU needed: `ptxas` comes with Triton.

What the interpreter cannot show: that the kernels compile, keep their tiles in registers (a spill
costs device memory's time), load whole vectors and fit the shared memory of smaller GPUs.
"""

import re
import subprocess

import pytest
import torch
from shinymas_loha.loha.kernels.gradient import many_modules
from shinymas_loha.loha.kernels.gradient import triton as triton_gradient
from shinymas_loha.loha.kernels.merging import triton as triton_merge
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as compile_kernel

HOPPER, AMPERE = 90, 80
# The least that a GPU with bf16 lets one program have (compute capability 8.6 and 8.9).
SHARED_MEMORY = 99 * 1024
SHORT = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}


def build(kernel, types, constants, unit=(), *, arch=HOPPER, warps, stages=3):
    """Compile as a launch would: pointers and integers multiples of 16, `unit` strides one."""
    constants = {**constants, **dict.fromkeys(unit, 1)}
    signature, hints = {}, {}
    for place, name in enumerate(kernel.arg_names):
        signature[name] = "constexpr" if name in constants else types.get(name, "i32")
        if signature[name] not in ("constexpr", "fp32"):
            hints[(place,)] = [["tt.divisibility", 16]]
    return compile_kernel(
        ASTSource(kernel, signature, constants, hints), target=GPUTarget("cuda", arch, 32),
        options={"num_warps": warps, "num_stages": stages},
    )


def table_kernel(weight, factor, pad, aligned=True, rank=0, **options):
    tile = triton_merge.tile_for(factor, pad)
    return build(
        triton_merge._merge_table, {"table": "*i64", "tile_module": "*i32", "scales": "*fp32"},
        {
            "PITCH": triton_merge.TABLE_COLUMNS, "BASE": triton_merge.TRITON_DTYPES[weight],
            "WEIGHT": triton_merge.TRITON_DTYPES[weight], "FACTOR": triton_merge.TRITON_DTYPES[factor],
            "RANK1": rank or pad, "RANK2": rank or pad, "PAD1": pad, "PAD2": pad, "PACKED": rank == 0,
            "ALIGNED": aligned,
            "ROWS": tile.rows, "COLUMNS": tile.columns, "STEP1": tile.rank_step, "STEP2": tile.rank_step,
        },
        warps=tile.warps, **options,
    )


def one_kernel(weight, factor, pad, kernel=1, even=True, **options):
    tile = triton_merge.tile_for(factor, pad)
    types = {name: "*" + SHORT[factor] for name in ("a1", "b1", "a2", "b2")}
    types |= {"base": "*" + SHORT[weight], "out": "*" + SHORT[weight], "scale": "fp32"}
    unit = ["a1_rank", "b1_column", "a2_rank", "b2_column"] + ["base_column", "out_column"] * (kernel == 1)
    return build(
        triton_merge._merge_one, types,
        {
            "KERNEL": kernel, "PAD1": pad, "PAD2": pad, "EVEN": even, "ROWS": tile.rows, "COLUMNS": tile.columns,
            "STEP1": tile.rank_step, "STEP2": tile.rank_step,
        },
        unit, warps=tile.warps, **options,
    )


def gradient_kernel(grad, factor, pad, operands, flipped, **options):
    tile = triton_gradient.tile_for(pad, pad)
    types = {name: "*" + SHORT[factor] for name in ("a1", "b1", "a2", "b2")}
    types |= {name: "*" + SHORT[grad] for name in ("grad", "left", "right")}
    types |= {"out1": "*fp32", "out2": "*fp32", "scale": "fp32"}
    unit = {
        False: ["grad_column", "left_inner", "right_column", "a1_rank", "b1_column", "a2_rank", "b2_column"],
        True: ["grad_row", "left_row", "right_inner", "a1_row", "b1_rank", "a2_row", "b2_rank"],
    }[flipped]
    return build(
        triton_gradient._left_gradients, types,
        {
            "TILES": 5, "OPERANDS": operands, "PAD_INNER": 16, "PAD1": pad, "PAD2": pad, "ROWS": tile.rows,
            "COLUMNS": tile.columns, "STEP": tile.rank_step, "PRECISION": triton_gradient.PRECISION,
        },
        unit, warps=tile.warps, stages=tile.stages, **options,
    )


def grouped_gradient_kernel(grad, rank, pad, transposed, **options):
    tile = many_modules.tile_for(pad)
    types = {"modules": "*i64", "slots": "*i64", "grads": "*i64", "program_slot": "*i32", "scales": "*fp32",
             "partials": "*fp32"}
    return build(
        many_modules._left_gradients_of_many, types,
        {
            "MODULE_PITCH": 6, "SLOT_PITCH": 4, "GRAD": triton_merge.TRITON_DTYPES[grad],
            "FACTOR": triton_merge.TRITON_DTYPES[SINGLE], "RANK": rank, "PAD": pad, "TRANSPOSED": transposed,
            "ALIGNED": True, "ROWS": tile.rows, "COLUMNS": tile.columns,
            "TILES": many_modules.SPAN // tile.columns, "STEP": tile.rank_step,
            "PRECISION": triton_gradient.PRECISION,
        },
        warps=tile.warps, stages=1, **options,
    )


def resources(compiled, tmp_path):
    """Registers and stack (spills) a thread, as the machine code says, and the machine code itself."""
    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    tool = knobs.nvidia.cuobjdump.path
    usage = subprocess.run([tool, "--dump-resource-usage", binary], capture_output=True, text=True, check=True).stdout
    code = subprocess.run([tool, "-sass", binary], capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()
    return int(registers), int(stack), code


HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32


@pytest.mark.parametrize(("weight", "factor", "pad"), [
    (HALF, HALF, 16), (SINGLE, HALF, 16), (BRAIN, BRAIN, 64), (SINGLE, SINGLE, 16),
])
def test_merging_a_file_stays_in_registers_and_moves_whole_vectors(weight, factor, pad, tmp_path):
    compiled = table_kernel(weight, factor, pad)
    registers, stack, code = resources(compiled, tmp_path)
    assert stack == 0 and registers <= 168  # three programs of four warps on a multiprocessor
    assert compiled.metadata.shared <= SHARED_MEMORY
    assert "LDG.E.128" in code and len(re.findall(r"\bSTG\b", code)) == len(re.findall(r"STG\.E\.128", code))
    assert ("HMMA" in code) == (factor is not SINGLE)


@pytest.mark.parametrize(("weight", "factor", "pad", "kernel", "even", "arch"), [
    (HALF, HALF, 16, 1, True, AMPERE), (HALF, HALF, 128, 1, False, HOPPER), (BRAIN, SINGLE, 16, 9, False, HOPPER),
])
def test_merging_one_weight(weight, factor, pad, kernel, even, arch, tmp_path):
    compiled = one_kernel(weight, factor, pad, kernel, even, arch=arch)
    _, stack, _ = resources(compiled, tmp_path)
    assert stack == 0 and compiled.metadata.shared <= SHARED_MEMORY


@pytest.mark.parametrize(("grad", "pad", "operands", "flipped", "arch"), [
    (SINGLE, 16, False, False, HOPPER), (SINGLE, 16, False, True, HOPPER), (HALF, 16, True, False, AMPERE),
    (SINGLE, 32, False, True, AMPERE), (SINGLE, 128, False, False, HOPPER),
])
def test_the_gradient_both_ways_round(grad, pad, operands, flipped, arch, tmp_path):
    compiled = gradient_kernel(grad, SINGLE, pad, operands, flipped, arch=arch)
    registers, stack, _ = resources(compiled, tmp_path)
    assert compiled.metadata.shared <= SHARED_MEMORY
    assert stack == 0, f"{registers} registers, {stack} bytes of stack"


@pytest.mark.parametrize(("grad", "rank", "pad", "arch"), [
    (HALF, 16, 16, HOPPER), (SINGLE, 3, 16, HOPPER), (HALF, 16, 16, AMPERE), (HALF, 32, 32, HOPPER),
    (HALF, 48, 64, HOPPER),
])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_gradients_of_many(grad, rank, pad, arch, transposed, tmp_path):
    compiled = grouped_gradient_kernel(grad, rank, pad, transposed, arch=arch)
    registers, stack, _ = resources(compiled, tmp_path)
    assert compiled.metadata.shared <= SHARED_MEMORY
    assert stack == 0, f"{registers} registers, {stack} bytes of stack"


@pytest.mark.parametrize(("weight", "rank", "pad"), [(HALF, 16, 16), (BRAIN, 5, 16)])
def test_merging_a_network_that_is_trained(weight, rank, pad, tmp_path):
    compiled = table_kernel(weight, SINGLE, pad, rank=rank)
    _, stack, _ = resources(compiled, tmp_path)
    assert stack == 0 and compiled.metadata.shared <= SHARED_MEMORY
