"""TensorFlow's part of the smoke test."""

from __future__ import annotations

import dataclasses
from typing import Any

from .framework_facts import Product, Run
from .smoke import SEED, SIZE, TOLERANCE_FP32, TOLERANCE_TF32


class TensorFlow:
    """TensorFlow, once it is imported."""

    name = "tensorflow"

    def __init__(self) -> None:
        self._tf: Any = None
        self._gpus: list[Any] = []

    def load(self) -> Run:
        """It is imported, with one thread; what cannot run where it was put is an error, not run on the CPU."""
        import tensorflow

        self._tf = tensorflow
        config = tensorflow.config
        config.threading.set_intra_op_parallelism_threads(1)
        config.threading.set_inter_op_parallelism_threads(1)
        config.set_soft_device_placement(False)
        config.experimental.enable_tensor_float_32_execution(False)
        build = dict(tensorflow.sysconfig.get_build_info())
        return Run(
            version=str(tensorflow.__version__),
            cuda=str(build.get("cuda_version") or ""),
            architectures=tuple(str(name) for name in build.get("cuda_compute_capabilities") or ()),
        )

    def count(self, known: Run) -> Run:
        """Why there is no GPU stands in what it logs, not in an exception."""
        self._gpus = list(self._tf.config.list_physical_devices("GPU"))
        for gpu in self._gpus:  # or it takes all memory of a GPU that the user is working on
            self._tf.config.experimental.set_memory_growth(gpu, True)
        return dataclasses.replace(known, count=len(self._gpus))

    def product(self, index: int | None) -> Product:
        """Other numbers on each GPU, so that no result can be another's."""
        tf = self._tf
        with tf.device("/CPU:0"):
            seed = SEED + (0 if index is None else index)
            left = tf.random.stateless_uniform((SIZE, SIZE), seed=(seed, 1))
            right = tf.random.stateless_uniform((SIZE, SIZE), seed=(seed, 2))
            truth = tf.matmul(tf.cast(left, tf.float64), tf.cast(right, tf.float64)) * 0.5
        with tf.device("/CPU:0" if index is None else f"/GPU:{index}"):
            answer = tf.matmul(left, right) * 0.5  # the product is cuBLAS's, halving it TensorFlow's own kernel
        with tf.device("/CPU:0"):
            errors = tf.abs(tf.cast(tf.identity(answer), tf.float64) - truth) / truth
            errors = tf.where(tf.math.is_finite(errors), errors, tf.constant(float("inf"), tf.float64))
            worst = float(tf.reduce_max(errors))
        tf32 = index is not None and tf.config.experimental.tensor_float_32_execution_enabled()
        known = Product(
            index, placed=str(answer.device), error=worst, tolerance=TOLERANCE_TF32 if tf32 else TOLERANCE_FP32
        )
        return known if index is None else self._named(known, index)

    def _named(self, known: Product, index: int) -> Product:
        details = dict(self._tf.config.experimental.get_device_details(self._gpus[index]))
        capability = ".".join(str(part) for part in details.get("compute_capability") or ())
        return dataclasses.replace(known, name=str(details.get("device_name") or ""), capability=capability)
