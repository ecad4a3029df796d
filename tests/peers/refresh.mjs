// Node `ws` and `jose` as a client that renews its token in the session, for tests/refresh.rs. Gets a URL and a secret;
// prints what it has heard, one message a line.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.env.NODE_DIR}/node_modules/`);
const { SignJWT } = await import(pathToFileURL(require.resolve('jose')));
const { WebSocket } = require('ws');

const [url, secret] = process.argv.slice(2);
const token = (seconds) =>
  new SignJWT({ sub: 'ada', scope: 'chat', exp: Math.floor(Date.now() / 1000) + seconds })
    .setProtectedHeader({ alg: 'HS256' })
    .sign(new TextEncoder().encode(secret));

// As it is without further options: with permessage-deflate.
const client = new WebSocket(url, { headers: { Authorization: `Bearer ${await token(20)}` } });
const messages = [{ say: 'one' }, { type: 'auth', token: await token(600) }, { type: 'auth ', token: 'two' }];
client.on('error', (error) => {
  throw error;
});
client.on('message', (data) => {
  console.log(data.toString());
  const next = messages.shift();
  next ? client.send(JSON.stringify(next)) : client.close();
});
