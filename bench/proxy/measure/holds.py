"""Held calls: whether anything wakes up while they wait, and how soon they are released."""

import json
import os
import re
import selectors
import socket
import time
from pathlib import Path

from .machine import PROXY_CORE, Process, free_port, request, wait_until

COUNTS = (1, 100, 1000)
WATCH_S = 5


def wake_ups(process):
    """How often threads of the process have been switched to."""
    total = 0
    for pid in process.pids():
        for task in Path(f"/proc/{pid}/task").glob("*/status"):
            total += sum(int(n) for n in re.findall(r"ctxt_switches:\s+(\d+)", task.read_text()))
    return total


def watched(process):
    switches, cpu = wake_ups(process), process.cpu_s()
    time.sleep(WATCH_S)
    return {"switches_per_s": (wake_ups(process) - switches) / WATCH_S, "cpu_ms": (process.cpu_s() - cpu) * 1000}


def hold(port, key, count):
    """The same call on so many connections: one approval, that all of them wait for. One that has run is not run again,
    so that each count has its own."""
    body = json.dumps({"service": f"server-{count}"}).encode()
    head = (f"POST /tools/restart_service HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nPrefer: wait=300\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode()
    held = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(head + body)
        held.append(connection)
    return held


def answered(held, since):
    """Milliseconds until the first and until the last of them was answered."""
    times, statuses = [], set()
    with selectors.DefaultSelector() as ready:
        for connection in held:
            ready.register(connection, selectors.EVENT_READ)
        while len(times) < len(held):
            for key, _ in ready.select(60) or [(None, None)]:
                if key is None:
                    raise TimeoutError(f"{len(times)} of {len(held)} held calls were answered")
                statuses.add(key.fileobj.recv(65536)[9:12].decode())
                times.append((time.monotonic() - since) * 1000)
                ready.unregister(key.fileobj)
    return {"first_ms": times[0], "last_ms": times[-1], "statuses": sorted(statuses)}


def measure(directory, binary):
    """One row for each count of held calls, and one for none."""
    home = Path(directory) / "holds"
    proxy, backend, admin, tools = (free_port() for _ in range(4))
    ports = {"--proxy": proxy, "--backend": backend, "--admin": admin, "--tools": tools}
    flags = [word for flag, port in ports.items() for word in (flag, f"127.0.0.1:{port}")]
    home.mkdir()
    process = Process("dev", [binary, "dev", "--data-dir", home / "data", *flags], home, PROXY_CORE)
    try:
        process.ready(proxy)
        found = home / "data" / "dev.env"
        wait_until("the keys", lambda: found.exists() and "GLOBEX" in found.read_text())
        env = dict(re.findall(r"^(?:export )?(\w+)='?([^'\n]*)'?$", found.read_text(), re.M))
        agent, approver = (next(v for n, v in env.items() if word in n) for word in ("GLOBEX", "APPROVER"))
        # Pingora's clock begins to tick with the first request, a hundred times a second.
        acme = next(v for n, v in env.items() if "ACME" in n)
        fields = {"x-api-key": acme, "content-type": "application/json"}
        request(f"http://127.0.0.1:{proxy}/tools/restart_service", "POST", b'{"service": "server-0"}', fields)
        time.sleep(2)
        rows = [{"held": 0, **watched(process)}]
        for count in COUNTS:
            rows.append({"held": count, **held_row(process, (proxy, agent), (backend, approver), count)})
        return rows
    finally:
        process.end()


def held_row(process, proxy, approver, count):
    held = hold(*proxy, count)
    url, headers = f"http://127.0.0.1:{approver[0]}/v1/approvals", {"x-api-key": approver[1]}

    def pending():
        _, body = request(f"{url}?status=pending&limit=100", headers=headers)
        return json.loads(body)["data"]

    try:
        wait_until("the approval", pending)
        time.sleep(2)
        row = watched(process)
        decision = json.dumps({"decision": "approved", "note": "go ahead"}).encode()
        since = time.monotonic()
        status, body = request(f"{url}/{pending()[0]['id']}/decide", "POST", decision,
                               {**headers, "content-type": "application/json"})
        if status != 200:
            raise RuntimeError(f"the approval: {status} {body}")
        return {**row, **answered(held, since)}
    finally:
        for connection in held:
            connection.close()


if __name__ == "__main__":
    import tempfile
    with tempfile.TemporaryDirectory(prefix="oakallow-bench-") as scratch:
        for line in measure(scratch, os.environ["BENCH_BINS"] + "/oakallow"):
            print(json.dumps(line))
