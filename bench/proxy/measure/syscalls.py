"""System calls a call, counted with strace, which slows everything down: counts, not times."""

import re
import signal
import subprocess
import time

from .load import WORKLOADS, run

CONNECTIONS = 32


def count(directory, targets):
    """Target → system call → how many for each call."""
    found = {}
    for target in (t for t in targets if t.processes):
        pids = [pid for process in target.processes for pid in process.pids()]
        target.go_on()
        command = ["strace", "-f", "-c", "-q", *(word for pid in pids for word in ("-p", str(pid)))]
        tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                  text=True)
        time.sleep(1)
        result = run(directory, target.url, WORKLOADS["500 B"], target.headers, CONNECTIONS, 2)
        target.settle()
        tracer.send_signal(signal.SIGINT)
        table = tracer.communicate(timeout=30)[1]
        target.pause()
        found[target.name] = {
            name: int(calls) / result["calls"]
            for calls, name in re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", table, re.M)
            if name != "total"
        }
    return found
