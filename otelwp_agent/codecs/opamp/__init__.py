"""Messages of the Open Agent Management Protocol (OpAMP)."""
