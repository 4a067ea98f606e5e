"""Credentials for the services: where they are looked up, and how they stay out of what is printed."""
