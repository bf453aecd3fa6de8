"""What a job tries of its own accord once its pairs are matched."""
