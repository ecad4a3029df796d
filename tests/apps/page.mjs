// A page of 50 assets with a WebSocket on its origin, in Chromium.
import http from 'node:http';
import { browse } from '../peers/devtools.mjs';
import { check, load, run, within } from './lib.mjs';

const body = (n) => String.fromCharCode(97 + (n % 26)).repeat((n * 7919) % 200000);

// 20 scripts that say they ran, 10 style sheets, 20 that the page fetches and compares; every third of them in chunks.
const HTML = `<!doctype html><title>assets</title>
${Array.from({ length: 10 }, (_, n) => `<link rel="stylesheet" href="/${n}.css">`).join('\n')}
<script>
  window.ran = [];
  window.socket = new Promise((resolve, reject) => {
    const socket = new WebSocket('ws://' + location.host + '/socket');
    let n = 0;
    socket.onerror = () => reject(new Error('the WebSocket failed'));
    socket.onopen = () => socket.send('0');
    socket.onmessage = (e) => {
      if (e.data !== String(n)) reject(new Error('echo of ' + n + ': ' + e.data));
      n += 1;
      if (n === 200) { socket.close(1000); resolve(n); } else socket.send(String(n));
    };
  });
  window.fetched = Promise.all(Array.from({ length: 20 }, async (_, i) => {
    const answer = await fetch('/' + (30 + i) + '.txt', i % 2 ? { method: 'POST', body: 'x'.repeat(i * 5000) } : {});
    return (await answer.text()).length;
  }));
</script>
${Array.from({ length: 20 }, (_, n) => `<script src="/${10 + n}.js"></script>`).join('\n')}`;

function node() {
  const types = { css: 'text/css', js: 'text/javascript', txt: 'text/plain' };
  const server = http.createServer((request, response) => {
    const [, number, type] = request.url.match(/^\/(\d+)\.(css|js|txt)$/) || [];
    let received = 0;
    request.on('data', (part) => { received += part.length; });
    request.on('end', () => {
      if (number === undefined) {
        response.setHeader('Content-Type', 'text/html');
        return request.url === '/' ? response.end(HTML) : response.writeHead(404).end();
      }
      const n = Number(number);
      const text = {
        css: `#a${n} { color: red } /* ${body(n)} */`, js: `window.ran.push(${n}); /* ${body(n)} */`, txt: body(n) + 'y'.repeat(received),
      }[type];
      response.setHeader('Content-Type', types[type]);
      if (n % 3) response.setHeader('Content-Length', text.length);
      return response.end(text);
    });
  });
  const { WebSocketServer } = load('ws');
  new WebSocketServer({ server, path: '/socket' }).on('connection', (ws) => ws.on('message', (data) => ws.send(String(data))));
  return server;
}

function clients(url) {
  return browse(async (open) => {
    const evaluate = await open(`${url}/`);
    check(await within(evaluate('window.socket'), 'the WebSocket') === 200, 'echoes');
    const fetched = await within(evaluate('window.fetched'), 'what is fetched');
    check(fetched.every((length, i) => length === body(30 + i).length + (i % 2 ? i * 5000 : 0)), `lengths ${fetched}`);
    const ran = await evaluate('window.ran');
    check(ran.length === 20 && ran.every((n, i) => n === 10 + i), `scripts ${ran}`);
    check(await evaluate('[...document.styleSheets].every((sheet) => sheet.cssRules.length === 1)'), 'style sheets');
    return { assets: fetched.length + ran.length + await evaluate('document.styleSheets.length') };
  });
}

run(node, clients);
