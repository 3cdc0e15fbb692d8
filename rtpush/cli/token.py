"""``rtpush token``: make tokens, and check them, with the keys of a configuration."""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

from rtpush.auth.keys import Key, KeyMistake, KeySet, key_set, parse_source
from rtpush.auth.permissions import Action, ApiGrant
from rtpush.auth.tokens import TokenRules, check, make_token
from rtpush.cli.exits import Exit, Failed, Unusable
from rtpush.cli.options import json_option, number
from rtpush.cli.output import print_json, table, write_line
from rtpush.errors import RtpushError

__all__ = ["fill"]

_ACTIONS = [action.word for action in Action]


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = "Make tokens for clients, and check them, with the keys of [auth] keys."
    kinds = parser.add_subparsers(title="what to do", metavar="WHAT", required=True)
    make = kinds.add_parser("make", help="make a token, and print it")
    make.set_defaults(command=_make)
    make.add_argument("--user", metavar="NAME", help="whose token it is (sub)")
    make.add_argument(
        "--channel",
        dest="channels",
        action="append",
        type=_permission,
        default=[],
        metavar="PATTERN[=ACTIONS]",
        help=f"what may be done where, such as 'chat:*=subscribe,publish'; of {', '.join(_ACTIONS)} "
        "(default subscribe); can be repeated",
    )
    make.add_argument("--only-channel", metavar="NAME", help="make it for one channel, to come with one command")
    make.add_argument("--actions", type=_actions, metavar="ACTIONS", help="with --only-channel: what may be done there")
    make.add_argument(
        "--api",
        type=_calls,
        metavar="CALLS",
        help="which calls of the server API it opens, such as publish,history, or '*' for all; only in the channels of "
        "--channel, if there are some",
    )
    make.add_argument(
        "--expires", type=number(1), default=3600.0, metavar="S", help="seconds until its end (default 3600)"
    )
    make.add_argument("--info", type=_json, metavar="JSON", help="what others may know of the client, for presence")
    make.add_argument("--claim", action="append", type=_claim, default=[], metavar="NAME=JSON", help="any other claim")
    make.add_argument("--key-id", metavar="ID", help="sign with this key (default: the first that can sign)")
    look = kinds.add_parser("check", help="say what a token grants, or why it is refused")
    look.set_defaults(command=_check)
    look.add_argument("token", metavar="TOKEN", help="the token, or - to read it from standard input")
    for kind in (make, look):
        source = kind.add_mutually_exclusive_group(required=True)
        source.add_argument("--config", metavar="FILE", help="a configuration, whose [auth] has the keys")
        source.add_argument(
            "--auth-key",
            action="append",
            type=_key,
            metavar="'ID ALGORITHM KEY'",
            help="a key, written as in [auth] keys; best with file:, for other users see command lines",
        )
        json_option(kind)


def _key(text: str) -> Key:
    try:
        return parse_source(text).key()
    except (KeyMistake, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{error} (expected ID ALGORITHM KEY)") from None


def _actions(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if wrong := [word for word in words if word not in _ACTIONS]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is not one of {', '.join(_ACTIONS)}")
    return words


def _calls(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if "" in words:
        raise argparse.ArgumentTypeError(f"{text!r}: expected names of calls with commas between them, or *")
    return words


def _permission(text: str) -> tuple[str, list[str]]:
    pattern, equals, actions = text.partition("=")
    return pattern, _actions(actions) if equals else ["subscribe"]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"this is no JSON: {error}") from None


def _claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=JSON")
    return name, _json(value)


def _keys(options: argparse.Namespace) -> tuple[KeySet, TokenRules]:
    """
    Return the keys, and what is asked of tokens.

    :raises Failed: if they cannot be had.
    """
    if options.auth_key is not None:
        return KeySet(options.auth_key), TokenRules()
    # The configuration needs the reactor, which keys alone do not.
    from rtpush.service.config import ConfigError, load

    try:
        auth = load(options.config).auth
        keys = key_set(auth.keys)
    except (ConfigError, KeyMistake) as error:
        raise Failed(str(error)) from None
    if not keys:
        where = " (those of [auth] jwks are not fetched)" if auth.jwks else ""
        raise Failed(f"{options.config}: there are no keys in [auth] keys{where}")
    return keys, auth.rules


def _make(options: argparse.Namespace) -> int:
    if options.only_channel is not None and options.channels:
        raise Unusable("argument --only-channel: not allowed with --channel")
    if options.only_channel is None and options.actions is not None:
        raise Unusable("argument --actions: expected --only-channel with it")
    keys, rules = _keys(options)
    able = [key for key in keys.keys if key.signs and options.key_id in (None, key.id)]
    if not able:
        which = "can sign" if options.key_id is None else f"has the id {options.key_id!r} and can sign"
        raise Failed(f"no key {which}")
    now = int(time.time())
    claims: dict[str, Any] = {"iat": now, "exp": now + int(options.expires)}
    optional = {
        "sub": options.user,
        "iss": rules.issuer or None,
        "aud": rules.audience or None,
        "channels": dict(options.channels) or None,
        "channel": options.only_channel,
        "actions": options.actions,
        "api": options.api,
        "info": options.info,
    }
    claims |= {name: value for name, value in optional.items() if value is not None}
    claims |= dict(options.claim)
    token = make_token(able[0], claims)
    try:
        # Nobody is served by a token that will be refused.
        check(token, KeySet(able[:1]), float(now), rules)
    except RtpushError as error:
        raise Failed(f"this token would be refused: {error.message}") from None
    if options.json:
        print_json({"token": token, "claims": claims})
    else:
        write_line(token)
    return Exit.OK


def _check(options: argparse.Namespace) -> int:
    keys, rules = _keys(options)
    token = (sys.stdin.read() if options.token == "-" else options.token).strip()
    try:
        grant = check(token, keys, time.time(), rules)
    except RtpushError as error:
        if options.json:
            print_json({"good": False, **error.as_dict()})
        raise Failed(error.message, Exit.REFUSED) from None
    claims = _claims(token)
    if options.json:
        print_json({"good": True, "claims": claims})
        return Exit.OK
    rows = [("good until", _date(grant.expires)), ("user", grant.user or "-")]
    if grant.channel:
        rows.append(("for channel", grant.channel))
    channels = {grant.channel: claims.get("actions", ["subscribe"])} if grant.channel else claims.get("channels", {})
    rows += [(f"in {pattern}", ", ".join(actions) or "nothing") for pattern, actions in channels.items()]
    if isinstance(grant, ApiGrant):
        rows.append(("calls", ", ".join(sorted(grant.calls)) or "none"))
    if grant.info:
        rows.append(("info", grant.info.decode()))
    write_line(table(("", ""), rows).lstrip("\n"))
    return Exit.OK


def _claims(token: str) -> dict[str, Any]:
    """Return the claims of a token that was found good."""
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def _date(seconds: float | None) -> str:
    return "for ever" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
