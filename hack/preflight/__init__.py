"""What a machine lacks, said before anything is begun."""
