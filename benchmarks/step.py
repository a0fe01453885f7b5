"""Steps one model on demand, in a process of its own: `python step.py MODEL --length N --threads T`.

Says in JSON what the model put out first, when it is ready; then, for each line on standard input, streams as many
ticks as it says and tells how long one took, in seconds; at the end, how much memory it held at most. A stream starts
with caches of zeros, as long as was asked for, and every tick is fed what the one before put out, as arrays of numpy.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping

import memory
import numpy as np
import onnxruntime

Arrays = Mapping[str, np.ndarray]
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}
CHUNK, WINDOW, FEATURES = 16, 67, 80  # of the Conformer: frames after and before subsampling, and their width


def conformer_inputs(length: int, tick: int) -> Arrays:
    """Gives all that is no cache: the window of the cache has one length, and stands at a later offset at each tick."""
    random = np.random.default_rng(tick)
    return {
        "chunk": random.standard_normal((1, WINDOW, FEATURES), dtype=np.float32),
        "offset": np.array(length + tick * CHUNK),
        "required_cache_size": np.array(length),
        "att_mask": np.ones((1, 1, length + CHUNK), dtype=np.bool_),
    }


def gpt2_inputs(length: int, tick: int) -> Arrays:
    """Gives one token; the cache has grown by one at each tick."""
    position = length + tick
    return {
        "input_ids": np.array([[7 + 11 * tick]]),
        "position_ids": np.array([[position]]),
        "attention_mask": np.ones((1, position + 1), dtype=np.int64),
    }


class Stream:
    """One model and what it is fed."""

    def __init__(self, path: str, length: int, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Threads look for more work for a while before they sleep, and the next variant would have to share a core with
        # them. They still do between the operators of a run.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.length = length
        inputs = {port.name: port for port in self.session.get_inputs()}
        self.outputs = [port.name for port in self.session.get_outputs()]
        self.inputs_at = conformer_inputs if "chunk" in inputs else gpt2_inputs
        others = self.inputs_at(length, 0)
        states = [port for name, port in inputs.items() if name not in others]
        self.present = {port.name: present_of(port.name) for port in states}
        self.start = {port.name: np.zeros(self.shape(port.shape), DTYPES[port.type]) for port in states}

    def shape(self, dims: list[int | str]) -> list[int]:
        """Gives a cache's shape: one stream, and as long as was asked for."""
        return [dim if isinstance(dim, int) else 1 if "batch" in dim else self.length for dim in dims]

    def run(self, ticks: int) -> tuple[float, float, Arrays]:
        """Streams, and gives the seconds of a tick, those of the CPU, and what came first.

        The first tick warms up and is not timed: what the processor has at hand is another variant's.
        """
        fetches = self.step(self.start, 0)
        first = fetches
        begin, cpu_begin = time.perf_counter(), time.process_time()
        for tick in range(1, ticks + 1):
            fetches = self.step({past: fetches[present] for past, present in self.present.items()}, tick)
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
        return seconds / ticks, cpu_seconds / ticks, first

    def step(self, state: Arrays, tick: int) -> Arrays:
        """Runs one tick."""
        feeds = {**self.inputs_at(self.length, tick), **state}
        return dict(zip(self.outputs, self.session.run(self.outputs, feeds), strict=True))


def present_of(past: str) -> str:
    """Names the output that an input is fed from."""
    if past.startswith("past_key_values."):
        return past.replace("past_key_values", "present")
    return past.replace("past_", "present_") if past.startswith("past_") else f"r_{past}"


def main() -> None:
    """Answers until nobody asks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    for option in ("--length", "--threads"):
        parser.add_argument(option, type=int, required=True)
    arguments = parser.parse_args()
    stream = Stream(arguments.model, arguments.length, arguments.threads)
    loaded = memory.peak_bytes()
    memory.forget_peak()
    *_, first = stream.run(1)
    output = next(value for name, value in first.items() if name in ("output", "logits"))
    say(output=[float(number) for number in output.ravel()[:64]])
    for line in sys.stdin:
        seconds, cpu_seconds, _ = stream.run(int(line))
        say(seconds=seconds, cpu_seconds=cpu_seconds)
    say(peak=memory.peak_bytes(), peak_loading=loaded)


def say(**facts: object) -> None:
    """Writes one line of JSON."""
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
