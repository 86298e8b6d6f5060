"""What is sent, and the load generator that sends it."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .machine import LOAD_CORE

TOOL = "restart_service"
DENIED_TOOL = "drop_database"
TENANT = "tenant-3"
RESOURCE = "server-prod-01"


def arguments(bytes_wanted):
    """Arguments whose JSON has so many bytes: a name, a sentence, and a long text."""
    known = {"service": RESOURCE, "reason": "deploy of the build that was tested", "text": ""}
    words = "The service is restarted after its configuration was changed; see the ticket for what and why. "
    rest = bytes_wanted - len(json.dumps(known))
    return {**known, "text": (words * (rest // len(words) + 1))[:max(rest, 0)]}


@dataclass(frozen=True)
class Workload:
    """One kind of call."""

    name: str
    path: str
    body: str
    headers: tuple

    @staticmethod
    def http(name, size):
        body = json.dumps(arguments(size))
        return Workload(name, f"/tools/{TOOL}", body, (("content-type", "application/json"),))

    @staticmethod
    def mcp(name, size):
        call = {"name": TOOL, "arguments": arguments(size)}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call})
        headers = (
            ("content-type", "application/json"), ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2025-06-18"),
        )
        return Workload(name, "/mcp", body, headers)


WORKLOADS = {w.name: w for w in [
    Workload.http("500 B", 500), Workload.http("1 KiB", 1024), Workload.http("16 KiB", 16 * 1024),
    Workload.mcp("MCP 1 KiB", 1024),
]}

SCRIPT = """\
wrk.method = "POST"
wrk.body = os.getenv("LOAD_BODY")
for line in os.getenv("LOAD_HEADERS"):gmatch("[^\\n]+") do
  local name, value = line:match("([^:]+): (.*)")
  wrk.headers[name] = value
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"calls":%d,"us":%d,"p50":%d,"p99":%d,"refused":%d,"broken":%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


def run(directory, url, workload, headers, connections, seconds):
    """One run of wrk: calls, microseconds, percentiles; none may fail."""
    script = Path(directory) / "load.lua"
    if not script.exists():
        script.write_text(SCRIPT)
    fields = "\n".join(f"{name}: {value}" for name, value in [*workload.headers, *headers])
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script, url + workload.path],
        env={**os.environ, "LOAD_BODY": workload.body, "LOAD_HEADERS": fields}, capture_output=True, text=True,
        check=True, timeout=seconds + 30, preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    result = json.loads(line.removeprefix("RESULT "))
    if result["refused"] or result["broken"] or not result["calls"]:
        raise RuntimeError(f"{url}: {result}")
    return result
