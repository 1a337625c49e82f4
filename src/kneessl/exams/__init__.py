"""What an exam is and where exams come from."""
