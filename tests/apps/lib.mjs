// What the applications of these tests share. Each script is a server (`serve`), which prints its port and ends with its
// standard input, or its clients (`play URL`), which print `ok` and what they saw, or what is wrong.
import { createRequire } from 'node:module';
import path from 'node:path';

/// The packages that tests/peers/setup.sh installs.
export const load = createRequire(path.join(process.env.NODE_DIR || process.cwd(), 'x.js'));

export function check(condition, what) {
  if (!condition) throw new Error(`wrong: ${what}`);
}

export function within(promise, what, ms = 20000) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms} ms`)), ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/// The next event of an emitter, or its failure.
export function once(emitter, event, failure = 'error') {
  return within(new Promise((resolve, reject) => {
    emitter.once(event, resolve);
    emitter.once(failure, (e) => reject(e instanceof Error ? e : new Error(`${failure} in place of ${event}: ${e}`)));
  }), event);
}

async function serve(start, args) {
  const server = await start(...args);
  await new Promise((resolve) => { server.listening ? resolve() : server.listen(0, '127.0.0.1', resolve); });
  process.stdin.on('end', () => process.exit(0)).resume();
  console.log(`port ${server.address().port}`);
}

async function play(clients, args) {
  const saw = await within(clients(...args), 'the end of the clients', 60000);
  console.log(`ok ${JSON.stringify(saw ?? {})}`);
  process.exit(0);
}

export async function run(start, clients) {
  const [role, ...args] = process.argv.slice(2);
  try {
    await (role === 'serve' ? serve(start, args) : play(clients, args));
  } catch (e) {
    console.error(e?.stack || e);
    process.exit(1);
  }
}
