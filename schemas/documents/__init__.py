"""Released formats of genesis documents and manifests, each frozen in a module. A new key is a new format."""
