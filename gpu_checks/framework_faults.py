"""What goes wrong between a healthy GPU and a framework, as data: symptom → cause, and a remedy for both people.

``{title}`` is the framework's name. Sources: PyTorch's ``c10/cuda`` and ``aten/src/ATen/cuda``, TensorFlow's
``gpu_device.cc`` for the texts; NVIDIA's CUDA compatibility guide for which driver runs which CUDA.
"""

from __future__ import annotations

import dataclasses
import re

from .faults import DRIVER_UNKNOWN, ECC_ERROR, INSPECT, MEMORY_HELD, RESPAWN, Fault

CPU_BUILD = Fault(
    "{title} here is a build for the CPU only",
    "Choose the cuda variant of the image, or install a CUDA build of {title}; the GPU itself is not to blame.",
    "Offer an image with CUDA in this profile (of quay.io/jupyter images the tags that begin with cuda).",
)
DRIVER_TOO_OLD = Fault(
    "the driver is too old for this build of {title}",
    "Choose an image with an older CUDA, or install a build of {title} for it.",
    "Install a newer driver: CUDA 13 needs 580 or later, CUDA 12 needs 525 or later.",
)
NO_KERNELS = Fault(
    "this build of {title} has no kernels for this GPU",
    "Install another build of {title}: one that names this GPU's compute capability.",
    "Offer an image whose frameworks are built for the GPUs of this profile.",
)
LIBRARIES_MISSING = Fault(
    "{title} does not find the CUDA libraries that it was built for",
    "Install them with it: pip install tensorflow[and-cuda], or for PyTorch reinstall torch; or choose a cuda image.",
    "Offer an image with the CUDA libraries of its frameworks in it.",
)
BLIND = Fault(
    "{title} sees fewer GPUs than the driver",
    "Restart the kernels and the server; if it happens again, choose another image.",
    "Run gpu-check short --json in the pod: the details have what {title} said.",
)
MORE = Fault(
    "{title} sees other GPUs than the driver showed before",
    "Run gpu-check short again.",
    "Compare CUDA_VISIBLE_DEVICES of the container with the pod's devices.",
)
NOT_IMPORTED = Fault(
    "{title} cannot be imported",
    "Install it again, or choose another image; the details have the error.",
    "If the image is offered in a profile, repair it.",
)
FAILED = Fault("{title} failed on the GPU", RESPAWN, INSPECT)
FAILED_ON_CPU = Fault(
    "{title} failed on the CPU", "Install it again, or choose another image.", "If the image is offered, repair it."
)
WRONG_RESULT = Fault(
    "{title} computed a wrong result on the GPU",
    RESPAWN,
    "If gpu-check quick finds the memory and a kernel in order, suspect the image's CUDA libraries. " + INSPECT,
)
WRONG_ON_CPU = Fault(
    "{title} computed a wrong result on the CPU", "Do not trust its results; choose another image.", "Repair the image."
)
ELSEWHERE = Fault(
    "{title} did not compute on the GPU that it was told to use",
    "Run gpu-check short again; if it happens again, choose another image.",
    "Run gpu-check short --json in the pod.",
)
CRASHED = Fault("{title} crashed", "Choose another image, or install {title} again.", "Try the image on another node.")
HUNG = Fault("{title} did not answer in time while it used the GPU", RESPAWN, INSPECT)
NOT_CHECKED = Fault(
    "{title} was not checked",
    "Run gpu-check short in a terminal when the server has less to do.",
    "Look at the details: the time or the memory of the server did not suffice.",
)
NO_GPU_TO_CHECK = Fault(
    "{title} was not checked, because no GPU can be used here",
    "See what the driver-level check says.",
    "See what the driver-level check says.",
)
PYTHON_SILENT = Fault(
    "the notebook's Python could not be asked for its frameworks",
    "Run gpu-check short in a terminal of the notebook, or name the Python in GPU_CHECK_PYTHON.",
    "The image has no Python from 3.9 on in its PATH, or that Python does not start.",
)

# What a framework says, in an exception or in its log, and the fault that is meant. The first that matches counts.
_TEXTS: tuple[tuple[tuple[str, ...], Fault], ...] = (
    (
        (
            "no kernel image is available",
            "invalid device function",
            "CUDA_ERROR_NO_BINARY_FOR_GPU",
            "is not compatible",
            "minimum required Cuda capability",
        ),
        NO_KERNELS,
    ),
    (
        (
            "driver on your system is too old",
            "driver version is insufficient",
            "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
            "Error 80[34]",
        ),
        DRIVER_TOO_OLD,
    ),
    (("out of memory", "OutOfMemory", "OOM when allocating", "RESOURCE_EXHAUSTED"), MEMORY_HELD),
    (("uncorrectable ECC",), ECC_ERROR),
    (
        (
            "Cannot dlopen some GPU libraries",
            "Could not find cuda drivers",
            "Could not load dynamic library",
            r"lib(cu|nv|nccl)[A-Za-z0-9_]*\.so",
        ),
        LIBRARIES_MISSING,
    ),
    (("CUDA_ERROR_UNKNOWN", "unknown error"), DRIVER_UNKNOWN),
)


def named(fault: Fault, title: str) -> Fault:
    """The fault's three texts, with the framework's name in them."""
    cause, user, admin = (text.replace("{title}", title) for text in (fault.cause, fault.user, fault.admin))
    return dataclasses.replace(fault, cause=cause, user=user, admin=admin)


def by_text(*texts: str) -> Fault | None:
    """The fault that one of these texts means, the first text first."""
    for text in texts:
        for patterns, fault in _TEXTS:
            if re.search("|".join(patterns), text, re.IGNORECASE):
                return fault
    return None
