"""Adaptive sampling as pure decisions: the input is a trace and the time, the output is keep or drop.

There is no I/O, no clock and no random number here. Chance is decided by the trace's own randomness, so that several
samplers agree and adjusted counts are right. docs/topics/adaptive_sampling.md explains how a decision is made,
docs/adr/0007-adaptive-sampling.md why.

::

    controller = Controller(policy, now)          # controller.py; `now`: seconds on any clock that never goes back
    decision = controller.decide(trace, now)      # trace.py
    controller.tick(now)                          # call it about once a second
    controller.probability(key), controller.keys()
    report(controller, key, now)                  # reporting.py: estimates with intervals
    restore(Controller(policy, now), state_of(controller, now), now)  # state.py
"""
