// The official TypeScript client, line 2; ERA pins the stateless era, else it shakes hands as before.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { env, run, say } from "./say.mjs";
import { scenario } from "./scenarios.mjs";

await run(async () => {
  const era = process.env.ERA;
  const options = era ? { versionNegotiation: { mode: { pin: era } } } : {};
  const client = new Client({ name: "e2e-ts2", version: "1.0.0" }, options);
  const notified = new Promise((resolve) => {
    client.setNotificationHandler("notifications/message", ({ params }) => resolve({ data: params.data }));
  });
  const transport = new StreamableHTTPClientTransport(new URL(env("URL")), {
    requestInit: { headers: { "X-API-Key": env("KEY") } },
  });
  await client.connect(transport);
  say("connected", { session: transport.sessionId ?? null, protocol: transport.protocolVersion ?? null });
  await scenario(client, notified);
  await client.close();
});
