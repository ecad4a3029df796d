// SignalR: its client, and a node with what a hub is made of: negotiation by POST, then WebSockets, server-sent events or
// long polls with the id of the connection in the query. A connection is known to its node alone.
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import { check, load, run, within } from './lib.mjs';

const END = '\u001e';

function node(name) {
  const { WebSocketServer } = load('ws');
  const connections = new Map();

  function on(connection, text) {
    for (const part of text.split(END).filter(Boolean)) {
      const message = JSON.parse(part);
      if (message.protocol) connection.send('{}');
      if (message.type === 1) {
        const result = message.target === 'where' ? name : message.arguments[0];
        connection.send(JSON.stringify({ type: 3, invocationId: message.invocationId, result }));
      }
    }
  }

  function create() {
    const id = randomUUID();
    const connection = { held: [], write: null, send(text) { connection.held.push(text + END); connection.flush(); } };
    connection.flush = () => {
      if (connection.write && connection.held.length) connection.write(connection.held.splice(0).join(''));
    };
    connections.set(id, connection);
    return id;
  }

  function get(connection, request, response) {
    if (request.headers.accept === 'text/event-stream') {
      response.setHeader('Content-Type', 'text/event-stream');
      response.write(':\n\n');
      connection.write = (text) => response.write(`data: ${text}\n\n`);
    } else if (!connection.polls) {
      // The first poll opens the connection.
      connection.polls = true;
      response.end();
      return;
    } else {
      connection.write = (text) => { connection.write = null; response.end(text); };
      connection.poll = response;
    }
    connection.flush();
  }

  const server = http.createServer((request, response) => {
    const url = new URL(request.url, 'http://node');
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      if (url.pathname === '/hub/negotiate') {
        const id = create();
        const transports = { WebSockets: ['Text'], ServerSentEvents: ['Text'], LongPolling: ['Text'] };
        const availableTransports = Object.entries(transports).map(([transport, transferFormats]) => ({ transport, transferFormats }));
        response.setHeader('Content-Type', 'application/json');
        response.end(JSON.stringify({ negotiateVersion: 1, connectionId: id, connectionToken: id, availableTransports }));
        return;
      }
      const connection = connections.get(url.searchParams.get('id'));
      if (!connection) {
        response.statusCode = 404;
        response.end('No Connection with that ID');
      } else if (request.method === 'GET') {
        get(connection, request, response);
      } else if (request.method === 'DELETE') {
        // It stays known: a client's last message may come behind its DELETE.
        if (connection.poll) connection.poll.statusCode = 204;
        connection.poll?.end();
        response.statusCode = 202;
        response.end();
      } else {
        on(connection, Buffer.concat(parts).toString());
        response.end();
      }
    });
  });
  const sockets = new WebSocketServer({ noServer: true });
  server.on('upgrade', (request, socket, head) => {
    const connection = connections.get(new URL(request.url, 'http://node').searchParams.get('id'));
    if (!connection) return socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n');
    return sockets.handleUpgrade(request, socket, head, (ws) => {
      connection.write = (text) => ws.send(text);
      ws.on('message', (data) => on(connection, data.toString()));
    });
  });
  return server;
}

const EACH = 8;

async function client(url, kind, query) {
  const { HttpTransportType, HubConnectionBuilder, LogLevel } = load('@microsoft/signalr');
  const hub = new HubConnectionBuilder()
    .withUrl(`${url}/hub${query}`, { transport: HttpTransportType[kind] })
    .configureLogging(LogLevel.Error)
    .build();
  let closed = null;
  hub.onclose((e) => { closed = e || 'closed'; });
  await within(hub.start(), `the start of ${kind}`);
  const where = await hub.invoke('where');
  for (const size of [0, 1, 126, 70000, 300000]) {
    const text = 'é'.repeat(size / 2);
    check(await within(hub.invoke('echo', text), `echo of ${size} by ${kind}`) === text, `echo of ${size} by ${kind}`);
  }
  check(closed === null, `${kind}: ${closed}`);
  await hub.stop();
  return where;
}

/// `keyed`: each client names a key of its own, in place of a cookie.
async function clients(url, how) {
  const query = () => (how === 'keyed' ? `?key=${randomUUID()}` : '');
  const all = ['WebSockets', 'ServerSentEvents', 'LongPolling']
    .flatMap((kind) => Array.from({ length: EACH }, () => client(url, kind, query())));
  const nodes = await Promise.all(all);
  return { clients: nodes.length, nodes: [...new Set(nodes)].sort() };
}

run(node, clients);
