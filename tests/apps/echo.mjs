// A server for plain requests: what it got, and answers of several kinds.
import http from 'node:http';
import zlib from 'node:zlib';
import { run } from './lib.mjs';

function node() {
  const routes = {
    '/gzip': (_, response) => {
      response.setHeader('Content-Encoding', 'gzip');
      response.setHeader('Content-Type', 'text/plain; charset=utf-8');
      response.end(zlib.gzipSync('framegate '.repeat(20000)));
    },
    '/moved': (_, response) => { response.writeHead(302, { Location: '/echo' }); response.end(); },
    '/cookies': (request, response) => {
      response.setHeader('Set-Cookie', ['a=1', 'b=2; Path=/']);
      response.end(request.headers.cookie || '');
    },
    '/events': (_, response) => {
      response.setHeader('Content-Type', 'text/event-stream');
      let n = 0;
      const timer = setInterval(() => {
        response.write(`data: ${n}\n\n`);
        n += 1;
        if (n === 20) { clearInterval(timer); response.end(); }
      }, 20);
    },
  };
  return http.createServer((request, response) => {
    let length = 0;
    request.on('data', (part) => { length += part.length; });
    request.on('end', () => {
      const known = routes[request.url];
      if (known) return known(request, response);
      const body = JSON.stringify({ method: request.method, length });
      response.setHeader('Content-Length', body.length);
      return response.end(body);
    });
  });
}

run(node);
