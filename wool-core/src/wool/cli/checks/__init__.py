"""What `wool doctor` looks at. Each module is one subject, and yields what it has found."""
