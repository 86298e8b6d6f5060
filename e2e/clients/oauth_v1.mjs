// The official TypeScript SDK, line 1: its own credentials, and no other knowledge than the URL of the server.
import { ClientCredentialsProvider } from "@modelcontextprotocol/sdk/client/auth-extensions.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { env, run, say } from "./say.mjs";
import { scenario } from "./scenarios.mjs";

await run(async () => {
  const client = new Client({ name: "e2e-oauth-ts1", version: "1.0.0" });
  const authProvider = new ClientCredentialsProvider({
    clientId: env("CLIENT_ID"),
    clientSecret: env("CLIENT_SECRET"),
    expectedIssuer: env("ISSUER"),
  });
  await client.connect(new StreamableHTTPClientTransport(new URL(env("URL")), { authProvider }));
  say("connected");
  await scenario(client, null, (params, options) => client.callTool(params, undefined, options));
  await client.close();
});
