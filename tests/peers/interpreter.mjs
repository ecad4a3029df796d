// Plays the scenarios for the JavaScript clients: npm `ws` here, Chromium by injection.  Knows no socket: a client hands in
// `open(url, scenario) -> { next, send, close, ended, deflate, subprotocol, pings, ping, reset }`.

// The same payloads in every language: a block of prime length, repeated.
export function pattern(kind, size, seed = 0) {
  const out = new Uint8Array(size);
  if (kind === 'text') {
    const unit = new TextEncoder().encode('framegate é € 😀 ');
    const whole = size - (size % unit.length);
    for (let i = 0; i < Math.min(whole, unit.length); i += 1) out[i] = unit[i];
    for (let n = unit.length; n < whole; n *= 2) out.copyWithin(n, 0, Math.min(n, whole - n));
    return out.fill(120, whole);
  }
  const block = 65521;
  for (let i = 0; i < Math.min(size, block); i += 1) out[i] = (i * 31 + (i >> 8) * 7 + seed) & 255;
  for (let n = block; n < size; n *= 2) out.copyWithin(n, 0, Math.min(n, size - n));
  return out;
}

function same(a, b) {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i += 1) if (a[i] !== b[i]) return false;
  return true;
}

function check(condition, text) {
  if (!condition) throw new Error(text);
}

export function within(ms, promise, what) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms} ms`)), ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function messages(ws, s) {
  for (let i = 1; i <= (s.greetings || 0); i += 1) {
    const m = await within(10000, ws.next(), `greeting ${i}`);
    check(m.kind === 'binary' && same(m.data, pattern('binary', i * 37, i)), `greeting ${i} differs`);
  }
  for (const m of s.sends || []) {
    const data = pattern(m.kind, m.size);
    for (let n = 0; n < (m.times || 1); n += 1) {
      await ws.send(m.kind, data, m.fragments || 1, Boolean(m.pings));
      if (s.answer === false) continue;
      const got = await within(90000, ws.next(), `echo of ${m.size} bytes of ${m.kind}`);
      check(got.kind === m.kind, `${m.kind} came back as ${got.kind}`);
      check(same(got.data, data), `the echo of ${m.size} bytes differs (${got.data.length} bytes came)`);
    }
  }
}

async function end(ws, s) {
  if (s.end === 'reset') return ws.reset();
  if (s.close) ws.close(s.close.code, s.close.reason);
  const ended = await within(15000, ws.ended, 'close');
  for (const k of ['code', 'reason', 'clean']) {
    const want = s.expect?.[k];
    check(want === undefined || ended[k] === want || (want.includes?.(ended[k]) ?? false), `closed with ${k} ${JSON.stringify(ended[k])}, not ${JSON.stringify(want)}`);
  }
  return undefined;
}

// One scenario, once. Throws what went wrong.
export async function play(open, url, s, canPing) {
  const ws = await within(15000, open(url, s), 'open');
  try {
    check(s.expect?.subprotocol === undefined || ws.subprotocol === s.expect.subprotocol, `subprotocol ${ws.subprotocol}`);
    check(s.expect?.deflate === undefined || ws.deflate === s.expect.deflate, `deflate negotiated: ${ws.deflate}`);
    await messages(ws, s);
    if (canPing) {
      check(ws.pings() >= (s.expect?.pings || 0), `${ws.pings()} pings came`);
      for (let i = 0; i < (s.ping || 0); i += 1) await within(5000, ws.ping(`p${i}`), 'pong');
    }
    await end(ws, s);
  } finally {
    ws.abandon();
  }
}

export const playSource = [pattern, same, check, within, messages, end, play].map((f) => f.toString()).join('\n');
