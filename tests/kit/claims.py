"""A claim of a journal that records what receipts report to it."""


class RecordedClaim:
    """What a journal knows of one request; `done` names the branches that have settled all of it before."""

    def __init__(self, done=()):
        self.done = done
        self.reported = []

    def entered(self, items):
        self.reported.append(("entered", items))

    def branch_settled(self, branch, items):
        self.reported.append((branch, items))

    def left(self, items, parked):
        self.reported.append(("left", items, parked))
