"""A drawn stand-in for credentialed chest X-ray data: films, reports, follow-ups and questions from one seed.

For learning, testing and demonstrating the machinery only: nothing here is clinical data.
"""
