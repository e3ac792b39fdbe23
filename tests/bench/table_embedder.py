"""An embedder that costs next to nothing: speaks OpenAI's wire format, knows the vectors of numbered queries ("query 17") and
has its answers ready. usage: table_embedder.py PORT FILE DIM; FILE holds the vectors, float32 one after the other."""
import asyncio
import base64
import json
import re
import sys

INPUT = re.compile(rb'"input": ?\[?"query (\d+)"')


def answer(body, status=b"200 OK"):
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def answers(file, dim):
    data, size = open(file, "rb").read(), 4 * dim
    for at in range(0, len(data), size):
        vector = base64.b64encode(data[at:at + size]).decode()
        yield answer(json.dumps({"object": "list", "model": "table", "usage": {"prompt_tokens": 2, "total_tokens": 2},
                                 "data": [{"object": "embedding", "index": 0, "embedding": vector}]}).encode())


class Connection(asyncio.Protocol):
    known = []

    def connection_made(self, transport):
        self.transport, self.got = transport, b""

    def data_received(self, data):
        self.got += data
        head, blank, body = self.got.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not blank or (length and len(body) < int(length[1])):
            return
        self.got = b""
        number = INPUT.search(body)
        known = number and int(number[1]) < len(self.known)
        if head.startswith(b"GET"):
            self.transport.write(answer(b"{}"))
        else:
            self.transport.write(self.known[int(number[1])] if known else answer(b"{}", b"400 Bad Request"))


async def serve(port, file, dim):
    Connection.known = list(answers(file, dim))
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(serve(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
