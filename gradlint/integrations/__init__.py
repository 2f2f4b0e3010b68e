"""Callbacks for the trainers of other libraries, one a file; each imports its library."""
