// The official TypeScript client, line 2, over standard input and output.
import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { env, run, say } from "./say.mjs";
import { ready, root, scenario, server } from "./stdio.mjs";

await run(async () => {
  const client = new Client({ name: "e2e-ts2", version: "1.0.0" }, { capabilities: { roots: {} } });
  client.setRequestHandler("roots/list", root);
  await client.connect(new StdioClientTransport(server()));
  say("connected", { key: env("KEY").length });
  const call = (params, options) => client.callTool(params, options);
  await ready(call);
  await scenario(client, call);
  await client.close();
});
