// Headless Chromium, driven over the DevTools protocol.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { within } from './interpreter.mjs';

const require = createRequire(path.join(process.env.NODE_DIR || process.cwd(), 'x.js'));
const { WebSocket } = require('ws');

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

// Starts a browser for `use`, which gets `open(url)`: a tab that has loaded the page, as a function that evaluates an
// expression in it.
export async function browse(use) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'peers-chromium-'));
  const { child, address } = launch(profile);
  let call = async () => {};
  const gone = new Promise((resolve) => { child.once('exit', resolve); });
  process.on('exit', () => child.kill('SIGKILL'));
  process.on('SIGTERM', () => process.exit(1));

  async function open(url) {
    const { targetId } = await call('Target.createTarget', { url });
    const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
    const evaluate = async (expression) => {
      const r = await call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, sessionId);
      if (r.exceptionDetails) throw new Error(r.exceptionDetails.exception?.description?.split('\n')[0] || r.exceptionDetails.text);
      return r.result.value;
    };
    // The page is there before what is injected, or its loading would wipe that out.
    const loaded = `location.origin === '${new URL(url).origin}' && document.readyState === 'complete'`;
    await within(30000, (async () => {
      while (!await evaluate(loaded).catch(() => false)) await new Promise((r) => { setTimeout(r, 20); });
    })(), 'page');
    return evaluate;
  }

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
    return await use(open);
  } finally {
    await bye();
  }
}
