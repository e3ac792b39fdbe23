"""The embedder of the retrieval benchmark: WordLlama, a small model that its wheel carries (32,000 tokens, 256 numbers each, made
by training on pairs of questions and passages). A text is the mean of its tokens' vectors, of length 1.

usage: retrieval_embed.py      serves it as OpenAI's API does: prints `port N`, ends when standard input does
Runs in a Python that has wordllama, tokenizers, safetensors and numpy."""
import importlib.util
import pathlib
import sys

import numpy
from safetensors.numpy import load_file
from tokenizers import Tokenizer

DIMENSION = 256
folder = pathlib.Path(importlib.util.find_spec("wordllama").origin).parent
tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
tokenizer.no_truncation()
tokenizer.no_padding()
weights = load_file(str(folder / "weights" / f"l2_supercat_{DIMENSION}.safetensors"))["embedding.weight"].astype("float32")


def embed(text):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    mean = weights[ids].mean(0) if ids else numpy.full(DIMENSION, 1, "float32")
    return mean / max(float(numpy.linalg.norm(mean)), 1e-9)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    import openai_server

    with openai_server.running(dimension=DIMENSION, max_tokens=1 << 30,
                               embed=lambda text, _: embed(text).tolist()) as server:  # fmt: skip
        print(f"port {server.port}", flush=True)
        sys.stdin.read()
