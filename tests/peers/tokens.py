"""Tokens by PyJWT for tests/tokens.rs: prints one line of JSON with the key set, the secret, a token of each algorithm,
and tokens that must be refused."""
import base64
import hashlib
import hmac
import json
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

NOW = int(time.time())
SECRET = bytes(range(48, 112))
CLAIMS = {"iss": "https://issuer", "sub": "alice", "aud": ["chat"], "exp": NOW + 3600, "iat": NOW, "scope": "read chat"}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public(key):
    return key.public_key()


keys = {
    "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "ed": ed25519.Ed25519PrivateKey.generate(),
}
writers = {"rsa": RSAAlgorithm, "p256": ECAlgorithm, "p384": ECAlgorithm, "ed": OKPAlgorithm}
jwks = [dict(writers[kid].to_jwk(public(key), as_dict=True), kid=kid, use="sig") for kid, key in keys.items()]
of = {"RS": "rsa", "PS": "rsa", "ES256": "p256", "ES384": "p384", "EdDSA": "ed"}


def token(algorithm, claims=CLAIMS, key=None, headers=None):
    if algorithm.startswith("HS"):
        return jwt.encode(claims, key or SECRET, algorithm=algorithm, headers={"kid": "shared", **(headers or {})})
    kid = of.get(algorithm) or of[algorithm[:2]]
    return jwt.encode(claims, key or keys[kid], algorithm=algorithm, headers={"kid": kid, **(headers or {})})


def by_hand(header, claims, secret):
    message = b64(json.dumps(header).encode()) + "." + b64(json.dumps(claims).encode())
    return message + "." + b64(hmac.new(secret, message.encode(), hashlib.sha256).digest())


names = ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
pem = public(keys["rsa"]).public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
hostile = {
    "none": jwt.encode(CLAIMS, None, algorithm="none"),
    "public-key-as-secret": by_hand({"alg": "HS256", "typ": "JWT", "kid": "rsa"}, CLAIMS, pem),
    "other-key": token("RS256", key=other),
    "embedded-jwk": token("RS256", key=other, headers={"jwk": RSAAlgorithm.to_jwk(public(other), as_dict=True)}),
    "unknown-kid": token("RS256", headers={"kid": "x"}),
    "crit": token("RS256", headers={"crit": ["exp"]}),
    "es512": jwt.encode(CLAIMS, ec.generate_private_key(ec.SECP521R1()), algorithm="ES512", headers={"kid": "p256"}),
    "short-secret": by_hand({"alg": "HS256", "kid": "shared"}, CLAIMS, b"secret"),
    "wrong-audience": token("ES256", {**CLAIMS, "aud": "mail"}),
    "wrong-issuer": token("ES256", {**CLAIMS, "iss": "https://issuer.example"}),
    "not-yet": token("ES256", {**CLAIMS, "nbf": NOW + 600}),
    "text-exp": token("ES256", {**CLAIMS, "exp": str(NOW + 3600)}),
    "no-exp": token("ES256", {name: CLAIMS[name] for name in CLAIMS if name != "exp"}),
}
print(json.dumps({
    "jwks": {"keys": jwks},
    "secret": SECRET.decode(),
    "tokens": {name: token(name) for name in names},
    "hostile": hostile,
    "expired": token("RS256", {**CLAIMS, "exp": NOW - 600}),
}))
