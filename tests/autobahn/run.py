#!/usr/bin/env python3
"""Runs Autobahn's fuzzing client (against a server) or fuzzing server (for a client).

  run.py --url ws://127.0.0.1:9001 [--cases '1.*,7.*'] [--exclude '9.*'] [--out DIR]
  run.py --quick --url ...           a subset of about 20 s
  run.py --mode server --url ws://127.0.0.1:9001    then point a client at it

Prints counts by behavior and the list of what is not OK.  DIR/results.json holds
every verdict.  Exit status: 0 no FAILED, 1 some, 2 could not run."""
import argparse
import json
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ENV = (os.environ.get("AUTOBAHN_ENV") or os.environ.get("PEERS_ENV")
       or os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target"), "peers"))
VENV = os.path.join(ENV, "autobahn", "bin", "python")

# Everything structural; one or two of each slow family.
QUICK = ["1.*", "2.*", "3.*", "4.*", "5.1", "5.2", "5.3", "5.9", "5.15", "5.18", "5.19",
         "6.1.*", "6.2.*", "6.3.*", "6.4.1", "6.4.3", "6.5.*", "6.12.1", "6.20.1",
         "7.*", "9.1.3", "9.2.3", "9.3.6", "9.5.4", "9.7.3", "10.*",
         "12.1.1", "12.1.5", "12.2.11", "13.1.1", "13.2.1", "13.3.1", "13.4.1", "13.5.1", "13.6.1", "13.7.1"]
# Verdicts that are a matter of timing or taste, never of correctness.
KINDS = ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED", "MISSING"]


def patterns(values):
    return [p for v in values for p in re.split(r"[,\s]+", v) if p]


def key(case):
    return [int(x) for x in case.split(".")]


def select(ids, cases, exclude):
    def rx(p):
        return re.compile("^" + re.escape(p).replace(r"\*", ".*") + "$")
    inc, exc = [rx(p) for p in cases], [rx(p) for p in exclude]
    return sorted((i for i in ids if any(r.match(i) for r in inc) and not any(r.match(i) for r in exc)), key=key)


def summarize(results, wanted, seconds=None, show=60):
    counts = {}
    for c in wanted:
        k = results[c]["behavior"] if c in results else "MISSING"
        counts[k] = counts.get(k, 0) + 1
    closes = {}
    for c in wanted:
        if c in results:
            k = results[c]["behaviorClose"]
            closes[k] = closes.get(k, 0) + 1
    print("behavior: " + ", ".join("%s %d" % (k, counts[k]) for k in KINDS if k in counts)
          + "".join(", %s %d" % (k, v) for k, v in sorted(counts.items()) if k not in KINDS)
          + " (of %d)" % len(wanted) + (" in %.0f s" % seconds if seconds else ""))
    print("close   : " + ", ".join("%s %d" % kv for kv in sorted(closes.items(), key=lambda x: -x[1])))
    n = 0
    for c in wanted:
        r = results.get(c)
        if r is None:
            line = "%-8s MISSING" % c
        elif r["behavior"] in ("FAILED", "UNIMPLEMENTED", "NON-STRICT") or r["behaviorClose"] in ("FAILED", "UNCLEAN", "WRONG CODE"):
            line = "%-8s %-13s close:%-16s code:%-5s %s / %s" % (
                c, r["behavior"], r["behaviorClose"], r["remoteCloseCode"], r["result"], r["resultClose"])
        else:
            continue
        n += 1
        if n <= show:
            print("  " + line)
    if n > show:
        print("  ... and %d more" % (n - show))
    return counts


def child(a):
    """Runs inside the venv: one fuzzing client over a.case_ids."""
    sys.path.insert(0, HERE)
    import shim
    shim.CASE_TIMEOUT = a.case_timeout
    shim.EXTERNAL_PORT = a.external_port
    shim.install()
    from autobahntestsuite import fuzzing
    import builtins
    from twisted.internet import reactor
    if not a.verbose:
        fuzzing.print = lambda *x, **k: None
    spec = {"outdir": a.out, "cases": a.case_ids, "exclude-cases": [], "exclude-agent-cases": {}}
    if a.mode == "server":
        spec["url"] = a.url
        fuzzing.startServer(spec, 0)
        builtins.print("fuzzing server ready, %d cases" % len(a.case_ids), flush=True)
    else:
        server = {"agent": "x", "url": a.url}
        if a.origin:
            server["origin"] = a.origin
        spec["servers"] = [server]
        fuzzing.startClient(spec)
    reactor.run()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--url", default="ws://127.0.0.1:9001")
    ap.add_argument("--mode", choices=["client", "server"], default="client", help="which fuzzer to be")
    ap.add_argument("--cases", action="append", default=[])
    ap.add_argument("--exclude", action="append", default=[])
    ap.add_argument("--quick", action="store_true")
    ap.add_argument("--out", default="")
    ap.add_argument("--jobs", type=int, default=1, help="fuzzing clients side by side")
    ap.add_argument("--case-timeout", type=float, default=120)
    ap.add_argument("--timeout", type=float, default=3600, help="for the whole run")
    ap.add_argument("--origin", default="")
    ap.add_argument("--external-port", type=int, default=0, help="server mode: the port in Host, when a proxy stands before it")
    ap.add_argument("--show", type=int, default=60)
    ap.add_argument("--verbose", action="store_true")
    ap.add_argument("--list", action="store_true", help="list the case ids and stop")
    ap.add_argument("--selftest", action="store_true")
    ap.add_argument("--child", default="", help=argparse.SUPPRESS)
    a = ap.parse_args()

    if os.path.abspath(sys.prefix) != os.path.dirname(os.path.dirname(os.path.abspath(VENV))) and os.path.exists(VENV):
        os.execv(VENV, [VENV, "-W", "ignore", os.path.abspath(__file__)] + sys.argv[1:])
    try:
        from autobahntestsuite.case import Cases, CaseBasename, CaseCategories, CaseSubCategories, CaseSetname
        from autobahntestsuite.caseset import CaseSet
    except ImportError as e:
        print("not set up (%s): run setup.sh first" % e, file=sys.stderr)
        return 2
    cs = CaseSet(CaseSetname, CaseBasename, Cases, CaseCategories, CaseSubCategories)
    wanted = select(cs.CasesIndices, patterns(a.cases) or (QUICK if a.quick else ["*"]), patterns(a.exclude))
    if a.child:
        a.case_ids = a.child.split(",")
        return child(a)
    if a.selftest:
        sys.path.insert(0, HERE)
        import shim
        shim.install()
        print("%d cases, e.g. %s" % (len(wanted), " ".join(wanted[:4])))
        return 0 if len(wanted) > 500 else 2
    if a.list:
        print("\n".join(wanted))
        return 0
    out = os.path.abspath(a.out or os.path.join(ENV, "out", "autobahn-%d" % os.getpid()))
    os.makedirs(out, exist_ok=True)
    if a.mode == "server":
        a.case_ids, a.out = wanted, out
        return child(a)

    jobs = max(1, min(a.jobs, len(wanted)))
    t0 = time.time()
    procs = []
    for j in range(jobs):
        part = wanted[j::jobs]
        d = os.path.join(out, "part%d" % j)
        os.makedirs(d, exist_ok=True)
        res = os.path.join(d, "results.json")
        if os.path.exists(res):
            os.remove(res)
        cmd = [sys.executable, "-W", "ignore", os.path.abspath(__file__), "--url", a.url, "--out", d,
               "--case-timeout", str(a.case_timeout), "--child", ",".join(part)]
        if a.origin:
            cmd += ["--origin", a.origin]
        if a.verbose:
            cmd += ["--verbose"]
        procs.append((subprocess.Popen(cmd), res))
    late = False
    for p, _ in procs:
        try:
            p.wait(max(1, a.timeout - (time.time() - t0)))
        except subprocess.TimeoutExpired:
            late = True
            p.kill()
            p.wait()
    results = {}
    for _, res in procs:
        if os.path.exists(res):
            with open(res) as f:
                results.update(json.load(f))
    with open(os.path.join(out, "results.json"), "w") as f:
        json.dump(results, f, indent=1, sort_keys=True)
    if late:
        print("stopped after %g s" % a.timeout)
    counts = summarize(results, wanted, time.time() - t0, a.show)
    return 1 if counts.get("FAILED") or counts.get("MISSING") else 0


if __name__ == "__main__":
    sys.exit(main())
