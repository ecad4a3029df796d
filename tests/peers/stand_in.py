#!/usr/bin/env python3
"""Runs nginx or HAProxy with the command line and the first lines of `framegate run`:

  stand_in.py nginx|haproxy run --listen 127.0.0.1:PORT --upstream ws://HOST:PORT

prints `listening on ADDR` and `ready` on standard error.  The tests of the peers run against it with
PROXY=nginx or PROXY=haproxy: that is the proof that they judge proxies, not framegate.  Ends with its standard input or
by SIGTERM, and takes the proxy with it."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from urllib.parse import urlsplit

NGINX = """\
daemon off;
master_process off;
pid {dir}/pid;
error_log {dir}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir}; uwsgi_temp_path {dir}; scgi_temp_path {dir};
  server {{
    listen {listen};
    location / {{
      proxy_pass http://{upstream};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_set_header Host $http_host;
      proxy_read_timeout 120s;
      proxy_send_timeout 120s;
    }}
  }}
}}
"""

HAPROXY = """\
global
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout tunnel 120s
frontend f
  bind {listen}
  default_backend b
backend b
  server s {upstream}
"""


def flag(args, name):
    return args[args.index(name) + 1]


def free_port():
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(address, child):
    end = time.monotonic() + 10
    while time.monotonic() < end and child.poll() is None:
        try:
            socket.create_connection(address, 1).close()
            return True
        except OSError:
            time.sleep(0.02)
    return False


def main():
    kind, args = sys.argv[1], sys.argv[2:]
    host, _, port = flag(args, "--listen").rpartition(":")
    port = int(port) or free_port()
    path = shutil.which(kind, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if not path:
        sys.exit("%s is not installed: apt-get install %s" % (kind, kind))
    with tempfile.TemporaryDirectory() as tmp:
        text = (NGINX if kind == "nginx" else HAPROXY).format(
            dir=tmp, listen="%s:%d" % (host, port), upstream=urlsplit(flag(args, "--upstream")).netloc)
        conf = os.path.join(tmp, "conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.write(text)
        command = [path, "-p", tmp, "-e", tmp + "/error.log", "-c", conf] if kind == "nginx" else [path, "-q", "-db", "-f", conf]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)

        def stop(*_):
            child.terminate()
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        if not wait_for((host, port), child):
            child.kill()
            sys.exit("%s did not start" % kind)
        print("listening on %s:%d" % (host, port), file=sys.stderr)
        print("ready", file=sys.stderr, flush=True)

        def until_eof():
            while os.read(0, 4096):
                pass
            stop()
        threading.Thread(target=until_eof, daemon=True).start()
        child.wait()
        if kind == "nginx" and os.environ.get("STAND_IN_LOG"):
            with open(os.path.join(tmp, "error.log"), encoding="utf-8") as f:
                sys.stderr.write(f.read())


if __name__ == "__main__":
    main()
