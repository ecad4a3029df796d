"""Python `websockets` as the backend of the peers' tests.  Prints one line of JSON with its ports; ends with its standard input."""
import asyncio
import json
import socket
import struct
import sys
from urllib.parse import parse_qs, urlsplit

from pattern import pattern
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import PerMessageDeflate

records = {}  # id -> future of the record


def record(session):
    return records.setdefault(session, asyncio.get_running_loop().create_future())


class Counted(ServerConnection):
    """Counts the bytes on the wire and remembers a reset; the library shows neither."""
    wire = 0
    reset = False
    pings = 0

    def data_received(self, data):
        self.wire += len(data)
        super().data_received(data)

    def connection_lost(self, exc):
        self.reset = isinstance(exc, (ConnectionResetError, BrokenPipeError))
        super().connection_lost(exc)

    def process_event(self, event):
        if getattr(event, "opcode", None) == 9:
            self.pings += 1
        super().process_event(event)


def abort(ws):
    sock = ws.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ws.transport.abort()


async def in_fragments(ws, message):
    async def parts():
        for i in range(4):
            yield message[len(message) * i // 4:len(message) * (i + 1) // 4]
            if i < 3:
                await ws.ping("between %d" % i)
    await ws.send(parts())


async def obey(ws, q, message, r):
    do = q.get("do")
    if do == "close":
        await ws.close(int(q["code"]), q.get("reason", ""))
    elif do == "reset":
        abort(ws)
    elif do == "drop":
        ws.transport.close()
    elif do == "fragments":
        await in_fragments(ws, message)
    elif do == "pings":
        for pong in [await ws.ping("ping %d" % i) for i in range(5)]:
            await pong
            r["pongs"] += 1
        await ws.send(message)
    else:
        await ws.send(message)


async def session(ws):
    q = {k: v[0] for k, v in parse_qs(urlsplit(ws.request.path).query).items()}
    r = {"messages": 0, "bytes": 0, "pongs": 0, "subprotocol": ws.subprotocol or "",
         "deflate": any(isinstance(e, PerMessageDeflate) for e in ws.protocol.extensions)}
    try:
        if q.get("do") == "greet":
            for i in range(1, 21):
                await ws.send(pattern("binary", i * 37, i))
        async for message in ws:
            r["messages"] += 1
            r["bytes"] += len(message.encode() if isinstance(message, str) else message)
            await obey(ws, q, message, r)
    except ConnectionClosed:
        pass
    await ws.wait_closed()
    # What the peer sent, not what was answered: a close of ours has its echo in close_rcvd.
    received = ws.protocol.close_rcvd
    r.update(code=ws.close_code, reason=received.reason if received else ws.close_reason,
             reset=ws.reset, wire=ws.wire, pings=ws.pings)
    if "id" in q:
        record(q["id"]).set_result(r)


async def answer(reader, writer):
    name = (await reader.readline()).decode().strip()
    try:
        got = await asyncio.wait_for(asyncio.shield(record(name)), 15)
    except asyncio.TimeoutError:
        got = {"error": "the session has not ended"}
    writer.write(json.dumps(got).encode() + b"\n")
    await writer.drain()
    writer.close()


def pick_subprotocol(connection, offered):
    want = parse_qs(urlsplit(connection.request.path).query).get("pick", [None])[0]
    return want if want in offered else None


async def main():
    async with serve(session, "127.0.0.1", 0, max_size=1 << 30, create_connection=Counted, ping_interval=None,
                     select_subprotocol=pick_subprotocol, max_queue=None) as server:
        control = await asyncio.start_server(answer, "127.0.0.1", 0)
        print(json.dumps({"port": server.sockets[0].getsockname()[1], "control": control.sockets[0].getsockname()[1]}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    import logging
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    asyncio.run(main())
