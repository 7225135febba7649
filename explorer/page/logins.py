"""Logins: hashed passwords in a file, compared in constant time, slower after each failure.

A line is ``user:scrypt$n$r$p$salt$key`` with salt and key in base64 (RFC 7914), as ``python app.py
--hash-password USER`` prints it. ``user:password`` is taken too, and told about.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import parse_qs

from explorer.types import UserError

LOG = logging.getLogger("afterimage.logins")
N, R, P = 2**14, 8, 1  # 16 MiB and some 50 ms a guess (OWASP's least for scrypt is N = 2^17)
KEY, SALT = 32, 16  # bytes
MOST_MEMORY = 2**27
OTHERS = re.compile(
    r"\$(?:2[abxy]|argon2\w*|1|5|6|apr1|y|gy|7)\$|\{(?:SHA|SSHA|CRYPT)\}|pbkdf2[:$_]"
)
FREE = 3  # failures before anybody waits
LONGEST = 30.0  # seconds that one waits at most; more are refused
FORGET = 900.0  # seconds without a failure after which they are forgotten
MOST_KEPT = 10_000  # users and addresses whose failures are kept
LONGEST_NAME = 200
ROOM = "make hashed lines with: python app.py --hash-password USER"


def hash_password(password: str) -> str:
    """Return the part of a line behind ``user:``; the salt is new each time."""
    salt = secrets.token_bytes(SALT)
    key = _scrypt(password, salt, N, R, P)
    return "$".join(["scrypt", str(N), str(R), str(P), _text(salt), _text(key)])


def login_line(user: str, password: str) -> str:
    """Return a line of a file of logins; a name or password that cannot be one is refused."""
    if not user or ":" in user or user != user.strip() or user.startswith("#"):
        raise UserError(
            f"A user's name has no colon, no # in front and no blanks around it; found {user!r}."
        )
    if len(password) < 8:
        raise UserError(f"A password has 8 characters or more; this one has {len(password)}.")
    return f"{user}:{hash_password(password)}"


class Logins:
    """Who may log in, and who waits after failures.

    Called with user and password, as Gradio's ``auth`` is. Every check takes as long, whether the
    user is known or not: a name that is not costs what most names cost.

    Parameters
    ----------
    hashed
        User -> ``scrypt$...``.
    """

    BUSY = "Too many failed logins from here or for this user; try again in a minute."

    def __init__(self, hashed: dict[str, str]) -> None:
        self._hashed = {user: _parts(text) for user, text in hashed.items()}
        self._nobody = _nobody(self._hashed.values())
        # "user ..." or "address ..." -> failures, when the next guess is free, the last one
        self._failures: OrderedDict[str, tuple[int, float, float]] = OrderedDict()
        self._asking: OrderedDict[str, str] = OrderedDict()  # user -> the address that asks
        self._lock = threading.Lock()

    @property
    def users(self) -> list[str]:
        """Whose lines there are."""
        return list(self._hashed)

    def __call__(self, user: str, password: str) -> bool:
        """Return whether a password is the user's; a failure is logged."""
        n, r, p, salt, key = self._hashed.get(user, self._nobody)
        same = hmac.compare_digest(_scrypt(password, salt, n, r, p), key)
        with self._lock:
            address = self._asking.pop(user[:LONGEST_NAME], "unknown")
            if same and user in self._hashed:
                for one in (f"user {user[:LONGEST_NAME]}", f"address {address}"):
                    self._failures.pop(one, None)
                return True
        LOG.warning("%s: login failed for %r from %s", _now(), user[:80], address)
        return False

    def asked(self, body: bytes, headers: Mapping[str, str], address: str) -> float | None:
        """Return how many seconds a login that was asked for has to wait; None refuses it.

        Each counts as a failure until it succeeds, so that many at once gain nothing. Failures
        from elsewhere keep nobody out who has not failed often himself.
        """
        user = _user_in(body, headers.get("content-type", ""))
        here, name = f"address {address}", f"user {user}"
        now = time.monotonic()
        with self._lock:
            own = self._recent(here, now)
            keys = [here, name] if own[0] >= FREE else [here]
            begin = max([now, *(self._recent(key, now)[1] for key in keys)])
            if begin - now > LONGEST:
                LOG.warning("%s: login refused for %r from %s", _now(), user[:80], address)
                return None
            for key in (here, name):
                count = self._recent(key, now)[0] + 1
                free_at = begin + pause(count) if count >= FREE else 0.0
                self._failures[key] = count, free_at, now
                self._failures.move_to_end(key)
            self._asking[user] = address
            for kept in (self._failures, self._asking):
                while len(kept) > MOST_KEPT:
                    kept.popitem(last=False)
        return begin - now

    async def let_wait(self, seconds: float) -> None:
        """Wait without holding the server."""
        await asyncio.sleep(seconds)

    def _recent(self, key: str, now: float) -> tuple[int, float]:
        """Return how often somebody failed, and when the next guess is free."""
        count, free_at, last = self._failures.get(key, (0, 0.0, -FORGET))
        return (0, 0.0) if now - max(last, free_at) >= FORGET else (count, free_at)


def pause(failures: int) -> float:
    """Return the seconds between two guesses after so many failures: doubled each time."""
    return min(0.5 * 2.0 ** min(failures - FREE, 10), LONGEST / 2)


def read_logins(path: Path) -> tuple[Logins, list[str]]:
    """Return the logins of a file with one line a user, and what there is to say of it.

    Raises
    ------
    UserError
        For a line that is none, a user named twice, or a hash of another kind. No line is ever
        printed: it may be a password.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--auth-file: {path} cannot be read ({error}).") from error
    hashed: dict[str, str] = {}
    plain = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        user, _, password = line.strip().partition(":")
        where = f"--auth-file: line {number} of {path}"
        if not user or not password:
            raise UserError(f"{where} is not user:password.")
        if user in hashed:
            raise UserError(f"{where} names a user again who has a line before; keep one of them.")
        if OTHERS.match(password):
            raise UserError(
                f"{where} has a hash that is not read here (bcrypt, argon2, crypt or another); "
                f"{ROOM}."
            )
        if password.startswith("scrypt$"):
            try:
                _parts(password)
            except (ValueError, binascii.Error) as error:
                raise UserError(f"{where} is no whole scrypt line; {ROOM}.") from error
            hashed[user] = password
        else:
            plain += 1
            hashed[user] = hash_password(password)
    if not hashed:
        raise UserError(f"--auth-file: {path} holds no user:password line.")
    told = [f"--auth-file: {plain} lines of {path} hold passwords as they are; {ROOM}."]
    return Logins(hashed), told if plain else []


def _nobody(known: Iterable[tuple[int, int, int, bytes, bytes]]) -> tuple:
    """Return a line that no password opens, with the costs that most lines have."""
    costs = Counter(parts[:3] for parts in known) or Counter([(N, R, P)])
    return *costs.most_common(1)[0][0], secrets.token_bytes(SALT), secrets.token_bytes(KEY)


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    given = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(given, salt=salt, n=n, r=r, p=p, maxmem=MOST_MEMORY, dklen=KEY)


def _parts(text: str) -> tuple[int, int, int, bytes, bytes]:
    """Return n, r, p, salt and key of ``scrypt$n$r$p$salt$key``; else `ValueError`."""
    kind, *rest = text.split("$")
    if kind != "scrypt" or len(rest) != 5:
        raise ValueError(text[:6])
    n, r, p = (int(number) for number in rest[:3])
    salt, key = (base64.b64decode(part, validate=True) for part in rest[3:])
    if n < 2 or n & (n - 1) or not 1 <= p <= 16 or not 0 < 128 * n * r <= MOST_MEMORY // 2:
        raise ValueError("other costs")
    if len(salt) < 8 or len(key) != KEY:
        raise ValueError("cut short")
    return n, r, p, salt, key


def _user_in(body: bytes, kind: str) -> str:
    """Return the user's name in a form, as Gradio's page and its client send it; "" for none."""
    if kind.startswith("application/x-www-form-urlencoded"):
        found = parse_qs(body.decode("utf-8", "replace")).get("username", [""])[0]
    else:
        part = rb'name="username"(?:\r\n[^\r\n]*)*?\r\n\r\n(.*?)\r\n'
        field = re.search(part, body, re.DOTALL)
        found = field[1].decode("utf-8", "replace") if field else ""
    return found.strip()[:LONGEST_NAME]


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
