"""Lets ONNX Runtime GenAI load a folder and generate: `genai_generate.py FOLDER COUNT PROMPTS`, the prompts as JSON.

Prints JSON: the tokens of each sequence, or how it failed. No tokenizer is needed for a model that is fed with tokens.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime_genai as genai


def generate(folder: str, count: int, prompts: list[list[int]]) -> list[list[int]]:
    """Returns the prompts with the most likely tokens behind them."""
    model = genai.Model(folder)
    parameters = genai.GeneratorParams(model)
    length = len(prompts[0]) + count
    parameters.set_search_options(batch_size=len(prompts), max_length=length, min_length=length, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array(prompts, np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [[int(token) for token in generator.get_sequence(place)] for place in range(len(prompts))]


if __name__ == "__main__":
    try:
        answer: dict[str, object] = {"tokens": generate(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))}
    except RuntimeError as error:
        answer = {"error": str(error)}
    sys.stdout.write(f"{json.dumps(answer)}\n")
