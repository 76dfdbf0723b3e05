"""What makes the method fast, parallel and resumable, and holds none of it: equal by test."""
