// The official TypeScript SDK, line 1, over standard input and output: it starts COMMAND, as desktop programs do.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { ListRootsRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { env, run, say } from "./say.mjs";
import { ready, root, scenario, server } from "./stdio.mjs";

await run(async () => {
  const client = new Client({ name: "e2e-ts1", version: "1.0.0" }, { capabilities: { roots: {} } });
  client.setRequestHandler(ListRootsRequestSchema, root);
  await client.connect(new StdioClientTransport(server()));
  say("connected", { key: env("KEY").length });
  const call = (params, options) => client.callTool(params, undefined, options);
  await ready(call);
  await scenario(client, call);
  await client.close();
});
