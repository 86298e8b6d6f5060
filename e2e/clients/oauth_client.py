"""The official Python SDK: an authorization code with PKCE for a person whose browser is this script."""

import asyncio
import os
import sys
import traceback
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata
from mcp_client import calls, say

CALLBACK = "http://127.0.0.1:1/callback"


class Storage:
    """Remembers for as long as the script runs."""

    tokens = client_info = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client_info

    async def set_client_info(self, client_info):
        self.client_info = client_info


class Browser:
    """Goes where it is sent; where it is sent from there is not loaded but read."""

    at = None

    async def opens(self, url):
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.get(url)
        if answer.status_code not in (302, 303):
            raise RuntimeError(f"{answer.status_code} {answer.text}")
        self.at = answer.headers["location"]

    async def comes_back(self):
        said = {name: values[0] for name, values in parse_qs(urlsplit(self.at).query).items()}
        return AuthorizationCodeResult(code=said["code"], state=said.get("state"), iss=said.get("iss"))


async def main():
    browser = Browser()
    metadata = OAuthClientMetadata(client_name="e2e", redirect_uris=[CALLBACK], grant_types=["authorization_code"])
    auth = OAuthClientProvider(os.environ["URL"], metadata, Storage(), browser.opens, browser.comes_back)
    timeout = httpx2.Timeout(30, read=300)
    async with httpx2.AsyncClient(auth=auth, timeout=timeout, trust_env=False) as http:
        transport = streamable_http_client(os.environ["URL"], http_client=http)
        async with Client(transport, mode="legacy") as client:
            say("connected", protocol=client.protocol_version)
            await calls(client)


try:
    asyncio.run(main())
except BaseException:
    say("failed", error=traceback.format_exc())
    sys.exit(1)
