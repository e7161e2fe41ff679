"""A kernel of our own runs on every multiprocessor, and its result is compared with the CPU's.

A GPU that computes the same wrong thing every time agrees with itself; so the CPU works the result out, by another
way: the GPU steps through a linear congruential sequence and adds up with fused multiply-adds, the CPU jumps to the end
of the sequence in closed form, and the sums are exact in 32-bit floating point. One wrong bit in any step of any thread
shows in the result.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from ctypes import byref, c_uint, c_ulonglong, c_void_p

from .driver import Address, CallFailed, Driver
from .facts import Mismatch, Trial
from .memory import compare

KERNEL = "gpu_check_mix"
THREADS = 256  # per block
BLOCKS = 256  # more than the multiprocessors of any GPU so far (H200: 132, B200: 148)
STEPS = 256
MULTIPLIER = 1664525  # Knuth's, as in Numerical Recipes: full period modulo 2**32
INCREMENT = 1013904223
ADDENDS = 255  # the largest addend; halves of it, 256 times, stay below 2**23: every partial sum is exact in fp32

# .version 6.4 .target sm_50 assembles for sm_75 to sm_120. The CUDA driver's own compiler does the rest of the way.
PTX = f"""\
.version 6.4
.target sm_50
.address_size 64

.visible .entry {KERNEL}(.param .u64 source, .param .u64 target, .param .u32 count)
{{
    .reg .pred %done, %outside;
    .reg .b32 %thread, %block, %size, %index, %count, %step, %state, %low, %total;
    .reg .f32 %addend, %sum;
    .reg .b64 %from, %to, %offset;

    mov.u32 %thread, %tid.x;
    mov.u32 %block, %ctaid.x;
    mov.u32 %size, %ntid.x;
    mad.lo.u32 %index, %block, %size, %thread;
    ld.param.u32 %count, [count];
    setp.ge.u32 %outside, %index, %count;
    @%outside bra END;

    ld.param.u64 %from, [source];
    ld.param.u64 %to, [target];
    cvta.to.global.u64 %from, %from;
    cvta.to.global.u64 %to, %to;
    mul.wide.u32 %offset, %index, 4;
    add.u64 %from, %from, %offset;
    add.u64 %to, %to, %offset;

    ld.global.u32 %state, [%from];
    and.b32 %low, %state, {ADDENDS};
    cvt.rn.f32.u32 %addend, %low;
    mov.f32 %sum, 0f00000000;
    mov.u32 %step, 0;
LOOP:
    mad.lo.u32 %state, %state, {MULTIPLIER}, {INCREMENT};
    fma.rn.f32 %sum, %addend, 0f3F000000, %sum;
    add.u32 %step, %step, 1;
    setp.lt.u32 %done, %step, {STEPS};
    @%done bra LOOP;

    cvt.rzi.u32.f32 %total, %sum;
    xor.b32 %state, %state, %total;
    st.global.u32 [%to], %state;
END:
    ret;
}}
"""


def jump(steps: int) -> tuple[int, int]:
    """The multiplier and the increment of ``steps`` steps taken at once, modulo 2**32."""
    multiplier, increment = 1, 0
    for _ in range(steps):
        multiplier, increment = multiplier * MULTIPLIER % 2**32, (increment * MULTIPLIER + INCREMENT) % 2**32
    return multiplier, increment


def on_cpu(source: bytes) -> bytes:
    """What the kernel must make of these 32-bit words."""
    multiplier, increment = jump(STEPS)
    words = array("I", source)
    return array(
        "I", [((word * multiplier + increment) & 0xFFFFFFFF) ^ ((word & ADDENDS) * STEPS // 2) for word in words]
    ).tobytes()


def verify(driver: Driver) -> Trial:
    """The kernel ran once in the current context, and its result was compared."""
    source = os.urandom(4 * THREADS * BLOCKS)
    expected = on_cpu(source)
    try:
        module = c_void_p()
        driver.call("cuModuleLoadData", byref(module), PTX.encode())
        with driver.afterwards("cuModuleUnload", module):
            function = c_void_p()
            driver.call("cuModuleGetFunction", byref(function), module, KERNEL.encode())
            with driver.allocated(len(source)) as given, driver.allocated(len(source)) as made:
                mismatch = _launched(driver, function, (given, made), (source, expected))
    except CallFailed as failure:
        return Trial(error=failure.error)
    return Trial(len(source), mismatch=mismatch)


def _launched(
    driver: Driver, function: c_void_p, buffers: tuple[Address, Address], data: tuple[bytes, bytes]
) -> Mismatch | None:
    source, expected = data
    driver.write(buffers[0], source)
    driver.write(buffers[1], source)  # so that a kernel that does nothing shows
    parameters = (c_ulonglong(buffers[0]), c_ulonglong(buffers[1]), c_uint(THREADS * BLOCKS))
    pointers = (c_void_p * len(parameters))(*(ctypes.addressof(parameter) for parameter in parameters))
    driver.call("cuLaunchKernel", function, BLOCKS, 1, 1, THREADS, 1, 1, 0, None, pointers, None)
    driver.call("cuCtxSynchronize")  # errors of the kernel surface here
    return compare("kernel", expected, driver.read(buffers[1], source))
