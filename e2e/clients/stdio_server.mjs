// A tool server over standard input and output without a library, so that it sees every byte: whatever
// reached it is in the file that its first argument names, one JSON object a line.
import { appendFileSync } from "node:fs";
import { createInterface } from "node:readline";

const file = process.argv[2];
const write = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
let description = "It is what it is.";
const tools = () =>
  ["show", "note", "hang", "steps", "held", "hidden"].map((name) => ({ name, description, inputSchema: { type: "object" } }));

const run = {
  // From the next list on, every tool is described so.
  show: ({ arguments: args, _meta }) => {
    description = args?.describe ?? description;
    return { meta: _meta ?? null, env: process.env };
  },
  note: ({ arguments: args }) => ({ noted: args?.number ?? null }),
  held: () => ({ held: true }),
  steps: ({ _meta }) => {
    for (const progress of [0, 1]) {
      const params = { progressToken: _meta.progressToken, progress };
      write({ jsonrpc: "2.0", method: "notifications/progress", params });
    }
    return { done: true };
  },
};

function answer({ method, params }) {
  if (method === "initialize") {
    return { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "bare", version: "1" } };
  }
  if (method === "tools/list") return { tools: tools() };
  if (method === "tools/call" && params.name !== "hang") {
    const structuredContent = run[params.name](params);
    return { content: [{ type: "text", text: JSON.stringify(structuredContent) }], structuredContent };
  }
  return method === "tools/call" ? null : {};
}

// It takes a carriage return and a line separator for the end of a line.
createInterface({ input: process.stdin, crlfDelay: Infinity }).on("line", (line) => {
  const message = JSON.parse(line);
  appendFileSync(file, `${JSON.stringify(message)}\n`);
  if (message.id === undefined || message.method === undefined) return;
  const result = answer(message);
  if (result) write({ jsonrpc: "2.0", id: message.id, result });
});
