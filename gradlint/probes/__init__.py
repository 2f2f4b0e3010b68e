"""Extra passes that only `check` makes, where gradlint owns the model."""
