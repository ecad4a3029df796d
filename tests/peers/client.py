"""Python `websockets` as client of the peers' tests.  Reads a plan from standard input: { url, control, scenarios, pair }."""
import asyncio
import itertools
import json
import os
import socket
import struct
import sys
import time

from pattern import pattern
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate

sequence = itertools.count(1)


class Counted(ClientConnection):
    pings = 0

    def process_event(self, event):
        if getattr(event, "opcode", None) == 9:
            self.pings += 1
        super().process_event(event)


def check(condition, text):
    if not condition:
        raise AssertionError(text)


async def send(ws, m, data):
    fragments, pongs = m.get("fragments", 1), []
    if fragments == 1 and not m.get("pings"):
        return await ws.send(data, text=m["kind"] == "text")

    async def parts():
        for i in range(fragments):
            yield data[len(data) * i // fragments:len(data) * (i + 1) // fragments]
            if m.get("pings"):
                pongs.append(await ws.ping("between %d" % i))
    await ws.send(parts(), text=m["kind"] == "text")
    for p in pongs:
        await asyncio.wait_for(p, 5)


async def messages(ws, s):
    for i in range(1, s.get("greetings", 0) + 1):
        check(await asyncio.wait_for(ws.recv(), 10) == pattern("binary", i * 37, i), "greeting %d differs" % i)
    for m in s.get("sends", []):
        data = pattern(m["kind"], m["size"])
        for _ in range(m.get("times", 1)):
            await send(ws, m, data)
            if s.get("answer") is False:
                continue
            got = await asyncio.wait_for(ws.recv(), 90)
            kind = "text" if isinstance(got, str) else "binary"
            got = got.encode() if isinstance(got, str) else got
            check(kind == m["kind"], "%s came back as %s" % (m["kind"], kind))
            check(got == data, "the echo of %d bytes differs (%d bytes came)" % (len(data), len(got)))


async def end(ws, s):
    if s.get("end") == "reset":
        sock = ws.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return ws.transport.abort()
    if "close" in s:
        await ws.close(s["close"]["code"], s["close"]["reason"])
    await asyncio.wait_for(ws.wait_closed(), 15)
    received = ws.protocol.close_rcvd
    ended = {"code": ws.close_code, "reason": received.reason if received else ws.close_reason, "clean": ws.close_code != 1006}
    for k, want in s.get("expect", {}).items():
        if k in ended:
            check(ended[k] == want or (isinstance(want, list) and ended[k] in want), "closed with %s %r, not %r" % (k, ended[k], want))


async def play(url, s):
    offers = [ClientPerMessageDeflateFactory(client_max_window_bits=True)] if s.get("deflate") else None
    ws = await asyncio.wait_for(connect(
        url, max_size=1 << 30, compression=None, extensions=offers, subprotocols=s.get("subprotocols"),
        create_connection=Counted, ping_interval=None, max_queue=None, proxy=None), 15)
    expect = s.get("expect", {})
    try:
        deflate = any(isinstance(e, PerMessageDeflate) for e in ws.protocol.extensions)
        check(expect.get("deflate", deflate) == deflate, "deflate negotiated: %s" % deflate)
        check(expect.get("subprotocol", ws.subprotocol or "") == (ws.subprotocol or ""), "subprotocol %s" % ws.subprotocol)
        try:
            await messages(ws, s)
        except ConnectionClosed as e:
            raise AssertionError("closed (%s) while a message was awaited" % e) from e
        check(ws.pings >= expect.get("pings", 0), "%d pings came" % ws.pings)
        for i in range(s.get("ping", 0)):
            await asyncio.wait_for(await ws.ping("p%d" % i), 5)
        await end(ws, s)
    finally:
        ws.transport.abort()


async def compare(plan, name, want):
    reader, writer = await asyncio.open_connection("127.0.0.1", plan["control"])
    writer.write(name.encode() + b"\n")
    record = json.loads(await asyncio.wait_for(reader.readline(), 20))
    writer.close()
    check("error" not in record, "backend: %s" % record.get("error"))
    for k, v in want.items():
        got = record["wire" if k == "wire_max" else k]
        check(got <= v if k == "wire_max" else got >= v if k in ("pings", "pongs") else got == v, "backend saw %s %r, not %r" % (k, got, v))


async def once(plan, s, extra):
    name = "%d-%d" % (os.getpid(), next(sequence))
    query = "&".join(p for p in (s.get("query", ""), extra, "id=" + name) if p)
    try:
        await play("%s/peers?%s" % (plan["url"], query), s)
        if "backend" in s:
            await compare(plan, name, s["backend"])
    except Exception as e:
        raise AssertionError(("%s: " % extra if extra else "") + (str(e) or type(e).__name__)) from e


async def main():
    plan = json.load(sys.stdin)
    count = {"passed": 0, "failed": 0, "known": 0}
    for s in plan["scenarios"]:
        began, verdict = time.monotonic(), "ok"
        try:
            for extra in ["cut=%d" % (i + 1) for i in range(s.get("cuts", 0))] or [""]:
                await once(plan, s, extra)
            count["passed"] += 1
        except AssertionError as e:
            count["known" if s.get("known") else "failed"] += 1
            verdict = "known: %s (%s)" % (s["known"], e) if s.get("known") else "FAILED: %s" % e
        print("  %s %s ... %s (%d ms)" % (plan["pair"], s["name"], verdict, (time.monotonic() - began) * 1000), flush=True)
    known = ", %d known failures of this proxy" % count["known"] if count["known"] else ""
    print("%s: %d passed, %d failed%s" % (plan["pair"], count["passed"], count["failed"], known))
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
