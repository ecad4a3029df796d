// An event stream whose endpoint goes down: EventSource in Chromium goes on at the other one, and misses nothing; a client
// that wants all of a response is told that it has not got it.
import http from 'node:http';
import { browse } from '../peers/devtools.mjs';
import { check, run, within } from './lib.mjs';

const HTML = `<!doctype html><title>events</title><script>
  window.events = [];
  window.failures = [];
  const source = new EventSource('/events');
  source.onmessage = (e) => window.events.push([Number(e.lastEventId), e.data]);
  source.onerror = () => window.failures.push(source.readyState);
</script>`;

function node() {
  return http.createServer((request, response) => {
    if (request.url !== '/events') return response.setHeader('Content-Type', 'text/html').end(HTML);
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
    response.write('retry: 20\n\n');
    let id = Number(request.headers['last-event-id'] || 0);
    const timer = setInterval(() => {
      id += 1;
      response.write(`id: ${id}\ndata: ${request.socket.localPort}\n\n`);
    }, 5);
    return response.on('close', () => clearInterval(timer));
  });
}

const order = async (admin, port, word) => {
  const answer = await fetch(`${admin}/upstreams/app/127.0.0.1:${port}/${word}`, { method: 'POST' });
  check(answer.ok, `${word}: ${answer.status}`);
};

// Asks for the stream until it comes from the node that is wanted; how it ends.
const reader = (url, port) => new Promise((resolve, reject) => {
  http.get(`${url}/events`, (response) => {
    let text = '';
    const ended = new Promise((end) => { response.on('close', () => end({ complete: response.complete, text })); });
    response.setEncoding('utf8').on('data', (part) => {
      text += part;
      const from = text.match(/data: (\d+)\n/);
      if (from && Number(from[1]) !== port) {
        response.destroy();
        resolve(reader(url, port));
      } else if (from) {
        resolve({ ended });
      }
    }).on('error', () => {});
  }).on('error', reject);
});

function clients(url, admin) {
  return browse(async (open) => {
    const evaluate = await open(`${url}/`);
    const several = async (what, expression) => {
      for (let found; ; await new Promise((r) => { setTimeout(r, 10); })) {
        found = await evaluate(expression);
        if (found) return found;
      }
    };
    const waited = (what, expression) => within(several(what, expression), what);
    const first = Number(await waited('events', 'window.events.length > 20 && window.events[0][1]'));
    const other = await within(reader(url, first), 'a stream of the same node');
    await order(admin, first, 'down');
    const { complete, text } = await within(other.ended, 'the end of the stream');
    check(!complete && text.endsWith('\n\n'), `complete: ${complete}, after ${JSON.stringify(text.slice(-40))}`);
    const second = Number(await waited('another node', `window.events.at(-1)[1] !== '${first}' && window.events.at(-1)[1]`));
    // And back, so that it has come back more than once.
    await order(admin, first, 'ready');
    await order(admin, second, 'drain');
    await waited('the first node', `window.events.at(-1)[1] === '${first}'`);
    const events = await evaluate('window.events');
    check(events.every(([id], i) => id === i + 1), `ids ${events.map(([id]) => id)}`);
    const failures = await evaluate('window.failures');
    check(failures.length === 2 && failures.every((state) => state === 0), `states ${failures}`);
    return { nodes: new Set(events.map(([, port]) => port)).size, failures: failures.length };
  });
}

run(node, clients);
