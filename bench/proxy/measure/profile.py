"""Where the time of a call goes, by perf."""

import subprocess
import time

from .load import WORKLOADS, run

SECONDS = 4


def profile(directory, target, workload, connections):
    """Symbols and their share of the samples, the largest first."""
    pids = ",".join(str(pid) for process in target.processes for pid in process.pids())
    data = f"{directory}/perf.data"
    target.go_on()
    # A sample each so many ns of CPU time: virtual machines have no counters.
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-g", "-p", pids, "-o", data]
    recorder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    run(directory, target.url, WORKLOADS[workload], target.headers, connections, SECONDS)
    target.settle()
    recorder.terminate()
    recorder.wait(30)
    report = ["perf", "report", "-i", data, "--stdio", "--no-children", "-g", "none", "--percent-limit", "0.25",
              "--sort", "comm,dso,symbol"]
    text = subprocess.run(report, capture_output=True, text=True, check=True, timeout=120).stdout
    target.pause()
    lines = (line.removesuffix("-").rstrip(" -") for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))
