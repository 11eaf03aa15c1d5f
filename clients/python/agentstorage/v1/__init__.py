"""Messages and stubs generated from protos/agentstorage/v1; change those and run `make generate`."""
