"""Processes: started on one core, stopped while others are measured, and what they used."""

import atexit
import os
import platform
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

PROXY_CORE = 0
"""Whatever is measured runs here."""
LOAD_CORE = 1
"""The load generator, the tool server, and backends."""

TICKS = os.sysconf("SC_CLK_TCK")
START_S_MAX = 60


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(what, holds, seconds=START_S_MAX, every=0.02):
    end = time.monotonic() + seconds
    while True:
        value = holds()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(every)


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


# Told to stop: as from the keyboard, so that everything is ended and removed.
signal.signal(signal.SIGTERM, signal.default_int_handler)


class Process:
    """A child on one core, in a group of its own; its output goes to a file."""

    def __init__(self, name, command, directory, core, idle=False, env=None):
        self.name = name
        self.log = Path(directory) / f"{name}.log"

        def place():
            os.sched_setaffinity(0, {core})
            if idle:
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory,
                env={**os.environ, **(env or {})}, start_new_session=True, preexec_fn=place,
            )
        # Also when what it belongs to did not start.
        atexit.register(self.end)

    def ready(self, port):
        def holds():
            if self.child.poll() is not None:
                raise RuntimeError(f"{self.name} ended:\n{self.log.read_text(errors='replace')[-3000:]}")
            return listens(port)

        wait_until(f"{self.name} to listen", holds)
        return self

    def pids(self):
        found, ahead = [], [self.child.pid]
        while ahead:
            pid = ahead.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    ahead += [int(word) for word in task.read_text().split()]
                except OSError:
                    pass
        return found

    def cpu_s(self):
        """Time on the processor until now, all threads, in user and kernel mode."""
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def waited_s(self):
        """Time that its threads could have run and did not."""
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    total += int(task.read_text().split()[1])
                except OSError:
                    pass
        return total / 1e9

    def rss_kib(self):
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        return total

    def pause(self):
        os.killpg(self.child.pid, signal.SIGSTOP)

    def go_on(self):
        os.killpg(self.child.pid, signal.SIGCONT)

    def end(self):
        """By its own id; it has nothing to lose."""
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()


def request(url, method="GET", body=None, headers=None):
    """Status and body of an answer, whatever it says."""
    asked = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


def describe():
    """The machine, without its name."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // (1024 * 1024)
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{os.cpu_count()} cores ({model}), {memory} GiB, Linux {kernel}"
