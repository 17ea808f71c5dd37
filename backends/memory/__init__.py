"""A log, an object store and a clock in this process: the same protocols as Kafka, MinIO and the system's clock."""
