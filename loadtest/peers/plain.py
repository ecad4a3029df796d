#!/usr/bin/env python3
"""Measures the CPU of plain requests: framegate beside nginx and HAProxy, each alone on the first CPU; load (wrk) and the
backend (nginx, files) share the second one.  Interleaved rounds, medians.  Keep-alive on both sides, the same fields
about the client; otherwise the defaults of each.

  loadtest/peers/plain.py [FRAMEGATE] [ROUNDS]

FRAMEGATE  the binary [default: target/release/framegate]"""
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

BINARY = sys.argv[1] if len(sys.argv) > 1 else "target/release/framegate"
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 11
BACKEND = """worker_processes 1; daemon off; pid {dir}/back.pid; error_log {dir}/back.err;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  server {{ listen 127.0.0.1:19000 backlog=4096; location / {{ root {dir}/www; default_type text/plain; }}
    location = /ok {{ return 200 ok; }}
    location = /take {{ client_max_body_size 2m; client_body_buffer_size 2m; proxy_pass_request_body off;
      proxy_set_header Content-Length ""; proxy_pass http://127.0.0.1:19000/ok; }} }} }}
"""
NGINX = """worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.err;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  upstream app {{ server 127.0.0.1:19000; keepalive 256; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:19001 backlog=4096; location / {{
    proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Request-Id $request_id; }} }} }}
"""
HAPROXY = """global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    option forwardfor
    http-reuse always
frontend f
    bind 127.0.0.1:19002
    http-request set-header X-Forwarded-Proto http
    unique-id-format %{{+X}}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
    unique-id-header X-Request-Id
    default_backend b
backend b
    server s 127.0.0.1:19000 pool-max-conn 256
"""
FRAMEGATE = """[workers]
count = 1
pin = false
[log]
access = "off"
[[listener]]
listen = "127.0.0.1:19003"
[[upstream]]
name = "app"
endpoints = ["http://127.0.0.1:19000"]
keep_alive = {{ connections = 256 }}
[[route]]
protocols = ["http"]
upstream = "app"
"""


def start(cpu, *command):
    return subprocess.Popen(["taskset", "-c", str(cpu), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def family(pid):
    """The process and its children."""
    with open("/proc/%d/task/%d/children" % (pid, pid)) as children:
        return [pid] + [one for child in children.read().split() for one in family(int(child))]


def cpu_seconds(pid):
    tasks = ["/proc/%d/task/%s/schedstat" % (one, task) for one in family(pid) for task in os.listdir("/proc/%d/task" % one)]
    return sum(int(open(path).read().split()[0]) for path in tasks) / 1e9


def load(port, path, script):
    command = ["taskset", "-c", "1", "wrk", "-t1", "-c64", "-d1s"] + (["-s", script] if script else [])
    command.append("http://127.0.0.1:%d/%s" % (port, path))
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        sys.exit("a request failed:\n" + out)
    return int(re.search(r"(\d+) requests in", out).group(1))


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/www")
        os.chmod(folder, 0o755)
        for name, size in (("1k", 1 << 10), ("1m", 1 << 20)):
            with open("%s/www/%s" % (folder, name), "wb") as file:
                file.write(b"x" * size)
        for name, text in (("back", BACKEND), ("nginx", NGINX), ("haproxy", HAPROXY), ("framegate", FRAMEGATE)):
            with open("%s/%s.conf" % (folder, name), "w") as file:
                file.write(text.format(dir=folder))
        nginx = lambda name: ("nginx", "-p", folder, "-c", "%s/%s.conf" % (folder, name))
        backend = start(1, *nginx("back"))
        targets = {
            "nginx": (19001, start(0, *nginx("nginx"))),
            "haproxy": (19002, start(0, "haproxy", "-db", "-f", folder + "/haproxy.conf")),
            "framegate": (19003, start(0, BINARY, "run", "-c", folder + "/framegate.conf")),
        }
        try:
            time.sleep(2)
            post = folder + "/post.lua"
            with open(post, "w") as file:
                file.write('wrk.method = "POST"\nwrk.body = string.rep("x", 1048576)\n')
            for what, path, script in (("GET 1 KiB", "1k", None), ("GET 1 MiB", "1m", None), ("POST 1 MiB", "take", post)):
                cost = {name: [] for name in targets}
                for _ in range(ROUNDS):
                    for name, (port, process) in targets.items():
                        before = cpu_seconds(process.pid)
                        requests = load(port, path, script)
                        cost[name].append((cpu_seconds(process.pid) - before) / requests * 1e6)
                for name, each in cost.items():
                    ratios = [one / other for one, other in zip(each, cost["nginx"])]
                    print("%-10s %-10s %8.2f us of CPU a request, %.3f of nginx" %
                          (what, name, statistics.median(each), statistics.median(ratios)))
        finally:
            for process in [backend] + [process for _, process in targets.values()]:
                process.terminate()
                process.wait()


main()
