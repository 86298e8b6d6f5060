"""The official Python SDK. ERA: `legacy` (sessions) or a version of the stateless era.

CALLS, `then` and TIMEOUT_S as in scenarios.mjs.
"""

import asyncio
import json
import os
import sys
import traceback

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client


def say(step, **more):
    print(json.dumps({"step": step, **more}), flush=True)


async def outcome(step, call):
    try:
        result = (await call).model_dump(mode="json", by_alias=True)
    except Exception as error:  # the SDK's error is what the test looks at
        say(step, thrown=str(error), code=getattr(getattr(error, "error", None), "code", None))
        return None
    text = "\n".join(block.get("text") or "" for block in result.get("content") or [])
    say(
        step,
        isError=bool(result.get("isError")),
        text=text,
        structured=result.get("structuredContent"),
        meta=result.get("_meta"),
    )
    return result


def is_pending(result):
    decision = ((result or {}).get("_meta") or {}).get("oakallow/decision") or {}
    return result is None or decision.get("reason") == "approval_pending"


async def calls(client):
    timer = {"read_timeout_seconds": float(os.environ["TIMEOUT_S"])} if "TIMEOUT_S" in os.environ else {}
    for call in json.loads(os.environ["CALLS"]):
        result = await outcome(call["step"], client.call_tool(call["name"], call["arguments"], **timer))
        while "then" in call and is_pending(result):
            result = await outcome(call["then"], client.call_tool(call["name"], call["arguments"], **timer))


async def main():
    notified = asyncio.get_running_loop().create_future()

    async def on_log(params):
        if not notified.done():
            notified.set_result(params.data)

    headers = {"X-API-Key": os.environ["KEY"]}
    timeout = httpx2.Timeout(30, read=300)
    async with httpx2.AsyncClient(headers=headers, timeout=timeout, trust_env=False) as http:
        transport = streamable_http_client(os.environ["URL"], http_client=http)
        async with Client(transport, mode=os.environ.get("ERA", "legacy"), logging_callback=on_log) as client:
            say("connected", protocol=client.protocol_version)
            names, cursor = [], None
            while True:
                page = await client.list_tools(cursor=cursor)
                names += [tool.name for tool in page.tools]
                cursor = page.next_cursor
                if not cursor:
                    break
            say("tools", names=sorted(names))
            await calls(client)
            if os.environ.get("NOTIFIED"):
                say("notified", data=await asyncio.wait_for(notified, 30))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except BaseException:
        say("failed", error=traceback.format_exc())
        sys.exit(1)
