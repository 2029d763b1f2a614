"""A gateway's API, over whatever leads to it."""

import json
import pathlib
import ssl
import time
import urllib.error
import urllib.request

from hwtests.case import check

# Most bytes of a bundle that it takes at once.
PIECE = 1 << 20


class Api:
    """`base` is `https://HOST:PORT`; `token` may be empty until it is claimed."""

    def __init__(self, base: str, token: str = ""):
        self.base, self.token = base, token
        self.context = ssl.create_default_context()
        # The gateway made its certificate itself.
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE

    def ask(self, method: str, path: str, body=None, headers=None):
        is_raw = isinstance(body, bytes)
        every = {"Content-Type": "application/octet-stream" if is_raw else "application/json", **(headers or {})}
        if self.token:
            every["Authorization"] = f"Bearer {self.token}"
        data = body if is_raw or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base}{path}", method=method, headers=every, data=data)
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.context) as answer:
                text = answer.read()
                return (json.loads(text) if text else None), answer.headers
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()[:300]}") from error

    def change(self, patch: dict, patience: float):
        """Changes the config, and confirms that."""
        _, headers = self.ask("GET", "/api/v1/config")
        answer, _ = self.ask("PATCH", "/api/v1/config", patch,
                             {"If-Match": headers["ETag"], "Content-Type": "application/merge-patch+json"})
        deadline = time.monotonic() + patience
        while answer.get("state") != "confirmed":
            check(time.monotonic() < deadline, f"the change was not confirmed: {answer}")
            time.sleep(0.5)
            try:
                answer, _ = self.ask("POST", "/api/v1/config/confirm")
            except AssertionError as error:
                # Still being applied, or applied without anything to confirm.
                check("409" in str(error), str(error))
                _, now = self.ask("GET", "/api/v1/config")
                if now["ETag"] != headers["ETag"]:
                    break

    def send_bundle(self, bundle: pathlib.Path, until: float = 1.0) -> int:
        """Sends a firmware bundle, or goes on with one that was cut off, as far as this part of it; bytes that are there."""
        size = bundle.stat().st_size
        view, _ = self.ask("GET", "/api/v1/update")
        upload = view.get("upload")
        if not upload or upload["label"] != bundle.name or upload["complete"]:
            upload, _ = self.ask("POST", "/api/v1/update/upload", {"size": size, "label": bundle.name})
        with bundle.open("rb") as file:
            while upload["received"] < int(size * until):
                file.seek(upload["received"])
                upload, _ = self.ask("PUT", f"/api/v1/update/upload?offset={upload['received']}", file.read(PIECE))
        return upload["received"]

    def healthy(self, patience: float) -> float:
        """Waits until it answers; when."""
        deadline, why = time.monotonic() + patience, ""
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.base}/healthz", timeout=10, context=self.context) as answer:
                    if answer.status == 200:
                        return time.monotonic()
            except OSError as error:
                why = str(error)
            time.sleep(0.3)
        raise TimeoutError(f"no answer on {self.base}/healthz within {patience:.0f} s: {why}")
