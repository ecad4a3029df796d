// What both JavaScript clients do around a scenario: read the plan, repeat, ask the backend for its record, count.
import net from 'node:net';
import { text } from 'node:stream/consumers';
import { within } from './interpreter.mjs';

function recordOf(port, id) {
  return new Promise((resolve, reject) => {
    let got = '';
    const c = net.connect(port, '127.0.0.1', () => c.write(`${id}\n`));
    c.on('data', (d) => { got += d; });
    c.on('error', reject);
    c.on('close', () => { try { resolve(JSON.parse(got)); } catch { reject(new Error(`record: ${got}`)); } });
  });
}

function compare(record, want) {
  if (record.error) throw new Error(`backend: ${record.error}`);
  for (const [k, v] of Object.entries(want)) {
    const ok = k === 'wire_max' ? record.wire <= v : k === 'pings' || k === 'pongs' ? record[k] >= v : record[k] === v;
    if (!ok) throw new Error(`backend saw ${k} ${JSON.stringify(k === 'wire_max' ? record.wire : record[k])}, not ${JSON.stringify(v)}`);
  }
}

let sequence = 0;
async function once(run, plan, s, extra) {
  sequence += 1;
  const id = `${process.pid}-${sequence}`;
  const query = [s.query, extra, `id=${id}`].filter(Boolean).join('&');
  await run(`${plan.url}/peers?${query}`, s);
  if (s.backend) compare(await within(20000, recordOf(plan.control, id), 'record'), s.backend);
}

// Runs every scenario and prints one line for each; the number of failures decides the exit status.
export async function runPlan(run) {
  const plan = JSON.parse(await text(process.stdin));
  const count = { passed: 0, failed: 0, known: 0 };
  for (const s of plan.scenarios) {
    const began = Date.now();
    let verdict = 'ok';
    try {
      for (const extra of s.cuts ? Array.from({ length: s.cuts }, (_, i) => `cut=${i + 1}`) : ['']) {
        await once(run, plan, s, extra).catch((e) => { throw extra ? new Error(`${extra}: ${e.message}`) : e; });
      }
      count.passed += 1;
    } catch (e) {
      count[s.known ? 'known' : 'failed'] += 1;
      verdict = s.known ? `known: ${s.known} (${e.message})` : `FAILED: ${e.message}`;
    }
    console.log(`  ${plan.pair} ${s.name} ... ${verdict} (${Date.now() - began} ms)`);
  }
  console.log(`${plan.pair}: ${count.passed} passed, ${count.failed} failed${count.known ? `, ${count.known} known failures of this proxy` : ''}`);
  return count.failed ? 1 : 0;
}
