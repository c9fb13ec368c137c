"""What every service stands on: settings, logging, tracing, gRPC, NATS, Postgres, the error table, shutdown."""
