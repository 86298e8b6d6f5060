// The official TypeScript SDK over standard input and output, as a client that the server asks: to sample from a
// model, to ask its user.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { CreateMessageRequestSchema, ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { outcome, run, say } from "./say.mjs";
import { server } from "./stdio.mjs";

await run(async () => {
  const client = new Client({ name: "e2e-ts1", version: "1.0.0" }, { capabilities: { sampling: {}, elicitation: {} } });
  client.setRequestHandler(CreateMessageRequestSchema, async ({ params }) => {
    say("sampled", { text: params.messages[0].content.text });
    return { model: "none", role: "assistant", content: { type: "text", text: "sampled by the client" } };
  });
  client.setRequestHandler(ElicitRequestSchema, async ({ params }) => {
    say("elicited", { message: params.message });
    return { action: "decline" };
  });
  await client.connect(new StdioClientTransport(server()));
  // The server offers these tools once it has heard what its client can do.
  const wanted = ["trigger-sampling-request", "trigger-elicitation-request"];
  for (let names = []; !wanted.every((name) => names.includes(name)); ) {
    names = (await client.listTools()).tools.map((tool) => tool.name);
  }
  const sampling = { prompt: "what is it", maxTokens: 10 };
  await outcome("sampling", () => client.callTool({ name: wanted[0], arguments: sampling }));
  await outcome("elicitation", () => client.callTool({ name: wanted[1], arguments: {} }));
  const uri = "demo://resource/dynamic/text/1";
  const { contents } = await client.readResource({ uri });
  say("resource", { uri: contents[0].uri });
  try {
    await client.getPrompt({ name: "simple-prompt" });
    say("got", {});
  } catch (error) {
    say("refused", { message: String(error.message) });
  }
  await client.close();
});
