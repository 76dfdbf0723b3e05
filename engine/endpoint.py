"""A guest: a model behind an OpenAI-compatible server, http://HOST:PORT/v1.

    Endpoint(url).chat_all(texts, ...) -> [(reply, finished)]

Its key, if it wants one, is in the environment variable OPENAI_API_KEY. It is only
sent: no message, report or log holds it, also where a server repeats it in an error. A failure that
may pass is tried again, any other is one line of InputError.
"""
import http.client
import json
import os
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from data import InputError
from engine.prompts import messages
from engine.speech import shorten

KEY = "OPENAI_API_KEY"
# HTTP errors worth another try; so is any from 500 on
PASSING = (408, 409, 425, 429)


class Endpoint:
    """options: fields that every request gets; null leaves one of ours out. workers: requests at a
    time; seconds: time-out of one; wait: seconds before the second try, doubled each time.
    """
    # what the user types to name the model
    name_flag = "--name"

    def __init__(self, url, name=None, options=None, workers=8, wait=2.0, seconds=600):
        self.url = url.rstrip("/")
        self.options = options or {}
        self.workers = workers
        self.wait = wait
        self.seconds = seconds
        # set: no request is begun or tried again
        self.stopped = threading.Event()
        self.name = name or self.first_model()
        self.stamp = (self.url, self.name, self.options)

    def first_model(self):
        try:
            return self.request("/models")["data"][0]["id"]
        except (KeyError, IndexError, TypeError):
            raise InputError(f"{self.url}/models names no model; "
                             f"give its name with {self.name_flag}") from None
        except InputError as error:
            # transformers serve fails here when its machine has no hub cache
            raise InputError(f"{error}; with {self.name_flag} NAME the server is not asked "
                             "for its models") from None

    def chat_all(self, texts, what, fields):
        """User messages -> [(reply, did it end by itself)], several at a time."""
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="ask")
        self.stopped.clear()

        def ask(text):
            # after a failure the rest is not asked, however late the pool hears of it
            if self.stopped.is_set():
                return None
            try:
                return self.chat(text, fields)
            except InputError:
                self.stopped.set()
                raise

        try:
            return list(tqdm(pool.map(ask, texts), total=len(texts), desc=what, leave=False))
        finally:
            # Ctrl-C too; a request that is on its way is let go
            self.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def chat(self, text, fields):
        """A user message, or (system message, user message) -> (reply, did it end by itself)."""
        body = {"model": self.name, "messages": messages(text)} | fields | self.options
        body = {name: value for name, value in body.items() if value is not None}
        reply = self.request("/chat/completions", body)
        try:
            choice = reply["choices"][0]
            # null where a model was cut while thinking
            content = choice["message"].get("content") or ""
            return content, choice.get("finish_reason") != "length"
        except (KeyError, IndexError, TypeError, AttributeError):
            got = shorten(without_key(json.dumps(reply)), 200)
            raise InputError(f"{self.url}/chat/completions: expected choices[0].message.content, "
                             f"got {got}") from None

    def request(self, path, body=None, tries=5):
        """GET, or POST of a JSON body -> the JSON reply.

        Between tries it waits 2, 4, 8 and 16 seconds. InputError after the last one, or at once
        where another would not help.
        """
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(tries):
            try:
                request = urllib.request.Request(self.url + path, data, headers())
                with OPENER.open(request, timeout=self.seconds) as reply:
                    return json.loads(reply.read())
            except urllib.error.HTTPError as error:
                text = error.read().decode("utf-8", "replace")
                if 300 <= error.code < 400:
                    text = (f"redirects to {error.headers.get('Location')}, where neither the key "
                            "nor a question is sent; give the address that answers")
                problem = f"{error.code} {shorten(without_key(text), 200)}"
                passing = error.code in PASSING or error.code >= 500
            except (OSError, ValueError, http.client.HTTPException) as error:
                # no server, a broken connection, no JSON, a key that no header can hold
                problem = shorten(without_key(str(error)), 200)
                passing = True

            if not passing or attempt == tries - 1 or self.stopped.wait(self.wait * 2 ** attempt):
                raise InputError(f"{self.url}{path}: {problem}")


def headers():
    found = {"Content-Type": "application/json"}
    if api_key():
        found["Authorization"] = f"Bearer {api_key()}"
    return found


def api_key():
    """The key without what a file's end left around it. InputError, which does not show it, for one
    that no header takes.
    """
    key = os.environ.get(KEY, "").strip()
    odd = [place for place, letter in enumerate(key, 1) if not "!" <= letter <= "~"]
    if odd:
        raise InputError(f"{KEY}: character {odd[0]} of {len(key)} is none of a key's (a space, a "
                         "control character or a letter with an accent)")
    return key


def without_key(text):
    """What a server or a library says -> the same, should it repeat the key."""
    return text.replace(api_key(), "[the key]") if api_key() else text


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: followed, it would take the key to whoever is named."""

    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(NoRedirect)
