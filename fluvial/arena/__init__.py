"""The arena: every attack against every defence, over the same rounds of devices."""
