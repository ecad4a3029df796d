// npm `ws` as client of the peers' tests.  Reads a plan from standard input: { url, control, scenarios }.
import { createRequire } from 'node:module';
import path from 'node:path';
import { play } from './interpreter.mjs';
import { runPlan } from './plan.mjs';

const require = createRequire(path.join(process.env.NODE_DIR || process.cwd(), 'x.js'));
const { WebSocket } = require('ws');

function open(url, s) {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url, s.subprotocols || [], {
      perMessageDeflate: s.deflate ? { threshold: 0 } : false, maxPayload: 1 << 30, handshakeTimeout: 12000,
    });
    const queue = [];
    const waiting = [];
    let pings = 0;
    const ended = new Promise((done) => ws.on('close', (code, reason) => {
      done({ code, reason: reason.toString(), clean: code !== 1006 });
      while (waiting.length) waiting.shift().reject(new Error(`closed with ${code} "${reason}" while a message was awaited`));
    }));
    ws.on('error', reject);
    ws.on('ping', () => { pings += 1; });
    ws.on('message', (data, binary) => {
      const m = { kind: binary ? 'binary' : 'text', data: new Uint8Array(data) };
      if (waiting.length) waiting.shift().resolve(m); else queue.push(m);
    });
    const pong = (text) => new Promise((done) => {
      const on = (p) => { if (p.toString() === text) { ws.off('pong', on); done(); } };
      ws.on('pong', on);
      ws.ping(text);
    });
    const send = async (kind, data, fragments, withPings) => {
      const pongs = [];
      for (let i = 0; i < fragments; i += 1) {
        const part = data.subarray(Math.floor((data.length * i) / fragments), Math.floor((data.length * (i + 1)) / fragments));
        ws.send(part, { binary: kind === 'binary', fin: i === fragments - 1 });
        if (withPings) pongs.push(pong(`between ${i}`));
      }
      await Promise.all(pongs);
    };
    ws.on('open', () => resolve({
      ended, send,
      subprotocol: ws.protocol,
      deflate: 'permessage-deflate' in ws._extensions,
      next: () => new Promise((res, rej) => {
        if (queue.length) res(queue.shift());
        else if (ws.readyState === WebSocket.CLOSED) rej(new Error('closed while a message was awaited'));
        else waiting.push({ resolve: res, reject: rej });
      }),
      pings: () => pings,
      ping: pong,
      close: (code, reason) => ws.close(code, reason),
      reset: () => ws._socket.resetAndDestroy(),
      abandon: () => ws.terminate(),
    }));
  });
}

process.exit(await runPlan((url, s) => play(open, url, s, true)));
