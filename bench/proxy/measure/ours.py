"""Our proxy with everything on: a backend of its own, a thousand rules, intents kept, tokens minted, events shipped."""

import json
import re
from pathlib import Path

from .load import DENIED_TOOL, TENANT
from .machine import LOAD_CORE, PROXY_CORE, Process, free_port, request, wait_until
from .others import TENANTS, TOOLS, Target

AUDIENCE = "tools"
ORG = "bench"
DRAIN_S_MAX = 120
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
    "properties": {
        "service": {"type": "string", "minLength": 1, "maxLength": 128},
        "reason": {"type": "string", "maxLength": 1000}, "text": {"type": "string"},
    },
    "required": ["service"], "additionalProperties": False,
}


class Backend:
    """A backend on the other core, where it takes what the load generator leaves."""

    def __init__(self, directory, binary):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        data = directory / "backend-data"
        command = [binary, "backend", "--data-dir", data]
        first = [binary, "backend", "bootstrap", "--org", ORG, "--email", "owner@bench.example", "--data-dir", data]
        key = Process("bootstrap", first, directory, LOAD_CORE)
        key.child.wait(60)
        self.key = key.log.read_text().split()[-1]
        command += ["--listen", f"127.0.0.1:{self.port}"]
        self.process = Process("backend", command, directory, LOAD_CORE, idle=True).ready(self.port)

    def call(self, method, path, body):
        fields = {"x-api-key": self.key, "content-type": "application/json"}
        status, answer = request(self.url + path, method, json.dumps(body).encode(), fields)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer.decode()}")
        return json.loads(answer)

    def seed(self):
        """Tenants, tools and rules; the key of an agent."""
        for tenant in TENANTS:
            self.call("POST", "/v1/tenants", {"id": tenant, "name": tenant})
        for tool in TOOLS:
            body = {"name": tool, "audience": AUDIENCE, "risk_level": "medium", "parameter_schema": SCHEMA}
            self.call("POST", "/v1/tools", body)
        for tenant in TENANTS:
            rules = [
                {"tenant": tenant, "tool": tool, "permission": "disabled" if tool == DENIED_TOOL else "allowed"}
                for tool in TOOLS
            ]
            self.call("PUT", "/v1/rules", {"tenant_id": tenant, "rules": rules})
        reach = {"tenancy": "one", "tenants": [TENANT]}
        self.call("POST", "/v1/agents", {"id": "agent", "owner": "owner@bench.example", **reach})
        key = {"tier": "standard", "name": "agent", "agent_id": "agent", **reach}
        return self.call("POST", "/v1/keys", key)["key"]


class Ours(Target):
    """The proxy, and the backend that its events go to."""

    def __init__(self, directory, tools_port, name, binary):
        home = Path(directory) / name
        home.mkdir()
        self.backend = Backend(home, binary)
        agent = self.backend.seed()
        asked = {"audiences": [AUDIENCE], "tenants": None}
        token = self.backend.call("POST", "/v1/proxies/join-tokens", asked)["join_token"]
        (home / "join-token").write_text(token)
        data, ops, admin = free_port(), free_port(), free_port()
        self.ops = f"http://127.0.0.1:{ops}"
        (home / "proxy.yaml").write_text(json.dumps(self.config(home, (data, ops, admin), tools_port)))
        command = [binary, "proxy", "--config", home / "proxy.yaml"]
        process = Process("proxy", command, home, PROXY_CORE, env={"RUST_LOG": "warn"}).ready(data)
        super().__init__(name, data, [process])
        self.headers = (("x-api-key", agent),)
        wait_until("the policy", lambda: request(self.ops + "/readyz")[0] == 200)

    def config(self, home, ports, tools_port):
        data, ops, admin = (f"127.0.0.1:{port}" for port in ports)
        route = {"audience": AUDIENCE, "upstream": f"http://127.0.0.1:{tools_port}",
                 "resources": {"restart_service": "/service"}}
        return {
            "listen": {"data": data, "ops": ops, "admin": admin}, "name": "bench", "state_dir": str(home / "state"),
            "backend": {"url": self.backend.url, "join_token_file": str(home / "join-token")},
            "durability": "process",
            # As many as the backend is behind at the end of a round: it has what is left of one core.
            "limits": {"spool_events_max": 100_000_000},
            "routes": [
                {"name": "http", "kind": "http", "path": "/tools/{tool}", **route},
                {"name": "mcp", "kind": "mcp", "path": "/mcp", **route},
            ],
        }

    def gauge(self, name):
        text = request(self.ops + "/metrics")[1].decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))

    def settle(self):
        """Every event of the round is at the backend."""
        wait_until("the events to be shipped", lambda: self.gauge("oakallow_spool_events") == 0, DRAIN_S_MAX, 0.2)

    def check(self):
        self.must_refuse()
        if not self.gauge("oakallow_upstream_outcomes_total"):
            raise RuntimeError(f"{self.name} has recorded no outcome")

    def all_processes(self):
        return [*self.processes, self.backend.process]
