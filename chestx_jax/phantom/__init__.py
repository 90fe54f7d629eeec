"""A drawn substitute for credentialed chest X-ray data: films, reports, follow-ups and questions from one seed.

For learning, testing and demonstration only: nothing here is clinical data.
"""
