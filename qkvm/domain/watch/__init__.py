"""What can be seen of a guest from outside: events, statistics, addresses."""
