"""Attacks: functions of the target. Their `prepare`, if any, builds the data to send before anything is measured."""

from __future__ import annotations

import functools

from tests.hostile import wire


def prepared(make):
    """Return a decorator; the decorated function gets the result of `make` after the target."""

    def decorate(function):
        @functools.wraps(function)
        def attack(target):
            function(target, make())

        attack.prepare = make
        return attack

    return decorate


def posted(component, path, make, content_type=wire.PROTOBUF, *lines):
    """Return an attack: one POST with the result of `make`, which is cached."""
    make = functools.cache(make)

    @prepared(make)
    def attack(target, body):
        wire.post(target.port(component), path, body, content_type, *lines)

    return attack
