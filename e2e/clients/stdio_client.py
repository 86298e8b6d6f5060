"""The official Python SDK over standard input and output: it starts COMMAND, as desktop programs do."""

import json
import os
import pathlib
import sys
import traceback

import anyio
import mcp_types as types
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters


def say(step, **more):
    print(json.dumps({"step": step, **more}), flush=True)


async def roots(context):
    return types.ListRootsResult(roots=[types.Root(uri=pathlib.Path(os.environ["ROOT"]).as_uri())])


async def one(client, call):
    step = call["step"]
    with anyio.CancelScope() as given:

        async def on_progress(progress, total, message):
            say(f"{step}-progress", message=message)
            if call.get("cancelled"):
                given.cancel()

        result = await client.call_tool(call["name"], call["arguments"], progress_callback=on_progress)
        result = result.model_dump(mode="json", by_alias=True)
        text = "\n".join(block.get("text") or "" for block in result.get("content") or [])
        say(step, isError=bool(result.get("isError")), text=text, meta=result.get("_meta"))
    if given.cancelled_caught:
        say(step, thrown="cancelled")


async def main():
    command, *args = json.loads(os.environ["COMMAND"])
    server = StdioServerParameters(command=command, args=args, env={"OAKALLOW_API_KEY": os.environ["KEY"]})
    async with Client(server, mode="legacy", list_roots_callback=roots) as client:
        say("connected", protocol=client.protocol_version)
        while True:
            allowed = await client.call_tool("list_allowed_directories", {})
            if os.environ["ROOT"] in allowed.content[0].text:
                break
        tools = await client.list_tools()
        say("tools", names=sorted(tool.name for tool in tools.tools))
        async with anyio.create_task_group() as calls:
            for call in json.loads(os.environ["CALLS"]):
                calls.start_soon(one, client, call)


try:
    anyio.run(main)
except BaseException:
    say("failed", error=traceback.format_exc())
    sys.exit(1)
