"""Sealed envelopes: bodies encrypted to the public key of their recipient (HPKE, RFC 9180).

The page `docs/topics/sealed-envelope.md` specifies the format. These modules decide and compute; they know no
components. They need the extra `sealing` (`cryptography` and PyJWT).
"""
