"""From single findings to a diagnosis: exemptions, causes, cures. No torch but in `trials`."""
