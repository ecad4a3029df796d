"""Python `websockets` and PyJWT as a client that renews its token in the session, for tests/refresh.rs.  Gets a URL and a
secret; prints what it has heard, one message a line."""
import json
import sys
import time

import jwt
from websockets.sync.client import connect


def token(seconds):
    return jwt.encode({"sub": "ada", "scope": "chat", "exp": int(time.time()) + seconds}, sys.argv[2], algorithm="HS256")


# As it is without further options: with permessage-deflate, and JSON with white space.
with connect(sys.argv[1], additional_headers={"Authorization": "Bearer " + token(20)}) as client:
    print(client.recv())
    for message in [{"say": "one"}, {"type": "auth", "token": token(600)}, {"type": "auth ", "token": "two"}]:
        client.send(json.dumps(message))
        print(client.recv())
