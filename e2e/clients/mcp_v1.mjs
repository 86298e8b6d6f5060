// The official TypeScript SDK, line 1 (sessions, up to 2025-11-25).
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { LoggingMessageNotificationSchema } from "@modelcontextprotocol/sdk/types.js";
import { env, run, say } from "./say.mjs";
import { scenario } from "./scenarios.mjs";

await run(async () => {
  const client = new Client({ name: "e2e-ts1", version: "1.0.0" });
  const notified = new Promise((resolve) => {
    client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => resolve({ data: params.data }));
  });
  const transport = new StreamableHTTPClientTransport(new URL(env("URL")), {
    requestInit: { headers: { "X-API-Key": env("KEY") } },
  });
  await client.connect(transport);
  say("connected", { session: transport.sessionId ?? null, protocol: transport.protocolVersion ?? null });
  await scenario(client, notified, (params, options) => client.callTool(params, undefined, options));
  await client.close();
});
