"""A peer of search.py: bm25s, the fast BM25 of PyPI, in FastAPI. The index in BENCH_INDEX was built by `python bm25s_app.py
FILE INDEX` from a file of JSON objects, one chunk a line; each uvicorn worker maps it. Queries block, so they run in FastAPI's
threads."""
import json
import os
import sys

import bm25s
import Stemmer

stemmer = Stemmer.Stemmer("english")


def tokens(texts, **more):
    return bm25s.tokenize(texts, stopwords=[], stemmer=stemmer, show_progress=False, **more)


def build(source, target):
    rows = [json.loads(line) for line in open(source)]
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index(tokens([row["text"] for row in rows]), show_progress=False)
    index.save(target, corpus=rows, show_progress=False)


def serve():
    from fastapi import FastAPI
    from pydantic import BaseModel

    app = FastAPI()
    index = bm25s.BM25.load(os.environ["BENCH_INDEX"], load_corpus=True, mmap=True)

    class Query(BaseModel):
        query: str
        top_k: int = 10

    @app.get("/health")
    async def health():
        return {"status": "ok"}

    @app.post("/search")
    def search(q: Query):
        words = [list(dict.fromkeys(tokens([q.query], return_ids=False)[0]))]
        found, scores = index.retrieve(words, k=q.top_k, show_progress=False)
        return {"hits": [{**row, "score": float(s)} for row, s in zip(found[0], scores[0]) if s > 0]}

    return app


if __name__ == "__main__":
    build(*sys.argv[1:])
else:
    app = serve()
