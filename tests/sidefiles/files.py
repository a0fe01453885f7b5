"""Models with a file beside them, and the texts of such files."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import onnxfix
from onnxfix.convention.binding import bind
from onnxfix.convention.load import library
from onnxfix.convention.plan import Edits, Plan, make_plan
from onnxfix.convention.sketch import SIZES, signature_of
from onnxfix.sidefiles.change import Beside

SAMPLES = Path(__file__).parents[2] / "sample_models"
STACKED, APART = SAMPLES / "gpt2_stacked.onnx", SAMPLES / "gpt2_kv.onnx"
GPU, GPU_KV = SAMPLES / "conformer_gpu.onnx", SAMPLES / "conformer_gpu_kv.onnx"

GENAI = """{
  "model": {
    "type": "gpt2",
    "eos_token_id": 60,
    "vocab_size": 61,
    "decoder": {
      "session_options": { "provider_options": [] },
      "filename" : "model.onnx",
      "num_key_value_heads": 4,
      "head_size": 7,
      "num_hidden_layers": 3,
      "inputs" : {
        "past_names" : "past_%d"
      },
      "outputs" : {
        "present_names" : "present_%d"
      }
    }
  },
  "search": { "past_present_share_buffer": true }
}
"""
"""What makes GenAI run the stacked sample: of the shape of the files in its own tests."""

TRITON = """# The encoder.
name: "encoder"
backend: "onnxruntime"
max_batch_size: 8  # streams

sequence_batching {
  oldest { max_candidate_sequences: 1024 }
  state [
    {
      input_name: "offset"
      output_name: "r_offset"
      data_type: TYPE_INT64
      dims: [ 1 ]
    },
    {
      input_name: "att_cache"
      output_name: "r_att_cache"
      data_type: TYPE_FP32
      dims: [ 3, 4, 64, 10 ]
      initial_state: {
        data_type: TYPE_FP32
        dims: [ 3, 4, 64, 10 ]
        zero_data: true
        name: "initial state"
      }
    },
    # The convolution's.
    { input_name: "cnn_cache" output_name: "r_cnn_cache" data_type: TYPE_FP32 dims: [ 3, 20, 7 ] }
  ]
}
input [
  {
    name: "chunk_xs"
    data_type: TYPE_FP32
    dims: [ -1, 18 ]
  },
  {
    name: "chunk_lens"
    data_type: TYPE_INT32
    dims: [ 1 ]
    reshape: { shape: [] }
  }
]
output [ { name: "chunk_out" data_type: TYPE_FP32 dims: [ -1, 20 ] } ]
"""
"""A configuration for the streaming encoder for GPUs, with implicit states."""


@cache
def plan(model: Path, to: str | tuple[str, ...], **edits: tuple[tuple[str, str | int], ...]) -> Plan:
    """Returns the plan of a conversion."""
    asked = Edits(**{key: dict(pairs) for key, pairs in edits.items()}) if edits else None
    return onnxfix.plan_conversion(onnxfix.open_model(model), to=to, edits=asked)


def beside(text: str, name: str, *, old: str = "model.onnx", new: str = "model.onnx") -> Beside:
    """Returns a file of that name beside a model."""
    return Beside(Path("old") / name, Path("new") / name, text, old, new)


def genai(**decoder: object) -> str:
    """Returns the file for the stacked sample with other entries of its decoder; None takes one out."""
    content = json.loads(GENAI)
    for key, value in decoder.items():
        content["model"]["decoder"][key] = value
        if value is None:
            del content["model"]["decoder"][key]
    return json.dumps(content, indent=2)


def spoken(source: str, target: str, **sizes: int | str) -> Plan:
    """Returns the plan for a model that has the ports of a convention of the library, from one to another."""
    known = library()
    signature = signature_of(known[source], {**SIZES, **sizes})
    return make_plan(bind(known[source], signature), known[target])
