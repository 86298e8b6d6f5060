"""A tool server's check of an execution token with PyJWT and nothing of ours: algorithm, type, audience and
issuer are pinned here, never taken from the token. Then it is redeemed, twice."""

import base64
import hashlib
import json
import os
import sys
import traceback
import urllib.request

import jwt


def say(step, **more):
    print(json.dumps({"step": step, **more}), flush=True)


def backend(path, body=None):
    request = urllib.request.Request(os.environ["BACKEND"] + path, data=body and json.dumps(body).encode())
    request.add_header("X-API-Key", os.environ["TOOL_KEY"])
    request.add_header("Content-Type", "application/json")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
        return json.load(answer)


def verify(token, keys, audience):
    header = jwt.get_unverified_header(token)
    if header.get("typ") != "oakallow-exec+jwt":
        raise jwt.InvalidTokenError("wrong type")
    key = next(key for key in keys["keys"] if key["kid"] == header["kid"])
    secret = jwt.PyJWK(key, algorithm="HS256").key
    return jwt.decode(
        token,
        secret,
        algorithms=["HS256"],
        audience=audience,
        issuer=keys["issuer"],
        leeway=5,
        options={"require": ["exp", "iat", "nbf", "jti", "aud", "iss"]},
    )


def refused(token, keys, audience):
    try:
        verify(token, keys, audience)
        return "accepted"
    except (jwt.InvalidTokenError, StopIteration) as error:
        return type(error).__name__


def altered(token):
    head, claims, signature = token.split(".")
    text = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
    forged = text.replace(b'"tool":"read_record"', b'"tool":"drop_database"')
    return ".".join([head, base64.urlsafe_b64encode(forged).rstrip(b"=").decode(), signature])


def sha256(content):
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def main():
    token, audience, body = os.environ["TOKEN"], os.environ["AUDIENCE"], os.environ["BODY"].encode()
    keys = backend(f"/v1/audiences/{audience}/keys")
    claims = verify(token, keys, audience)
    digest = sha256(body)
    # Plain names and texts: sorted keys without white space are their canonical form (RFC 8785).
    canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    read = sha256(canonical.encode())
    say("verified", claims=claims, body_fits=claims["bdh"] == digest, arguments_fit=claims["ah"] == read)
    say(
        "refused",
        altered=refused(altered(token), keys, audience),
        audience=refused(token, keys, "elsewhere"),
        unsigned=refused(jwt.encode(claims, None, algorithm="none"), keys, audience),
    )
    redeem = {"token": token, "tool_name": claims["tool"], "body_sha256": digest, "arguments_sha256": read}
    say("redeemed", first=backend("/v1/tokens/verify", redeem), second=backend("/v1/tokens/verify", redeem))


try:
    main()
except BaseException:
    say("failed", error=traceback.format_exc())
    sys.exit(1)
