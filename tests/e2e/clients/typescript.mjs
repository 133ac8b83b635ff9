// The official TypeScript SDKs' clients, taking the steps of a tour in the words of `python_1.py`.
//
//     node typescript.mjs PACKAGES 1|2 URL KEY auto|legacy < steps.json
//
// PACKAGES: a folder with node_modules. 1 is @modelcontextprotocol/sdk, 2 is @modelcontextprotocol/client.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [packages, line, url, key, mode] = process.argv.slice(2);
const need = createRequire(`${packages}/package.json`);
const { Client, StreamableHTTPClientTransport } =
  line === "1"
    ? {
        ...need("@modelcontextprotocol/sdk/client/index.js"),
        ...need("@modelcontextprotocol/sdk/client/streamableHttp.js"),
      }
    : need("@modelcontextprotocol/client");

const client = new Client(
  { name: `tour-typescript-${line}`, version: "1.0.0" },
  line === "1" ? {} : { versionNegotiation: { mode } },
);
const timed = { timeout: 30_000 };

async function everything(list, member) {
  const found = [];
  let cursor;
  do {
    const page = await list({ cursor }, timed);
    found.push(...page[member]);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return { [member]: found };
}

async function call(params) {
  const progress = [];
  const watched = { ...timed, onprogress: (told) => progress.push(told.progress) };
  const result = await (line === "1"
    ? client.callTool(params, undefined, watched)
    : client.callTool(params, watched));
  return { ...result, progress };
}

const METHODS = {
  "tools/list": () => everything(client.listTools.bind(client), "tools"),
  "prompts/list": () => everything(client.listPrompts.bind(client), "prompts"),
  "resources/list": () => everything(client.listResources.bind(client), "resources"),
  "resources/templates/list": () => everything(client.listResourceTemplates.bind(client), "resourceTemplates"),
  "resources/read": (params) => client.readResource(params, timed),
  "prompts/get": (params) => client.getPrompt(params, timed),
  "completion/complete": (params) => client.complete(params, timed),
  "tools/call": call,
};

async function outcome([method, params]) {
  try {
    return { result: await METHODS[method](params) };
  } catch (wrong) {
    if (typeof wrong.code !== "number") throw wrong; // no answer of the other side
    return { error: { code: wrong.code, message: wrong.message, data: wrong.data } };
  }
}

// what the transport says on the way tells the revision that is spoken
let version;
async function listening(input, init) {
  version = new Headers(init?.headers).get("mcp-protocol-version") ?? version;
  return fetch(input, init);
}

const headers = { Authorization: `Bearer ${key}` };
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers }, fetch: listening }));
const outcomes = [];
for (const step of JSON.parse(readFileSync(0, "utf8"))) outcomes.push(await outcome(step));
await client.close();
console.log(JSON.stringify({ version, outcomes }));
