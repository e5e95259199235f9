"""This file makes the folder a package, so that `app.main` can be imported."""
