"""A tool server that runs what oakallow let through, and nothing else. PyJWT, rfc8785, no framework.

Set: BACKEND (URL), TOOL_KEY (oak_tool_…), ORG, AUDIENCE, ALG (HS256 or EdDSA: the one that is set for the audience),
BASE_URL (this server as the proxy's route names it: `upstream`), PORT.
"""

import base64
import hashlib
import json
import os
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import rfc8785

BACKEND, TOOL_KEY, AUDIENCE = os.environ["BACKEND"], os.environ["TOOL_KEY"], os.environ["AUDIENCE"]
ISSUER = "oakallow/" + os.environ["ORG"]
ALG = os.environ["ALG"]
BASE_URL = os.environ["BASE_URL"].rstrip("/")
BODY_BYTES_MAX = 1024 * 1024
# No HTTP proxy of the environment stands between us and the backend.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Refused(Exception):
    """Not ours to run."""


def ask(path, body=None):
    """The backend's answer. Whatever goes wrong is an exception: without an answer nothing runs."""
    request = urllib.request.Request(BACKEND + path, data=body and json.dumps(body).encode())
    request.add_header("X-API-Key", TOOL_KEY)
    request.add_header("Content-Type", "application/json")
    with DIRECT.open(request, timeout=5) as answer:
        return json.load(answer)


class Keys:
    """The audience's keys: fetched again every five minutes, and for an unknown kid (a rotation), but not more often
    than every five seconds, whoever sends what."""

    def __init__(self):
        self.lock, self.keys, self.fetched = threading.Lock(), {}, float("-inf")

    def find(self, kid):
        with self.lock:
            age = time.monotonic() - self.fetched
            if age > 300 or (kid not in self.keys and age > 5):
                self.fetched = time.monotonic()
                found = ask(f"/v1/audiences/{AUDIENCE}/keys")["keys"]
                # A key of another kind than ours is an error here, not another way to verify.
                self.keys = {key["kid"]: jwt.PyJWK(key, algorithm=ALG).key for key in found}
            if kid not in self.keys:
                raise Refused("unknown key")
            return self.keys[kid]


KEYS = Keys()


def sha256(content):
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def check(token, tool, method, target, body):
    """The arguments, if the token is for exactly this request. Offline; the token is not used up by it."""
    header = jwt.get_unverified_header(token)
    if header.get("typ") != "oakallow-exec+jwt" or header.get("alg") != ALG:
        raise Refused("wrong type or algorithm")
    claims = jwt.decode(
        token,
        KEYS.find(header.get("kid")),
        algorithms=[ALG],
        audience=AUDIENCE,
        issuer=ISSUER,
        leeway=5,
        options={"require": ["exp", "iat", "nbf", "jti", "aud", "iss"]},
    )
    if claims["exp"] - claims["iat"] > 60:
        raise Refused("lives too long")
    arguments = json.loads(body)
    expected = {
        "bnd": "request",
        "htm": method,
        "htu": BASE_URL + target,
        "bdh": sha256(body),
        "tool": tool,
        "ah": sha256(rfc8785.dumps(arguments)),
        # A tool that acts on a resource puts here which one, as it read it from the arguments.
        "resource": None,
    }
    for claim, value in expected.items():
        if claims.get(claim) != value:
            raise Refused(f"the token has another {claim}")
    return arguments


def redeem(token, tool, method, target, body, arguments):
    """Uses the token up. The backend says yes once."""
    answer = ask(
        "/v1/tokens/verify",
        {
            "token": token,
            "tool_name": tool,
            "htm": method,
            "htu": BASE_URL + target,
            "body_sha256": sha256(body),
            "arguments_sha256": sha256(rfc8785.dumps(arguments)),
        },
    )
    if answer["valid"] is not True:
        raise Refused(answer["reason"])


class Tools(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), BODY_BYTES_MAX))
        tokens = self.headers.get_all("X-Oakallow-Token", [])
        tool = self.path.split("?")[0].removeprefix("/tools/")
        try:
            if len(tokens) != 1:
                raise Refused("not exactly one token")
            arguments = check(tokens[0], tool, self.command, self.path, body)
            redeem(tokens[0], tool, self.command, self.path, body, arguments)
        except Refused as reason:
            return self.answer(403, {"refused": str(reason)})
        except (jwt.PyJWTError, ValueError) as error:
            return self.answer(403, {"refused": type(error).__name__})
        except Exception:  # The backend is away, or says what we do not understand: no.
            return self.answer(503, {"refused": "the token could not be checked"})
        self.answer(200, {"ran": tool, "arguments": arguments})

    def answer(self, status, content):
        content = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Tools)
print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
