#!/usr/bin/env python3
"""Does the proxy change a verdict?  Runs Autobahn past the proxy and through it, and compares case by case.

  compare.py [--quick] [--proxy framegate|nginx|haproxy] [--part NAME]...

Parts: `ws` and `websockets` (the fuzzing client against that backend), `behind` (the fuzzing server behind the proxy, npm
`ws` in front).  All three unless told.  A case must not get worse, must close the same way with the same code, and must
negotiate the same extensions.  Some peers answer by chance: cases that differ are run again both ways, and all
that came through the proxy must then be in the set of what came without it.  Where our own checks are stricter the
case stands in stricter.txt, with the reason.  Exit status: 0 equal, 1 not, 2 could not run."""
import argparse
import fnmatch
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PEERS = os.path.join(ROOT, "tests", "peers")
TARGET = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
ENV = os.environ.get("PEERS_ENV") or os.path.join(TARGET, "peers")
RANK = {"OK": 0, "NON-STRICT": 1, "INFORMATIONAL": 1, "UNIMPLEMENTED": 2, "FAILED": 3}
PARTS = ["ws", "websockets", "behind"]
# A stall must be seen, a slow machine must not be taken for one: case 12.3.15 alone takes 20 to 50 s on two busy cores.
CASE_SECONDS = 300
# Python `websockets` races its echo against its own close: either verdict, by chance, without any proxy.
BY_CHANCE = {"websockets": (["3.*", "4.*", "5.15"], {"OK", "NON-STRICT"})}


class CannotRun(Exception):
    pass


def start(command, **kw):
    """A child that ends with us: its standard input is our pipe."""
    env = dict(os.environ, NODE_DIR=os.path.join(ENV, "node"), AUTOBAHN_ENV=os.environ.get("AUTOBAHN_ENV") or ENV)
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=env, **kw)
    except OSError as e:
        raise CannotRun("%s: %s" % (command[0], e)) from e


def stop(child):
    child.stdin.close()
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def first_line(child, stream, want):
    """The first line that holds `want`; the rest of the stream is read and dropped."""
    got, found = [], threading.Event()

    def read():
        for line in stream:
            if not found.is_set():
                got.append(line)
                if want in line:
                    found.set()
    threading.Thread(target=read, daemon=True).start()
    if not found.wait(30):
        raise CannotRun("%s did not say %r: %s" % (child.args[0], want, "".join(got)))
    return got[-1]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_backend(name):
    command = ["node", os.path.join(PEERS, "backend.mjs")] if name == "ws" else [
        os.path.join(ENV, "python", "bin", "python"), os.path.join(PEERS, "backend.py")]
    child = start(command, stdout=subprocess.PIPE)
    return child, json.loads(first_line(child, child.stdout, "port"))["port"]


def start_proxy(a, port, listen=0):
    flags = ["run", "--listen", "127.0.0.1:%d" % listen, "--upstream", "ws://127.0.0.1:%d" % port]
    if a.proxy == "framegate":
        command = [a.binary] + flags
    else:
        command = [sys.executable, os.path.join(PEERS, "stand_in.py"), a.proxy] + flags
    child = start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    line = first_line(child, child.stderr, "listening on ")
    return child, int(line.split("listening on ", 1)[1].split()[0].rpartition(":")[2])


def run(args, out, timeout=3600):
    command = [sys.executable, os.path.join(HERE, "run.py"), "--out", out, "--show", "0", "--case-timeout", str(CASE_SECONDS)] + args
    child = start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        text, _ = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as e:
        child.kill()
        raise CannotRun("run.py took more than %d s" % timeout) from e
    if child.returncode == 2 or not os.path.exists(os.path.join(out, "results.json")):
        raise CannotRun("run.py: " + text.strip())
    return results(out)


def results(out):
    with open(os.path.join(out, "results.json"), encoding="utf-8") as f:
        return json.load(f)


class ClientPart:
    """The fuzzing client against an echo backend."""

    def __init__(self, a, backend):
        self.a, self.name = a, backend
        self.backend, self.port = start_backend(backend)
        self.proxy, self.proxy_port = start_proxy(a, self.port)

    def run(self, through, cases, out):
        port = self.proxy_port if through else self.port
        return run(cases + ["--url", "ws://127.0.0.1:%d" % port, "--jobs", str(self.a.jobs)], out)

    def stop(self):
        stop(self.proxy)
        stop(self.backend)


class BehindPart:
    """The fuzzing server behind the proxy, npm `ws` as its client."""
    name = "behind"

    def __init__(self, a):
        self.a = a

    def run(self, through, cases, out):
        # A part of the cases for each job: the client goes through its list one by one.
        wanted = subprocess.run([sys.executable, os.path.join(HERE, "run.py"), "--list"] + cases, text=True, check=True,
                                stdout=subprocess.PIPE, env=dict(os.environ, AUTOBAHN_ENV=os.environ.get("AUTOBAHN_ENV") or ENV)).stdout.split()
        jobs = min(self.a.jobs, len(wanted))
        merged, errors = {}, []

        def job(j):
            try:
                merged.update(self.one(through, wanted[j::jobs], os.path.join(out, "job%d" % j)))
            except (CannotRun, OSError, ValueError) as e:
                errors.append(e)
        threads = [threading.Thread(target=job, args=(j,)) for j in range(jobs)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if errors:
            raise CannotRun(str(errors[0]))
        return merged

    def one(self, through, wanted, out):
        children = []
        try:
            port, front = free_port(), free_port()
            extra = ["--external-port", str(front)] if through else []
            server = start([sys.executable, os.path.join(HERE, "run.py"), "--mode", "server", "--url", "ws://127.0.0.1:%d" % port,
                            "--cases", ",".join(wanted), "--out", out, "--case-timeout", str(CASE_SECONDS)] + extra, stdout=subprocess.PIPE)
            children.append(server)
            first_line(server, server.stdout, "fuzzing server ready")
            if through:
                proxy, port = start_proxy(self.a, port, front)
                children.append(proxy)
            client = start(["node", os.path.join(HERE, "client.mjs"), "ws://127.0.0.1:%d" % port], stdout=subprocess.DEVNULL)
            children.append(client)
            if client.wait(3600) != 0:
                raise CannotRun("client.mjs ended with %d" % client.returncode)
            end = time.monotonic() + 10
            while not os.path.exists(os.path.join(out, "results.json")) and time.monotonic() < end:
                time.sleep(0.05)
            return results(out)
        finally:
            for c in reversed(children):
                stop(c)

    def stop(self):
        pass


def verdict(r):
    """What must not change.  A missing case is a verdict of its own."""
    if r is None:
        return ("MISSING", "-", "-", "-")
    return (r["behavior"], r["behaviorClose"], str(r["remoteCloseCode"] or "-"), r["extensions"] or "-")


def by_chance(part, case, v):
    cases, behaviors = BY_CHANCE.get(part, ([], set()))
    if v[0] in behaviors and any(fnmatch.fnmatchcase(case, c) for c in cases):
        return {(b,) + v[1:] for b in behaviors}
    return {v}


def difference(direct, through):
    """Why no direct verdict covers `through`, or None."""
    if through in direct:
        return None
    if RANK.get(through[0], 9) > max(RANK.get(d[0], 9) for d in direct):
        return "worse"
    if not any(d[1:3] == through[1:3] for d in direct):
        return "closing"
    if not any(d[3] == through[3] for d in direct):
        return "extensions"
    return None


def stricter_entries(path):
    """Lines of `part cases verdict reason`; the verdict as behavior/close/code."""
    with open(path, encoding="utf-8") as f:
        lines = [line.strip() for line in f]
    entries = []
    for line in lines:
        if line and not line.startswith("#"):
            part, cases, want, reason = line.split(None, 3)
            entries.append({"part": part, "cases": cases.split(","), "verdict": want, "reason": reason, "used": 0})
    return entries


def excuse(entries, part, case, through):
    shown = "/".join(through[:3]).replace(" ", "_")
    for e in entries:
        if fnmatch.fnmatchcase(part, e["part"]) and any(fnmatch.fnmatchcase(case, c) for c in e["cases"]) \
                and fnmatch.fnmatchcase(shown, e["verdict"]):
            e["used"] += 1
            return e["reason"]
    return None


def key(case):
    return [int(x) for x in case.split(".")]


def compare(part, a, entries, out):
    began = time.monotonic()
    cases = ["--cases", ",".join(a.cases)] if a.cases else ["--quick"] if a.quick else []
    d = part.run(False, cases, os.path.join(out, part.name + "-direct"))
    t = part.run(True, cases, os.path.join(out, part.name + "-through"))
    wanted = sorted(set(d) | set(t), key=key)
    direct = {c: by_chance(part.name, c, verdict(d.get(c))) for c in wanted}
    through = {c: {verdict(t.get(c))} for c in wanted}

    def judge(c):
        found = [(w, difference(direct[c], w)) for w in sorted(through[c])]
        return [(w, why) for w, why in found if why]

    ever = set()
    for n in range(a.again):
        again = [c for c in wanted if judge(c)]
        if a.proxy == "framegate":
            again = [c for c in again if not all(excuse(entries, part.name, c, w) for w, _ in judge(c))]
        if not again:
            break
        ever.update(again)
        some = ["--cases", ",".join(again)]
        d = part.run(False, some, os.path.join(out, "%s-direct-%d" % (part.name, n)))
        t = part.run(True, some, os.path.join(out, "%s-through-%d" % (part.name, n)))
        for c in again:
            direct[c] |= by_chance(part.name, c, verdict(d.get(c)))
            through[c].add(verdict(t.get(c)))
    count = {"worse": 0, "closing": 0, "extensions": 0, "stricter": 0}
    for c in wanted:
        for w, why in judge(c):
            reason = excuse(entries, part.name, c, w) if a.proxy == "framegate" else None
            count["stricter" if reason else why] += 1
            if not reason or a.verbose:
                print("  %-10s %-8s %-10s without: %s; through: %s%s" % (
                    part.name, c, why, " or ".join("/".join(x) for x in sorted(direct[c])), "/".join(w), "; " + reason if reason else ""))
            break
    unstable = sum(len(direct[c]) > 1 for c in wanted if c in ever)
    print("%s through %s: %d cases, %d worse, %d closing differently, %d extensions lost; %d stricter by list, %d run again, %d unstable without the proxy (%.0f s)" % (
        part.name, a.proxy, len(wanted), count["worse"], count["closing"], count["extensions"], count["stricter"], len(ever), unstable,
        time.monotonic() - began), flush=True)
    return count["worse"] + count["closing"] + count["extensions"]


def binary():
    """The framegate that was built last, of whatever profile."""
    built = [os.path.join(TARGET, profile, "framegate") for profile in ("release", "sim", "debug")]
    return max((p for p in built if os.path.exists(p)), key=os.path.getmtime, default=built[0])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--quick", action="store_true", help="122 cases instead of 517")
    ap.add_argument("--cases", action="append", default=[])
    ap.add_argument("--proxy", default=os.environ.get("PROXY") or "framegate", choices=["framegate", "nginx", "haproxy"])
    ap.add_argument("--binary", default=binary(), help="the framegate to run; built beforehand (default: the one built last)")
    ap.add_argument("--part", action="append", choices=PARTS)
    ap.add_argument("--jobs", type=int, default=2)
    ap.add_argument("--again", type=int, default=3, help="how often cases that differ are run again")
    ap.add_argument("--out", default="")
    ap.add_argument("--verbose", action="store_true", help="also print the cases that stricter.txt covers")
    a = ap.parse_args()
    out = a.out or tempfile.mkdtemp(prefix="autobahn-compare-")
    entries = stricter_entries(os.path.join(HERE, "stricter.txt"))
    bad = 0
    try:
        if not os.path.exists(os.path.join(ENV, "node", "node_modules", "ws")):
            raise CannotRun("npm `ws` is missing: run tests/peers/setup.sh and tests/autobahn/setup.sh first")
        for name in a.part or PARTS:
            part = BehindPart(a) if name == "behind" else ClientPart(a, name)
            try:
                bad += compare(part, a, entries, out)
            finally:
                part.stop()
    except CannotRun as e:
        print("could not run: %s" % e, file=sys.stderr)
        return 2
    finally:
        if not a.out:
            shutil.rmtree(out, ignore_errors=True)
    if a.proxy == "framegate" and not a.cases:
        for e in entries:
            if not e["used"] and not a.quick:
                print("note: never used in stricter.txt: %s %s %s" % (e["part"], ",".join(e["cases"]), e["verdict"]))
    print("autobahn through %s: %s" % (a.proxy, "equal" if not bad else "%d cases are not equal" % bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
