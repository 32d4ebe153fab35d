"""Sleeps a known time per execution, then answers with its input."""

import json
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        value = {name: float(entry["string_value"]) for name, entry in parameters.items()}
        self._delay_s = value["delay_ms"] / 1e3
        self._per_item_s = value["delay_per_item_ms"] / 1e3
        # Every k-th execution, not a coin: the fraction is then exact in every window.
        self._every = round(1 / value["slow_fraction"]) if value["slow_fraction"] else 0
        self._slow_factor = value["slow_factor"]
        self._stall_after_s, self._stall_s = value["stall_after_s"], value["stall_s"]
        self._executions = 0
        self._first = None

    def execute(self, requests):
        arrived = time.monotonic()
        inputs = [pb_utils.get_input_tensor_by_name(request, "x") for request in requests]
        time.sleep(self._stall(arrived))
        self._sleep_until(arrived + self._duration_s(sum(x.shape()[0] for x in inputs)))
        return [pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("y", x)]) for x in inputs]

    def _duration_s(self, items):
        self._executions += 1
        slow = self._every and self._executions % self._every == 0
        return (self._delay_s + self._per_item_s * items) * (self._slow_factor if slow else 1)

    def _stall(self, now):
        self._first = now if self._first is None else self._first
        due = self._stall_s and now - self._first >= self._stall_after_s
        stall_s, self._stall_s = (self._stall_s, 0) if due else (0, self._stall_s)
        return stall_s

    def _sleep_until(self, due):
        """`sleep` wakes a little late; the deadline is counted from the arrival all the same."""
        while (left := due - time.monotonic()) > 0:
            time.sleep(left)
