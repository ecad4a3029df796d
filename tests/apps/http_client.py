# Python `requests`: sessions on several threads, bodies of each kind, and an event stream that lasts.
import concurrent.futures
import json
import sys

import requests

URL = sys.argv[1]


def check(condition, what):
    if not condition:
        raise SystemExit(f"wrong: {what}")


def echoed(answer, method, length, what):
    check(answer.status_code == 200, f"{what}: {answer.status_code}")
    check(answer.json() == {"method": method, "length": length}, f"{what}: {answer.text}")


def one(n):
    session = requests.Session()
    for i in range(20):
        size = (n * 40009 + i * 7919) % 300000
        body = bytes([n]) * size
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            echoed(session.request(method, f"{URL}/echo", data=body, timeout=20), method, size, "a body")
        # A generator goes in chunks.
        echoed(session.post(f"{URL}/echo", data=(body[at : at + 5000] for at in range(0, size, 5000)), timeout=20), "POST", size, "chunks")
        check(session.get(f"{URL}/echo", timeout=20).status_code == 200, "GET")
        head = session.head(f"{URL}/echo", timeout=20)
        check(head.status_code == 200 and head.text == "" and int(head.headers["Content-Length"]) > 0, "HEAD")
        check(session.options(f"{URL}/echo", timeout=20).status_code == 200, "OPTIONS")
    text = session.get(f"{URL}/gzip", timeout=20)
    check(text.headers["Content-Encoding"] == "gzip" and text.text == "framegate " * 20000, "gzip")
    files = session.post(f"{URL}/echo", files={"file": ("a.bin", b"x" * 100000)}, timeout=20)
    check(files.json()["length"] > 100000, "multipart")
    moved = session.get(f"{URL}/moved", timeout=20)
    check(len(moved.history) == 1 and moved.url.endswith("/echo"), "a redirection")
    cookies = session.get(f"{URL}/cookies", timeout=20)
    check(cookies.text == "" and session.get(f"{URL}/cookies", timeout=20).text == "a=1; b=2", "cookies")
    with session.get(f"{URL}/events", stream=True, timeout=20) as events:
        lines = [line for line in events.iter_lines() if line]
    check(lines == [b"data: %d" % i for i in range(20)], f"events {lines}")
    return 20 * 8 + 6


with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print("ok " + json.dumps({"requests": sum(pool.map(one, range(8)))}))
