"""Dead letters: what an exporter's other side refused for good, kept with the reason until somebody has looked at it.

* `records`: bytes on disk, and what they mean.
* `file`: the file: appended to, read, cleaned; one process at a time writes it.
* `sink`: what senders put letters into (`DeadLetterFile`), counted and within bounds.
* `resend`: letters go to a sender once more.
"""
