"""A peer as a process of its own: started, waited for, stopped, and heard when it fails."""

import http.client
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from peers import cache

PATIENCE = 120.0
"""Seconds after which a peer that should be ready is not: Java on a busy machine takes a third of that."""


def have(get):
    """Return a peer from the cache, where it is put first if need be; skip the test, with the reason, without it."""
    try:
        return get()
    except cache.Missing as missing:
        pytest.skip(str(missing))


class Process:
    """One program; what it prints goes to `<folder>/<name>.log`. A subclass says when it is `ready`."""

    name = "peer"
    ready_path = "/"
    user = None
    """Id of the user that runs it; this one's if None."""

    def __init__(self, folder):
        self.folder = folder
        self.log = folder / f"{self.name}.log"
        self._process = None

    def command(self):
        """Return the command line."""
        raise NotImplementedError

    def environment(self):
        """Return what the environment has beyond this one's."""
        return {}

    def ready(self):
        """Tell whether it can be used."""
        raise NotImplementedError

    def __enter__(self):
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error):
        self.stop()

    def wait(self):
        end = time.monotonic() + PATIENCE
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() > end:
                how = "is not ready" if self._process.poll() is None else f"ended with {self._process.returncode}"
                message = f"{self.name} {how}:\n{self.log.read_text(errors='replace')[-4000:]}"
                raise AssertionError(message)
            time.sleep(0.1)

    def signal(self, number):
        """Send a signal to the program and its children: `SIGSTOP` makes it hang, `SIGCONT` continues it."""
        pids = [self._process.pid]
        while pids:
            pid = pids.pop()
            with suppress(OSError):  # a child may have ended
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    pids += map(int, children.read_text().split())
                os.kill(pid, number)

    def stop(self):
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()


def answers(port, path="/"):
    """Tell whether a GET is answered with 2xx."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return 200 <= response.status < 300
    except (OSError, http.client.HTTPException):
        return False


def get_json(port, path):
    """Return the JSON that a GET brings; an answer that is no success is None."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return None


def eventually(read, good=bool, patience=30.0):
    """Return what `read` gives as soon as it is `good`, or what it gave last."""
    end = time.monotonic() + patience
    while not good(value := read()) and time.monotonic() < end:
        time.sleep(0.05)
    return value
