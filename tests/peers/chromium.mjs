// Headless Chromium as client of the peers' tests: a page of our own on 127.0.0.1, driven over the DevTools protocol.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { playSource, within } from './interpreter.mjs';
import { runPlan } from './plan.mjs';

const require = createRequire(path.join(process.env.NODE_DIR || process.cwd(), 'x.js'));
const { WebSocket } = require('ws');

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

function launch(profile) {
  const child = spawn(process.env.CHROMIUM || 'chromium', [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-extensions',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-proxy-server',
    '--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets',
    `--user-data-dir=${profile}`, '--remote-debugging-port=0', 'about:blank',
  ], { stdio: ['ignore', 'ignore', 'pipe'] });
  const address = new Promise((resolve, reject) => {
    let text = '';
    child.stderr.on('data', (d) => {
      text += d;
      const m = text.match(/DevTools listening on (ws:\/\/\S+)/);
      if (m) resolve(m[1]);
    });
    child.on('error', reject);
    child.on('exit', (code) => reject(new Error(`chromium ended with ${code}: ${text.slice(-2000)}`)));
  });
  return { child, address };
}

async function devtools(address) {
  const ws = new WebSocket(address, { maxPayload: 1 << 28 });
  await new Promise((resolve, reject) => { ws.on('open', resolve); ws.on('error', reject); });
  const pending = new Map();
  let n = 0;
  ws.on('message', (d) => {
    const m = JSON.parse(d);
    const p = pending.get(m.id);
    if (!p) return;
    pending.delete(m.id);
    if (m.error) p.reject(new Error(m.error.message)); else p.resolve(m.result);
  });
  return (method, params = {}, sessionId = undefined) => new Promise((resolve, reject) => {
    n += 1;
    pending.set(n, { resolve, reject });
    ws.send(JSON.stringify({ id: n, method, params, sessionId }));
  });
}

const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'peers-chromium-'));
const page = http.createServer((_, res) => res.setHeader('Content-Type', 'text/html').end('<!doctype html><title>peers</title>'));
await new Promise((resolve) => page.listen(0, '127.0.0.1', resolve));
const { child, address } = launch(profile);
let failed = 1;
let call = async () => {};
const gone = new Promise((resolve) => { child.once('exit', resolve); });
process.on('SIGTERM', () => { child.kill('SIGKILL'); process.exit(1); });

// Asked first, so that its helper processes have stopped writing when the profile goes.
async function bye() {
  call('Browser.close').catch(() => {});
  await within(5000, gone, 'the end of chromium').catch(() => child.kill('SIGKILL'));
  try {
    fs.rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  } catch (e) {
    console.log(`note: the profile stays behind: ${e.message}`);
  }
}

try {
  call = await devtools(await within(60000, address, 'chromium'));
  const { targetId } = await call('Target.createTarget', { url: `http://127.0.0.1:${page.address().port}/` });
  const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
  const evaluate = async (expression) => {
    const r = await call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, sessionId);
    if (r.exceptionDetails) throw new Error(r.exceptionDetails.exception?.description?.split('\n')[0] || r.exceptionDetails.text);
    return r.result.value;
  };
  // The page is there before what is injected, or its loading would wipe that out.
  const loaded = `location.port === '${page.address().port}' && document.readyState === 'complete'`;
  await within(30000, (async () => {
    while (!await evaluate(loaded).catch(() => false)) await new Promise((r) => { setTimeout(r, 20); });
  })(), 'page');
  await evaluate(`${playSource}\n${openInPage}\ntrue`);
  failed = await runPlan((url, s) => evaluate(`play(openInPage, ${JSON.stringify(url)}, ${JSON.stringify(s)}, false).then(() => true)`));
} finally {
  await bye();
}
process.exit(failed);
