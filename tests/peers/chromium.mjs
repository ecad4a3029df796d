// Headless Chromium as client of the peers' tests: a page of our own on 127.0.0.1, driven over the DevTools protocol.
import http from 'node:http';
import { browse } from './devtools.mjs';
import { playSource } from './interpreter.mjs';
import { runPlan } from './plan.mjs';

// Runs in the page. A browser shows no pings, and closes as its page tells it to.
function openInPage(url, s) {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url, s.subprotocols || []);
    ws.binaryType = 'arraybuffer';
    const queue = [];
    const waiting = [];
    const ended = new Promise((done) => {
      ws.onclose = (e) => {
        done({ code: e.code, reason: e.reason, clean: e.wasClean });
        reject(new Error(`refused or lost (${e.code})`));
        while (waiting.length) waiting.shift().reject(new Error(`closed with ${e.code} "${e.reason}" while a message was awaited`));
      };
    });
    ws.onmessage = (e) => {
      const m = typeof e.data === 'string'
        ? { kind: 'text', data: new TextEncoder().encode(e.data) } : { kind: 'binary', data: new Uint8Array(e.data) };
      if (waiting.length) waiting.shift().resolve(m); else queue.push(m);
    };
    ws.onopen = () => resolve({
      ended,
      subprotocol: ws.protocol,
      deflate: ws.extensions.includes('permessage-deflate'),
      next: () => new Promise((res, rej) => {
        if (queue.length) res(queue.shift());
        else if (ws.readyState === 3) rej(new Error('closed while a message was awaited'));
        else waiting.push({ resolve: res, reject: rej });
      }),
      send: async (kind, data) => ws.send(kind === 'text' ? new TextDecoder().decode(data) : data),
      pings: () => 0,
      close: (code, reason) => (code ? ws.close(code, reason) : ws.close()),
      abandon: () => ws.close(),
    });
  });
}

const page = http.createServer((_, res) => res.setHeader('Content-Type', 'text/html').end('<!doctype html><title>peers</title>'));
await new Promise((resolve) => page.listen(0, '127.0.0.1', resolve));
process.exit(await browse(async (open) => {
  const evaluate = await open(`http://127.0.0.1:${page.address().port}/`);
  await evaluate(`${playSource}\n${openInPage}\ntrue`);
  return runPlan((url, s) => evaluate(`play(openInPage, ${JSON.stringify(url)}, ${JSON.stringify(s)}, false).then(() => true)`));
}));
