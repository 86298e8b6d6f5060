"""What our proxy is held against, each as its makers would set it up for one core."""

import json
import os
import shutil
import sys
from pathlib import Path

from .load import DENIED_TOOL, RESOURCE, TENANT, TOOL
from .machine import LOAD_CORE, PROXY_CORE, Process, free_port, request

RULES_PER_TENANT = 100
TENANTS = [f"tenant-{n}" for n in range(10)]
TOOLS = [TOOL, DENIED_TOOL, *(f"tool_{n}" for n in range(RULES_PER_TENANT - 2))]

ANSWER_BYTES = 1024


def answer(frame):
    """1 KiB of JSON, the text of a result in it."""
    text = "Restarted. All health checks pass. " * 40
    rest = ANSWER_BYTES - len(json.dumps(frame("")))
    return json.dumps(frame(text[:rest]))


PLAIN = answer(lambda text: {"ok": True, "result": text})
MCP = answer(lambda text: {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": text}]}})


def nginx(directory, name, core, port, server):
    """nginx with one worker that never ends a connection and writes no log."""
    home = Path(directory) / name
    home.mkdir()
    config = home / "nginx.conf"
    config.write_text(f"""\
daemon off; worker_processes 1; pid {home}/pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; default_type application/json;
  client_body_buffer_size 64k; tcp_nodelay on;
  client_body_temp_path {home}; proxy_temp_path {home}; fastcgi_temp_path {home}; uwsgi_temp_path {home};
  scgi_temp_path {home};
  {server}
}}
""")
    return Process(name, [shutil.which("nginx") or "/usr/sbin/nginx", "-p", home, "-c", config], home, core).ready(port)


def tool_server(directory):
    port = free_port()
    return port, nginx(directory, "tools", LOAD_CORE, port, f"""\
server {{ listen 127.0.0.1:{port} backlog=4096;
    location /mcp {{ return 200 '{MCP}'; }}
    location / {{ return 200 '{PLAIN}'; }} }}""")


class Target:
    """Something that calls are sent to."""

    headers = (("x-tenant-id", TENANT),)

    def __init__(self, name, port, processes):
        self.name, self.port, self.processes = name, port, processes
        self.url = f"http://127.0.0.1:{port}"

    def all_processes(self):
        """What calls are served by, and what works behind it."""
        return self.processes

    def must_refuse(self):
        """Measured with its rules in force, not around them."""
        body = json.dumps({"service": RESOURCE}).encode()
        fields = {**dict(self.headers), "content-type": "application/json"}
        status, _ = request(f"{self.url}/tools/{DENIED_TOOL}", "POST", body, fields)
        if status != 403:
            raise RuntimeError(f"{self.name} lets {DENIED_TOOL} pass: {status}")

    def pause(self):
        for process in self.all_processes():
            process.pause()

    def go_on(self):
        for process in self.all_processes():
            process.go_on()

    def settle(self):
        """Waits until everything that belongs to the calls is done."""

    def check(self):
        """Whether it does what it is measured for; the first calls are answered already."""

    def end(self):
        for process in self.all_processes():
            process.end()


def direct(tools_port):
    return Target("direct", tools_port, [])


def nginx_proxy(directory, tools_port):
    port = free_port()
    server = f"""\
upstream tools {{ server 127.0.0.1:{tools_port}; keepalive 512; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://tools; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}"""
    return Target("nginx", port, [nginx(directory, "nginx", PROXY_CORE, port, server)])


BARE = {"bare Pingora": [], "bare Pingora, body read": ["--reads-body"], "bare Pingora, body inspected": ["--inspects-body"]}


def bare(name, directory, tools_port, bins):
    port = free_port()
    command = [bins / "bare-proxy", f"127.0.0.1:{port}", f"127.0.0.1:{tools_port}", *BARE[name]]
    return Target(name, port, [Process(name.replace(" ", "-").replace(",", ""), command, directory, PROXY_CORE).ready(port)])


def cluster(name, port):
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    limit = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}
    return {
        "name": name, "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [limit]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }


def extension(name, kind, **fields):
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.{kind}", **fields}}


def envoy(directory, name, port, tools_port, authz_port):
    filters, clusters = [], [cluster("tools", tools_port)]
    if authz_port:
        clusters.append(cluster("authz", authz_port))
        address = f"http://127.0.0.1:{authz_port}"
        server = {"server_uri": {"uri": address, "cluster": "authz", "timeout": "5s"}}
        passed = {"allowed_headers": {"patterns": [{"exact": "x-tenant-id"}, {"exact": "content-type"}]}}
        filters.append(extension(
            "envoy.filters.http.ext_authz", "filters.http.ext_authz.v3.ExtAuthz",
            http_service={**server, "authorization_request": {}}, **passed,
            with_request_body={"max_request_bytes": 65536, "allow_partial_message": False},
            transport_api_version="V3",
        ))
    filters.append(extension("envoy.filters.http.router", "filters.http.router.v3.Router"))
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "tools", "timeout": "60s"}}]
    manager = extension(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="in", http_filters=filters, generate_request_id=False,
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    )
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    listener = {"name": "in", "address": address, "filter_chains": [{"filters": [manager]}]}
    config = Path(directory) / f"{name}.json"
    config.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}}))
    binary = next(Path(sys.prefix).glob("lib/python*/site-packages/envoy/_bin/envoy"))
    command = [binary, "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "warn"]
    return Process(name, command, directory, PROXY_CORE).ready(port)


def envoy_plain(directory, tools_port):
    port = free_port()
    return Target("Envoy", port, [envoy(directory, "envoy", port, tools_port, None)])


def cerbos(directory):
    """Cerbos with as many rules as we have."""
    home = Path(directory) / "cerbos"
    (home / "policies").mkdir(parents=True)
    rules = [
        {"actions": [tool], "roles": [tenant], "effect": "EFFECT_DENY" if tool == DENIED_TOOL else "EFFECT_ALLOW"}
        for tenant in TENANTS for tool in TOOLS
    ]
    policy = {"resource": "tool", "version": "default", "rules": rules}
    document = {"apiVersion": "api.cerbos.dev/v1", "resourcePolicy": policy}
    (home / "policies" / "tool.json").write_text(json.dumps(document))
    port = free_port()
    config = home / "config.json"
    config.write_text(json.dumps({
        "server": {"httpListenAddr": f"127.0.0.1:{port}", "grpcListenAddr": f"127.0.0.1:{free_port()}"},
        "storage": {"driver": "disk", "disk": {"directory": str(home / "policies"), "watchForChanges": False}},
        "telemetry": {"disabled": True},
    }))
    modules = Path(os.environ["BENCH_NODE_MODULES"])
    binary = next(modules.glob("@cerbos/cerbos-*/cerbos-*"))
    command = [binary, "server", f"--config={config}", "--log-level=error"]
    return port, Process("cerbos", command, home, PROXY_CORE).ready(port)


class Guarded(Target):
    """Envoy that asks before each call."""

    def check(self):
        self.must_refuse()


def envoy_guarded(directory, tools_port, bins):
    cerbos_port, decides = cerbos(directory)
    authz_port = free_port()
    command = [bins / "authz-adapter", f"127.0.0.1:{authz_port}", f"127.0.0.1:{cerbos_port}"]
    adapts = Process("authz-adapter", command, directory, PROXY_CORE).ready(authz_port)
    port = free_port()
    asks = envoy(directory, "envoy-authz", port, tools_port, authz_port)
    return Guarded("Envoy + ext_authz + Cerbos", port, [asks, adapts, decides])
