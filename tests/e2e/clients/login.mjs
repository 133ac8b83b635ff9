// The official TypeScript SDKs' clients log in with nothing but the URL, list the tools and call each, in this order.
//
//     node login.mjs PACKAGES 1|2 URL auto|legacy TOOL...
//
// PACKAGES: a folder with node_modules. 1 is @modelcontextprotocol/sdk, 2 is @modelcontextprotocol/client. Prints what
// was listed, what was answered, and how often somebody had to log in.

import { createRequire } from "node:module";

const [packages, line, url, mode, ...tools] = process.argv.slice(2);
const need = createRequire(`${packages}/package.json`);
const { Client, StreamableHTTPClientTransport } =
  line === "1"
    ? {
        ...need("@modelcontextprotocol/sdk/client/index.js"),
        ...need("@modelcontextprotocol/sdk/client/streamableHttp.js"),
      }
    : need("@modelcontextprotocol/client");

const kept = {};
let cameBack;
let logins = 0;
const provider = {
  redirectUrl: "http://localhost:3030/callback",
  clientMetadata: { client_name: "a client", redirect_uris: ["http://localhost:3030/callback"] },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => (kept.tokens = tokens),
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => (kept.verifier = verifier),
  async redirectToAuthorization(to) {
    logins += 1;
    const answer = await fetch(to, { redirect: "manual" });
    cameBack = new URL(answer.headers.get("location"));
  },
};

const options = line === "1" ? {} : { versionNegotiation: { mode } };

async function connected() {
  for (;;) {
    const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
    const client = new Client({ name: `login-typescript-${line}`, version: "1.0.0" }, options);
    try {
      await client.connect(transport);
      return { client, transport };
    } catch (wrong) {
      if (wrong?.constructor?.name !== "UnauthorizedError" || logins > 3) throw wrong;
      await transport.finishAuth(line === "1" ? cameBack.searchParams.get("code") : cameBack.searchParams);
    }
  }
}

let { client, transport } = await connected();
const listed = (await client.listTools()).tools.map((tool) => tool.name).sort();
const answers = [];
for (const name of tools) {
  try {
    answers.push((await client.callTool({ name, arguments: {} })).content[0].text);
  } catch (wrong) {
    if (wrong?.constructor?.name !== "UnauthorizedError") throw wrong;
    await transport.finishAuth(line === "1" ? cameBack.searchParams.get("code") : cameBack.searchParams);
    answers.push((await client.callTool({ name, arguments: {} })).content[0].text);
  }
}
await client.close();
console.log(JSON.stringify({ listed, answers, logins }));
process.exit(0);
