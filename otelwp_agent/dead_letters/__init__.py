"""Dead letters: requests that a backend refused permanently, kept with the reason until an operator handles them.

* `records`: bytes on disk, and what they mean.
* `sealing`: letters are encrypted and opened.
* `file`: the file: appended to, read, cleaned; one process at a time writes it.
* `sink`: what senders put letters into (`DeadLetterFile`), counted and within bounds.
* `resend`: letters go to a sender once more.
"""
