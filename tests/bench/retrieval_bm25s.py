"""The reference: bm25s (Lucene's formula, k1 = 1.2, b = 0.75) over the same documents, exact search among the same vectors,
and both fused by rank (reciprocal rank fusion, k = 60, 100 of each); prints the figures of each arm as JSON. Words are cut as
ragd cuts Latin text: runs of letters and digits, case folded, without accents, stemmed by Snowball's English stemmer, no stop
words. Runs in a Python that has bm25s, PyStemmer and what retrieval_embed.py needs."""
import json
import math
import pathlib
import re
import sys
import unicodedata

import bm25s
import numpy
import Stemmer
from retrieval_embed import embed

DEPTH, LIST, RRF = 10, 100, 60
stem = Stemmer.Stemmer("english").stemWords


def terms(text):
    text = unicodedata.normalize("NFKD", text.casefold())
    text = "".join(c for c in text if not unicodedata.combining(c))
    return stem(re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text))


def by_words(texts, queries):
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index([terms(text) for text in texts], show_progress=False)
    for query in queries:
        found, scores = index.retrieve([list(dict.fromkeys(terms(query)))], k=min(LIST, len(texts)), show_progress=False)
        yield [int(i) for i, score in zip(found[0], scores[0]) if score > 0]


def by_vectors(texts, queries):
    matrix = numpy.array([embed(text) for text in texts])
    for query in queries:
        yield numpy.argsort(-(matrix @ embed(query)), kind="stable")[:LIST].tolist()


def by_both(lists):
    for pair in zip(*lists):
        scores = {}
        for found in pair:
            for rank, i in enumerate(found, 1):
                scores[i] = scores.get(i, 0) + 1 / (RRF + rank)
        yield sorted(scores, key=lambda i: -scores[i])


def judge(names, golden, lists):
    total = {"ndcg@10": 0.0, "recall@k": 0.0, "mrr": 0.0}
    for question, found in zip(golden, lists):
        right = set(question["relevant"])
        hits = [rank for rank, i in enumerate(found[:DEPTH], 1) if names[i] in right]
        ideal = sum(1 / math.log2(i + 1) for i in range(1, min(len(right), DEPTH) + 1))
        total["ndcg@10"] += sum(1 / math.log2(r + 1) for r in hits) / ideal
        total["recall@k"] += len(hits) / len(right)
        total["mrr"] += 1 / hits[0] if hits else 0
    return {k: v / len(golden) for k, v in total.items()}


def main():
    data = pathlib.Path(sys.argv[1])
    files = sorted((data / "documents").iterdir())
    names, texts = [str(f) for f in files], [f.read_text() for f in files]
    golden = [json.loads(line) for line in open(data / "golden.ndjson")]
    queries = [question["query"] for question in golden]
    words, vectors = list(by_words(texts, queries)), list(by_vectors(texts, queries))
    arms = {"lexical": words, "vector": vectors, "hybrid": list(by_both((words, vectors)))}
    print(json.dumps({arm: judge(names, golden, lists) for arm, lists in arms.items()}))


main()
