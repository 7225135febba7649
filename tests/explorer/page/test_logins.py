"""Logins: hashed lines, other hashes refused by name, and waits that grow after failures."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from explorer.page import logins
from explorer.page.logins import Logins, hash_password, login_line, pause, read_logins
from explorer.types import UserError

FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, which only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(logins.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash with little work: the costs are in the line, so nothing else changes."""
    monkeypatch.setattr(logins, "N", 2**4)


def guess(door: Logins, user: str, password: str, address: str) -> tuple[float | None, bool]:
    """Ask as the server does; return the wait and whether the guess is right."""
    wait = door.asked(f"username={user}&password=x".encode(), FORM, address)
    return wait, wait is not None and door(user, password)


def test_a_line_holds_no_password_and_lets_its_user_in(tmp_path: Path) -> None:
    line = login_line("ann", "correct horse")
    assert "horse" not in line and line.startswith("ann:scrypt$16$8$1$")
    assert line != login_line("ann", "correct horse")  # the salt is new
    file = tmp_path / "logins"
    file.write_text(f"\ufeff# lab\n{line}\n bob:one:two \n", encoding="utf-8")
    door, told = read_logins(file)
    assert door.users == ["ann", "bob"]
    assert door("ann", "correct horse") and door("bob", "one:two")
    assert not door("ann", "correct hors") and not door("bob", "one")
    assert not door("carl", "one:two") and not door("", "")
    assert told == [
        f"--auth-file: 1 lines of {file} hold passwords as they are; make hashed lines with: "
        "python app.py --hash-password USER."
    ]


def test_a_name_that_is_not_known_costs_what_the_others_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cheap = hash_password("right one")
    monkeypatch.setattr(logins, "N", 2**5)
    door = Logins({"ann": hash_password("right one"), "bob": hash_password("x"), "old": cheap})
    monkeypatch.setattr(logins, "N", 2**4)
    costs, scrypt = [], logins._scrypt

    def counted(password: str, salt: bytes, *cost: int) -> bytes:
        costs.append(cost)
        return scrypt(password, salt, *cost)

    monkeypatch.setattr(logins, "_scrypt", counted)
    assert door("ann", "right one") and not door("ann", "wrong") and not door("carl", "wrong")
    assert costs == [(2**5, 8, 1)] * 3


def test_a_key_that_is_changed_lets_nobody_in() -> None:
    line = hash_password("correct horse")
    other = hash_password("another one")
    assert Logins({"ann": line})("ann", "correct horse")
    assert not Logins({"ann": "$".join([*line.split("$")[:5], other.split("$")[5]])})(
        "ann", "correct horse"
    )


@pytest.mark.parametrize(
    "password",
    [
        "$2b$12$abcdefghijklmnopqrstuv",
        "$argon2id$v=19$m=1",
        "$6$salt$hash",
        "{SSHA}abc",
        "pbkdf2:",
    ],
)
def test_a_hash_of_another_kind_is_no_password(tmp_path: Path, password: str) -> None:
    file = tmp_path / "logins"
    file.write_text(f"ann:{password}\n")
    with pytest.raises(UserError, match="line 1 of .* has a hash that is not read here") as caught:
        read_logins(file)
    assert password not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ann:secret\nbob\n", "line 2 of .* is not user:password"),
        ("ann:\n", "line 1 of"),
        ("# nobody yet\n\n", "holds no user:password line"),
        ("ann:secret\nann:other\n", "line 2 of .* names a user again"),
        ("ann:scrypt$16$8$1$AAAA\n", "line 1 of .* is no whole scrypt line"),
        ("ann:scrypt$17$8$1$AAAAAAAAAAAAAAAA$AAAA\n", "is no whole scrypt line"),
        ("ann:scrypt$1073741824$8$1$AAAAAAAAAAAAAAAA$AAAA\n", "is no whole scrypt line"),
    ],
)
def test_a_file_with_a_mistake_is_refused_without_showing_it(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "logins"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_logins(file)
    assert "bob" not in str(caught.value) and "secret" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_logins(tmp_path / "gone")


def test_names_and_passwords_that_cannot_be_are_refused() -> None:
    for user in ("", "a:b", " ann", "#ann"):
        with pytest.raises(UserError, match="A user's name has no colon"):
            login_line(user, "long enough")
    with pytest.raises(UserError, match="8 characters or more; this one has 7"):
        login_line("ann", "1234567")


def test_guesses_are_free_at_first_and_then_ever_slower(clock: list[float]) -> None:
    door = Logins({"ann": hash_password("right")})
    waits = [guess(door, "ann", "wrong", "10.0.0.1")[0] for _ in range(7)]
    assert waits[:3] == [0, 0, 0]
    assert waits[3:] == [0.5, 1.5, 3.5, 7.5]  # all asked at once: each behind the one before
    clock[0] += 7.5
    assert guess(door, "ann", "right", "10.0.0.1")[1]
    assert guess(door, "ann", "wrong", "10.0.0.1")[0] == 0  # forgotten once it was right


def test_many_at_once_are_refused_and_logged(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    door = Logins({"ann": hash_password("right")})
    with caplog.at_level(logging.WARNING, "afterimage.logins"):
        found = [guess(door, "ann\n!", "wrong", "10.0.0.1")[0] for _ in range(200)]
    assert found.count(None) > 180  # of 200 guesses in one moment
    assert "login failed for 'ann\\n!' from 10.0.0.1" in caplog.text
    assert "login refused for" in caplog.text
    clock[0] += logins.FORGET + 60
    assert guess(door, "ann", "wrong", "10.0.0.1")[0] == 0


def test_who_fails_elsewhere_keeps_nobody_out(clock: list[float]) -> None:
    door = Logins({"ann": hash_password("right")})
    for _ in range(50):
        guess(door, "ann", "wrong", "10.0.0.1")
    assert guess(door, "ann", "right", "10.0.0.2") == (0, True)


def test_one_user_from_many_addresses_is_slowed_once_they_fail(clock: list[float]) -> None:
    door = Logins({"ann": hash_password("right")})
    for address in ("10.0.0.1", "10.0.0.2"):
        for _ in range(3):
            guess(door, "ann", "wrong", address)
    wait, _ = guess(door, "ann", "wrong", "10.0.0.2")
    assert wait == pytest.approx(pause(4) + pause(5) + pause(6), abs=4)
    assert wait > pause(3)  # slower than an address that failed three times alone


def test_failures_are_kept_for_so_many_only(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "MOST_KEPT", 10)
    door = Logins({"ann": hash_password("right")})
    for i in range(100):
        guess(door, f"user{i}", "wrong", f"10.0.0.{i}")
    assert len(door._failures) <= 10 and len(door._asking) <= 10


def test_the_user_is_read_from_both_kinds_of_form() -> None:
    part = (
        b'--x\r\nContent-Disposition: form-data; name="password"\r\n\r\nsecret\r\n'
        b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nann lee \r\n--x--\r\n'
    )
    assert logins._user_in(part, "multipart/form-data; boundary=x") == "ann lee"
    assert logins._user_in(b"password=a&username=ann%20lee", FORM["content-type"]) == "ann lee"
    assert logins._user_in(b"nothing", "multipart/form-data") == ""
