"""The software bill of materials: what besides Python packages Fluvial runs."""
