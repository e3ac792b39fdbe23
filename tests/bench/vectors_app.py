"""A peer of vectors.py: Qdrant's engine in FastAPI, as a Python team serves it. A shard belongs to one process, so each worker
takes one of BENCH_SHARDS. Queries block, so they run in FastAPI's threads; their vectors come from the server at
BENCH_EMBEDDER, over connections that are kept."""
import base64
import fcntl
import os
import struct

import httpx
import qdrant_edge as edge
from fastapi import FastAPI
from pydantic import BaseModel


def own_shard():
    for path in os.environ["BENCH_SHARDS"].split(":"):
        lock = open(path + ".lock", "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock, edge.EdgeShard.load(path)
        except BlockingIOError:
            lock.close()
    raise SystemExit("every shard has a worker")


lock, shard = own_shard()
exact = os.environ["BENCH_EXACT"] == "1"
quantization = edge.QuantizationSearchParams(rescore=True, oversampling=4.0) if os.environ["BENCH_INT8"] == "1" else None
params = edge.SearchParams(exact=exact, quantization=quantization)
embedder = httpx.Client(base_url=os.environ["BENCH_EMBEDDER"], trust_env=False)
app = FastAPI()


class Query(BaseModel):
    query: str
    top_k: int = 10


@app.get("/health")
async def health():
    return {"status": "ok"}


def embed(text):
    body = {"model": "table", "input": [text], "encoding_format": "base64"}
    answer = embedder.post("/embeddings", json=body).raise_for_status().json()
    data = base64.b64decode(answer["data"][0]["embedding"])
    return list(struct.unpack(f"<{len(data) // 4}f", data))


@app.post("/search")
def search(q: Query):
    nearest = edge.Query.Nearest(embed(q.query))
    found = shard.query(edge.QueryRequest(limit=q.top_k, query=nearest, params=params, with_payload=True))
    return {"hits": [{"chunk_id": p.id, "score": p.score, **p.payload} for p in found]}
