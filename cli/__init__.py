"""The dlq command: one file per verb, heavy imports inside the verb."""
