// The official TypeScript client, line 2: its own credentials, and no other knowledge than the URL of the server.
import { Client, ClientCredentialsProvider, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { env, run, say } from "./say.mjs";
import { scenario } from "./scenarios.mjs";

await run(async () => {
  const client = new Client({ name: "e2e-oauth-ts2", version: "1.0.0" });
  const authProvider = new ClientCredentialsProvider({
    clientId: env("CLIENT_ID"),
    clientSecret: env("CLIENT_SECRET"),
    expectedIssuer: env("ISSUER"),
  });
  await client.connect(new StreamableHTTPClientTransport(new URL(env("URL")), { authProvider }));
  say("connected");
  await scenario(client, null);
  await client.close();
});
