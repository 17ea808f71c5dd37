"""``docs/asyncapi.yaml``: every topic of a task made from the topic table and the schemas."""
