#!/usr/bin/env python3
"""A mesh's master for tests and for trying a mesh by hand, written from the contract that docs/node.md describes.

It listens on a port of loopback (the first argument; 0: any), says which in its first line, and does what it is told under /_/:

  GET  /_/calls                     all calls so far: method, path, headers, body, status, time
  PUT  /_/tokens   {TOKEN: {"type": "VIEWER", "stream_id": "s1", "ttl": 30}}
  PUT  /_/tables   {"ingest": .., "relay": .., "accept": .., "epoch": ..}   the version rises by itself
  PUT  /_/modes    {"*": "I"} or by server_uuid
  PUT  /_/routes   {"s1": 200}      what /route answers; others get 404
  PUT  /_/certificate {"cert": .., "key": .., "not_after": ..}   what /cert answers; without it 404
  PUT  /_/slow     2                seconds before every answer
  PUT  /_/commands [..]             given with the next heartbeat reply
  PUT  /_/forget                    knows no node any more
  PUT  /_/faults   {"/auth": {"status": 500, "body": "..", "delay": 1, "times": 2}}
"""
import hmac
import json
import secrets
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = sys.argv[2] if len(sys.argv) > 2 else "mesh-announce-key"
LOCK = threading.Lock()
INTERVAL, FRAME, TIMEOUT, STRIKES, LIMIT = 5, 2, 10, 3, 60


class Mesh:
    def __init__(self):
        self.calls, self.tokens, self.modes, self.routes = [], {}, {"*": "I"}, {}
        self.certificate, self.slow = None, 0
        self.nodes, self.faults, self.commands = {}, {}, []
        self.tables = {"version": 1, "ingest": {}, "relay": {}, "accept": {}}

    def node(self, headers):
        for node in self.nodes.values():
            good = hmac.compare_digest(node["secret"], headers.get("Authorization", ""))
            if good and headers.get("Node-ID") == node["id"]:
                return node
        return None


MESH = Mesh()


def announce(headers, body):
    if not hmac.compare_digest(headers.get("Authorization", ""), KEY):
        return 401, {"error": "Invalid announce key"}
    fields = ("rtmp_ip", "rtmp_port", "http_ip", "http_port", "server_uuid")
    if not isinstance(body, dict) or any(field not in body for field in fields):
        return 400, {"error": "Invalid body"}
    known = MESH.nodes.get(body["server_uuid"], {"id": str(uuid.uuid4())})
    number = list(MESH.nodes).index(body["server_uuid"]) if body["server_uuid"] in MESH.nodes else len(MESH.nodes)
    known["secret"] = secrets.token_urlsafe(32)
    known["uuid"] = body["server_uuid"]
    MESH.nodes[body["server_uuid"]] = known
    return 200, {
        "id": known["id"], "name": f"node {number}", "mode": mode_of(known), "slug": f"{number}.IE.EU", "region": "EU",
        "rtmp_ip": body["rtmp_ip"], "rtmp_port": int(body["rtmp_port"]), "http_ip": body["http_ip"],
        "http_port": int(body["http_port"]), "secret": known["secret"], "live": False,
        "rtmp_url": f"rtmp://{body['rtmp_ip']}:{body['rtmp_port']}/live",
        "http_url": f"https://{body['http_ip']}:{body['http_port']}/public",
    }


def mode_of(node):
    return MESH.modes.get(node["uuid"], MESH.modes["*"])


def heartbeat(method, node, body):
    now = time.monotonic()
    if method == "GET":
        node["beat"] = {"id": str(uuid.uuid4()), "key": "heartbeat_" + secrets.token_hex(16), "last": now, "strikes": 0, "beats": 0}
        return 200, {
            "heartbeat_id": node["beat"]["id"], "server_id": node["id"], "key": node["beat"]["key"], "interval": INTERVAL,
            "timeout": TIMEOUT, "max_timeouts": STRIKES, "frame_of_error": FRAME, "time_limit": LIMIT,
        }
    beat = node.get("beat")
    if beat is None or beat["id"] != body.get("heartbeat_id"):
        return 404, {"status": 5}
    if not hmac.compare_digest(beat["key"], str(body.get("key"))):
        return 403, {"error": "wrong key"}
    gap, status = now - beat["last"], 0
    if gap >= TIMEOUT + LIMIT or beat["strikes"] >= STRIKES:
        return 410, {"status": 3}
    if gap > TIMEOUT + FRAME:
        status = 1
    elif gap < INTERVAL - FRAME and beat["beats"]:
        status = 2
    beat["strikes"] = beat["strikes"] + 1 if status else 0
    beat["last"], beat["key"] = now, "heartbeat_" + secrets.token_hex(16)
    beat["beats"] += 1
    commands, MESH.commands = MESH.commands, []
    return 200, {"status": status, "key": beat["key"], "mode": mode_of(node), "table_version": MESH.tables["version"], "commands": commands}


def auth(items):
    single = isinstance(items, dict)
    answers = []
    for item in [items] if single else items:
        known = MESH.tokens.get(item.get("token"))
        good = known is not None and known["type"] == item.get("type")
        good = good and item.get("stream_id") in (None, known["stream_id"])
        answer = {"token": item.get("token"), "status": "ok" if good else "denied"}
        if good:
            answer.update({key: known[key] for key in ("stream_id", "ttl") if key in known})
        answers.append(answer)
    return 200, answers[0] if single else answers


def answer(method, path, headers, body):
    if path == "/announce" and method == "POST":
        return announce(headers, body)
    node = MESH.node(headers)
    if node is None:
        return 401, {"message": "Invalid node", "status": "invalid"}
    if path == "/heartbeat":
        return heartbeat(method, node, body)
    if path == "/auth" and method == "POST":
        return auth(body)
    if path == "/streams" and method == "GET":
        return 200, MESH.tables
    if path == "/streams":
        return 200, {"accepted": True, "table_version": MESH.tables["version"]}
    if path == "/cert" and method == "GET" and MESH.certificate:
        return 200, MESH.certificate
    if path == "/route":
        status = MESH.routes.get(body.get("stream_id"), 404)
        return status, {"status": "routing", "table_version": MESH.tables["version"]}
    return 404, {"error": "no such endpoint"}


def control(path, body):
    if path == "/_/calls":
        return MESH.calls
    if path == "/_/tables":
        MESH.tables = {"ingest": {}, "relay": {}, "accept": {}, **body, "version": MESH.tables["version"] + 1}
    elif path == "/_/forget":
        MESH.nodes = {}
    elif path == "/_/commands":
        MESH.commands = body
    elif path in ("/_/tokens", "/_/modes", "/_/routes", "/_/faults", "/_/certificate", "/_/slow"):
        setattr(MESH, path.removeprefix("/_/"), body)
    return {}


class Handler(BaseHTTPRequestHandler):
    def serve(self):
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length).decode("utf-8", "replace")
        try:
            body = json.loads(text) if text else None
        except ValueError:
            body = text
        path, delay, raw = self.path.split("?")[0], 0, None
        with LOCK:
            if path.startswith("/_/"):
                status, reply = 200, control(path, body)
            else:
                fault = MESH.faults.get(path)
                if fault and fault.get("times", 1) > 0:
                    if "times" in fault:
                        fault["times"] -= 1
                    delay, status = fault.get("delay", 0), fault.get("status", 200)
                    raw, reply = fault.get("body", "{}"), None
                else:
                    status, reply = answer(self.command, path, self.headers, body)
                    delay = MESH.slow
                MESH.calls.append({
                    "method": self.command, "path": path, "headers": dict(self.headers.items()), "body": body,
                    "status": status, "reply": reply, "time": time.monotonic(),
                })
        time.sleep(delay)
        payload = (raw if raw is not None else json.dumps(reply)).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)
        except OSError:
            pass

    do_GET = do_POST = do_PUT = serve

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main():
    server = Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), Handler)
    print(json.dumps({"port": server.server_address[1], "key": KEY}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
