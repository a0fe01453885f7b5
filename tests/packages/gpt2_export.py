"""Writes a GPT-2 with random weights as ONNX Runtime's own script exports it: run by `groups.run`.

python gpt2_export.py FOLDER PRECISION [OPTION ...]
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2PreTrainedModel


def export(folder: Path, precision: str, options: list[str]) -> None:
    torch.manual_seed(0)
    network = GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=24, n_layer=2, n_head=3, n_positions=128))
    # A fresh network is nearly linear: caches shall have a say in what it puts out.
    with torch.no_grad():
        for weights in network.parameters():
            if weights.dim() > 1:
                weights.normal_(0, weights.shape[-1] ** -0.5)
    network.save_pretrained(folder / "network")
    # The script writes opset 11, and was written before attention was one operator.
    GPT2PreTrainedModel._supports_sdpa = False
    model = str(folder / "model.onnx")
    sys.argv[1:] = ["-m", str(folder / "network"), "--model_class", "GPT2LMHeadModel", "--output", model]
    sys.argv += ["--precision", precision, "--test_cases", "1", "--test_runs", "1", *options]
    runpy.run_module("onnxruntime.transformers.models.gpt2.convert_to_onnx", run_name="__main__")


if __name__ == "__main__":
    export(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
