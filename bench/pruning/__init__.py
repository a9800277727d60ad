"""What `bench.compression` is made of: cases, rows, peers, measures."""
