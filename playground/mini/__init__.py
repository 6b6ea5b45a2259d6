"""The small worlds: seeded pictures and clips, questions about them, and models that two CPU cores can train."""
