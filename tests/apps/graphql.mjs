// GraphQL over WebSocket (graphql-ws), with queries over HTTP on the same path.
import http from 'node:http';
import { check, load, run, within } from './lib.mjs';

function node() {
  const { buildSchema, graphql } = load('graphql');
  const { useServer } = load('graphql-ws/use/ws');
  const schema = buildSchema('type Query { echo(text: String!): String } type Subscription { count(to: Int!): Int }');
  const roots = {
    query: { echo: ({ text }) => text },
    subscription: { async* count({ to }) { for (let n = 1; n <= to; n += 1) yield { count: n }; } },
  };
  const server = http.createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', async () => {
      const { query, variables } = JSON.parse(Buffer.concat(parts));
      const result = await graphql({ schema, rootValue: roots.query, source: query, variableValues: variables });
      response.setHeader('Content-Type', 'application/json').end(JSON.stringify(result));
    });
  });
  const { WebSocketServer } = load('ws');
  useServer({ schema, roots, onConnect: ({ connectionParams }) => connectionParams?.token === 'secret' }, new WebSocketServer({ server }));
  return server;
}

async function clients(url) {
  const { createClient } = load('graphql-ws');
  const { WebSocket } = load('ws');
  const open = (token) => createClient({
    url: `${url.replace('http', 'ws')}/graphql`, webSocketImpl: WebSocket, connectionParams: { token }, retryAttempts: 0, keepAlive: 200,
  });
  const one = open('secret');
  const all = await Promise.all(Array.from({ length: 20 }, async (_, n) => {
    const got = [];
    const to = 10 + n;
    for await (const { data } of one.iterate({ query: 'subscription($to: Int!) { count(to: $to) }', variables: { to } })) got.push(data.count);
    check(got.length === to && got.every((value, i) => value === i + 1), `subscription ${n}`);
    return got.length;
  }));
  const text = 'é'.repeat(50000);
  const query = { query: 'query($text: String!) { echo(text: $text) }', variables: { text } };
  for await (const { data } of one.iterate(query)) check(data.echo === text, 'a query over WebSocket');
  const answer = await fetch(`${url}/graphql`, { method: 'POST', body: JSON.stringify(query) });
  check((await answer.json()).data.echo === text, 'a query over HTTP');
  await one.dispose();
  // The close code of the server is that of its protocol.
  const other = open('wrong');
  const refused = new Promise((resolve) => {
    other.subscribe({ query: '{ echo(text: "a") }' }, { next() {}, error: resolve, complete() { resolve({ code: 0 }); } });
  });
  check((await within(refused, 'a refusal')).code === 4403, 'close code 4403');
  return { subscriptions: all.length };
}

run(node, clients);
