"""`bench/proxy/run` with everything in place."""

import argparse
import contextlib
import datetime
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from . import holds, others, report, syscalls
from .load import WORKLOADS, run
from .machine import describe, request
from .ours import Ours
from .profile import profile

OURS = "oakallow"
FULL = {"rounds": 7, "seconds": 2, "cells": [(w, c) for w in WORKLOADS for c in (1, 32, 256)]}
QUICK = {"rounds": 3, "seconds": 1, "cells": [("500 B", 32), ("500 B", 256), ("16 KiB", 32), ("MCP 1 KiB", 32)]}


def arguments():
    parser = argparse.ArgumentParser(prog="bench/proxy/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cells and rounds: under 6 minutes, a rough idea")
    parser.add_argument("--rounds", type=int, help="rounds, each of which measures everything once")
    parser.add_argument("--seconds", type=int, help="length of one measurement")
    parser.add_argument("--cell", action="append", metavar="'WORKLOAD@CONNECTIONS'", help="only these, e.g. '500 B@32'")
    parser.add_argument("--only", action="append", metavar="TARGET", help="only these, by the start of their names")
    parser.add_argument("--against", action="append", default=[], metavar="NAME=BINARY",
                        help="another build of `oakallow` in the same rounds")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="where our time goes in each cell, by perf")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the report here, a plot and the numbers beside it")
    return parser.parse_args()


def targets(stack, directory, args):
    """Name → a function that starts it."""
    bins = Path(os.environ["BENCH_BINS"])
    port, tools = others.tool_server(directory)
    stack.callback(tools.end)
    makers = {
        "direct": lambda: others.direct(port),
        "nginx": lambda: others.nginx_proxy(directory, port),
        "Envoy": lambda: others.envoy_plain(directory, port),
        "Envoy + ext_authz + Cerbos": lambda: others.envoy_guarded(directory, port, bins),
        **{name: lambda name=name: others.bare(name, directory, port, bins) for name in others.BARE},
        OURS: lambda: Ours(directory, port, OURS, bins / "oakallow"),
    }
    for pair in args.against:
        name, binary = pair.split("=", 1)
        makers[name] = lambda name=name, binary=binary: Ours(directory, port, name, binary)
    wanted = args.only or list(makers)
    started = []
    for name, make in makers.items():
        if name in wanted or any(name == w or name.lower().startswith(w.lower()) for w in wanted):
            print(f"starting {name}", file=sys.stderr)
            target = make()
            stack.callback(target.end)
            started.append(target)
    return started


def fits(target, workload):
    """MCP is held against a blind pass-through; the others do not know it."""
    return not workload.name.startswith("MCP") or target.name == "bare Pingora" or isinstance(target, Ours)


def measure(directory, target, workload, connections, seconds):
    """One measurement. Everything of the calls counts, also what is done after the last answer."""
    target.go_on()
    before = sum(p.cpu_s() for p in target.processes)
    waited = sum(p.waited_s() for p in target.processes)
    try:
        result = run(directory, target.url, workload, target.headers, connections, seconds)
        result["cpu_load_s"] = sum(p.cpu_s() for p in target.processes) - before
        result["waited_s"] = sum(p.waited_s() for p in target.processes) - waited
        result["rss_kib"] = sum(p.rss_kib() for p in target.processes)
        target.settle()
        result["cpu_s"] = sum(p.cpu_s() for p in target.processes) - before
    finally:
        target.pause()
    return result


def warm_up(directory, all_targets):
    """Each answers, and does what it is measured for."""
    for target in all_targets:
        for workload in (w for w in WORKLOADS.values() if fits(target, w)):
            fields = dict([*workload.headers, *target.headers])
            status, answer = request(target.url + workload.path, "POST", workload.body.encode(), fields)
            if status != 200 or not json.loads(answer):
                raise RuntimeError(f"{target.name}, {workload.name}: {status} {answer[:500]!r}")
            run(directory, target.url, workload, target.headers, 32, 1)
        target.check()
        target.settle()
        target.pause()


def main():
    args = arguments()
    plan = QUICK if args.quick else FULL
    rounds, seconds = args.rounds or plan["rounds"], args.seconds or plan["seconds"]
    cells = [(w, int(c)) for w, c in (cell.rsplit("@", 1) for cell in args.cell)] if args.cell else plan["cells"]
    directory = tempfile.mkdtemp(prefix="oakallow-bench-")
    found, began = [], time.monotonic()
    load_before = os.getloadavg()[0]
    try:
        with contextlib.ExitStack() as stack:
            all_targets = targets(stack, directory, args)
            warm_up(directory, all_targets)
            for number in range(rounds):
                for name, connections in cells:
                    workload = WORKLOADS[name]
                    for target in (t for t in all_targets if fits(t, workload)):
                        result = measure(directory, target, workload, connections, seconds)
                        found.append({"round": number, "workload": name, "connections": connections,
                                      "target": target.name, **result})
                print(f"round {number + 1} of {rounds}, {time.monotonic() - began:.0f} s", file=sys.stderr)
            if args.profile:
                ours = next(t for t in all_targets if isinstance(t, Ours))
                args.profile.write_text("\n\n".join(
                    f"## {w}, {c} connections\n\n{profile(directory, ours, w, c)}" for w, c in cells))
            counted = {} if args.quick or args.only else syscalls.count(directory, all_targets)
        held = [] if args.only else holds.measure(directory, Path(os.environ["BENCH_BINS"]) / "oakallow")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    about = {
        "date": datetime.date.today().isoformat(), "commit": os.environ.get("BENCH_COMMIT", "unknown"),
        "machine": describe(), "rounds": rounds, "seconds": seconds, "command": " ".join(["bench/proxy/run", *sys.argv[1:]]),
        "load_before": load_before, "load_after": os.getloadavg()[0], "took_s": round(time.monotonic() - began),
    }
    report.write(args.out, about, found, (counted, held))


main()
