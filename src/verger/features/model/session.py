"""An inference session of onnxruntime: pixels to features, in one process and one thread."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from verger.errors import EnvironmentNotReadyError, WeightsError
from verger.features.contract import FeatureContract
from verger.features.preprocess import normalize

Vector = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


def import_onnxruntime() -> Any:
    """Import onnxruntime with its telemetry off; the only place that imports it.

    Its Linux wheels write an identifier to the home folder and report to their publisher
    (microsoft/onnxruntime#27379). The variable must be set before the import, and stays set for
    the processes that this one starts.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


class ModelSession:
    """What runs a model in one process. It has one thread, because each core has a process."""

    def __init__(self, contract: FeatureContract, graph: bytes) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(graph, options, ["CPUExecutionProvider"])
        except Exception as err:
            raise WeightsError(f"model {contract.model}: onnxruntime refuses it: {err}") from err
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self._run_options = ort.RunOptions()
        self._most = sys.maxsize
        self.contract = contract

    def predict(self, pixels: Pixels) -> Vector:
        """Compute features.

        If memory runs out, the session computes half as many photos at a time from then on.

        Parameters
        ----------
        pixels : ndarray of shape (n, size, size, 3), uint8
            n may be 0.

        Returns
        -------
        ndarray of shape (n, n_features), float32

        Raises
        ------
        EnvironmentNotReadyError
            If memory does not suffice for one photo.
        """
        if len(pixels) == 0:
            return np.empty((0, self.contract.n_features), np.float32)
        done: list[Vector] = []
        start = 0
        while start < len(pixels):
            some = pixels[start : start + self._most]
            try:
                done.append(self._run(some))
            except Exception as err:  # onnxruntime's errors share no public base
                if not _is_out_of_memory(err):
                    raise
                self._most = len(some) // 2
                if not self._most:
                    raise EnvironmentNotReadyError(
                        f"model {self.contract.model}: no memory for a single photo; "
                        "use fewer cores, such as --master 'local[1]', or more memory"
                    ) from err
            else:
                start += len(some)
        return done[0] if len(done) == 1 else np.concatenate(done)

    def predict_within(self, pixels: Pixels, timeout_s: float) -> Vector:
        """Compute features, or stop the graph when the time is over.

        Raises
        ------
        WeightsError
            If it takes longer, as a loop without an end does.
        """
        timer = threading.Timer(timeout_s, setattr, (self._run_options, "terminate", True))
        timer.start()
        try:
            return self.predict(pixels)
        except Exception as err:  # onnxruntime's errors share no public base
            if not self._run_options.terminate:
                raise
            raise WeightsError(
                f"model {self.contract.model}: takes longer than {timeout_s:g} s for a photo"
            ) from err
        finally:
            timer.cancel()
            timer.join()
            self._run_options.terminate = False

    def _run(self, pixels: Pixels) -> Vector:
        image = normalize(pixels, mean=self.contract.mean, std=self.contract.std)
        features: Vector = self._session.run(
            [self._output], {self._input: image}, self._run_options
        )[0]
        return features


#: What onnxruntime says when an allocation fails; it raises the same class for everything.
_NO_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate memory", "out of memory")


def _is_out_of_memory(err: Exception) -> bool:
    text = str(err).lower()
    return isinstance(err, MemoryError) or any(words in text for words in _NO_MEMORY)
