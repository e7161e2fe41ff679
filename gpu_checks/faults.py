"""The faults that are known, as data: the cause, what the user does, what the administrator does.

Sources: NVIDIA's Xid catalogue, and the documentation of its container toolkit and of MIG.
"""

from __future__ import annotations

from dataclasses import dataclass

RESPAWN = (
    "Save your work and restart the server, so that it gets another GPU; if it happens again, tell the administrator."
)
INSPECT = "Drain the node, look for Xid messages in the kernel log (dmesg), run dcgmi diag -r 3."


USER, ADMINISTRATOR = "user", "administrator"


@dataclass(frozen=True)
class Fault:
    """One fault: its cause in plain words, a remedy for each of the two who read about it, and who can mend it."""

    cause: str
    user: str
    admin: str
    audience: str = ADMINISTRATOR


NO_DRIVER = Fault(
    "no driver found",
    "Choose a GPU profile; if this is one, tell the administrator.",
    "Check that the pod has a GPU limit and the nvidia runtime class, and that the container toolkit runs on the node.",
    USER,
)
DRIVER_NOT_INJECTED = Fault(
    "the CUDA driver library is missing, though a GPU is here",
    "Tell the administrator.",
    "The container toolkit did not mount libcuda.so.1: check NVIDIA_DRIVER_CAPABILITIES (compute,utility).",
)
STUB_LIBRARY = Fault(
    "libcuda.so.1 is the stub for linking, not a driver",
    "Remove the directory …/stubs from LD_LIBRARY_PATH.",
    "Remove the stubs from the image's library path.",
    USER,
)
DRIVER_TOO_OLD = Fault(
    "the driver is too old for this image",
    "Choose an image with an older CUDA.",
    "Install a newer driver: CUDA 13 needs 580 or later, CUDA 12 needs 525 or later.",
    USER,
)
COMPAT_CLASH = Fault(
    "the CUDA compatibility library in the image does not fit the node's driver",
    "Take the directory …/compat out of LD_LIBRARY_PATH, or choose an image with an older CUDA.",
    "Install a driver that the image's compatibility package supports.",
    USER,
)
VERSION_MISMATCH = Fault(
    "the driver's library and its kernel module differ in version",
    "Restart the server; if it happens again, tell the administrator.",
    "The driver was updated under running pods: reload the kernel module or reboot the node.",
)
FALLEN_OFF = Fault(
    "the GPU has fallen off the bus (Xid 79)",
    RESPAWN,
    "Drain the node and reboot it; if it comes back, reseat or replace the board.",
)
RESET_REQUIRED = Fault("the GPU must be reset", RESPAWN, "Drain the node and reset the GPU (nvidia-smi -r), or reboot.")
ACCESS_LOST = Fault(
    "the container has lost its access to the GPU, as after systemctl daemon-reload on the node",
    "Restart the server: nothing else helps.",
    "Use CDI, or create the device symlinks in /dev/char, so that a daemon-reload does not revoke access.",
)
NO_PERMISSION = Fault(
    "no permission to use the GPU's device files",
    "Restart the server; if it happens again, tell the administrator.",
    "Check the mode of /dev/nvidia* and the device cgroup of the container.",
)
MODULE_NOT_LOADED = Fault(
    "the driver's kernel module is not loaded",
    RESPAWN,
    "Load the nvidia module on the node; look at dmesg for why not.",
)
MIG_EMPTY = Fault(
    "the GPU is divided by MIG, but no instance is there to use",
    "Restart the server; if it happens again, tell the administrator.",
    "Create GPU and compute instances (nvidia-smi mig -cgi … -C), or turn MIG off.",
)
HIDDEN = Fault(
    "CUDA_VISIBLE_DEVICES hides GPUs that are there",
    "Unset CUDA_VISIBLE_DEVICES, in the terminal and in the notebook.",
    "If the image sets CUDA_VISIBLE_DEVICES, remove it there.",
    USER,
)
NO_DEVICE = Fault(
    "the driver is there, but finds no GPU",
    "Restart the server; if this is no GPU profile, choose one.",
    "Check the pod's GPU limit and NVIDIA_VISIBLE_DEVICES, and nvidia-smi on the node.",
)
CUDA_BLIND = Fault(
    "CUDA finds no GPU, though the management library lists one",
    RESPAWN,
    "Check the device files /dev/nvidia* in the container, and that nvidia-uvm is loaded on the node.",
)
FABRIC_MANAGER = Fault(
    "the node's NVSwitch fabric is not ready",
    "Tell the administrator; until then choose a profile without GPUs.",
    "Start the fabric manager on the node, in the version of the driver.",
)
BUSY = Fault(
    "another process holds the GPU alone (exclusive compute mode)",
    "Wait, or end the other process.",
    "Set the compute mode to DEFAULT (nvidia-smi -c 0) where GPUs are shared.",
    USER,
)
MPS = Fault(
    "the MPS server of this GPU does not answer, or is full",
    "Wait and try again; then restart the server.",
    "Check the MPS control daemon on the node, and its limit of clients.",
)
MEMORY_HELD = Fault(
    "nearly all memory of the GPU is held by another process",
    "Restart the kernels of your other notebooks.",
    "Look for an orphan process on the node (nvidia-smi), and at how the GPU is shared.",
    USER,
)
OUT_OF_MEMORY = Fault("the GPU gave no memory, though much is free", RESPAWN, INSPECT)
ECC_ERROR = Fault(
    "uncorrectable memory error (ECC)",
    RESPAWN,
    "Drain the node and reset the GPU; if it comes back, replace the board.",
)
DRIVER_UNKNOWN = Fault("the driver reports an unknown error", RESPAWN, INSPECT)
DRIVER_ERROR = Fault("a call of the driver failed", RESPAWN, INSPECT)
NVML_ERROR = Fault(
    "the management library (NVML) cannot be read",
    "Nothing to do: your programs do not need it.",
    "Check libnvidia-ml.so.1 in the container (NVIDIA_DRIVER_CAPABILITIES needs utility) and nvidia-smi on the node.",
)
NO_JIT = Fault(
    "the driver cannot compile a kernel here, so none could be run",
    "Run a small program of your framework: it brings compiled kernels with it.",
    "Mount libnvidia-ptxjitcompiler.so.1 into the container (NVIDIA_DRIVER_CAPABILITIES needs compute).",
)
DRIVER_HUNG = Fault("the driver did not answer in time", RESPAWN, INSPECT)
DRIVER_STUCK = Fault(
    "the driver hangs in the kernel: the process that asked it cannot be ended", RESPAWN, "Reboot the node. " + INSPECT
)
DRIVER_CRASHED = Fault("the driver crashed", RESPAWN, INSPECT)
PROBE_KILLED = Fault(
    "the check was killed from outside",
    "Free memory of the server, then run gpu-check again.",
    "Look whether the container's memory limit killed it.",
    USER,
)
PROBE_FAILED = Fault(
    "the check could not be carried out",
    "Run gpu-check again; if it happens again, tell the administrator.",
    "Run gpu-check --json in the pod and look at the details.",
)
WRONG_MEMORY = Fault(
    "the GPU's memory returned wrong data", RESPAWN, "Take the GPU out of service: replace the board. " + INSPECT
)
WRONG_RESULT = Fault(
    "the GPU computed a wrong result", RESPAWN, "Take the GPU out of service: replace the board. " + INSPECT
)
WRONG_DEVICE = Fault(
    "the GPU under test was not the one that was listed",
    "Run gpu-check again.",
    "The order of the devices changes between processes: check the device plugin.",
)
TOO_FEW = Fault(
    "fewer GPUs than expected",
    RESPAWN,
    "Check the pod's GPU limit and nvidia-smi on the node; a time-sliced GPU can be given to one pod twice.",
)
TOO_MANY = Fault(
    "more GPUs than expected can be used here",
    "Tell the administrator: a GPU of somebody else may be visible here.",
    "Set NVIDIA_VISIBLE_DEVICES=void in pods without GPUs; let the toolkit accept devices as volume mounts only.",
)
DISAGREE = Fault(
    "CUDA and the management library (NVML) list different GPUs",
    "Restart the server; if it happens again, tell the administrator.",
    "Compare nvidia-smi -L in the container with the pod's devices.",
)
ECC_COUNTED = Fault(
    "uncorrectable memory errors were counted since the driver was loaded",
    "Save your work; results of this GPU's earlier users may be wrong. Restart the server.",
    "Drain the node and reset the GPU; if the count grows again, replace the board.",
)
REMAP_PENDING = Fault(
    "a faulty memory row waits to be replaced by a spare one",
    "Nothing to do: the memory that was tested works.",
    "Reset the GPU as soon as it is free (nvidia-smi -r).",
)
REMAP_FAILED = Fault(
    "a faulty memory row could not be replaced: no spare is left", RESPAWN, "Replace the board (Xid 64)."
)
HW_SLOWDOWN = Fault(
    "the hardware slows the GPU down (heat or power)",
    "Expect longer run times.",
    "Check cooling and power of the node.",
)
NO_EXPECTATION = Fault(
    "no GPU was found, and nothing says how many there should be",
    "Run gpu-check --expect N with the number of your profile.",
    "Set GPU_CHECK_EXPECT in the pod.",
    USER,
)
ERRORS_GREW = Fault(
    "the GPU has counted more errors since the last check here",
    "Save your work and restart the server; compare important results with those of another GPU.",
    "Watch this GPU: if the counters keep growing, run dcgmi diag -r 3 and plan a reset or a replacement.",
)
FEW_SPARE_BYTES = Fault(
    "nearly all memory of the GPU is in use by somebody else",
    "Restart the kernels of your other notebooks; on a shared GPU wait, or use smaller batches.",
    "Look for an orphan process on the node (nvidia-smi), and at how the GPU is shared.",
    USER,
)
SMALL_SHM = Fault(
    "the shared memory of the container (/dev/shm) is very small",
    "Load data without worker processes (num_workers=0).",
    "Mount an emptyDir with medium Memory at /dev/shm in profiles with GPUs.",
)
SMALL_MEMORY = Fault(
    "the container's memory limit is too small for a framework that uses a GPU",
    "Choose a profile with more memory.",
    "Give profiles with GPUs at least 2 GB of memory, better more than the GPU has.",
    USER,
)
SMALL_CPU = Fault(
    "the container has less than one core for each GPU",
    "Choose a profile with more cores.",
    "Give profiles with GPUs at least one core for each GPU.",
    USER,
)
FEW_PIDS = Fault(
    "the container can start hardly any more processes",
    "End programs that you do not need; then restart the server.",
    "Raise the limit of processes per pod (podPidsLimit of the kubelet).",
    USER,
)
IMAGE_TOO_NEW = Fault(
    "the image was built for a newer CUDA than the driver has",
    "Choose an image with an older CUDA, or try whether its programs run.",
    "Install a newer driver: CUDA 13 needs 580 or later, CUDA 12 needs 525 or later.",
    USER,
)
STUBS_IN_PATH = Fault(
    "LD_LIBRARY_PATH has a stub of libcuda.so.1 in it, which is for linking and no driver",
    "Remove the directory …/stubs from LD_LIBRARY_PATH.",
    "Remove the stubs from the image's library path.",
    USER,
)
NOT_COVERED = Fault(
    "not every expected GPU was tested to the end",
    "Run gpu-check again; if it happens again, tell the administrator.",
    "Run gpu-check --json in the pod and look at the details.",
)
NOT_COUNTED = Fault("the GPUs could not be counted", RESPAWN, INSPECT)
