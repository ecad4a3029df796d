// The dev server of Vite with hot reload: a page in Chromium, whose module changes on disk.
import fs from 'node:fs';
import path from 'node:path';
import { browse } from '../peers/devtools.mjs';
import { check, load, once, run, within } from './lib.mjs';

const part = (text) => `export const text = '${text}';\n`;
const MAIN = `import { text } from './part.js';
const show = (text) => { document.body.dataset.text = text; };
show(text);
window.loads = (window.loads || 0) + 1;
import.meta.hot.accept('./part.js', (changed) => show(changed.text));
import.meta.hot.on('app:heard', (data) => { window.heard = data; });
import.meta.hot.send('app:hello', 'x'.repeat(70000));
`;

async function node(root) {
  const { createServer } = load('vite');
  fs.mkdirSync(root);
  fs.writeFileSync(path.join(root, 'index.html'), '<!doctype html><title>vite</title><body><script type="module" src="/main.js"></script>');
  fs.writeFileSync(path.join(root, 'main.js'), MAIN);
  fs.writeFileSync(path.join(root, 'part.js'), part('one'));
  const vite = await createServer({
    root, configFile: false, logLevel: 'error', cacheDir: path.join(root, 'cache'), server: { host: '127.0.0.1', port: 0, strictPort: true },
  });
  vite.ws.on('app:hello', (data, client) => client.send('app:heard', data.length));
  await vite.listen();
  return vite.httpServer;
}

/// In Chromium, or without it as Vite's client does it.
function clients(url, root, how) {
  const write = (name, text) => fs.writeFileSync(path.join(root, name), text);
  return how === 'chromium' ? inChromium(url, write) : byHand(url, write);
}

function inChromium(url, write) {
  return browse(async (open) => {
    const evaluate = await open(`${url}/`);
    const until = (expression) => within((async () => {
      while (!await evaluate(expression)) await new Promise((r) => { setTimeout(r, 20); });
    })(), expression);
    // Its WebSocket is connected: it said hello, and heard of it.
    await until('window.heard === 70000');
    check(await evaluate('document.body.dataset.text') === 'one', 'the module');
    write('part.js', part('two'));
    await until(`document.body.dataset.text === 'two'`);
    check(await evaluate('window.loads') === 1, 'the page was not loaded again');
    // Nothing accepts this one: the page is loaded again.
    write('main.js', `${MAIN}window.isNew = true;\n`);
    await until('window.isNew && window.heard === 70000');
    return { sockets: 2 };
  });
}

async function byHand(url, write) {
  const { WebSocket } = load('ws');
  const get = async (file) => (await fetch(`${url}${file}`)).text();
  const [, token] = (await get('/@vite/client')).match(/wsToken = "([^"]+)"/);
  const socket = new WebSocket(`${url.replace('http', 'ws')}/?token=${token}`, 'vite-hmr');
  const next = async () => JSON.parse(await once(socket, 'message'));
  check((await next()).type === 'connected', 'connected');
  check((await get('/')).includes('/@vite/client'), 'the page');
  check((await get('/main.js')).includes('/part.js'), 'the module');
  check((await get('/part.js')).includes('one'), 'its part');
  write('part.js', part('two'));
  const { type, updates } = await next();
  check(type === 'update' && updates[0].acceptedPath === '/part.js', `an update, not ${type}`);
  check((await get(`/part.js?t=${updates[0].timestamp}`)).includes('two'), 'the part that has changed');
  socket.close(1000);
  await once(socket, 'close');
  return { sockets: 1 };
}

run(node, clients);
