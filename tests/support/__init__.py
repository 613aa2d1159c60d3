"""What several tests need: clients, servers, waits."""
