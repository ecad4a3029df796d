#!/usr/bin/env python3
"""Counts the instructions of every operation in benches/ and compares them with the table in benches/instructions.txt.

  instructions.py                  count and compare
  instructions.py --update         count and write the table anew
  instructions.py --counted FILE   compare what another run has written (with --update --table FILE)
  instructions.py --table FILE     with another table

Callgrind counts what the bench programs execute inside of `common::repeat`: the same binary gives the same number
every time, on a busy machine as on an idle one.  System calls are not in it.  Exit status: 0 nothing costs more than the
table says, 1 something does, 2 could not count.  Without valgrind (VALGRIND says where it is, unless in PATH) nothing
is counted: exit status 2 with CI set, else 0."""
import argparse
import collections
import glob
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TABLE = os.path.join(HERE, "instructions.txt")
UPDATE = "benches/instructions.py --update"
# In this order in the table: the plain path first.
PROGRAMS = ["worker", "session", "relay", "frame", "mask", "http1", "routing", "access", "asking"]
# Timed only: what they do is almost all in aws-lc, which chooses its code by the processor.
TIMED = ["auth"]
# What an operation may cost more than the table says: percent, and instructions for the short ones.  The same sources
# give the same number.  Changed code that has nothing to do with an operation can move what is inlined into it: a
# constant that went to another module has moved a third of the table by 3 to 4 %, and one operation by 8.
PERCENT, LEAST = 5, 8
# With another compiler, libc or valgrind than the table's, or other vector instructions: those alone move numbers.
PERCENT_ELSEWHERE = 20
HEAD = """\
# Instructions in user space and allocations of one operation, as callgrind counts them (benches/instructions.py).
# CI fails when an operation costs over {percent} % (and {least} instructions) more, or one allocation more.
# After a change that is worth its cost, or that saves some: {update}
"""

Cost = collections.namedtuple("Cost", "instructions allocations")
# Where it was counted (part -> version), and what every operation costs (name -> Cost).
Table = collections.namedtuple("Table", "place costs")


class CannotCount(Exception):
    pass


def output(*command, **kw):
    try:
        root = os.path.dirname(HERE)
        return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd=root, **kw).stdout
    except (OSError, subprocess.CalledProcessError) as e:
        raise CannotCount("%s: %s" % (command[0], e)) from e


# --- counting


def count(valgrind):
    programs = build()
    if sorted(programs) != sorted(PROGRAMS + TIMED):
        raise CannotCount("bench programs %s, expected %s" % (sorted(programs), sorted(PROGRAMS + TIMED)))
    costs = {}
    for name in PROGRAMS:
        found = run(valgrind, name, programs[name])
        print("%-8s %3d operations counted" % (name, len(found)), flush=True)
        if not found or set(found) & set(costs):
            raise CannotCount("%s: no operation, or one of a name that is taken" % name)
        costs.update(found)
    return Table(place(valgrind), costs)


def build():
    """Bench programs by name, built as `cargo bench` builds them."""
    command = "cargo bench --no-run --package framegate --bench * --message-format json-render-diagnostics"
    messages = map(json.loads, output(*command.split(" ")).splitlines())
    benches = (m for m in messages if m.get("executable") and m["target"]["kind"] == ["bench"])
    return {m["target"]["name"]: m["executable"] for m in benches}


def run(valgrind, name, executable):
    """The program says a line an operation; callgrind leaves two sums for each: warming up, and what counts."""
    with tempfile.TemporaryDirectory() as folder:
        sums, repeat = os.path.join(folder, "sums"), name + "::common::repeat"
        options = ["--collect-atstart=no", "--toggle-collect=" + repeat, "--dump-after=" + repeat]
        command = [valgrind, "--tool=callgrind", "-q", *options, "--callgrind-out-file=" + sums, executable, "--counted"]
        # An environment of no size: nothing of the caller's moves the stack.
        lines = output(*command, env={"PATH": os.environ["PATH"]}).splitlines()
        if len(glob.glob(sums + ".*")) != 2 * len(lines):
            raise CannotCount("%s: %d sums for %d lines" % (name, len(glob.glob(sums + ".*")), len(lines)))
        costs = {}
        for n, line in enumerate(lines, 1):
            operation, times, allocations = line.split("\t")
            costs[operation] = Cost(total(sums + ".%d" % (2 * n)) / int(times), round(int(allocations) / int(times), 1))
        return costs


def total(path):
    with open(path) as file:
        return int(re.search(r"^totals: (\d+)$", file.read(), re.M).group(1))


def place(valgrind):
    """What a count depends on beside the code: the compiler, the libraries, what vector instructions there are."""
    with open("/proc/cpuinfo") as file:
        vectors = "avx2" if re.search(r"^flags\s*:.*\bavx2\b", file.read(), re.M) else "no avx2"
    rustc, counter = output("rustc", "--version").split(" ")[1], output(valgrind, "--version").strip().split("-")[-1]
    libc = " ".join(platform.libc_ver())
    return {"machine": "%s, %s" % (platform.machine(), vectors), "rustc": rustc, "libc": libc, "valgrind": counter}


# --- the table


def write(table, path):
    lines = [HEAD.format(percent=PERCENT, least=LEAST, update=UPDATE)]
    lines += ["# %s: %s\n" % part for part in table.place.items()]
    lines += ["\n%-48s %14s %12s\n" % ("operation", "instructions", "allocations")]
    lines += ["%-48s %14.1f %12g\n" % (name, *cost) for name, cost in table.costs.items()]
    with open(path, "w") as file:
        file.writelines(lines)


def read(path):
    try:
        with open(path) as file:
            text = file.read()
        rows = [line.rsplit(None, 2) for line in text.splitlines() if line and not line.startswith("#")][1:]
        costs = {name: Cost(float(instructions), float(allocations)) for name, instructions, allocations in rows}
    except (OSError, ValueError) as e:
        raise CannotCount("%s: %s" % (path, e)) from e
    return Table(dict(re.findall(r"^# (machine|rustc|libc|valgrind): (.*)$", text, re.M)), costs)


# --- comparing


def compare(counted, table):
    """Whether nothing costs more than `table` says. Says what does, and what has become cheaper."""
    percent = PERCENT
    elsewhere = [part for part in counted.place if counted.place[part] != table.place.get(part)]
    for part in elsewhere:
        print("ELSEWHERE: %s is %s, the table was made with %s" % (part, counted.place[part], table.place.get(part)))
    if "machine" in elsewhere and counted.place["machine"].split(",")[0] != table.place.get("machine", "").split(",")[0]:
        print("NOT COMPARED: another architecture has other instructions")
        return True
    if elsewhere:
        percent = PERCENT_ELSEWHERE
        print("so %d %% are allowed instead of %d %%; once this is the place: %s" % (percent, PERCENT, UPDATE))
    verdicts = [(verdict(counted.costs.get(name), table.costs.get(name), percent), name)
                for name in dict.fromkeys([*table.costs, *counted.costs])]
    for what, name in verdicts:
        if what:
            print("%-8s %-48s %s -> %s" % (what, name, shown(table.costs.get(name)), shown(counted.costs.get(name))))
    said = collections.Counter(what for what, _ in verdicts)
    print("instructions: %d operations, %d dearer, %d cheaper, %d not on both sides (beyond %d %%)"
          % (len(verdicts), said["DEARER"], said["cheaper"], said["NEW"] + said["GONE"], percent))
    good = not (said["DEARER"] or said["NEW"] or said["GONE"])
    if not good or said["cheaper"]:
        print("if that is meant, update the table: %s" % UPDATE)
    return good


def verdict(now, then, percent):
    if then is None:
        return "NEW"
    if now is None:
        return "GONE"
    room = max(then.instructions * percent / 100, LEAST)
    if now.instructions > then.instructions + room or now.allocations > then.allocations:
        return "DEARER"
    if now.instructions < then.instructions - room or now.allocations < then.allocations:
        return "cheaper"
    return None


def shown(cost):
    if cost is None:
        return "nothing"
    return "%.1f" % cost.instructions + (", %g allocations" % cost.allocations if cost.allocations else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--counted", metavar="FILE")
    parser.add_argument("--table", metavar="FILE", default=TABLE)
    args = parser.parse_args()
    valgrind = shutil.which(os.environ.get("VALGRIND") or "valgrind")
    if not args.counted and not valgrind:
        print("NOT COUNTED: there is no valgrind here, so nobody knows whether the plain path costs more than it did")
        return 2 if os.environ.get("CI") else 0
    try:
        counted = read(args.counted) if args.counted else count(valgrind)
        if args.update:
            write(counted, args.table)
            print("written: %s" % args.table)
            return 0
        return 0 if compare(counted, read(args.table)) else 1
    except CannotCount as e:
        print("instructions.py: %s" % e, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
