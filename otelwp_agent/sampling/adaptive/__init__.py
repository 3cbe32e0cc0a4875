"""Adaptive sampling as pure decisions: a trace and the time go in, keep or drop comes out.

No I/O, no clock, no dice: what chance decides is decided by the trace's own randomness, so that samplers agree and
adjusted counts are right. docs/topics/adaptive_sampling.md tells how it decides, docs/adr/0007-adaptive-sampling.md
why.

::

    controller = Controller(policy, now)          # controller.py; `now` is any clock in seconds that never goes back
    decision = controller.decide(trace, now)      # trace.py
    controller.tick(now)                          # about once a second
    controller.probability(key), controller.keys(), controller.report(key, now)
    controller.dump(now)  →  Controller(policy, now).load(data, now)
"""
