"""The report: medians, and ratios within a round."""

import json
import statistics
import sys

from . import plot

BARE = "bare Pingora"
INSPECTED = "bare Pingora, body inspected"


def median(values):
    return statistics.median(values) if values else float("nan")


class Found:
    """All measurements, by cell, target and round."""

    def __init__(self, found):
        self.all = found
        self.cells = list(dict.fromkeys((f["workload"], f["connections"]) for f in found))
        self.targets = list(dict.fromkeys(f["target"] for f in found))

    def of(self, cell, target):
        return {f["round"]: f for f in self.all if (f["workload"], f["connections"], f["target"]) == (*cell, target)}

    def median(self, cell, target, value):
        return median([value(f) for f in self.of(cell, target).values()])

    def ratios(self, cell, target, other, value):
        """Of the target to the other, in each round."""
        ones, others = self.of(cell, target), self.of(cell, other)
        return [value(f) / value(others[r]) for r, f in ones.items() if r in others and value(others[r])]

    def differences(self, cell, target, other, value):
        ones, others = self.of(cell, target), self.of(cell, other)
        return [value(f) - value(others[r]) for r, f in ones.items() if r in others]


def rps(f):
    return f["calls"] / (f["us"] / 1e6)


def cpu_us(f):
    return f["cpu_s"] * 1e6 / f["calls"]


def cpu_load_us(f):
    return f["cpu_load_s"] * 1e6 / f["calls"]


def spread(values):
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})" if values else "–"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def cell_table(found, cell):
    rows = []
    for target in found.targets:
        if not found.of(cell, target):
            continue
        of = lambda value: found.median(cell, target, value)
        proxied = of(lambda f: f["cpu_s"]) > 0
        rows.append([
            target, f"{of(rps):,.0f}", f"{of(lambda f: f['p50']):,.0f}", f"{of(lambda f: f['p99']):,.0f}",
            spread(found.ratios(cell, target, BARE, rps)), spread(found.ratios(cell, target, INSPECTED, rps)),
            f"{of(cpu_us):.1f}" if proxied else "–", f"{of(cpu_load_us):.1f}" if proxied else "–",
            f"{of(lambda f: f['rss_kib']) / 1024:.0f}" if proxied else "–",
        ])
    return table(["", "calls/s", "p50 µs", "p99 µs", "× bare (lowest–highest)", "× body inspected", "CPU µs a call", "of it under load",
                  "RSS MiB"], rows)


def syscall_table(counted):
    if not counted:
        return ""
    names = {n: sum(c.get(n, 0) for c in counted.values()) for c in counted.values() for n in c}
    shown = [n for n in sorted(names, key=names.get, reverse=True) if any(c.get(n, 0) >= 0.02 for c in counted.values())]
    rows = [[n, *(f"{c.get(n, 0):.2f}" for c in counted.values())] for n in shown]
    rows.append(["all", *(f"{sum(c.values()):.2f}" for c in counted.values())])
    return "\n## System calls a call\n\n500 B, 32 connections, counted with strace.\n\n" + table(["", *counted], rows)


def holds_table(held):
    if not held:
        return ""
    rows = [
        [f"{row['held']:,}", f"{row['switches_per_s']:.0f}", f"{row['cpu_ms']:.0f}",
         *(f"{row[name]:,.0f}" if name in row else "–" for name in ("first_ms", "last_ms"))] for row in held
    ]
    head = ["calls held", "wake-ups a second", "CPU ms in 5 s", "first answered, ms after the decision", "last"]
    about = "`oakallow dev`: proxy and backend in one process. The held calls wait for one approval.\n\n"
    return "\n## Held calls\n\n" + about + table(head, rows)


def text(about, found, counted, held):
    busy = median([f["waited_s"] / (f["us"] / 1e6) for f in found.all if f["cpu_s"] > 0])
    parts = [f"# The proxy beside others, {about['date']}\n"]
    parts.append(table(["", ""], [
        ["commit", about["commit"]], ["machine", about["machine"]], ["command", f"`{about['command']}`"],
        ["rounds", f"{about['rounds']} of {about['seconds']} s a measurement; {about['took_s']} s in all"],
        ["load average", f"{about['load_before']:.1f} before, {about['load_after']:.1f} after"],
        ["noise", f"in the median measurement, threads that could run waited {busy:.0%} of the time"],
    ]).replace("---:", "---"))
    for cell in found.cells:
        parts.append(f"\n## {cell[0]}, {cell[1]} connection{'s' if cell[1] > 1 else ''}\n\n{cell_table(found, cell)}")
    parts += [syscall_table(counted), holds_table(held)]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part)


def write(out, about, all_found, beside):
    (counted, held), found = beside, Found(all_found)
    written = text(about, found, counted, held)
    sys.stdout.write(written)
    if out:
        out.write_text(written)
        out.with_suffix(".json").write_text(json.dumps({"about": about, "found": all_found, "syscalls": counted, "holds": held}))
        out.with_suffix(".svg").write_text(plot.bars(found, BARE, rps))
