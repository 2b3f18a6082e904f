"""What a person looks at: figures and pages, made from the tables of a run's folder."""
