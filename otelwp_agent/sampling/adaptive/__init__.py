"""Adaptive sampling without I/O: the input is a trace and the time, the output is keep or drop.

Nothing here reads a clock or draws a random number. The randomness comes from the trace itself, so that several
samplers agree and adjusted counts are right. docs/topics/adaptive_sampling.md explains how a decision is made,
docs/adr/0007-adaptive-sampling.md why.

::

    controller = Controller(policy, now)          # controller.py; `now`: seconds on any monotonic clock
    decision = controller.decide(trace, now)      # trace.py
    controller.tick(now)                          # call it about once a second
    controller.probability(key), controller.keys()
    report(controller, key, now)                  # reporting.py: estimates with intervals
    restore(Controller(policy, now), state_of(controller, now), now)  # state.py
"""
