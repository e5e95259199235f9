

@pytest.fixture
def member(client):
    """A client who is logged in as ada."""
    data = {"name": "ada", "password": "correct horse"}
    client.post("/api/auth/register", json=data)
    client.post("/api/auth/login", json=data)
    return client
