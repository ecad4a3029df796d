// Tokens by npm `jose` for tests/tokens.rs: prints one line of JSON with the key set, the secret, a token of each
// algorithm, and tokens that must be refused.
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(path.join(process.env.NODE_DIR || process.cwd(), 'x.js'));
const { SignJWT, UnsecuredJWT, exportJWK, exportSPKI, generateKeyPair } = require('jose');

const now = Math.floor(Date.now() / 1000);
const secret = Buffer.from(Array.from({ length: 64 }, (_, i) => 48 + i));
const claims = {
  iss: 'https://issuer', sub: 'alice', aud: ['chat'], exp: now + 3600, iat: now, scope: 'read chat',
};
const keys = {
  rsa: await generateKeyPair('RS256', { extractable: true }),
  p256: await generateKeyPair('ES256', { extractable: true }),
  p384: await generateKeyPair('ES384', { extractable: true }),
  ed: await generateKeyPair('EdDSA', { extractable: true }),
};
const jwks = await Promise.all(
  Object.entries(keys).map(async ([kid, key]) => ({ ...(await exportJWK(key.publicKey)), kid, use: 'sig' })),
);
const of = { RS: 'rsa', PS: 'rsa', ES256: 'p256', ES384: 'p384', EdDSA: 'ed' };

// A key object of Web Crypto is for one algorithm: RSA keys are imported anew for each.
async function token(alg, payload = claims, key = undefined, header = {}) {
  if (alg.startsWith('HS')) return new SignJWT(payload).setProtectedHeader({ alg, kid: 'shared', ...header }).sign(key || secret);
  const kid = of[alg] || of[alg.slice(0, 2)];
  const jwk = await exportJWK((key || keys[kid]).privateKey);
  return new SignJWT(payload).setProtectedHeader({ alg, kid, ...header }).sign({ ...jwk, alg });
}

const names = ['HS256', 'HS384', 'HS512', 'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'EdDSA'];
const tokens = {};
for (const name of names) tokens[name] = await token(name);
const other = await generateKeyPair('RS256', { extractable: true });
const pem = Buffer.from(await exportSPKI(keys.rsa.publicKey));
const { exp, ...withoutExpiry } = claims;
const hostile = {
  none: new UnsecuredJWT(claims).encode(),
  'public-key-as-secret': await token('HS256', claims, pem, { kid: 'rsa' }),
  'other-key': await token('RS256', claims, other),
  'embedded-jwk': await token('RS256', claims, other, { jwk: await exportJWK(other.publicKey) }),
  'unknown-kid': await token('RS256', claims, undefined, { kid: 'x' }),
  'wrong-audience': await token('ES256', { ...claims, aud: 'mail' }),
  'wrong-issuer': await token('ES256', { ...claims, iss: 'https://issuer.example' }),
  'not-yet': await token('ES256', { ...claims, nbf: now + 600 }),
  'no-exp': await token('ES256', withoutExpiry),
};
const expired = await token('RS256', { ...claims, exp: now - 600 });
console.log(JSON.stringify({ jwks: { keys: jwks }, secret: secret.toString(), tokens, hostile, expired }));
