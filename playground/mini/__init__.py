"""The small worlds: seeded pictures and clips, questions about them, and models small enough to train on two CPU cores."""
