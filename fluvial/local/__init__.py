"""The local stack: one Kafka broker and one object store on 127.0.0.1, for tests and the demo."""
