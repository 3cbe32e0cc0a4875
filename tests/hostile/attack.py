"""An attack is a function of the target; its `prepare`, if any, builds what it sends before anything is measured."""

from __future__ import annotations

import functools

from tests.hostile import wire


def prepared(make):
    """Return a decorator: the function gets what `make` builds after the target."""

    def decorate(function):
        @functools.wraps(function)
        def attack(target):
            function(target, make())

        attack.prepare = make
        return attack

    return decorate


def posted(component, path, make, content_type=wire.PROTOBUF, *lines):
    """Return an attack: one POST of what `make` builds (it keeps what it has built)."""
    make = functools.cache(make)

    @prepared(make)
    def attack(target, body):
        wire.post(target.port(component), path, body, content_type, *lines)

    return attack
