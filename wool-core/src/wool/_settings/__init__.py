"""Settings: what they are, where their values come from, and which one counts."""
