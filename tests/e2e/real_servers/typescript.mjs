// Servers of the TypeScript SDKs: `node typescript.mjs PACKAGES PORT many|one|modern`
//   many, one   SDK 1.x with a transport for each session, or with a single one: a second `initialize` is refused
//   modern      @modelcontextprotocol/server with its defaults: 2026-07-28, and older revisions without sessions
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [packages, port, kind] = process.argv.slice(2);
const found = createRequire(join(packages, 'package.json'));
const load = (name) => import(pathToFileURL(found.resolve(name)));
const { z } = await load('zod');

function fill(server, ResourceTemplate) {
  let calls = 0; // one server object a session
  const text = (said) => ({ content: [{ type: 'text', text: said }] });
  server.registerTool('add', {
    title: 'Sum',
    description: 'Add two numbers.',
    inputSchema: z.object({ left: z.number().int(), right: z.number().int().default(1) }),
    outputSchema: z.object({ sum: z.number() }),
    annotations: { readOnlyHint: true },
  }, ({ left, right }) => ({ ...text(String(left + right)), structuredContent: { sum: left + right } }));
  server.registerTool('count', { description: 'How often this was called in this session.' },
    () => text(String(++calls)));
  server.registerTool('fail', {
    description: 'Always fail.',
    inputSchema: z.object({ reason: z.string() }),
  }, ({ reason }) => { throw new Error(reason); });
  if (process.env.STARTS !== '1')
    server.registerTool('again', { description: 'There after a restart.' }, () => text('again'));
  server.registerPrompt('greet', {
    description: 'A greeting.',
    argsSchema: kind === 'modern' ? z.object({ name: z.string() }) : { name: z.string() },
  }, ({ name }) => ({ messages: [{ role: 'user', content: { type: 'text', text: `Greet ${name}.` } }] }));
  const contents = (uri, said) => ({ contents: [{ uri: uri.href, mimeType: 'text/plain', text: said }] });
  server.registerResource('today', 'notes://today', { mimeType: 'text/plain' }, (uri) => contents(uri, 'Nothing.\n'));
  server.registerResource('note', new ResourceTemplate('notes://of/{name}', { list: undefined }), {},
    (uri, { name }) => contents(uri, `A note of ${name}.`));
  return server;
}

async function modern() {
  const { McpServer, ResourceTemplate, createMcpHandler } = await load('@modelcontextprotocol/server');
  const { toNodeHandler } = await load('@modelcontextprotocol/node');
  return toNodeHandler(createMcpHandler(() => fill(new McpServer({ name: 'typescript', version: '2' }), ResourceTemplate)));
}

async function sessions() {
  const { McpServer, ResourceTemplate } = await load('@modelcontextprotocol/sdk/server/mcp.js');
  const { StreamableHTTPServerTransport } = await load('@modelcontextprotocol/sdk/server/streamableHttp.js');
  const { isInitializeRequest } = await load('@modelcontextprotocol/sdk/types.js');
  const transports = new Map();
  const opened = async () => {
    const transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => { transports.set(id, transport); },
      onsessionclosed: (id) => { transports.delete(id); },
    });
    await fill(new McpServer({ name: 'typescript', version: '1' }), ResourceTemplate).server.connect(transport);
    return transport;
  };
  if (kind === 'one') {
    const transport = await opened();
    return (request, response) => transport.handleRequest(request, response);
  }
  return async (request, response) => { // the SDK's own example of a server with sessions, without Express
    const body = request.method === 'POST' ? JSON.parse(Buffer.concat(await Array.fromAsync(request))) : undefined;
    const id = request.headers['mcp-session-id'];
    if (transports.has(id)) return transports.get(id).handleRequest(request, response, body);
    if (!id && isInitializeRequest(body)) return (await opened()).handleRequest(request, response, body);
    const error = id
      ? { code: -32001, message: 'Session not found' }
      : { code: -32000, message: 'Bad Request: No valid session ID provided' };
    response.writeHead(id ? 404 : 400, { 'Content-Type': 'application/json' });
    return response.end(JSON.stringify({ jsonrpc: '2.0', error, id: null }));
  };
}

const handler = await (kind === 'modern' ? modern() : sessions());
createServer((request, response) => {
  if (new URL(request.url, 'http://localhost').pathname === '/mcp') return handler(request, response);
  return response.writeHead(404).end();
}).listen(Number(port), '127.0.0.1');
