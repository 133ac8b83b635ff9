// The AI SDK's MCP client: node ai_sdk.mjs PACKAGES URL KEY. PACKAGES: a folder with node_modules.

import { createRequire } from "node:module";

const [packages, url, key] = process.argv.slice(2);
const { createMCPClient } = createRequire(`${packages}/package.json`)("@ai-sdk/mcp");

async function ask() {
  const headers = { Authorization: `Bearer ${key}` };
  const client = await createMCPClient({ transport: { type: "http", url, headers } });
  try {
    const tools = await client.tools();
    const sql = "select name from customers where id = 5";
    const result = await tools["db-query"].execute({ sql }, { toolCallId: "first", messages: [] });
    return { tools: Object.keys(tools), result };
  } finally {
    await client.close();
  }
}

const told = await ask().catch((wrong) => ({ error: `${wrong.name}: ${wrong.message}`, within: wrong.cause ? [`${wrong.cause}`] : [] }));
console.log(JSON.stringify(told));
