"""The clients for both ends of the wire: one table of scenarios, and a runner for each of them."""
