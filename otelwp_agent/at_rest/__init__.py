"""Encryption of files: the journal, dead letters and recordings, so that a stolen disk discloses none of them.

Each file has a random data key of its own, which encrypts with AES-256-GCM (`cipher`). The file contains that key,
encrypted for each of the configured keys (`keys`, `slots`); `loading` loads them. The extra `sealing` is needed.
"""
