"""What will happen, and what it takes: storms of clients on a simulated clock, and how much of all a service needs."""
